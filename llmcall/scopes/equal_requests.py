"""Equal requests in one scope: their askers, and which draw belongs to which asker.

A replay gives each asker its recorded draws, in their order. An asker without a draw of its own gets
the lowest one left.

An asker's name begins with its maker's: ``task actor 0`` made ``task actor 0/thread vote 1``. If a
program shuffles its actors and then makes a task for each, a replay may number these tasks otherwise.
So if one maker made all recorded askers, the numbers in the maker's name do not matter:
``task actor 2/thread vote 1`` gets what was recorded for ``task actor 0/thread vote 1``.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Set
from heapq import heappop, heappush
from itertools import takewhile
from typing import NamedTuple

from ..askers import SEPARATOR, unnumbered
from ..system import process_lock
from .numbers import ScopedRequest


class RecordedAskers(NamedTuple):
    """What a cassette or cache says about equal requests in one scope.

    :param askers: the askers' names by draw number.
    :param is_recording: whether it is still recording: then recorded draws are reserved for their askers.
    :param may_ask: whether a draw that is not recorded may be asked and recorded.
    :param beyond_gap: reads further askers from the cache, beyond the first number without a record:
        the calls of such numbers may have been under way when a run was killed.
    """

    askers: Mapping[int, str] = {}
    is_recording: bool = False
    may_ask: bool = False
    beyond_gap: Callable[[], Mapping[int, str]] = dict


class _SharedMaker:
    """The maker of all recorded askers, which may have another number in this run.

    :param names: the names of the recorded askers.
    """

    def __init__(self, names: Iterable[str]) -> None:
        recorded = set(names)
        parts = [name.split(SEPARATOR) for name in recorded]
        levels = zip(*parts, strict=False)
        shared = list(takewhile(lambda level: len(set(level)) == 1, levels))
        # How many parts of a name are the maker's.
        self._depth = len(shared) if len(recorded) > 1 else 0
        self._recorded = {self._without_maker_numbers(name): name for name in recorded}

    def maker_of(self, asker: str) -> list[str]:
        """Return the parts of an asker's name that name its maker."""
        return asker.split(SEPARATOR)[: self._depth]

    def recorded_asker(self, asker: str) -> str | None:
        """Return the recorded asker whose name differs at most in its maker's numbers, or ``None``."""
        return self._recorded.get(self._without_maker_numbers(asker))

    def _without_maker_numbers(self, asker: str) -> tuple[str, ...]:
        parts = asker.split(SEPARATOR)
        return (*map(unnumbered, parts[: self._depth]), *parts[self._depth :])


class EqualRequests:
    """The equal requests in one scope.

    :param request: each of them.
    :param source: the cassette or cache that holds records.
    :param recorded: what it says about them.
    :ivar were_at_once: whether two askers' calls were under way at the same time in this run.
    """

    __slots__ = (
        "_has_read_beyond_gap",
        "_kept_numbers",
        "_misplaced",
        "_recorded_askers",
        "_recorded_numbers",
        "_shared_maker",
        "_takers",
        "recorded",
        "request",
        "source",
        "were_at_once",
    )

    def __init__(self, request: ScopedRequest, source: object, recorded: RecordedAskers) -> None:
        self.request = request
        self.source = source
        self.recorded = recorded
        self.were_at_once = False
        # By asker: a heap of its recorded numbers that may be free.
        self._recorded_numbers: dict[str, list[int]] = {}
        # By number: its recorded asker.
        self._recorded_askers = dict(recorded.askers)
        self._has_read_beyond_gap = False
        for number in sorted(recorded.askers):
            self._recorded_numbers.setdefault(recorded.askers[number], []).append(number)
        # By asker: the numbers that it took and did not give back, in order. By number: its asker.
        self._kept_numbers: dict[str, list[int]] = {}
        self._takers: dict[int, str] = {}
        # A recording that goes on may lack the askers of other makers.
        self._shared_maker = _SharedMaker(() if recorded.is_recording else self._recorded_numbers)
        # By number: who got it, and for whom it was recorded.
        self._misplaced: dict[int, tuple[str, str]] = {}

    @property
    def askers(self) -> Set[str]:
        """Return the names of this run's askers."""
        return self._kept_numbers.keys()

    def own_number(self, asker: str, is_free: Callable[[int], bool]) -> int | None:
        """Return the lowest free number that was recorded for an asker, or ``None``."""
        is_recorded = asker in self._recorded_numbers
        recorded_asker = asker if is_recorded else self._shared_maker.recorded_asker(asker)
        numbers = [] if recorded_asker is None else self._recorded_numbers[recorded_asker]
        while numbers:
            number = heappop(numbers)
            if is_free(number):
                return number
        return None

    def lowest_new_number(self, asker: str) -> int:
        """Return the lowest number that an asker may get if none was recorded for it.

        A replay gives each asker its numbers in order, so a later draw has a higher one.
        """
        kept_numbers = self._kept_numbers.get(asker)
        return kept_numbers[-1] + 1 if kept_numbers else 0

    def note_taken(self, asker: str, number: int) -> None:
        """Note that an asker got a number."""
        insort(self._kept_numbers.setdefault(asker, []), number)
        self._takers[number] = asker
        if self.recorded.askers and number not in self._recorded_askers:
            _with_differences.append(self)

    def gets_new_numbers(self, asker: str) -> bool:
        """Return whether an asker that has used up its recorded numbers gets new ones, which are
        recorded.

        Otherwise it gets what is left: in a replay, or if no record has its name because the program
        changed.
        """
        if self.recorded.is_recording or not self.recorded.askers:
            return True
        return self.recorded.may_ask and asker in self._recorded_numbers

    def is_reserved(self, number: int) -> bool:
        """Return whether a number was recorded for an asker, so that it is not new."""
        return number in self._recorded_askers

    def askers_beyond_gap(self, asker: str) -> Mapping[int, str] | None:
        """Return further recorded askers if an asker has no recorded number left; ``None`` if it has
        one, or if they are known.
        """
        is_needed = bool(self.recorded.askers) and not self._recorded_numbers.get(asker)
        return self.recorded.beyond_gap() if is_needed and not self._has_read_beyond_gap else None

    def add_recorded(self, askers: Mapping[int, str]) -> None:
        """Add what :meth:`askers_beyond_gap` returned."""
        self._has_read_beyond_gap = True
        for number, asker in askers.items():
            if number not in self._recorded_askers:
                self._recorded_askers[number] = asker
                heappush(self._recorded_numbers.setdefault(asker, []), number)

    def give_back(self, number: int) -> None:
        """Note that a number is free again."""
        taker = self._takers.pop(number, None)
        if taker is not None:
            self._kept_numbers[taker].remove(number)
        asker = self._recorded_askers.get(number)
        if asker is not None:
            heappush(self._recorded_numbers.setdefault(asker, []), number)

    def note_recorded_asker(self, number: int, asker: str, recorded_asker: str | None) -> None:
        """Note that an asker got a recorded draw.

        :param recorded_asker: the asker in the record, or ``None`` if that is unknown.
        """
        if asker != recorded_asker:
            with _lock:
                self._misplaced[number] = asker, recorded_asker or ""
                _with_differences.append(self)

    def misplaced(self) -> int:
        """Return how many recorded draws went to other askers than in the recording.

        It is 0 if there is only one asker. Records without askers fit askers whose calls do not
        overlap.
        """
        if self._differ_only_in_maker_number():
            return 0
        recorded_askers = {recorded for _, recorded in self._misplaced.values() if recorded}
        if not recorded_askers and not self.were_at_once:
            return 0
        return len(self._misplaced) if len(self.askers | recorded_askers) > 1 else 0

    def asked_anew(self) -> int:
        """Return how many draws took new numbers although as many recorded ones were left."""
        is_in_arm = self.request.arm is not None  # where the others may be of another arm
        if is_in_arm or not self.recorded.may_ask:
            return 0
        new = self._takers.keys() - self._recorded_askers.keys()
        left = self._recorded_askers.keys() - self._takers.keys()
        return min(len(new), len(left))

    def _differ_only_in_maker_number(self) -> bool:
        """Return whether one maker made all askers of this run, and each got what was recorded for
        the asker of its name, apart from the maker's number.
        """
        makers = [self._shared_maker.maker_of(asker) for asker in self.askers]
        return all(maker == makers[0] for maker in makers) and all(
            self._shared_maker.recorded_asker(asker) == recorded
            for asker, recorded in self._misplaced.values()
        )


class NamedAsker(NamedTuple):
    """An asker with a name, and the equal requests of which it makes one.

    :param name: the asker's name.
    :param equal_requests: those in its scope.
    """

    name: str
    equal_requests: EqualRequests


_lock = process_lock(__name__)
_with_differences: list[EqualRequests] = []  # from the recorded run


def take_misplaced() -> tuple[int, int]:
    """Return how many recorded draws went to other askers than in the recording, and how many equal
    requests were asked anew although as many recorded draws were left; and reset it.
    """
    with _lock:
        equal_requests = set(_with_differences)
        _with_differences.clear()
    misplaced = sum(each.misplaced() for each in equal_requests)
    return misplaced, sum(each.asked_anew() for each in equal_requests)
