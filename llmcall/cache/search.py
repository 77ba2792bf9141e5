"""A cache as what is searched for the record nearest to a request that has none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CacheCorruptError
from ..explain.nearest import holding
from .record import unpack

if TYPE_CHECKING:
    from ..types import Record
    from .storage import Storage

__all__ = ["CacheSource"]


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
        masks = holding([data or b"" for _, _, data, _ in rows], probes)
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
