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
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..askers import Asker, of_draw
from ..notices import warn_once
from ..system import current_task, process_lock, this_process
from ..values import Record

ARM = "arm"  # the family of the arms

# Held for microseconds only, and never while a caller's code runs.
_lock = process_lock(__name__)


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


class _EqualRequests:
    """Who asks the equal requests of one scope, if askers have names.

    :param source: the cassette or cache that holds their records.
    :param recorded: what that says about them.
    :ivar owners: by number: who took it when it was recorded or, first, in this run.
    :ivar numbers: the same by asker, in order.
    :ivar misplaced: the numbers whose records are of other askers than in this run.
    """

    def __init__(self, source: object, recorded: RecordedAskers) -> None:
        self.source = source
        self.recorded = recorded
        self.owners: dict[int, str] = {}
        self.numbers: dict[str, list[int]] = {}
        self.misplaced: set[int] = set()
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
        self._process = this_process() if since is None else None
        # The lowest number that was never taken, and the free numbers below it.
        self._next: dict[ScopedRequest, int] = {}
        self._free: dict[ScopedRequest, set[int]] = {}
        # The forks in which a request was drawn, by path and key.
        self._forks: dict[tuple[str, str], list[Forks]] = {}
        # The thread and task that made a request's last draw, until its call ends.
        self._under_way: dict[ScopedRequest, tuple[int, int]] = {}
        # Who asks, by path and key; and the last number that each asker took.
        self._equal_requests: dict[tuple[str, str], _EqualRequests] = {}
        self._last: dict[tuple[ScopedRequest, str], int] = {}
        for request, (number, free) in (taken or {}).items():
            self._set_next(request, number)
            if free:
                self._free[request] = set(free)

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
        equal_requests = None
        if asker is not None:
            equal_requests = self._equal_requests_of(request, source, read_askers)
        caller = threading.get_ident(), id(current_task())
        with _lock:
            if asker is None or equal_requests is None:
                number = self._lowest_free(request)
            else:
                number = self._number_of(request, asker.name, equal_requests)
                equal_requests.note_owner(number, asker.name)
                self._last[request, asker.name] = number
            self._mark(request, number)
            other = self._under_way.get(request, caller)
            self._under_way[request] = caller
        if asker is None and other != caller:
            callers = "threads" if other[0] != caller[0] else "tasks"
            warn_once(
                f"two {callers} in the scope {request.path!r} make the same request at the same time: timing decides "
                f"which of them gets which draw, and a replay may swap their answers. Give each {callers[:-1]} its own "
                "scope"
            )
        return Draw(self, request, number, asker)

    def claim(self, request: ScopedRequest, number: int) -> Draw:
        """Take a certain number, which was taken in a worker process."""
        with _lock:
            self._mark(request, number)
        return Draw(self, request, number, None)

    def taken(self) -> Taken:
        """Return what was taken, for another process to continue."""
        with _lock:
            return {
                request: (number, tuple(sorted(self._free.get(request, ()))))
                for request, number in self._next.items()
            }

    def end(self, draw: Draw, stored_at: float | None) -> None:
        """Note that a draw's call has its answer.

        Warns if two processes that count the scope's draws separately made the same draw.

        :param stored_at: when the answer was recorded, or ``None`` if this call recorded it.
        """
        path = draw.request.path
        self._under_way.pop(draw.request, None)
        is_own_process = self._process is this_process()
        if is_own_process or stored_at is None or stored_at < self.since:
            return
        warn_once(
            f"two processes made the same draw in the scope {path!r} and share its answer, because each process counts "
            "its own draws. Run the function with llmcall.map(…, executor=…), which counts them together, or give "
            "each task its own scope"
        )

    def release(self, draw: Draw) -> None:
        """Free a draw's number, once."""
        request, number = draw.request, draw.number
        with _lock:
            if not draw.is_taken:
                return
            draw.is_taken = False
            self._under_way.pop(request, None)
            self._free.setdefault(request, set()).add(number)
            equal_requests = self._equal_requests.get(request[:2])
            if equal_requests is None or draw.asker is None:
                return
            last = request, draw.asker.name
            if self._last.get(last) == number:
                self._last[last] = number - 1
            forks = self._forks[request[:2]]
            if all(self._is_free_in(request._replace(forks=each), number) for each in forks):
                equal_requests.disown(number)

    def note_recorded_asker(self, draw: Draw, recorded: str | None) -> None:
        """Note whose record answers a draw; see :func:`take_misplaced`."""
        with _lock:
            equal_requests = self._equal_requests.get(draw.request[:2])
            if equal_requests is None or draw.asker is None:
                return
            if recorded is None or recorded == draw.asker.name:  # unknown, if only one asked
                return
            equal_requests.misplaced.add(draw.number)
            if equal_requests not in _misplaced:
                _misplaced.append(equal_requests)

    def askers_of(self, request: ScopedRequest) -> set[str]:
        """Return who asked a request, in this run or the recorded one."""
        equal_requests = self._equal_requests.get(request[:2])
        return set() if equal_requests is None else set(equal_requests.numbers)

    def _equal_requests_of(
        self, request: ScopedRequest, source: object, read_askers: Callable[[], RecordedAskers]
    ) -> _EqualRequests:
        found = self._equal_requests.get(request[:2])
        if found is None or found.source is not source:
            new = _EqualRequests(source, read_askers())  # reads records, so without the lock
            with _lock:
                found = self._equal_requests.get(request[:2])
                if found is None or found.source is not source:
                    self._equal_requests[request[:2]] = found = new
        return found

    def _number_of(self, request: ScopedRequest, asker: str, equal_requests: _EqualRequests) -> int:
        """Return the next number of an asker. Its numbers rise, as in a replay."""
        last = self._last.get((request, asker), -1)
        own = equal_requests.numbers.get(asker, [])
        for number in own[bisect_right(own, last) :]:
            if self._is_free(request, number):
                return number
        if not equal_requests.gets_new_numbers(asker):
            return self._lowest_free(request)
        return next(
            number
            for number in itertools.count(max(last + 1, self._lowest_free(request)))
            if number not in equal_requests.owners and self._is_free(request, number)
        )

    def _lowest_free(self, request: ScopedRequest) -> int:
        counted = self._counted_with(request)
        lowest = max((self._lowest_free_in(each) for each in counted), default=0)
        while not all(self._is_free_in(each, lowest) for each in counted):
            lowest += 1
        return lowest

    def _is_free(self, request: ScopedRequest, number: int) -> bool:
        return all(self._is_free_in(each, number) for each in self._counted_with(request))

    def _counted_with(self, request: ScopedRequest) -> list[ScopedRequest]:
        """Return the request in all forks that count it together with this one."""
        return [
            request._replace(forks=each)
            for each in self._forks.get(request[:2], ())
            if not _are_beside(each, request.forks)
        ]

    def _lowest_free_in(self, request: ScopedRequest) -> int:
        return min(self._free.get(request) or (self._next[request],))

    def _is_free_in(self, request: ScopedRequest, number: int) -> bool:
        return number >= self._next[request] or number in self._free.get(request, ())

    def _mark(self, request: ScopedRequest, number: int) -> None:
        unused = self._next.get(request, 0)
        if number >= unused:
            self._set_next(request, number + 1)
            if number > unused:  # those between are free
                self._free.setdefault(request, set()).update(range(unused, number))
        elif request in self._free:
            self._free[request].discard(number)
            if not self._free[request]:
                del self._free[request]

    def _set_next(self, request: ScopedRequest, number: int) -> None:
        if request not in self._next:
            self._forks.setdefault(request[:2], []).append(request.forks)
        self._next[request] = number


def _are_beside(one: Forks, other: Forks) -> bool:
    """Return whether two forks are of one family, such as two arms of a scope."""
    for each, other_each in zip(one, other, strict=False):
        if each != other_each:
            return each.family == other_each.family
    return False


class Draw:
    """One draw: its number, which stays taken or is given back.

    Any thread may call its methods, and more than once.

    :param draws: counts it.
    :param asker: who asks, or ``None`` if askers have no names.
    :ivar is_taken: whether its number was not given back.
    """

    __slots__ = ("_draws", "_has_answer", "asker", "is_taken", "number", "request")

    def __init__(
        self, draws: Draws, request: ScopedRequest, number: int, asker: Asker | None
    ) -> None:
        self._draws = draws
        self.request = request
        self.number = number
        self.asker = asker
        self.is_taken = True
        self._has_answer = False

    @property
    def sample(self) -> str:
        """Return scope path and number, ``"trial/lisa#0"``."""
        return f"{self.request.path}#{self.number}"

    @property
    def outermost_scope(self) -> int | None:
        """Return the number of the user's outermost scope; ``None`` for a map's or a process's."""
        return self._draws.outermost_scope

    def askers(self) -> set[str]:
        """Return who asked the same, in this run or the recorded one."""
        return self._draws.askers_of(self.request)

    def end(self, answer: Record | None = None) -> None:
        """Note that its call has an answer; the number stays taken.

        :param answer: the record that counts. If its ``stored_at`` is set, the cache had it, and a
            warning may say that two processes made this draw.
        """
        self._has_answer = True
        self._draws.end(self, None if answer is None else answer.stored_at)

    def note_recorded_asker(self, recorded: str | None) -> None:
        """Note that a record answers it.

        :param recorded: the asker in the record, or ``None`` if that is unknown.
        """
        self._draws.note_recorded_asker(self, recorded)

    def give_back(self) -> None:
        """Free its number, unless its call has an answer."""
        if not self._has_answer:
            self._draws.release(self)

    def undo(self) -> None:
        """Free its number, though its call may have an answer: the same call will be made again."""
        self._draws.release(self)


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

        :raises KeyboardInterrupt: if the draws were given back, since the map is over.
        """
        if self._outer is not None:
            self._outer.add(draw)
        self.draws.append(draw)
        if self._is_over:
            draw.undo()
            raise KeyboardInterrupt("the map that this call belongs to is over")

    def taken(self) -> list[tuple[ScopedRequest, int]]:
        """Return what was drawn and not given back."""
        return [(draw.request, draw.number) for draw in self.draws if draw.is_taken]

    def undo(self) -> None:
        """Give all draws back."""
        self._is_over = True
        for draw in list(self.draws):
            draw.undo()


_misplaced: list[_EqualRequests] = []  # that got another asker's record


def take_misplaced() -> int:
    """Return how many recorded draws went to other askers than in the recording, and reset it."""
    with _lock:
        found = _misplaced.copy()
        _misplaced.clear()
    return sum(len(each.misplaced) for each in found)
