"""What ends a call from outside: the interrupt of a ``map``, and the time limit of an attempt in a thread."""

from __future__ import annotations

import queue
import socket
import sys
import threading
import time
from concurrent.futures import wait as wait_for_futures
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import APIError, RequestTimeoutError, ServiceError
from ..forks import after_fork_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from contextlib import AbstractContextManager
    from types import FrameType, TracebackType

    Result = TypeVar("Result")

__all__ = ["TOO_LATE", "Limit", "Stop", "current", "limited", "too_late", "under"]

STOPPED = "the map that this call belongs to was interrupted"
POLL = 0.25  # seconds between two looks of a waiting call at whether it is to end


class Stop:
    """Tell the calls of one ``map``, in any number of threads, that they are to end.

    Once it is set, no call of theirs begins, waits on, or is tried again: ``KeyboardInterrupt`` is raised there.

    :param outer: the stop of the ``map`` that this one runs in, which sets and cuts this one too.
    """

    def __init__(self, outer: Stop | None = None) -> None:
        self._event = threading.Event()
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
        return self._event.is_set()

    def set(self) -> None:
        """Let no call begin, wait on or be tried again."""
        self._event.set()
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


def shut_down(thread: int, is_outside: Callable[[FrameType], bool]) -> bool:
    """Shut down the sockets that a thread uses in a part of its stack, whichever library opened them.

    :param thread: the thread's identifier.
    :param is_outside: tells the innermost frame that belongs to the part no longer.
    :returns: whether the thread is there still; where it is not, no socket is touched.
    """
    frame, inside = sys._current_frames().get(thread), []
    while frame is not None and not is_outside(frame):
        inside.append(frame)
        frame = frame.f_back
    if frame is None:
        return False
    for each in inside:
        for value in tuple(each.f_locals.values()):
            _shut_down(value)
            for held in tuple(vars(value).values()) if hasattr(value, "__dict__") else ():
                _shut_down(held)
    return True


def _shut_down(value: Any) -> None:
    if isinstance(value, socket.socket):
        try:
            socket.socket.shutdown(value, socket.SHUT_RDWR)  # the plain one: that of TLS would wait for the other side
        except OSError:
            return  # it is not connected, or no longer


def _shut_down_sockets(thread: int) -> None:
    """Shut down the sockets that a thread uses inside :meth:`Stop.perform`."""
    shut_down(thread, lambda frame: frame.f_code is Stop.perform.__code__)


LOOK = 10.0  # seconds between two looks of the watching thread at most; it ends when it finds nothing to watch
AGAIN = 0.05  # seconds between two cuts: another connection may have been opened meanwhile
TOO_LATE = "no complete answer within the timeout"


def limited(seconds: float | None) -> AbstractContextManager[Limit | None]:
    """Let what waits for a server in a block wait no longer than some seconds.

    A failure of the connection, after its time has passed, leaves the block as a ``RequestTimeoutError``.

    :param seconds: ``None`` is no limit.
    """
    return nullcontext() if seconds is None else Limit(seconds)


def too_late(limit: Limit | None) -> bool:
    """Return whether a limit has passed and the connection was shut down."""
    return limit is not None and limit.passed


class Limit:
    """Bound the time of a block in the thread that enters it; a context manager.

    :ivar passed: whether the time has passed.
    """

    def __init__(self, seconds: float) -> None:
        self.ends = time.monotonic() + seconds
        self.passed = False
        self._thread = threading.get_ident()
        self._frame: FrameType | None = None

    def __enter__(self) -> Limit:
        self._frame = sys._getframe(1)
        _watch.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _watch.remove(self)
        self._frame = None
        if not self.passed or isinstance(error, RequestTimeoutError):
            return
        if isinstance(error, (ServiceError, OSError)):
            raise _timeout_of(error) from error

    def cut(self) -> bool:
        """Shut down the connections of the block; return whether the block still runs."""
        self.passed = True
        return shut_down(self._thread, lambda frame: frame is self._frame)


def _timeout_of(error: Exception) -> RequestTimeoutError:
    made = RequestTimeoutError(f"{TOO_LATE} ({error})")
    if isinstance(error, APIError):
        made.status_code, made.request_id, made.endpoint = error.status_code, error.request_id, error.endpoint
    return made


class _Watch:
    """Watch all limits, in a thread that runs while there are any.

    Ctrl-C may end any line of a caller's: a plain lock is given back, and a limit that was left behind is found out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: set[Limit] = set()
        self._thread: threading.Thread | None = None
        self._next_look = 0.0
        self._sooner: queue.SimpleQueue[None] = queue.SimpleQueue()

    def add(self, limit: Limit) -> None:
        """Watch a limit, too."""
        with self._lock:
            self._limits.add(limit)
            if self._thread is None or not self._thread.is_alive():
                self._start()
            elif limit.ends < self._next_look:
                self._sooner.put(None)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="llmcall time limits", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None  # the interpreter ends and starts no thread: the timeout of each read still holds

    def remove(self, limit: Limit) -> None:
        """Watch it no longer."""
        with self._lock:
            self._limits.discard(limit)

    def _run(self) -> None:
        while (seconds := self._look()) is not None:
            try:
                self._sooner.get(timeout=seconds)
            except queue.Empty:
                continue

    def _look(self) -> float | None:
        """Cut what has taken too long; return the seconds until the next look, or ``None`` where all is done."""
        with self._lock:
            now = time.monotonic()
            for limit in [each for each in self._limits if each.ends <= now]:
                limit.ends = now + AGAIN
                if not limit.cut():
                    self._limits.discard(limit)
            if not self._limits:
                self._thread = None
                return None
            self._next_look = min(now + LOOK, *(limit.ends for limit in self._limits))
            return self._next_look - now


_watch = _Watch()


def _watch_anew() -> None:
    """Begin anew in a forked process, where the watching thread is not."""
    global _watch
    _watch = _Watch()


after_fork_in_child(_watch_anew)
