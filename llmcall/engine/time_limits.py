"""Time limits on what waits for a server in a thread, however slowly that sends.

The timeouts of HTTP libraries bound each read. A server that sends a byte now and then, in the head of its answer, in
the body of an error or in a comment of a stream, would hold a call for as long as it likes. So one thread watches all
limits of the process, and shuts down the connection on which a call still waits when its limit has passed. A look-up of
a host's name waits on no connection: the system's resolver alone bounds it.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from ..errors import APIError, RequestTimeoutError, ServiceError
from .sockets import shut_down

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import FrameType, TracebackType

__all__ = ["TOO_LATE", "Limit", "limited", "too_late"]

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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_watch_anew)
