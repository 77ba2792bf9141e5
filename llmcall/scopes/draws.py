"""Draws: which number of a request is next, for each request in each scope.

One object counts the draws of an outermost scope, by scope path and request, so a changed or added
call changes no other draw. Arms, and the cells of a table that varies, are forks: they go on from what
was drawn before them, and not from what is drawn beside them.
"""

from __future__ import annotations

import itertools
import threading
import time
from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ..askers import Asker, of_draw
from ..notices import warn_once
from ..system import current_task, lock, this_process
from ..values import Record

ARM = "arm"  # the family of the arms


class Fork(NamedTuple):
    """An arm, or a cell of a table that varies.

    :param family: ``ARM``, or what identifies the table. Members of a family don't count each other's
        draws.
    :param path: the path of the scope that an arm forks; empty for a cell.
    :param name: the arm's name, or the cell's number.
    """

    family: str
    path: str
    name: str


# Outside any fork, empty. In a fork, this follows the fork in which it was made.
Forks = tuple[Fork, ...]


class ScopedRequest(NamedTuple):
    """A request as it is drawn in a scope.

    :param path: the scope path.
    :param key: the key of the request outside any scope.
    :param forks: the forks in which the scope stands.
    """

    path: str
    key: str
    forks: Forks = ()


# For each request: the lowest number that was never taken, and the free numbers below it. Plain data,
# which is sent to other processes.
Taken = Mapping[ScopedRequest, tuple[int, tuple[int, ...]]]


class RecordedAskers(NamedTuple):
    """What a cassette or cache says about equal requests in one scope.

    :param askers: the askers' names by draw number.
    :param is_recording: whether it is still recording: then no asker gets another one's draw.
    :param may_ask: whether a draw that is not recorded may be asked and recorded.
    """

    askers: Mapping[int, str] = {}
    is_recording: bool = False
    may_ask: bool = False


class _Numbers:
    """The numbers of one request that one fork has taken.

    :ivar unused: the lowest one that was never taken.
    :ivar free: those below it that were given back, or passed over.
    """

    __slots__ = ("free", "unused")

    def __init__(self, unused: int = 0, free: Iterable[int] = ()) -> None:
        self.unused = unused
        self.free = set(free)

    def is_free(self, number: int) -> bool:
        return number >= self.unused or number in self.free

    def lowest_free(self) -> int:
        return min(self.free, default=self.unused)


class _EqualRequests:
    """The draws of one request in one scope: by which fork a number is taken, and who asks.

    :ivar numbers: those that each fork has taken.
    :ivar under_way: the thread and task that made a fork's last draw, until its call ends.
    :ivar askers: who asks, if askers have names.
    """

    def __init__(self) -> None:
        self.numbers: dict[Forks, _Numbers] = {}
        self.under_way: dict[Forks, tuple[int, int]] = {}
        self.askers: _Askers | None = None

    def mark(self, forks: Forks, number: int) -> None:
        """Note that a fork takes a number."""
        numbers = self.numbers.setdefault(forks, _Numbers())
        numbers.free.update(range(numbers.unused, number))
        numbers.free.discard(number)
        numbers.unused = max(numbers.unused, number + 1)

    def is_free(self, number: int, forks: Forks) -> bool:
        """Return whether a fork may take a number."""
        return all(each.is_free(number) for each in self._counted_with(forks))

    def lowest_free(self, forks: Forks) -> int:
        """Return the lowest number that a fork may take."""
        counted = self._counted_with(forks)
        lowest = max((each.lowest_free() for each in counted), default=0)
        while not all(each.is_free(lowest) for each in counted):
            lowest += 1
        return lowest

    def _counted_with(self, forks: Forks) -> list[_Numbers]:
        """Return the numbers of a fork, and of those around and inside it."""
        return [numbers for each, numbers in self.numbers.items() if not _are_beside(each, forks)]

    def number_for(self, asker: str, forks: Forks) -> int:
        """Return the next number of an asker. Its numbers rise, as in a replay."""
        assert self.askers is not None
        last = self.askers.last.get((forks, asker), -1)
        own = self.askers.numbers.get(asker, [])
        for number in own[bisect_right(own, last) :]:
            if self.is_free(number, forks):
                return number
        lowest = self.lowest_free(forks)
        if not self.askers.gets_new_numbers(asker):
            return lowest
        return next(
            number
            for number in itertools.count(max(last + 1, lowest))
            if number not in self.askers.owners and self.is_free(number, forks)
        )

    def release(self, draw: Draw) -> None:
        """Free the number of a draw."""
        forks, number = draw.request.forks, draw.number
        self.under_way.pop(forks, None)
        self.numbers[forks].free.add(number)
        if self.askers is None or draw.asker is None:
            return
        if self.askers.last.get((forks, draw.asker.name)) == number:
            self.askers.last[forks, draw.asker.name] = number - 1
        if all(each.is_free(number) for each in self.numbers.values()):
            self.askers.disown(number)


class _Askers:
    """Who asks the equal requests of one scope.

    :param source: the cassette or cache that holds their records.
    :param recorded: what that says about them.
    :ivar owners: by number: who took it when it was recorded or, first, in this run.
    :ivar numbers: the same by asker, in order.
    :ivar last: the last number that each asker took in a fork.
    """

    def __init__(self, source: object, recorded: RecordedAskers) -> None:
        self.source = source
        self.recorded = recorded
        self.owners: dict[int, str] = {}
        self.numbers: dict[str, list[int]] = {}
        self.last: dict[tuple[Forks, str], int] = {}
        for number, asker in recorded.askers.items():
            self.note_owner(number, asker)

    def note_owner(self, number: int, asker: str) -> None:
        """Note who takes a number, unless it has an owner."""
        if number not in self.owners:
            self.owners[number] = asker
            insort(self.numbers.setdefault(asker, []), number)

    def disown(self, number: int) -> None:
        """Note that a number was given back; a recorded one is still its asker's."""
        if number in self.owners and number not in self.recorded.askers:
            self.numbers[self.owners.pop(number)].remove(number)

    def gets_new_numbers(self, asker: str) -> bool:
        """Return whether an asker without a recorded number gets a new one, which is recorded.

        Otherwise it gets what is left: in a replay, or if the program changed and no record has its
        name.
        """
        recorded = self.recorded
        if recorded.is_recording or not recorded.askers:
            return True
        return recorded.may_ask and asker in recorded.askers.values()


def _are_beside(one: Forks, other: Forks) -> bool:
    """Return whether two forks are of one family, such as two arms of a scope."""
    for each, other_each in zip(one, other, strict=False):
        if each != other_each:
            return each.family == other_each.family
    return False


class Draws:
    """Count the draws of one outermost scope.

    A draw takes the lowest number that was taken neither in its fork, nor in those around or inside
    it: so equal requests of two arms share an answer.

    :param taken: earlier draws.
    :param since: when another process opened the scope, in seconds since the epoch: its draws are
        counted from 0 again here. ``None`` if this process opens it now.
    :param outermost_scope: the number of the user's outermost scope, or ``None`` for other draws.
    """

    def __init__(
        self,
        taken: Taken | None = None,
        since: float | None = None,
        outermost_scope: int | None = None,
    ) -> None:
        self.outermost_scope = outermost_scope
        self.since = time.time() if since is None else since
        self.process = this_process() if since is None else None  # that opened the scope
        self._equal_requests: dict[tuple[str, str], _EqualRequests] = {}  # by path and key
        for request, (unused, free) in (taken or {}).items():
            self._equal_to(request).numbers[request.forks] = _Numbers(unused, free)

    def _equal_to(self, request: ScopedRequest) -> _EqualRequests:
        found = self._equal_requests.get(request[:2])
        return found or self._equal_requests.setdefault(request[:2], _EqualRequests())

    def take(
        self, request: ScopedRequest, source: object, read_askers: Callable[[], RecordedAskers]
    ) -> Draw:
        """Take the next number of a request.

        An asker with a name gets the lowest free number that was recorded for it, or that it took in
        another arm. Otherwise it gets the lowest new one or, in a replay, the lowest that is left.

        Warns if another thread or task makes the same request at the same time, unless askers have
        names.

        :param source: the cassette or cache that holds records of the request.
        :param read_askers: reads who asked when the draws were recorded.
        """
        asker = of_draw()
        equal = self._equal_to(request)
        askers = equal.askers
        if asker is not None and (askers is None or askers.source is not source):
            askers = _Askers(source, read_askers())  # reads records, so without the lock
        forks = request.forks
        caller = threading.get_ident(), id(current_task())
        with lock:
            if asker is None:
                number = equal.lowest_free(forks)
            else:
                if equal.askers is None or equal.askers.source is not source:
                    equal.askers = askers
                assert equal.askers is not None
                number = equal.number_for(asker.name, forks)
                equal.askers.note_owner(number, asker.name)
                equal.askers.last[forks, asker.name] = number
            equal.mark(forks, number)
            other = equal.under_way.get(forks, caller)
            equal.under_way[forks] = caller
        if asker is None and other != caller:
            callers = "threads" if other[0] != caller[0] else "tasks"
            warn_once(
                f"give each {callers[:-1]} its own scope: two {callers} in the scope {request.path!r} make the same "
                "request at the same time, so a replay may swap their answers"
            )
        return Draw(self, equal, request, number, asker)

    def claim(self, request: ScopedRequest, number: int) -> Draw:
        """Take a certain number, which was taken in a worker process."""
        with lock:
            equal = self._equal_to(request)
            equal.mark(request.forks, number)
        return Draw(self, equal, request, number, None)

    def taken(self) -> Taken:
        """Return what was taken, for another process to continue."""
        with lock:
            return {
                ScopedRequest(path, key, forks): (numbers.unused, tuple(sorted(numbers.free)))
                for (path, key), equal in self._equal_requests.items()
                for forks, numbers in equal.numbers.items()
            }


_misplaced: set[Draw] = set()  # that got another asker's record


class Draw:
    """One draw: its number, which stays taken or is given back.

    Any thread may call its methods, and more than once.

    :param asker: who asks, or ``None`` if askers have no names.
    :ivar sample: scope path and number, ``"trial/lisa#0"``.
    :ivar is_taken: whether its number was not given back.
    """

    __slots__ = (
        "_equal",
        "_has_answer",
        "asker",
        "draws",
        "is_taken",
        "number",
        "request",
        "sample",
    )

    def __init__(
        self,
        draws: Draws,
        equal: _EqualRequests,
        request: ScopedRequest,
        number: int,
        asker: Asker | None,
    ) -> None:
        self.draws = draws
        self._equal = equal
        self.request = request
        self.number = number
        self.sample = f"{request.path}#{number}"
        self.asker = asker
        self.is_taken = True
        self._has_answer = False

    def askers(self) -> set[str]:
        """Return who asked the same, in this run or the recorded one."""
        return set() if self._equal.askers is None else set(self._equal.askers.numbers)

    def note_recorded_asker(self, recorded: str | None) -> None:
        """Note that a record answers it; see :func:`take_misplaced`.

        :param recorded: the asker in the record; ``None`` if that is unknown, because only one asked.
        """
        if self.asker is not None and recorded not in (None, self.asker.name):
            _misplaced.add(self)

    def end(self, answer: Record | None = None) -> None:
        """Note that its call has an answer; the number stays taken.

        Warns if two processes that count the scope's draws separately made this draw.

        :param answer: the record that counts. Its ``stored_at`` is set if the cache had it.
        """
        self._has_answer = True
        self._equal.under_way.pop(self.request.forks, None)
        stored_at = None if answer is None else answer.stored_at
        if (
            stored_at is None
            or stored_at < self.draws.since
            or self.draws.process == this_process()
        ):
            return
        warn_once(
            f"two processes made the same draw in the scope {self.request.path!r} and share its answer. Run the "
            "function with llmcall.map(…, executor=…), which counts for all processes, or give each task its own scope"
        )

    def give_back(self) -> None:
        """Free its number, unless its call has an answer."""
        if not self._has_answer:
            self.undo()

    def undo(self) -> None:
        """Free its number, though its call may have an answer: the same call will be made again."""
        with lock:
            if self.is_taken:
                self.is_taken = False
                self._equal.release(self)


def take_misplaced() -> int:
    """Return how many recorded draws went to other askers than in the recording, and reset it."""
    with lock:
        number = len(_misplaced)
        _misplaced.clear()
    return number


class MapIsOverError(KeyboardInterrupt):
    """Raised for a draw in a ``map`` that is over, so that no ``except Exception`` takes it for a
    failed call.
    """


class Journal:
    """The draws of one item of a ``map``, which are given back if the map ends early.

    :param outer: that of the item in which the map runs, or ``None``.
    """

    __slots__ = ("_is_over", "_outer", "draws")

    def __init__(self, outer: Journal | None = None) -> None:
        self.draws: list[Draw] = []
        self._outer = outer
        self._is_over = False

    def add(self, draw: Draw) -> None:
        """Add a draw.

        :raises MapIsOverError: if the draws were given back.
        """
        if self._outer is not None:
            self._outer.add(draw)
        self.draws.append(draw)
        if self._is_over:
            draw.undo()
            raise MapIsOverError("the map that this call belongs to is over")

    def taken(self) -> list[tuple[ScopedRequest, int]]:
        """Return what was drawn and not given back."""
        return [(draw.request, draw.number) for draw in self.draws if draw.is_taken]

    def undo(self) -> None:
        """Give all draws back."""
        self._is_over = True
        for draw in list(self.draws):
            draw.undo()
