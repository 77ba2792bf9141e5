"""Bound functions: they run in the scope in which they were bound, in any thread or process.

In a worker process an arm's draws go on from those in the parent process, and are sent to the parent
process with the function's result.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import CoroutineType
from typing import Any, NamedTuple

from ..config.resolve import expecting, given_in_code
from ..errors import ScopeError
from ..interrupts import Stops, current_stops, in_maps
from ..system import this_process
from . import workers
from .call_order import CallOrder
from .draws import Draws
from .numbers import ArmPath, Counts, counts_within
from .scope import ActiveScope, scope_around
from .worker_draws import (
    WorkerDraws,
    is_called_by_executor,
    register_arm,
    registered_arm,
    warn_of_refresh,
)

IN_A_THREAD = (
    "llmcall.bind is called in a thread that has no scope, but another thread has one open: the function would not run "
    "in that scope. Call llmcall.bind in the thread that opened the scope, before you pass the function on: libraries "
    "such as joblib run generators in threads of their own. If the function opens its own scope, leave out llmcall.bind"
)


class Bound:
    """A function made by :func:`llmcall.bind`, which runs in the scope in which it was bound.

    :ivar function: the function that was bound; it may be a coroutine function.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        active: ActiveScope | None,
        settings: Mapping[str, Any],
        stops: Stops = (),
    ) -> None:
        self.function = function
        self._active = active
        self._settings = settings  # what code had set when it was bound
        self._stops = stops  # of the maps in which it was bound: after Ctrl-C it begins no call
        self._token: str | None = None  # of its arm, if the arm is of this process
        self._bound_in = os.getpid()
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        draws = None if self._active is None else self._active.draws
        if isinstance(draws, WorkerDraws) and is_called_by_executor(1):
            return draws.call_for_executor(functools.partial(self._call, args, kwargs))
        return self._call(args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        scope = self._scope()
        with in_maps(self._stops), scope, self._expected_settings():
            result = self.function(*args, **kwargs)
        return self._await_result(result) if isinstance(result, CoroutineType) else result

    async def _await_result(self, result: Any) -> Any:
        scope = self._scope()
        with in_maps(self._stops), scope, self._expected_settings():
            return await result

    def _expected_settings(self) -> AbstractContextManager[None]:
        is_of_this_process = self._bound_in == os.getpid()
        return nullcontext() if is_of_this_process else expecting(self._settings)

    def _scope(self) -> AbstractContextManager[ActiveScope | None]:
        active = self._active
        if active is None:
            return nullcontext()
        if active.entered_in is not this_process():
            # Forked: it counts as one that was pickled, but its draws cannot be sent.
            self._token = None
            self._stops = ()
            self._active = active = _unpacked(_packed(active), None)
        return active.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        active = self._active
        if active is None:
            return _unpickled, (self.function, None, None, self._settings, self._bound_in)
        if active.arm is not None and self._token is None:
            warn_of_refresh(active.arm)
            self._token = register_arm(active.draws, active.used_records)
        return _unpickled, (
            self.function,
            _packed(active),
            self._token,
            self._settings,
            self._bound_in,
        )


class _Packed(NamedTuple):
    """A scope as another process gets it.

    :param path: its path.
    :param path_without_default: the path of the scope that would be current without a default
        scope, if there is one.
    :param since: when its outermost scope was opened, in seconds since the epoch.
    :param arm: the arm that it stands in, or ``None``.
    :param counts: the draws that an arm goes on from; none outside an arm.
    :param order: the order of the item or arm in which it stands.
    :param is_gathered: whether the parent process gathers the records that its calls get.
    """

    path: str
    path_without_default: str | None
    since: float
    arm: ArmPath | None
    counts: Counts
    order: CallOrder
    is_gathered: bool


def _packed(active: ActiveScope) -> _Packed:
    """Return a scope for another process."""
    without_default = active.without_default
    in_arm = active.arm is not None
    return _Packed(
        path=active.path,
        path_without_default=None if without_default is None else without_default.path,
        since=active.draws.since,
        arm=active.arm,
        counts=counts_within(active.draws.counts(), active.path) if in_arm else {},
        order=active.order,
        is_gathered=active.used_records is not None,
    )


def _unpacked(packed: _Packed, token: str | None) -> ActiveScope:
    """Return a scope of another process.

    :param token: its arm's token in that process, or ``None``.
    """
    without_default = None
    if packed.path_without_default is not None:
        draws_without_default = Draws(since=packed.since)
        without_default = ActiveScope(packed.path_without_default, draws_without_default)
    draws = Draws(packed.counts, packed.since)
    used_records = None
    if packed.arm is not None:
        draws = WorkerDraws(packed.counts, packed.since, token)
        used_records = draws.used_records if packed.is_gathered else None
    return ActiveScope(
        packed.path,
        draws,
        without_default=without_default,
        arm=packed.arm,
        used_records=used_records,
        order=packed.order,
    )


def _unpickled(
    function: Callable[..., Any],
    packed: _Packed | None,
    token: str | None,
    settings: Mapping[str, Any],
    bound_in: int,
) -> Bound:
    """Return a function that was pickled.

    :param packed: its scope, or ``None`` outside any.
    :param token: its arm's token, or ``None`` outside an arm.
    :param settings: what code had set when it was bound.
    :param bound_in: the process in which it was bound.
    """
    active = None if packed is None else _unpacked(packed, token)
    arm_of_this_process = None if token is None else registered_arm(token)
    if active is not None and arm_of_this_process is not None:
        active.draws, active.used_records = arm_of_this_process
    bound = Bound(function, active, settings)
    bound._bound_in = bound_in
    return bound


def bind(function: Callable[..., Any]) -> Bound:
    """Return a function that runs in the current scope, in any thread, executor or process.

    On a cassette its records stand where they would stand if it ran in the current context. So if
    arms run at once in threads, the file does not depend on which was faster.

    :param function: a function, picklable if it goes to another process; it may be asynchronous.
    :returns: a callable with the same arguments. In another process its draws are counted from 0
        again for each task. Tasks that make the same request share an answer there, and a warning
        says so. In an arm, its draws go on from the arm's, and the arm counts them when it gets the
        result, if a ``ProcessPoolExecutor``, a ``multiprocessing.Pool`` or joblib's processes call
        it; otherwise a draw in another process is a ``ScopeError``. If a setting that code gave here
        has another value there, its calls raise a ``ConfigError``.
    :raises ScopeError: in a thread that has no scope while another has one open, and between two
        steps of a generator that left the scope open.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> def draw(_):
    ...     return llmcall.client().build_request("Name a fruit.", temperature=1).sample
    >>> with ThreadPoolExecutor() as pool, llmcall.scope("trial-1"):
    ...     list(pool.map(llmcall.bind(draw), range(1)))
    ['trial-1#0']
    """
    active = scope_around()
    if active is not None:
        active.check_generators()
    elif workers.is_open_elsewhere():
        raise ScopeError(IN_A_THREAD)
    return Bound(function, active, given_in_code(), current_stops.get())
