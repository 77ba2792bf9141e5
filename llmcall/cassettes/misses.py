"""What is said of a request that neither the cassette nor the cache answers: where the nearest record is sought."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..cache.cache import CacheSource
from ..errors import CacheCorruptError, CacheMissError
from ..explain import report
from ..explain.nearest import holding
from .format import RESPONSE

if TYPE_CHECKING:
    from ..cache.cache import ResponseCache
    from ..config.settings import Settings
    from ..types import Record, Request
    from .cassette import Cassette

__all__ = ["CassetteSource", "missed"]

SIGN, TEXT = b'"$text"', re.compile(rb'"\$text": "([0-9a-f]{32})"')


def missed(
    request: Request, *, settings: Settings, cache: ResponseCache, cassette: Cassette | None, past_cache: bool = False
) -> CacheMissError:
    """Return the error of a request that is not recorded and may not be asked; it is explained when it is read.

    :param settings: those that the request was made with.
    :param cache: the disk cache.
    :param cassette: the cassette that is open, or ``None``.
    :param past_cache: whether the call goes past the disk cache.
    """
    if cassette is not None:
        source = CassetteSource(cassette)
        return report.missed(request, source, settings=settings, cassette=cassette, aside=cache, past_cache=past_cache)
    if past_cache:
        return report.missed(request, None, settings=settings, aside=cache, past_cache=True)
    return report.missed(request, CacheSource(cache.storage), settings=settings)


class CassetteSource:
    """Be the records of a cassette's file."""

    def __init__(self, cassette: Cassette) -> None:
        self._lines = cassette.stored
        self._path = cassette.path
        self._name = f"the cassette {cassette.path}"
        self._probes: list[bytes] = []
        self._texts: dict[bytes, int] = {}  # by their digests, which probes they hold

    def name(self) -> str:
        """Return what messages call it."""
        if self._lines is None:
            return f"{self._name}, which {'is empty' if self._path.exists() else 'does not exist'}"
        return self._name if self._lines.is_complete else f"{self._name}, whose recording broke off"

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
        masks = holding(lines, probes)
        for index, each in enumerate(references):
            for digest in each:
                masks[index] |= self._texts[digest]
        return list(zip(places, masks, strict=True))

    def _search(self, digests: set[bytes]) -> None:
        assert self._lines is not None
        found = [self._lines.text_line(digest.decode()) for digest in digests]
        self._texts.update(zip(digests, holding(found, self._probes), strict=True))

    def record(self, place: int) -> Record | None:
        """Return the record in a place, or ``None`` where it cannot be read."""
        assert self._lines is not None
        try:
            return self._lines.record(place)
        except CacheCorruptError:
            return None
