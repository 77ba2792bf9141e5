"""What a response cache asks of the place where it keeps its records' bytes, and how its records are searched."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from ..errors import CacheCorruptError
from .record import unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from ..types import Record

    # Of a row: its place in the order of storing, its key, its bytes (None where unreadable), and when it was stored.
    Row = tuple[int, str, bytes | None, float]
    # Of a row to be stored: its key, its bytes, whether it replaces what is there, and when it was stored (None: now).
    NewRow = tuple[str, bytes, bool, float | None]
    # Of a row that changes: its key, its key from now on, and its bytes from now on.
    Change = tuple[str, str, bytes]

__all__ = ["CacheSource", "Change", "NewRow", "Row", "Storage", "each_row"]

PAGE = 500  # rows read at a time


class Storage(Protocol):
    """Keep bytes under keys, in the order of storing, for many threads and processes.

    What is stored is there for everybody when the method returns, and stays whatever happens to the process. A method
    that reads raises ``CacheError`` where the place cannot be reached or is damaged; one that writes, that or an
    ``OSError``. Neither a look-up nor storing may cost more the more rows there are, save by the depth of an index.
    """

    @property
    def is_near(self) -> bool:
        """Return whether a look-up takes microseconds and waits for nobody, so that an event loop may stand still."""

    @property
    def place(self) -> Path | str:
        """Return where it is, as messages may show it: a directory, or an address without its password."""

    def exists(self) -> bool:
        """Return whether anything was ever stored there."""

    def get(self, key: str) -> tuple[bytes | None, float] | None:
        """Return the bytes of a key and when they were stored (seconds since the epoch), or ``None``."""

    def add(self, key: str, value: bytes) -> bool:
        """Store bytes under a key that has none, whoever else tries at the same time; return whether they were."""

    def set(self, key: str, value: bytes) -> None:
        """Store bytes under a key, in place of what is there; its place in the order stays."""

    def add_all(self, rows: Iterable[NewRow]) -> int:
        """Store many rows, all or none; return how many were stored."""

    def delete(self, keys: Iterable[str]) -> int:
        """Delete keys, all or none; return how many were there."""

    def clear(self) -> int:
        """Delete all rows; return how many there were."""

    def rewrite(self, changes: Callable[[], Iterable[Change]]) -> int:
        """Give rows other keys and bytes, all or none; each keeps its place and time. Return how many changed.

        :param changes: says which, none with the key of another row as its new one; what it reads is what stands there
            until the changes are done.
        """

    def page(self, after: int, size: int) -> list[Row]:
        """Return the next rows after a place in the order, at most ``size``; the first place is above 0."""

    def readable_rows(self) -> Iterator[tuple[str, bytes | None, float]]:
        """Yield key, bytes and time of every row that can be read, whatever became of the others."""

    def last(self) -> int:
        """Return the last place that is taken, or 0."""

    def starting(self, prefix: str, limit: int) -> list[str]:
        """Return the keys that begin with a prefix, sorted, at most ``limit`` of them."""

    def __len__(self) -> int: ...

    def size(self) -> int:
        """Return the bytes that everything takes, at a cost that does not grow with it."""

    def close(self) -> None:
        """Close what is open; the next use opens it again."""


def each_row(storage: Storage) -> Iterator[tuple[str, bytes | None, float]]:
    """Yield key, bytes and time of every row of a storage, a page after the other."""
    last = 0
    while page := storage.page(last, PAGE):
        for _, key, value, stored_at in page:
            yield key, value, stored_at
        last = page[-1][0]


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
        from ..explain.nearest import holding

        rows = self._store.page(after, size)
        masks = holding([data or b"" for _, _, data, _ in rows], probes)
        return [(row[0], mask) for row, mask in zip(rows, masks, strict=True)]

    def record(self, place: int) -> Record | None:
        """Return the record of a row, or ``None`` where it cannot be read."""
        for found, key, packed, stored_at in self._store.page(place - 1, 1):
            try:
                return unpack(key, packed, stored_at) if found == place else None
            except CacheCorruptError:
                return None
        return None


def _from_here(place: Path | str) -> Path | str:
    """Return a path as seen from the working directory, where it lies below that."""
    if isinstance(place, str):
        return place
    here = os.getcwd()
    return place.relative_to(here) if place.is_relative_to(here) else place
