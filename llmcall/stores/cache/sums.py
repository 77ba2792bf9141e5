"""The sums spent under the names of budgets, which diskcache increments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import CacheCorruptError, CacheError
from .directory import InnerDirectory
from .storages import Change

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER = "budgets"  # in the cache's folder


class DirectorySums(InnerDirectory):
    """The sums of a cache directory, one for each name and unit. All processes share them.

    :param cache_folder: the cache's directory.
    """

    def __init__(self, cache_folder: str) -> None:
        super().__init__(cache_folder, FOLDER)

    def spent(self, name: str, units: Sequence[str]) -> list[int]:
        """Return the sums spent under a name, one for each unit.

        :raises CacheError: if it cannot be read.
        """
        rows = [self.get(_key(name, unit)) for unit in units]
        try:
            return [0 if row is None else int(row[0] or b"") for row in rows]
        except ValueError as error:
            raise self._damaged(error) from error

    def spend(self, name: str, amounts: Mapping[str, int]) -> None:
        """Add amounts, by unit, to the sums of a name in one transaction.

        :raises OSError, CacheError: if they cannot be stored.
        """
        with self._writing() as database, database.transact():
            for unit, amount in amounts.items():
                database.incr(_key(name, unit), amount)

    def forget_spent(self, name: str, units: Sequence[str]) -> None:
        """Delete the sums of a name."""
        if self.exists():
            self.write(Change(_key(name, unit), None) for unit in units)

    def _damaged(self, error: object) -> CacheError:
        return CacheCorruptError(
            f"the sums of named budgets cannot be read ({error}); delete {self.name}, and all of them start again at 0"
        )


def _key(name: str, unit: str) -> str:
    return f"{unit} {name}"
