"""What is on a cassette: the records of its file, and those that it gains."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from ..cache.packing import pack, unpack
from ..replay import scopes
from ..types import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..types import Record
    from .records import Lines
    from .tapes import Place

__all__ = ["Reel"]


class _Gained(NamedTuple):
    """Hold a record as bytes, so that nobody shares it, and the first of the calls that it answered.

    The first by the callers' scope paths, then by their places: no matter which thread came first.
    """

    packed: bytes
    first: tuple[tuple[str, ...], Place]


class Reel:
    """Hold records by their keys.

    :ivar stored: the records of the file, or ``None`` where there is none.
    """

    def __init__(self, stored: Lines | None) -> None:
        self.lock = threading.Lock()
        self.stored = stored
        self._gained: dict[str, _Gained] = {}
        self._used: set[str] = set()

    def __len__(self) -> int:
        return len(self._gained) + (0 if self.stored is None else len(self.stored))

    def __iter__(self) -> Iterator[Record]:
        yield from self.stored or ()
        for record, _ in self.gained():
            yield record

    def find(self, request: Request, place: Place) -> Record | None:
        """Return the record of a request, or ``None``.

        :param place: of the call that it answers.
        """
        with self.lock:
            found = None if self.stored is None else self.stored.get(request)
            return self._mark(found or self._gained_as(request.cache_key, place))

    def find_key(self, cache_key: str, place: Place) -> Record | None:
        """Return the record of a key, or ``None``."""
        with self.lock:
            found = None if self.stored is None else self.stored.find(cache_key)
            return self._mark(found or self._gained_as(cache_key, place))

    def _mark(self, found: Record | None) -> Record | None:
        if found is not None:
            self._used.add(found.cache_key)
        return found

    def _gained_as(self, key: str, place: Place) -> Record | None:
        gained = self._gained.get(key)
        if gained is None:
            return None
        self._gained[key] = gained._replace(first=min(gained.first, _standing(place)))
        return unpack(key, gained.packed)

    def add(self, record: Record, place: Place) -> Record:
        """Take in an answer, and return the one that counts: whatever was recorded first.

        :param place: of the call that it answers.
        """
        key = record.cache_key
        with self.lock:
            self._used.add(key)
            found = (None if self.stored is None else self.stored.get(_request(record))) or self._gained_as(key, place)
            if found is None:
                self._gained[key] = _Gained(pack(record), _standing(place))
        return found or record

    def gained(self) -> list[tuple[Record, Place]]:
        """Return the records that it gained, each with its place, in the order of the calls."""
        with self.lock:
            ordered = sorted(self._gained.items(), key=lambda item: item[1].first)
        return [(unpack(key, gained.packed), gained.first[1]) for key, gained in ordered]

    def count_gained(self) -> int:
        """Return how many records it gained."""
        return len(self._gained)

    def unused(self) -> list[Record]:
        """Return the records of the file that answered no call."""
        return [record for record in self.stored or () if record.cache_key not in self._used]


def _request(record: Record) -> Request:
    """Return the request that a record answers, as far as it is looked up by."""
    return Request(record.kind, "", record.request, {}, {}, record.sample, record.cache_key)


def _standing(place: Place) -> tuple[tuple[str, ...], Place]:
    return tuple(filter(None, scopes.standing().split("/"))), place
