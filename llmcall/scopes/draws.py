"""Draws: which number of a request is next, for each request in each scope.

One object counts the draws of an outermost scope, by scope path and request, so a changed or added
call changes no other draw. Arms, and the cells of a table that varies, are forks: they go on from what
was drawn before them, and not from what is drawn beside them.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple

from ..support.notices import warn_once
from ..support.system import current_task, lock, this_process
from .askers import Asker
from .position import Forks

if TYPE_CHECKING:
    from ..stores.record import Record

# The scope path and the key of a request outside any scope.
ScopedRequest = tuple[str, str]
# A request, the forks in which it was drawn, the number that it got, and its asker's name: what other processes get.
Drawn = tuple[ScopedRequest, Forks, int, "str | None"]


class RecordedAskers(NamedTuple):
    """The askers of equal requests in one scope, as a cassette or cache has them.

    :param askers: the askers' names by draw number.
    :param is_recording: whether it is still recording: then no asker gets another one's draw.
    :param may_ask: whether a draw that is not recorded may be asked and recorded.
    """

    askers: Mapping[int, str] = {}
    is_recording: bool = False
    may_ask: bool = False


class Numbers:
    """The numbers of one request that one fork has taken.

    :param taken: the numbers.
    :ivar lowest: the lowest free number.
    :ivar under_way: the thread and task that took the last one, until its call ends.
    """

    __slots__ = ("lowest", "taken", "under_way")

    def __init__(self, taken: Iterable[int] = ()) -> None:
        self.taken: set[int] = set()
        self.lowest = 0
        self.under_way: tuple[int, int] | None = None
        for number in taken:
            self.take(number)

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
    """Return whether a number is free in all forks that count."""
    return all(number not in numbers.taken for numbers in counted)


def lowest_free(counted: Sequence[Numbers], start: int = 0) -> int:
    """Return the lowest number from one on that is free in all forks that count."""
    if start == 0 and len(counted) == 1:
        return counted[0].lowest
    number = max(start, *(numbers.lowest for numbers in counted))
    while not is_free_in_all(number, counted):
        number += 1
    return number


class Askers:
    """The askers of the equal requests of one scope.

    :param recorded: what the cassette or cache that holds their records says about them.
    :ivar owners: by number: who took it when it was recorded or, first, in this run.
    :ivar numbers: the same by asker, in order.
    :ivar taken: the numbers that each asker has taken in a fork, the last one last.
    :ivar turn: is held while an asker takes or releases a number.
    """

    turn: AbstractContextManager[object] = lock

    def __init__(self, recorded: RecordedAskers) -> None:
        self.recorded = recorded
        self.owners: dict[int, str] = {}
        self.numbers: dict[str, list[int]] = {}
        self.taken: dict[tuple[Forks, str], list[int]] = {}
        self._recorded_names = set(recorded.askers.values())
        self._owned = Numbers()  # the same numbers
        for number, asker in recorded.askers.items():
            self._note_owner(number, asker)

    def number_for(self, asker: str, forks: Forks, counted: Sequence[Numbers]) -> int:
        """Return the next number of an asker, and note that it took it.

        An asker gets the lowest free number that was recorded for it, or that it took in another arm.
        Otherwise it gets the lowest new one, which is recorded; in a replay, or if the program changed
        and no record has its name, the lowest that is left. Its numbers rise, as in a replay.
        """
        recorded = self.recorded
        taken = self.taken.setdefault((forks, asker), [])
        last = taken[-1] if taken else -1
        own = self.numbers.get(asker, [])
        # no slice: an asker may have 100,000
        for index in range(bisect_right(own, last), len(own)):
            number = own[index]
            if is_free_in_all(number, counted):
                break
        else:
            # A record that is missing among the others was deleted, perhaps this asker's.
            has_gap = self._owned.lowest < len(self.owners)
            is_new = (
                recorded.is_recording
                or not recorded.askers
                or (recorded.may_ask and (has_gap or asker in self._recorded_names))
            )
            number = lowest_free(counted, last + 1 if is_new else 0)
            while is_new and number in self.owners:
                number = lowest_free(counted, number + 1)
        self._note_owner(number, asker)
        taken.append(number)
        return number

    def _note_owner(self, number: int, asker: str) -> None:
        if number not in self.owners:
            self.owners[number] = asker
            self._owned.take(number)
            insort(self.numbers.setdefault(asker, []), number)

    def release(self, asker: str, forks: Forks, number: int, *, is_free: bool) -> None:
        """Note that an asker released a number; a recorded number stays its owner's.

        :param is_free: whether no fork has it.
        """
        taken = self.taken.get((forks, asker), [])
        if number in taken:
            taken.remove(number)
        if is_free and number in self.owners and number not in self.recorded.askers:
            self.numbers[self.owners.pop(number)].remove(number)
            self._owned.release(number)


def own_askers(request: ScopedRequest, source: object, recorded: RecordedAskers) -> Askers:
    """Return the askers of a request, of which no other process has any."""
    return Askers(recorded)


# Makes the askers of a request, by the cassette or cache that holds its records, and what that says about them.
NewAskers = Callable[[ScopedRequest, object, RecordedAskers], Askers]


def _are_beside(one: Forks, other: Forks) -> bool:
    """Return whether two forks are of one family, such as two arms of a scope."""
    for fork, other_fork in zip(one, other, strict=False):
        if fork != other_fork:
            return fork.family == other_fork.family
    return False


# The order of these steps is a decision.
#
# A number is a part of the key, so a call takes it while it is prepared, before its record is looked up.
# It keeps the number once it has an answer, and releases it if it fails. The alternative is to number
# equal calls as their answers arrive. It was rejected: the speed of a server would decide who gets draw 0,
# and a replay, in which no server is slow, would decide otherwise. Keeping the number of a failed call was
# rejected, too: the call that is made again would be the next draw, and every replay would miss the one
# that failed.
#
# The next number is therefore the lowest free one, and not one above the last: the repeated call gets the
# number that the failed one released. It also lets arms share answers, since an arm does not count the
# draws of the arms beside it.
#
# Where askers have names, an asker takes the lowest free number that was recorded for it, else a new one
# where that may be asked, else the lowest that is left. The lowest free number in every case was rejected:
# timing would decide who takes it, and two askers would swap their answers. So was a new number in every
# case: a program whose tasks are named otherwise than in the recording would replay nothing.
class Draws:
    """Count the draws of one outermost scope.

    A draw takes the lowest number that was taken neither in its fork, nor in those around or inside
    it: so equal requests of two arms share an answer. An asker with a name gets its own.

    :param drawn: earlier draws.
    :param since: when another process opened the scope, in seconds since the epoch: its draws are
        counted from 0 again here. ``None`` if this process opens it now.
    :param outermost_scope: the number of the outermost scope, or ``None`` for other draws.
    :param new_askers: makes the askers of a request.
    """

    def __init__(
        self,
        drawn: Iterable[Drawn] = (),
        since: float | None = None,
        outermost_scope: int | None = None,
        new_askers: NewAskers = own_askers,
    ) -> None:
        self.outermost_scope = outermost_scope
        self.since = time.time() if since is None else since
        self.process = this_process() if since is None else None  # that opened the scope
        self._numbers: dict[ScopedRequest, dict[Forks, Numbers]] = {}
        self.new_askers = new_askers
        # by request, and by the cassette or cache that holds its records
        self._askers: dict[ScopedRequest, dict[object, Askers]] = {}
        for draw in drawn:
            self.claim(*draw)

    def take(
        self,
        request: ScopedRequest,
        forks: Forks,
        source: object,
        asker: Asker | None,
        read_askers: Callable[[], RecordedAskers],
    ) -> Draw:
        """Take the next number of a request.

        Warns if another thread or task makes the same request at the same time, unless askers have
        names.

        :param forks: those in which it is made.
        :param source: the cassette or cache that holds records of the request.
        :param asker: who asks, if that counts.
        :param read_askers: reads who asked when the draws were recorded.
        """
        askers = None
        if asker is not None:
            by_source = self._askers.setdefault(request, {})
            askers = by_source.get(source)
            if askers is None:  # reads records, so without the lock
                new = self.new_askers(request, source, read_askers())
                askers = by_source.setdefault(source, new)
        runner = threading.get_ident(), id(current_task())
        with lock if askers is None else askers.turn:
            with lock:
                numbers, counted = self._numbers_of(request, forks)
            if asker is None or askers is None:
                number = numbers.lowest if len(counted) == 1 else lowest_free(counted)
            else:
                number = askers.number_for(asker.name, forks, counted)
            with lock:
                numbers.take(number)
                other = numbers.under_way
                numbers.under_way = runner
        if asker is None and other is not None and other != runner:
            kind = "thread" if other[0] != runner[0] else "task"
            warn_once(
                f"give each {kind} its own scope: two {kind}s in the scope {request[0]!r} make the same "
                "request at the same time, so a replay may swap their answers"
            )
        return Draw(self, request, forks, number, numbers, asker, askers)

    def _numbers_of(
        self, request: ScopedRequest, forks: Forks
    ) -> tuple[Numbers, Sequence[Numbers]]:
        """Return the numbers of a fork, and all that count in it: those of forks around and inside it, too."""
        by_forks = self._numbers.get(request)
        if by_forks is None:
            by_forks = self._numbers[request] = {}
        numbers = by_forks.get(forks)
        if numbers is None:
            numbers = by_forks[forks] = Numbers()
        if len(by_forks) == 1:
            return numbers, (numbers,)
        return numbers, [by_forks[other] for other in by_forks if not _are_beside(other, forks)]

    def claim(
        self, request: ScopedRequest, forks: Forks, number: int, asker: str | None = None
    ) -> Draw:
        """Take a certain number, which was taken in another process.

        :param asker: the name of the asker that took it there, or ``None``.
        """
        with lock:
            numbers, _ = self._numbers_of(request, forks)
            numbers.take(number)
            for askers in self._askers.get(request, {}).values():
                if asker is not None and number in askers.taken.get((forks, asker), ()):
                    return Draw(self, request, forks, number, numbers, Asker(asker), askers)
        return Draw(self, request, forks, number, numbers)

    def askers_in_workers(
        self, request: ScopedRequest, source: object, recorded: RecordedAskers
    ) -> Askers:
        """Return the askers of a request for worker processes, which count its draws in their own forks."""
        with lock:
            by_source = self._askers.setdefault(request, {})
            if source not in by_source:
                by_source[source] = Askers(recorded)
            return by_source[source]

    def is_free(self, request: ScopedRequest, number: int) -> bool:
        """Return whether no fork has a number."""
        return is_free_in_all(number, self._numbers[request].values())

    def drawn(self) -> list[Drawn]:
        """Return what was drawn, for another process to continue."""
        with lock:
            return [
                (request, forks, number, None)
                for request, by_forks in self._numbers.items()
                for forks, numbers in by_forks.items()
                for number in numbers.taken
            ]


_swapped: set[Draw] = set()  # draws that replayed another asker's record


class Draw:
    """One draw: its number, which its call keeps or releases.

    Any thread may call its methods, and more than once.

    :param numbers: the numbers of its fork.
    :param asker: who asks, or ``None`` if askers have no names.
    :param askers: who asks the same.
    :ivar sample: the scope path and the number, ``"trial/lisa#0"``.
    :ivar is_taken: whether its number is still taken.
    """

    __slots__ = (
        "_askers",
        "_has_answer",
        "_numbers",
        "asker",
        "draws",
        "forks",
        "is_taken",
        "number",
        "request",
        "sample",
    )

    def __init__(
        self,
        draws: Draws,
        request: ScopedRequest,
        forks: Forks,
        number: int,
        numbers: Numbers,
        asker: Asker | None = None,
        askers: Askers | None = None,
    ) -> None:
        self.draws = draws
        self.request = request
        self.forks = forks
        self.number = number
        self.sample = f"{request[0]}#{number}"
        self.asker = asker
        self.is_taken = True
        self._numbers = numbers
        self._askers = askers
        self._has_answer = False

    def keep(self, answer: Record) -> None:
        """Keep the number: its call has an answer.

        Warns if two processes that count the scope's draws separately made this draw.

        :param answer: the record that counts. Its ``stored_at`` is set if the cache had it, and its
            ``asker`` if that is known: see :func:`take_swapped`.
        """
        self._has_answer = True
        self._numbers.under_way = None
        if self.asker is not None and answer.asker not in (None, self.asker.name):
            _swapped.add(self)
        if (
            answer.stored_at is None
            or answer.stored_at < self.draws.since
            or self.draws.process == this_process()
        ):
            return
        warn_once(
            f"two processes made the same draw in the scope {self.request[0]!r} and share its answer. Run the "
            "function with llmcall.map(…, executor=…), which counts for all processes, or give each task its own scope"
        )

    def release(self) -> None:
        """Free its number, unless its call has an answer."""
        if not self._has_answer:
            self.retract()

    def retract(self) -> None:
        """Free its number, even if its call has an answer: the same call will be made again."""
        askers = self._askers
        with lock if askers is None else askers.turn:
            with lock:
                if not self.is_taken:
                    return
                self.is_taken = False
                self._numbers.under_way = None
                self._numbers.release(self.number)
                is_free = self.draws.is_free(self.request, self.number)
            if askers is not None and self.asker is not None:
                askers.release(self.asker.name, self.forks, self.number, is_free=is_free)


def take_swapped() -> int:
    """Return how many recorded draws went to other askers than in the recording, and reset it."""
    with lock:
        number = len(_swapped)
        _swapped.clear()
    return number
