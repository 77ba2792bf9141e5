"""Equal requests of one scope: who asks them, and which draw is whose.

A replay gives each asker the draws that were recorded for it, in their order. One that finds none
of its own gets the lowest draw left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from ..system import process_lock


class Recorded(NamedTuple):
    """What a record says about equal requests of one scope.

    :param askers: by the number of a draw, who asked.
    :param goes_on: whether they are still being recorded: then the draws of an asker that did not
        come yet are kept for it.
    """

    askers: Mapping[int, str] = {}
    goes_on: bool = False


class EqualRequests:
    """The equal requests of one scope.

    :param source: what holds the record.
    :param recorded: what it says about them.
    :ivar askers: those that asked in this run.
    :ivar were_at_once: whether calls of two askers were under way at once in this run.
    """

    __slots__ = ("_left", "_misplaced", "askers", "recorded", "source", "were_at_once")

    def __init__(self, source: object, recorded: Recorded) -> None:
        self.source = source
        self.recorded = recorded
        self.askers: set[str] = set()
        self.were_at_once = False
        # By asker, the numbers recorded for it that may be free, as a heap.
        self._left: dict[str, list[int]] = {}
        for number in sorted(recorded.askers):
            self._left.setdefault(recorded.askers[number], []).append(number)
        self._misplaced: dict[int, str] = {}

    def own_number(self, asker: str, is_free: Callable[[int], bool]) -> int | None:
        """Return the lowest free number that was recorded for an asker, or ``None``."""
        left = self._left.get(asker, [])
        while left:
            number = heappop(left)
            if is_free(number):
                return number
        return None

    def is_kept(self, number: int) -> bool:
        """Return whether a number is kept for whoever it was recorded for."""
        return self.recorded.goes_on and number in self.recorded.askers

    def give_back(self, number: int) -> None:
        """Let a number be free again."""
        asker = self.recorded.askers.get(number)
        if asker is not None:
            heappush(self._left[asker], number)

    def note_found(self, number: int, asker: str, recorded: str | None) -> None:
        """Note that an asker got a recorded draw.

        :param recorded: who asked when it was recorded, ``None`` if that is not known.
        """
        if asker != recorded:
            with _lock:
                self._misplaced[number] = recorded or ""
                _misplaced.append(self)

    def misplaced(self) -> int:
        """Return how many recorded draws went to others, if several may have asked.

        A record that does not say who asked fits those that ask one after the other.
        """
        known = {recorded for recorded in self._misplaced.values() if recorded}
        if not known and not self.were_at_once:
            return 0
        return len(self._misplaced) if len(self.askers | known) > 1 else 0


_lock = process_lock(__name__)
_misplaced: list[EqualRequests] = []


def take_misplaced() -> int:
    """Return how many recorded draws went to other askers than recorded, and begin to count anew."""
    with _lock:
        found = set(_misplaced)
        _misplaced.clear()
    return sum(each.misplaced() for each in found)


def from_lowest(free: set[int], unused: int) -> Iterator[int]:
    """Yield numbers that nobody has, the lowest first.

    :param free: those below ``unused``.
    :param unused: the lowest number that was never taken.
    """
    yield from sorted(free)
    yield from count(unused)
