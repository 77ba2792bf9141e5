"""The results of a map, by item, as they come."""

from __future__ import annotations

from typing import Any

_MISSING = object()  # in place of a result that is not there yet


class Results:
    """The results by item; with repeats, a list for each item.

    :param repeats: how many results each item has.
    """

    def __init__(self, repeats: int) -> None:
        self._repeats = repeats
        self._values: dict[int, list[Any]] = {}

    def put(self, number: int, repeat: int, value: Any) -> bool:
        """Store a result; return whether its item is complete now."""
        values = self._values.setdefault(number, [_MISSING] * self._repeats)
        values[repeat] = value
        return all(each is not _MISSING for each in values)

    def take(self, number: int) -> Any:
        """Return an item's result and forget it."""
        result = self._result(number)
        del self._values[number]
        return result

    def _result(self, number: int) -> Any:
        values = self._values.get(number, [_MISSING] * self._repeats)
        results = [None if value is _MISSING else value for value in values]
        return results if self._repeats > 1 else results[0]

    def in_order(self, length: int | None = None) -> list[Any]:
        """Return the results in the order of the items, with ``None`` for each missing one.

        :param length: the number of items; ``None`` means up to the last one that has a result.
        """
        known_length = max(self._values, default=-1) + 1
        return [self._result(number) for number in range(max(known_length, length or 0))]

    def pairs(self) -> list[tuple[int, Any]]:
        """Return the index and result of each item that has a result and was not taken, in order."""
        return [(number, self._result(number)) for number in sorted(self._values)]

    def complete(self) -> list[int]:
        """Return the indexes of the items that have all repeats and were not taken, in order."""
        return [
            number
            for number, values in sorted(self._values.items())
            if all(value is not _MISSING for value in values)
        ]


def attach(error: BaseException, results: list[Any]) -> None:
    """Attach results to an exception as ``.results``, even if its class refuses attributes."""
    BaseException.__setattr__(error, "results", results)
