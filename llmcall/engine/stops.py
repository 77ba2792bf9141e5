"""Stops: what ends the calls of an interrupted ``map``, whichever of them waits for a server, a turn or a retry."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import APIError
from .flights import Outcome
from .sockets import shut_down
from .waiting import wait_for_any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Result = TypeVar("Result")

__all__ = ["Stop", "current", "under"]

STOPPED = "the map that this call belongs to was interrupted"


class Stop:
    """Tell the calls of one ``map``, in any number of threads, that they are to end.

    Once it is set, no call of theirs begins, waits on, or tries again: ``KeyboardInterrupt`` is raised where it would.
    Calls that wait for a server go on until :meth:`cut`.

    :param outer: the stop of the ``map`` that this one runs in, which sets and cuts this one too.
    """

    def __init__(self, outer: Stop | None = None) -> None:
        self._set = Outcome()  # what a thread can wait for together with another one
        self._lock = threading.RLock()
        self._outer = outer
        self._inner: list[Stop] = []
        self._cuts: dict[object, Callable[[], Any]] = {}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Let the outer stop, where there is one, set and cut this one while a block runs."""
        if self._outer is None:
            yield
            return
        self._outer._inner.append(self)
        try:
            if self._outer.is_set():
                self.set()
            yield
        finally:
            self._outer._inner.remove(self)

    def is_set(self) -> bool:
        """Return whether the calls are to end."""
        return self._set.done()

    def set(self) -> None:
        """Let no call begin, wait on or be tried again."""
        self._set.settle(None, None)
        for inner in tuple(self._inner):
            inner.set()

    def cut(self) -> None:
        """Cut the connections on which the calls wait; what begins to wait meanwhile takes another cut."""
        with self._lock:  # meanwhile no call can leave, and its thread wait for something else
            for cut in tuple(self._cuts.values()):
                cut()
        for inner in tuple(self._inner):
            inner.cut()

    def check(self) -> None:
        """Raise where the calls are to end.

        :raises KeyboardInterrupt: so that no ``except Exception`` on the way takes it for a failed call.
        """
        if self._set.done():
            raise KeyboardInterrupt(STOPPED)

    def sleep(self, seconds: float) -> None:
        """Sleep, unless the calls are to end."""
        self.wait(None, seconds)
        self.check()

    def wait(self, future: Any, timeout: float | None) -> None:
        """Wait until a future is done or the timeout has passed, unless the calls are to end.

        :param future: as of :mod:`llmcall.engine.waiting`; ``None`` where there is none.
        :param timeout: seconds.
        """
        wait_for_any((self._set,) if future is None else (self._set, future), timeout)
        if future is None or not future.done():
            self.check()

    def perform(self, act: Callable[[], Result], *, begins: bool = True) -> Result:
        """Do what waits for a server, on a connection that can be cut.

        :param begins: whether a call begins with it, which it may no longer once the stop is set.
        """
        thread = threading.get_ident()
        token = self._register(lambda: _shut_down_sockets(thread))
        try:
            if begins:
                self.check()
            return act()
        except APIError as error:
            if self.is_set():
                raise KeyboardInterrupt(STOPPED) from error
            raise
        finally:
            self._forget(token)

    @contextmanager
    def cancelling(self) -> Iterator[None]:
        """Let a cut cancel the running asyncio task while a block of it waits."""
        import asyncio

        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        token = self._register(lambda: loop.call_soon_threadsafe(task.cancel))
        try:
            self.check()
            yield
        finally:
            self._forget(token)

    def _register(self, cut: Callable[[], Any]) -> object:
        token = object()
        with self._lock:
            self._cuts[token] = cut
        return token

    def _forget(self, token: object) -> None:
        with self._lock:
            del self._cuts[token]


_current: ContextVar[Stop | None] = ContextVar("llmcall stop", default=None)


def current() -> Stop | None:
    """Return what stops the calls of the present context, or ``None``."""
    return _current.get()


@contextmanager
def under(stop: Stop | None) -> Iterator[None]:
    """Let a stop hold for the calls of a block; ``None`` means that nothing stops them."""
    token = _current.set(stop)
    try:
        yield
    finally:
        _current.reset(token)


def _shut_down_sockets(thread: int) -> None:
    """Shut down the sockets that a thread uses inside :meth:`Stop.perform`."""
    shut_down(thread, lambda frame: frame.f_code is Stop.perform.__code__)
