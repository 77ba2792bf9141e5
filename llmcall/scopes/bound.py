"""Bound functions: a scope, taken to other threads and processes.

In another process an arm's draws go on from those at home. If an executor of the standard library
runs the function there, its result, or its exception, brings home what was drawn: pickled, it goes
with the draws, and unpickled at home, it is alone again.
"""

from __future__ import annotations

import functools
import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import CoroutineType
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from ..system import after_fork_in_child, this_process
from ..types import Record
from .draws import Draws
from .equal_requests import EqualRequests
from .numbers import ArmPath, Counts, Number, ScopedRequest, counts_within
from .scope import Active, current

# They pickle what a function returns, and nothing else sees it before.
EXECUTORS = ("concurrent.futures.process", "multiprocessing.pool")


class Bound:
    """A function made by :func:`llmcall.bind`, which runs in the scope in which it was bound.

    :ivar function: the function that was bound; it may be a coroutine function.
    """

    def __init__(
        self, function: Callable[..., Any], active: Active | None, away: Away | None = None
    ) -> None:
        self.function = function
        self._active = active
        self._away = away
        self._token: str | None = None  # of its arm's draws, if they are of this process
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        away = self._away
        if away is None or sys._getframe(1).f_globals.get("__name__") not in EXECUTORS:
            return self._called(args, kwargs)
        try:
            return away.with_draws(self._called(args, kwargs))
        except Exception as error:
            error.drawn = away.with_draws(None)  # type: ignore[attr-defined]
            raise

    def _called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self._scope():
            result = self.function(*args, **kwargs)
        return self._awaited(result) if isinstance(result, CoroutineType) else result

    async def _awaited(self, result: Any) -> Any:
        with self._scope():
            return await result

    def _scope(self) -> AbstractContextManager[Active | None]:
        if self._active is None:
            return nullcontext()
        if self._active.process is not this_process():
            # Forked: it counts as one that was pickled.
            draws = Draws(_counts_in_arm(self._active), self._active.draws.since)
            self._active = self._active.again(draws)
            self._token = None
        return self._active.again()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._active is None:
            return Bound, (self.function, None)
        without = self._active.without_default
        path_without = None if without is None else without.path
        if self._active.arm is not None and self._token is None:
            self._token = _registered(self._active)
        return _arrived, (
            self.function,
            self._active.path,
            self._active.draws.since,
            path_without,
            self._active.arm,
            _counts_in_arm(self._active),
            self._token,
        )


def _arrived(
    function: Callable[..., Any],
    path: str,
    since: float,
    path_without: str | None,
    arm: ArmPath | None,
    counts: Counts,
    home: str | None,
) -> Bound:
    """Return a function that was bound in another process."""
    without = None if path_without is None else Active(path_without, Draws(since=since))
    if home is None:
        return Bound(function, Active(path, Draws(counts, since), without_default=without))
    away = Away(home, AwayDraws(counts, since), deque())
    active = Active(path, away.draws, without_default=without, arm=arm, used=away.used)
    return Bound(function, active, away)


def _counts_in_arm(active: Active) -> Counts:
    """Return the draws that an arm goes on from in another process; none outside an arm."""
    return {} if active.arm is None else counts_within(active.draws.counts(), active.path)


def bind(function: Callable[..., Any]) -> Bound:
    """Return a function that runs in the present scope, in any thread, executor or process.

    :param function: a function, picklable if it goes to another process; it may be asynchronous.
    :returns: a callable with the same arguments. In another process its draws are counted from 0
        again for each task, or in an arm from the arm's draws. Tasks that make the same request
        share an answer there, and a warning says so. A ``ProcessPoolExecutor`` and a
        ``multiprocessing.Pool`` carry the draws of a task in an arm back to the arm.
    :raises ScopeError: between two steps of a generator that left the scope open.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> def draw(_):
    ...     return llmcall.client().build_request("Name a fruit.", temperature=1).sample
    >>> with ThreadPoolExecutor() as pool, llmcall.scope("trial-1"):
    ...     list(pool.map(llmcall.bind(draw), range(1)))
    ['trial-1#0']
    """
    active = current()
    if active is not None:
        active.check_generators()
    return Bound(function, active)


# Coming home


class AwayDraws(Draws):
    """Count an arm's draws in another process, and note them for the process at home.

    :ivar taken: the numbers that were drawn, not given back and not sent home yet.
    """

    __slots__ = ("taken",)

    def __init__(self, counts: Counts, since: float) -> None:
        super().__init__(counts, since)
        self.taken: deque[Number] = deque()

    def take(
        self,
        request: ScopedRequest,
        asker: str | None = None,
        equal: EqualRequests | None = None,
    ) -> int:
        """Return the number of a draw; see :meth:`Draws.take`."""
        number = super().take(request, asker, equal)
        self.taken.append(Number(request, number))
        return number

    def claim(self, request: ScopedRequest, number: int) -> None:
        """Mark a number as taken that another process took; see :meth:`Draws.claim`."""
        super().claim(request, number)
        self.taken.append(Number(request, number))

    def give_back(self, request: ScopedRequest, number: int) -> None:
        """Free a number; see :meth:`Draws.give_back`."""
        try:
            self.taken.remove(Number(request, number))
        except ValueError:
            return  # it was sent home
        super().give_back(request, number)


class Away(NamedTuple):
    """An arm in another process.

    :param home: the token of the arm's draws at home.
    :param draws: counts its draws here.
    :param used: gathers the records that its calls get here.
    """

    home: str
    draws: AwayDraws
    used: deque[Record]

    def with_draws(self, result: Any) -> _WithDraws:
        """Return a result with all that was drawn and used here and not sent home yet."""
        return _WithDraws(result, self.home, _emptied(self.draws.taken), _emptied(self.used))


class _WithDraws(NamedTuple):
    """A result on its way home. Pickled and unpickled, it is the result alone.

    :param home: the token of the arm's draws there.
    :param taken: what was drawn.
    :param used: the records that answered.
    """

    result: Any
    home: str
    taken: list[Number]
    used: list[Record]

    def __reduce__(self) -> tuple[Any, ...]:
        return _come_home, tuple(self)


def _emptied(queue: deque[Any]) -> list[Any]:
    """Take all items of a queue, to which other threads may add more meanwhile."""
    return [queue.popleft() for _ in range(len(queue))]


# What counts an arm's draws here, and what gathers its records, by token: both live as long as the
# arm's scope.
_draws: WeakValueDictionary[str, Draws] = WeakValueDictionary()
_used: WeakValueDictionary[str, deque[Record]] = WeakValueDictionary()


def _registered(active: Active) -> str:
    """Return a token for an arm, under which draws come home."""
    token = os.urandom(8).hex()
    _draws[token] = active.draws
    if active.used is not None:
        _used[token] = active.used
    return token


def _come_home(result: Any, home: str, taken: list[Number], used: list[Record]) -> Any:
    """Count what a bound function drew in another process, and return its result."""
    draws = _draws.get(home)
    if draws is not None:
        for number in taken:
            draws.claim(*number)
    records = _used.get(home)
    if records is not None:
        records.extend(used)
    return result


def _begin_anew() -> None:
    """Forget the arms of the parent in a forked process."""
    _draws.clear()
    _used.clear()


after_fork_in_child(_begin_anew)
