"""The interrupt of a ``map``: what tells its calls, in any number of threads, that they are to end."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait as wait_for_futures
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

__all__ = ["Stop", "current", "under"]

STOPPED = "the map that this call belongs to was interrupted"
POLL = 0.25  # seconds between two looks of a waiting call at whether it is to end


class Stop:
    """Tell the calls of one ``map`` that they are to end.

    Once it is set, no call of theirs begins, waits on, or is tried again: ``KeyboardInterrupt`` is raised there. One
    that waits for its server goes on, and its answer is stored if it comes.

    :param outer: the stop of the ``map`` that this one runs in, which sets this one too.
    """

    def __init__(self, outer: Stop | None = None) -> None:
        self._event = threading.Event()
        self._outer = outer
        self._inner: list[Stop] = []

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Let the outer stop, where there is one, set this one while a block runs."""
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
        return self._event.is_set()

    def set(self) -> None:
        """Let no call begin, wait on or be tried again."""
        self._event.set()
        for inner in tuple(self._inner):
            inner.set()

    def check(self) -> None:
        """Raise where the calls are to end.

        :raises KeyboardInterrupt: so that no ``except Exception`` on the way takes it for a failed call.
        """
        if self._event.is_set():
            raise KeyboardInterrupt(STOPPED)

    def sleep(self, seconds: float) -> None:
        """Sleep, unless the calls are to end."""
        self._event.wait(seconds)
        self.check()

    def wait(self, future: Future[Any], seconds: float | None) -> None:
        """Wait until a future is done or some seconds have passed, unless the calls are to end."""
        ends = None if seconds is None else time.monotonic() + seconds
        while not future.done():
            self.check()
            left = POLL if ends is None else ends - time.monotonic()
            if left <= 0:
                return
            wait_for_futures([future], min(POLL, left))


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
