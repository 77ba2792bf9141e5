"""The numbers of identical requests in one scope: which are taken, and the caller of each."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .position import Branches

# The scope path, and the digest of a request without a sample.
ScopedRequest = tuple[str, str]


class RecordedCallers(NamedTuple):
    """The callers of identical requests in one scope, as a cassette or cache has them.

    :param callers: the callers' names by draw number.
    :param is_recording: whether it is still recording: then no caller gets another one's draw.
    :param may_call: whether an unrecorded draw may be requested and recorded.
    """

    callers: Mapping[int, str] = {}
    is_recording: bool = False
    may_call: bool = False


class Numbers:
    """The numbers of one request that one branch has taken.

    :ivar taken: the numbers.
    :ivar lowest: the lowest free number.
    :ivar under_way: the thread and task that took the last one, until its call ends.
    :ivar in_flight: those whose calls have not ended.
    """

    __slots__ = ("in_flight", "lowest", "taken", "under_way")

    def __init__(self) -> None:
        self.taken: set[int] = set()
        self.lowest = 0
        self.under_way: tuple[int, int] | None = None
        self.in_flight: set[int] = set()

    def take(self, number: int) -> None:
        """Take a number."""
        self.taken.add(number)
        while self.lowest in self.taken:
            self.lowest += 1

    def release(self, number: int) -> None:
        """Free a number."""
        self.taken.discard(number)
        self.lowest = min(self.lowest, number)


def is_free_in_all(number: int, counted: Iterable[Numbers]) -> bool:
    """Return whether a number is free in all branches that count."""
    return all(number not in numbers.taken for numbers in counted)


def lowest_free(counted: Sequence[Numbers], start: int = 0) -> int:
    """Return the lowest number from one on that is free in all branches that count."""
    if start == 0 and len(counted) == 1:
        return counted[0].lowest
    number = max(start, *(numbers.lowest for numbers in counted))
    while not is_free_in_all(number, counted):
        number += 1
    return number


class Callers:
    """The callers of the identical requests of one scope.

    :param recorded: what the cassette or cache with their records says about them.
    :ivar owners: by number: the caller that took it in the recording or, first, in this run.
    :ivar numbers: the same by caller, in order.
    :ivar taken: the numbers that each caller has taken in a branch, the last one last.
    """

    def __init__(self, recorded: RecordedCallers) -> None:
        self.recorded = recorded
        self.owners: dict[int, str] = {}
        self.numbers: dict[str, list[int]] = {}
        self.taken: dict[tuple[Branches, str], list[int]] = {}
        self._recorded_names = set(recorded.callers.values())
        self._owned = Numbers()  # the same numbers
        for number, caller in recorded.callers.items():
            self._note_owner(number, caller)

    def number_for(self, caller: str, branches: Branches, counted: Sequence[Numbers]) -> int:
        """Return the next number of a caller, and note that it took it.

        A caller gets the lowest free number that was recorded for it, or that it took in another arm.
        Otherwise it gets the lowest new one, which is recorded; in a replay, or if the program changed
        and no record has its name, the lowest that is left. Its numbers rise, as in a replay.
        """
        recorded = self.recorded
        taken = self.taken.setdefault((branches, caller), [])
        last = taken[-1] if taken else -1
        own = self.numbers.get(caller, [])
        # no slice: a caller may have 100,000
        for index in range(bisect_right(own, last), len(own)):
            number = own[index]
            if is_free_in_all(number, counted):
                break
        else:
            # A record that is missing among the others was deleted, perhaps this caller's.
            has_gap = self._owned.lowest < len(self.owners)
            is_named = has_gap or caller in self._recorded_names
            is_new = (
                recorded.is_recording or not recorded.callers or (recorded.may_call and is_named)
            )
            number = lowest_free(counted, last + 1 if is_new else 0)
            while is_new and number in self.owners:
                number = lowest_free(counted, number + 1)
        self._note_owner(number, caller)
        taken.append(number)
        return number

    def _note_owner(self, number: int, caller: str) -> None:
        if number not in self.owners:
            self.owners[number] = caller
            self._owned.take(number)
            insort(self.numbers.setdefault(caller, []), number)

    def release(self, caller: str, branches: Branches, number: int, *, is_free: bool) -> None:
        """Note that a caller released a number; a recorded number stays its owner's.

        :param is_free: whether no branch has it.
        """
        taken = self.taken.get((branches, caller), [])
        if number in taken:
            taken.remove(number)
        if is_free and number in self.owners and number not in self.recorded.callers:
            self.numbers[self.owners.pop(number)].remove(number)
            self._owned.release(number)
