"""The numbers of identical requests in one scope: which are taken, and the caller of each."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from .callers import process_in
from .position import Branches
from .replayed_callers import ReplayedCallers

# The scope path, and the digest of a request without a sample.
ScopedRequest = tuple[str, str]


class RecordedCallers(NamedTuple):
    """The callers of identical requests in one scope, as a cassette or cache has them.

    :param callers: the callers' names by draw number, in the order of the calls as far as that is known.
    :param is_recording: ``True`` if it is still recording: then no caller gets another one's draw.
    :param is_of_cache: ``True`` if a cache has them, and not a run's recording. Then a caller that asks more often than
        before gets a new draw where that may be requested.
    :param histories: by draw number, where there is any: a digest of what its caller had asked before in the scope.
    :param replayed: compares a replay with the recording; ``None`` where more may be recorded.
    :param again: the numbers that a recording which goes on took when it opened the scope before.
    """

    callers: Mapping[int, str] = {}
    is_recording: bool = False
    is_of_cache: bool = False
    histories: Mapping[int, str] = {}
    replayed: ReplayedCallers | None = None
    again: Collection[int] = ()


class Numbers:
    """The numbers of one request that one branch has taken.

    :ivar lowest: the lowest free number: all before it are taken.
    :ivar under_way: the thread and task that took the last one, and its caller's name, until its call ends.
    """

    __slots__ = ("_in_flight", "_later", "lowest", "under_way")

    # A simulation has a million of these, each with one number: two sets for each would take 400 MB.
    def __init__(self) -> None:
        self._later: set[int] | None = None  # those taken after the lowest free one, if any
        self.lowest = 0
        self.under_way: tuple[int, int, str | None] | None = None
        self._in_flight: set[int] | None = None

    @property
    def taken(self) -> list[int]:
        """Return the numbers."""
        return [*range(self.lowest), *(self._later or ())]

    @property
    def is_in_flight(self) -> bool:
        """Return whether the call of any has not ended."""
        return bool(self._in_flight)

    def has(self, number: int) -> bool:
        """Return whether a number is taken."""
        return number < self.lowest or (self._later is not None and number in self._later)

    def take(self, number: int) -> None:
        """Take a number."""
        if number > self.lowest:
            self._later = self._later or set()
            self._later.add(number)
        elif number == self.lowest:
            self.lowest += 1
            while self._later and self.lowest in self._later:
                self._later.remove(self.lowest)
                self.lowest += 1
            self._later = self._later or None

    def release(self, number: int) -> None:
        """Free a number."""
        if number < self.lowest:
            self._later = (self._later or set()).union(range(number + 1, self.lowest)) or None
            self.lowest = number
        elif self._later:
            self._later.discard(number)

    def begin(self, number: int) -> None:
        """Note that the call of a number is in flight."""
        self._in_flight = self._in_flight or set()
        self._in_flight.add(number)

    def end(self, number: int) -> None:
        """Note that the call of a number has ended."""
        if self._in_flight:
            self._in_flight.discard(number)
        self._in_flight = self._in_flight or None


def is_free_in_all(number: int, counted: Iterable[Numbers]) -> bool:
    """Return whether a number is free in all branches that count."""
    return all(not numbers.has(number) for numbers in counted)


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
    :ivar is_in_order: ``True`` if the order of the calls has told all of them apart so far.
    """

    __slots__ = ("_branches", "_caller", "_count", "_shared", "is_in_order", "recorded")

    # A simulation has a million of these, nearly all with one caller and one number: what tells callers apart is made
    # for the second.
    def __init__(self, recorded: RecordedCallers) -> None:
        self.recorded = recorded
        self.is_in_order = True
        # The only one in this run, in these branches; it took the first numbers.
        self._caller: str | None = None
        self._branches: Branches = ()
        self._count = 0
        self._shared = SharedNumbers(recorded) if recorded.callers else None

    def number_for(self, caller: str, branches: Branches, counted: Sequence[Numbers]) -> int:
        """Return the next number of a caller, and note that it took it; see :meth:`SharedNumbers.number_for`."""
        if self._shared is None:
            if self._caller is None:
                self._branches, self._caller = branches, caller
            is_alone = self._caller == caller and self._branches == branches
            if is_alone and lowest_free(counted, self._count) == self._count:
                self._count += 1
                return self._count - 1
        return self._all().number_for(caller, branches, counted)

    def _all(self) -> SharedNumbers:
        """Return the numbers of all callers, from when there are several."""
        if self._shared is None:
            self._shared = SharedNumbers(self.recorded)
            if self._caller is not None:
                self._shared.take(self._branches, self._caller, range(self._count))
        return self._shared

    @property
    def number_of_calls(self) -> int:
        """Return the number of draws that are taken."""
        return sum(map(len, self._all().taken.values()))

    @property
    def are_told_apart(self) -> bool:
        """Return whether there are several, whom not only the order of their calls tells apart."""
        if self.is_in_order or self._shared is None:
            return False
        return len({name for _, name in self._shared.taken}) > 1

    def are_same(self, recorded: str, caller: str) -> bool:
        """Return whether a recorded caller can only be another one: it is in the one process with its command."""
        return self._all().are_same(recorded, caller)

    def release(
        self, caller: str, branches: Branches, number: int, *, is_free: bool, was_answered: bool
    ) -> None:
        """Note that a caller released a number; a recorded number stays its owner's.

        :param is_free: ``True`` if no branch has it.
        :param was_answered: ``True`` if it has an answer: its map ended early, and in a recording that goes on whoever
            asks next gets it.
        """
        self._all().release(caller, branches, number, is_free=is_free, was_answered=was_answered)


class SharedNumbers:
    """The numbers of the identical requests of several callers in one scope.

    :param recorded: what the cassette or cache with their records says about them.
    :ivar owners: by number: the caller that took it in the recording or, first, in this run.
    :ivar taken: the numbers that each caller has taken in a branch, the last one last.
    """

    def __init__(self, recorded: RecordedCallers) -> None:
        self.recorded = recorded
        self.owners: dict[int, str] = {}
        self.taken: dict[tuple[Branches, str], list[int]] = {}
        # of the numbers, in the order in which they were taken first
        self._places: dict[int, int] = {}
        self._own: dict[str, list[tuple[int, int]]] = {}  # by caller: places and numbers, in order
        self._recorded_names = set(recorded.callers.values())
        self._by_process: dict[str, list[str]] = {}  # the recorded names of callers in processes
        for name in sorted(self._recorded_names):
            if process := process_in(name):
                self._by_process.setdefault(process, []).append(name)
        self._owned = Numbers()  # the numbers of all callers
        self._again = {*recorded.again}  # those that whoever asks gets
        self._count = itertools.count()
        for number, caller in recorded.callers.items():
            self._note_owner(number, caller)

    def number_for(self, caller: str, branches: Branches, counted: Sequence[Numbers]) -> int:
        """Return the next number of a caller, and note that it took it.

        A caller gets the first free number that was recorded for it, or that it took in another arm, in the order in
        which these were taken. Without one, it gets the lowest that was recorded for an identical process, which
        another caller may have started. Otherwise it gets the lowest new number, which is recorded; but first the
        lowest that is left of a complete recording: only what no record answers is requested. Where a recording that
        goes on opens a scope again, the numbers of before come first, whoever asks, as in a run that nothing
        interrupted.
        """
        recorded = self.recorded
        taken = self.taken.setdefault((branches, caller), [])
        number = lowest_free(counted) if self._again else None
        if number not in self._again:
            number = self._first_of(caller, counted, taken)
        if number is None and recorded.callers and not recorded.is_recording:
            same = self._by_process.get(process_in(caller), ())
            found = [self._first_of(name, counted) for name in same]
            number = min((it for it in found if it is not None), default=None)
            # A record that is missing among the others was deleted, perhaps this caller's.
            has_gap = self._owned.lowest < len(self.owners)
            is_further = recorded.is_of_cache and caller in self._recorded_names
            if number is None and not (has_gap or is_further):
                number = lowest_free(counted)
        if number is None:
            number = lowest_free(counted, taken[-1] + 1 if taken else 0)
            while number in self.owners:
                number = lowest_free(counted, number + 1)
        self._note_owner(number, caller)
        taken.append(number)
        return number

    def take(self, branches: Branches, caller: str, numbers: Sequence[int]) -> None:
        """Note that a caller took numbers before there were others."""
        self.taken[branches, caller] = [*numbers]
        for number in numbers:
            self._note_owner(number, caller)

    def _first_of(
        self, caller: str, counted: Sequence[Numbers], taken: Sequence[int] = ()
    ) -> int | None:
        """Return a caller's first free number after the last one that it has taken of its own, or ``None``."""
        own = self._own.get(caller, [])
        last = next(
            (number for number in reversed(taken) if self.owners.get(number) == caller), None
        )
        start = 0 if last is None else bisect_right(own, (self._places[last], last))
        # no slice: a caller may have 100,000
        for index in range(start, len(own)):
            if is_free_in_all(own[index][1], counted):
                return own[index][1]
        return None

    def are_same(self, recorded: str, caller: str) -> bool:
        """Return whether a recorded caller can only be another one: it is in the one process with its command."""
        return self._by_process.get(process_in(caller)) == [recorded]

    def _note_owner(self, number: int, caller: str) -> None:
        if number not in self.owners:
            self.owners[number] = caller
            self._owned.take(number)
            self._places[number] = next(self._count)
            self._own.setdefault(caller, []).append((self._places[number], number))

    def release(
        self, caller: str, branches: Branches, number: int, *, is_free: bool, was_answered: bool
    ) -> None:
        """Note that a caller released a number; see :meth:`Callers.release`."""
        taken = self.taken.get((branches, caller), [])
        if number in taken:
            taken.remove(number)
        if not is_free or number not in self.owners:
            return
        if number in self.recorded.callers:
            if was_answered and self.recorded.is_recording:
                self._again.add(number)
        else:
            self._own[self.owners.pop(number)].remove((self._places.pop(number), number))
            self._owned.release(number)
