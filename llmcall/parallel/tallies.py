"""A tally of digests, as small as can be: of a million items it keeps 16 megabytes or less."""

from __future__ import annotations

from array import array

__all__ = ["Tally"]

SMALLEST = 64  # places; always a power of 2, so that the lowest bits of a digest say where to look
FILLED = 2 / 3  # of the places, at which there are twice as many


class Tally:
    """Count how often each digest came: a table of 8 bytes a place, and a count only of those that came again."""

    def __init__(self) -> None:
        self._table = _empty(SMALLEST)
        self._used = 0
        self._again: dict[int, int] = {}

    def count(self, digest: int) -> int:
        """Return how often a digest came before, and count it.

        :param digest: any 64 bits that are spread evenly.
        """
        digest = digest or 1  # 0 is an empty place
        place = _place(self._table, digest)
        if self._table[place]:
            before = self._again.get(digest, 1)
            self._again[digest] = before + 1
            return before
        self._table[place] = digest
        self._used += 1
        if self._used > FILLED * len(self._table):
            self._grow()
        return 0

    def _grow(self) -> None:
        larger = _empty(2 * len(self._table))
        for digest in self._table:
            if digest:
                larger[_place(larger, digest)] = digest
        self._table = larger


def _empty(places: int) -> array[int]:
    return array("Q", bytes(8 * places))


def _place(table: array[int], digest: int) -> int:
    """Return where a digest stands, or the empty place where it would."""
    last = len(table) - 1
    place = digest & last
    while table[place] not in (0, digest):
        place = (place + 1) & last
    return place
