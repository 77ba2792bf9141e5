"""Draws: which numbers are taken for each request in each scope.

One object counts the draws of an outermost scope, by scope path, request and arm, so that a changed or
added call changes no other draw. Paths and keys are kept whole: draws of different requests or
scopes never share a count.

The garbage collector may end a stream, and so give back its number, at any moment and in any thread.
That takes no lock: it puts the number into a queue, which the next draw empties.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ..askers import current as current_asker
from ..notices import warn_once
from ..system import current_task, process_lock, this_process
from ..types import Record
from .equal_requests import EqualRequests, NamedAsker, RecordedAskers
from .numbers import ArmPath, Counts, DrawNumber, ScopedRequest, TakenNumbers

# Held for microseconds only, and never while a caller's code runs.
_lock = process_lock(__name__)


class DrawCounter(Protocol):
    """What counts the draws of a scope: :class:`Draws`, or what passes them on to one."""

    since: float

    def equal_requests(
        self, request: ScopedRequest, source: object, read_askers: Callable[[], RecordedAskers]
    ) -> EqualRequests:
        """Return the equal requests of a scope."""
        ...

    def take(self, request: ScopedRequest, asker: NamedAsker | None) -> DrawNumber:
        """Take a number for a draw and return it."""
        ...

    def claim(self, taken: DrawNumber) -> None:
        """Take a certain number, which was taken elsewhere."""
        ...

    def give_back(self, taken: DrawNumber) -> None:
        """Free a number."""
        ...

    def end(self, request: ScopedRequest, stored_at: float | None) -> None:
        """Note that a call has its answer."""
        ...

    def counts(self) -> Counts:
        """Return the counts, for another process to continue."""
        ...


class _Caller(NamedTuple):
    """Who makes a draw.

    :param thread: the thread's identifier.
    :param task: the identifier of its asyncio task, or of ``None``.
    :param asker: the asker's name, or ``None`` if askers have no names.
    """

    thread: int
    task: int
    asker: str | None


class Draws:
    """Count the draws of one outermost scope.

    A draw in an arm takes the lowest number that neither the arm nor the scope itself has taken. A
    draw of the scope itself takes the lowest number that neither it nor any arm has taken.

    :param counts: earlier draws.
    :param since: when another process opened the scope, in seconds since the epoch: its draws are
        counted from 0 again here. ``None`` if this process opens it now.
    """

    __slots__ = (
        "__weakref__",
        "_equal_requests",
        "_process",
        "_returned",
        "_taken_numbers",
        "_takers",
        "_under_way",
        "since",
    )

    def __init__(self, counts: Counts | None = None, since: float | None = None) -> None:
        self._process = this_process() if since is None else None
        self.since = time.time() if since is None else since
        # Of the scope itself (``None``) and of each arm.
        self._taken_numbers: defaultdict[ArmPath | None, TakenNumbers] = defaultdict(TakenNumbers)
        self._taken_numbers[None] = TakenNumbers()
        for arm, numbers in (counts or {}).items():
            self._taken_numbers[arm] = TakenNumbers(numbers)
        # Numbers that were given back and are not among the free ones yet.
        self._returned: deque[DrawNumber] = deque()
        # Who made a request's last draw, until its call ends.
        self._under_way: dict[ScopedRequest, _Caller] = {}
        # Who asks a request, if askers have names.
        self._equal_requests: dict[ScopedRequest, EqualRequests] = {}
        # By path and key: who took each number in an arm, if askers have names.
        self._takers: dict[tuple[str, str], dict[int, str]] = {}

    def equal_requests(
        self, request: ScopedRequest, source: object, read_askers: Callable[[], RecordedAskers]
    ) -> EqualRequests:
        """Return the equal requests of a scope.

        :param request: one of them.
        :param source: the cassette or cache that holds their records.
        :param read_askers: reads who asked when the draws were recorded.
        """
        equal_requests = self._equal_requests.get(request)
        if equal_requests is None or equal_requests.source is not source:
            # Reads records, so the lock is not held here.
            new = EqualRequests(request, source, read_askers())
            with _lock:
                equal_requests = self._equal_requests.get(request)
                if equal_requests is None or equal_requests.source is not source:
                    self._equal_requests[request] = equal_requests = new
        return equal_requests

    def take(self, request: ScopedRequest, asker: NamedAsker | None) -> DrawNumber:
        """Take a number for a draw and return it.

        It is the lowest free number that was recorded for the asker, or that the same asker took in
        another arm. Otherwise it is the lowest new number, which was recorded for nobody, or, in a
        replay and for an asker that the recording does not name, the lowest free number.

        Warns if another thread or task makes the same request at the same time, unless their askers
        differ.

        :param request: what is drawn.
        :param asker: who asks, or ``None`` if askers have no names.
        """
        name = None if asker is None else asker.name
        caller = _Caller(threading.get_ident(), id(current_task()), name)
        # Reads records, so the lock is not held here.
        askers_beyond_gap = None
        if asker is not None:
            askers_beyond_gap = asker.equal_requests.askers_beyond_gap(asker.name)
        with _lock:
            self._accept_returned()
            if asker is not None and askers_beyond_gap is not None:
                asker.equal_requests.add_recorded(askers_beyond_gap)
            taken = DrawNumber(request, self._next_number(request, asker))
            self._mark_taken(taken)
            if asker is not None:
                asker.equal_requests.note_taken(asker.name, taken.number)
            other_caller = self._under_way.get(request, caller)
            self._under_way[request] = caller
        if asker is not None and other_caller.asker != name:
            asker.equal_requests.were_at_once = True
        if other_caller != caller and other_caller.asker == name:
            callers = "threads" if other_caller.thread != caller.thread else "tasks"
            warn_once(
                f"two {callers} in the scope {request.path!r} make the same request at the same time: timing decides "
                f"which of them gets which draw, and a replay may swap their answers. Give each {callers[:-1]} its own "
                "scope"
            )
        return taken

    def claim(self, taken: DrawNumber) -> None:
        """Take a certain number, which was taken elsewhere, such as in a worker process."""
        with _lock:
            self._accept_returned()
            self._mark_taken(taken)

    def give_back(self, taken: DrawNumber) -> None:
        """Free a number. Call this once for each time that the number was taken."""
        self._under_way.pop(taken.request, None)
        self._returned.append(taken)

    def end(self, request: ScopedRequest, stored_at: float | None) -> None:
        """Note that a call has its answer.

        Warns if two processes that count the scope's draws separately made the same draw.

        :param stored_at: when the answer was recorded, or ``None`` if this call recorded it.
        """
        self._under_way.pop(request, None)
        is_own_process = self._process is this_process()
        if is_own_process or stored_at is None or stored_at < self.since:
            return
        warn_once(
            f"two processes made the same draw in the scope {request.path!r} and share its answer, because each "
            "process counts its own draws. Run the function with llmcall.map(…, executor=…), which counts them "
            "together, or give each task its own scope"
        )

    def counts(self) -> Counts:
        """Return the counts, for another process to continue."""
        with _lock:
            self._accept_returned()
            return {arm: numbers.numbers() for arm, numbers in self._taken_numbers.items()}

    def _next_number(self, request: ScopedRequest, asker: NamedAsker | None) -> int:
        """Return the number that a draw gets; see :meth:`take`."""
        path, key, arm = request
        taken_numbers = self._numbers_to_avoid(arm)

        def is_free(number: int) -> bool:
            return all(numbers.is_free(path, key, number) for numbers in taken_numbers)

        lowest = max(numbers.lowest_free(path, key) for numbers in taken_numbers)
        if asker is None:
            while not is_free(lowest):
                lowest += 1
            return lowest
        name, equal_requests = asker
        own_number = equal_requests.own_number(name, is_free)
        if own_number is not None:
            return own_number
        is_new = equal_requests.gets_new_numbers(name)
        if is_new:
            lowest = max(lowest, equal_requests.lowest_new_number(name))

        def may_take(number: int) -> bool:
            return is_free(number) and not (is_new and equal_requests.is_reserved(number))

        numbers = filter(may_take, itertools.count(lowest))
        if arm is None:
            return next(numbers)
        # The same asker gets the same number in each arm, whichever comes first.
        takers = self._takers.setdefault((path, key), {})
        numbers_in_arms = sorted(number for number, taker in takers.items() if taker == name)
        number_in_arms = next(filter(may_take, numbers_in_arms), None)
        if number_in_arms is not None:
            return number_in_arms
        number = next(number for number in numbers if not (is_new and number in takers))
        takers.setdefault(number, name)
        return number

    def _numbers_to_avoid(self, arm: ArmPath | None) -> list[TakenNumbers]:
        """Return the numbers that a draw in an arm, or outside any, may not take."""
        if arm is None:
            return list(self._taken_numbers.values())
        return [self._taken_numbers[each] for each in (None, arm) if each in self._taken_numbers]

    def _mark_taken(self, taken: DrawNumber) -> None:
        path, key, arm = taken.request
        self._taken_numbers[arm].take(path, key, taken.number)

    def _accept_returned(self) -> None:
        while self._returned:
            request, number = self._returned.popleft()
            self._taken_numbers[request.arm].give_back(request.path, request.key, number)
            if equal_requests := self._equal_requests.get(request):
                equal_requests.give_back(number)


class Draw:
    """One draw: its sample, which stays taken or is given back.

    Any thread may call its methods, and more than once: only the first call counts.

    :param draws: counts it.
    :param request: what is drawn.
    :param source: the cassette or cache that holds records.
    :param read_askers: reads who asked when the draws were recorded.
    :ivar sample: scope path and number, ``"trial/lisa#0"``.
    :ivar asker: who asks, or ``None`` if askers have no names.
    """

    __slots__ = ("_draws", "_pending", "_taken", "asker", "sample")

    def __init__(
        self,
        draws: DrawCounter,
        request: ScopedRequest,
        source: object,
        read_askers: Callable[[], RecordedAskers],
    ) -> None:
        asker = current_asker()
        self.asker: NamedAsker | None = None
        if asker is not None:
            equal_requests = draws.equal_requests(request, source, read_askers)
            self.asker = NamedAsker(asker.name, equal_requests)
        self._draws = draws
        self._taken = draws.take(request, self.asker)
        self.sample = f"{request.path}#{self._taken.number}"
        # The first call that settles the draw pops it, which is atomic.
        self._pending = [True]

    @property
    def taken(self) -> DrawNumber:
        """Return the number that it took."""
        return self._taken

    def end(self, answer: Record | None = None) -> None:
        """Note that its call has an answer; the number stays taken.

        :param answer: the record that counts. If its ``stored_at`` is set, the cache had it, and a
            warning may say that two processes made this draw.
        """
        if self._settle():
            stored_at = None if answer is None else answer.stored_at
            self._draws.end(self._taken.request, stored_at)

    def note_recorded_asker(self, recorded_asker: str | None) -> None:
        """Note that a record answers it.

        :param recorded_asker: the asker in the record, or ``None`` if that is unknown.
        """
        if self.asker is not None:
            name, equal_requests = self.asker
            equal_requests.note_recorded_asker(self._taken.number, name, recorded_asker)

    def give_back(self) -> None:
        """Free its number, unless its call has an answer."""
        if self._settle():
            self._draws.give_back(self._taken)

    def _settle(self) -> bool:
        """Settle the draw; return whether this is the first call to do so."""
        try:
            return self._pending.pop()
        except IndexError:
            return False
