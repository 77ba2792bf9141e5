"""The results of a ``map`` as they come in, put in the order of its items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .runs import Finished

__all__ = ["Gathered", "attach"]


class Gathered:
    """Put results in the order of the items; with repeats, a list of them for each item.

    :param repeats: how many each item has.
    """

    def __init__(self, repeats: int) -> None:
        self._repeats = repeats
        self._items: dict[int, list[Any]] = {}
        self._left: dict[int, int] = {}  # of the items of which some repeats are missing

    def put(self, finished: Finished) -> bool:
        """Take a result in; return whether its item is complete by it."""
        index = finished.number
        values = self._items.get(index)
        if values is None:
            values = self._items[index] = [None] * self._repeats
            self._left[index] = self._repeats
        values[finished.repeat] = finished.value
        self._left[index] -= 1
        if self._left[index]:
            return False
        del self._left[index]
        return True

    def take(self, index: int) -> Any:
        """Return an item's result and forget it."""
        return self._shaped(self._items.pop(index))

    def take_complete(self) -> Iterator[tuple[int, Any]]:
        """Yield and forget index and result of each item that lacks no repeat, in their order."""
        for index in sorted(self._items):
            if index not in self._left:
                yield index, self.take(index)

    def listed(self, length: int | None = None) -> list[Any]:
        """Return the results in the order of the items; ``None`` where there is none.

        :param length: how many items there are; ``None`` means up to the last one that has a result.
        """
        count = 1 + max(self._items, default=-1) if length is None else length
        return [self._shaped(self._items.get(index, [None] * self._repeats)) for index in range(count)]

    def pairs(self) -> list[tuple[int, Any]]:
        """Return index and result of each item that has one, in their order."""
        return [(index, self._shaped(values)) for index, values in sorted(self._items.items())]

    def _shaped(self, values: list[Any]) -> Any:
        return values[0] if self._repeats == 1 else values


def attach(error: BaseException, results: list[Any]) -> None:
    """Attach results to an exception as ``.results``, also to one that lets nobody set its attributes."""
    BaseException.__setattr__(error, "results", results)
