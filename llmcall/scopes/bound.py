"""Bound functions: they run in the scope in which they were bound, in any thread or process."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from types import CoroutineType
from typing import Generic, ParamSpec, TypeVar, cast

from ..errors import ScopeError
from ..support.system import this_process
from ..support.waits import Stops, in_maps, waits
from . import workers
from .active import ActiveScope, here
from .rules import BOUND_IN_A_THREAD

P = ParamSpec("P")
T = TypeVar("T")


class Bound(Generic[P, T]):
    """A function made by :func:`llmcall.bind`, which runs in the scope in which it was bound.

    :ivar function: the function that was bound; it may be a coroutine function.
    """

    def __init__(
        self, function: Callable[P, T], active: ActiveScope | None, stops: Stops = ()
    ) -> None:
        self.function = function
        self._active = active
        self._stops = stops  # of the maps in which it was bound: after Ctrl-C it begins no call
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._scope(), in_maps(self._stops):
            result = self.function(*args, **kwargs)
        if isinstance(result, CoroutineType):
            return cast("T", self._await_result(result))
        return result

    async def _await_result(self, result: Awaitable[object]) -> object:
        with self._scope(), in_maps(self._stops):
            return await result

    def _scope(self) -> AbstractContextManager[ActiveScope | None]:
        active = self._active
        if active is None:
            return nullcontext()
        if active.entered_in != this_process():  # forked: like one that was pickled
            self._stops = ()
            self._active = active = pickle.loads(pickle.dumps(active))
        return active.copy(generators=())

    def __reduce__(self) -> tuple[object, ...]:
        return Bound, (self.function, self._active)


def bind(function: Callable[P, T]) -> Bound[P, T]:
    """Return a function that runs in the current scope, in any thread, executor or process.

    On a cassette its records stand where they would stand if it ran in the current context. So if
    arms run at once in threads, the file does not depend on which was faster.

    :param function: a function, picklable if it goes to another process; it may be asynchronous.
    :returns: a callable with the same arguments. In another process its draws are counted from 0
        again for each task. Tasks that make the same request share an answer there, and a warning
        says so. In an arm, it is a ``ScopeError`` to run it in another process:
        ``llmcall.map(…, executor=…)`` can.
    :raises ScopeError: in a thread that has no scope while another has one open, and between two
        steps of a generator that left the scope open.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> def draw(_):
    ...     return llmcall.client().build_request("Name a fruit.", temperature=1).sample
    >>> with ThreadPoolExecutor() as pool, llmcall.scope("trial-1"):
    ...     list(pool.map(llmcall.bind(draw), range(1)))
    ['trial-1#0']
    """
    active = here()
    if active.opened_by == "default" and workers.is_open_elsewhere():
        raise ScopeError(BOUND_IN_A_THREAD)
    active.check_generators()
    return Bound(function, None if active.opened_by == "default" else active, waits().stops)
