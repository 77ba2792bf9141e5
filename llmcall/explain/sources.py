"""What is searched for the nearest record: a cache on the disk, or an open cassette."""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..cache.record import unpack
from ..errors import CacheCorruptError

if TYPE_CHECKING:
    from ..cache.storage import Storage
    from ..cassettes.cassette import Cassette
    from ..types import Record

__all__ = ["CacheSource", "CassetteSource", "Source"]

RESPONSE = b', "response": '  # what comes after a line's request
SIGN, TEXT = b'"$text"', re.compile(rb'"\$text": "([0-9a-f]{32})"')


class Source(Protocol):
    """Be a collection of records, each in its place, a whole number."""

    def name(self) -> str:
        """Return what messages call it."""

    def count(self) -> int:
        """Return how many records it has."""

    def last(self) -> int:
        """Return the last place."""

    def holding(self, probes: list[bytes], after: int, size: int) -> list[tuple[int, int]]:
        """Return the next places after one, at most ``size``, and which probes each holds, as the bits of a number."""

    def record(self, place: int) -> Record | None:
        """Return the record in a place, or ``None`` where it cannot be read."""


def _holding(data: list[bytes], probes: list[bytes]) -> list[int]:
    """Search many pieces of data at once: a search costs a call, and skips the faster the more there is to skip."""
    joined, ends = b"".join(data), list(accumulate(map(len, data)))
    masks = [0] * len(data)
    for bit, probe in enumerate(probes):
        at = joined.find(probe)
        while at >= 0:
            index = bisect_right(ends, at)
            if at + len(probe) <= ends[index]:
                masks[index] |= 1 << bit
                at = joined.find(probe, ends[index])
            else:
                at = joined.find(probe, at + 1)
    return masks


class CacheSource:
    """Be the records of a cache.

    :param store: where the cache keeps them.
    """

    def __init__(self, store: Storage) -> None:
        self._store = store

    def name(self) -> str:
        """Return what messages call it."""
        return f"the cache {_from_here(self._store.place)}"

    def count(self) -> int:
        """Return how many records it has."""
        return len(self._store)

    def last(self) -> int:
        """Return the last place."""
        return self._store.last()

    def holding(self, probes: list[bytes], after: int, size: int) -> list[tuple[int, int]]:
        """Return the next rows, and which probes they hold as they are stored."""
        rows = self._store.page(after, size)
        masks = _holding([data or b"" for _, _, data, _ in rows], probes)
        return [(row[0], mask) for row, mask in zip(rows, masks, strict=True)]

    def record(self, place: int) -> Record | None:
        """Return the record of a row, or ``None`` where it cannot be read."""
        for found, key, packed, stored_at in self._store.page(place - 1, 1):
            try:
                return unpack(key, packed or b"", stored_at) if found == place else None
            except CacheCorruptError:
                return None
        return None


def _from_here(place: Path | str) -> Path | str:
    """Return a path as seen from the working directory, where it lies below that."""
    here = Path.cwd()
    return place.relative_to(here) if isinstance(place, Path) and place.is_relative_to(here) else place


class CassetteSource:
    """Be the records of a cassette's file."""

    def __init__(self, cassette: Cassette) -> None:
        self._lines = cassette.stored
        self._name = f"the cassette {cassette.path}"
        self._probes: list[bytes] = []
        self._texts: dict[bytes, int] = {}  # by their digests, which probes they hold

    def name(self) -> str:
        """Return what messages call it."""
        return self._name if self._lines is not None else f"{self._name}, which does not exist"

    def count(self) -> int:
        """Return how many records it has."""
        return 0 if self._lines is None else len(self._lines)

    def last(self) -> int:
        """Return the last place."""
        return self.count() - 1

    def holding(self, probes: list[bytes], after: int, size: int) -> list[tuple[int, int]]:
        """Return the next lines, and which probes they hold, or the texts that they refer to.

        What stands behind a reference to messages is left out: it is the history, and each request ends in its own.
        """
        if self._lines is None:
            return []
        if probes is not self._probes:
            self._probes, self._texts = probes, {}
        places = range(after + 1, min(after + 1 + size, self.count()))
        lines = [self._lines.line(place).partition(RESPONSE)[0] for place in places]
        references = [TEXT.findall(line) if SIGN in line else [] for line in lines]
        self._search({digest for each in references for digest in each if digest not in self._texts})
        masks = _holding(lines, probes)
        for index, each in enumerate(references):
            for digest in each:
                masks[index] |= self._texts[digest]
        return list(zip(places, masks, strict=True))

    def _search(self, digests: set[bytes]) -> None:
        assert self._lines is not None
        known = self._lines.texts
        texts = [known.get(digest.decode(), "").encode("utf-8", "replace") for digest in digests]
        self._texts.update(zip(digests, _holding(texts, self._probes), strict=True))

    def record(self, place: int) -> Record | None:
        """Return the record in a place, or ``None`` where it cannot be read."""
        assert self._lines is not None
        try:
            return self._lines.record(place)
        except CacheCorruptError:
            return None
