"""An event loop in a thread of its own, which stands still while the process forks."""

from __future__ import annotations

import asyncio
import functools
import queue
import socket
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import Context

from ..support.request_origin import LLMCALL, sent_by
from ..support.system import after_fork_in_child, after_fork_in_parent, before_fork
from .wire import beginning

THREADS = 8
LONGEST_HOLD = 5.0  # seconds that a fork waits for what a loop does at the moment
LONGEST_END = 1.0  # seconds that a loop's end waits for its cancelled tasks


class LoopThread:
    """An event loop in a daemon thread, until :meth:`end`.

    :param name: the thread's.
    """

    def __init__(self, name: str) -> None:
        self.loop = asyncio.SelectorEventLoop()  # on Windows, too: it is told of what is readable
        self._thread = threading.Thread(
            target=Context().run, args=(self._run,), name=name, daemon=True
        )
        with sent_by(LLMCALL):
            self.loop.set_default_executor(_Threads(name))
            self._thread.start()
        _running.append(self)

    def _run(self) -> None:
        with sent_by(LLMCALL):  # what the loop sends is unrecorded
            self.loop.run_forever()
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self.loop.run_until_complete(asyncio.wait(tasks, timeout=LONGEST_END))
        self.loop.close()  # and the executor; loop.shutdown_default_executor() would start a thread

    @property
    def is_running(self) -> bool:
        """Return whether it has not ended; a forked process has none."""
        return self in _running

    def end(self) -> None:
        """Stop the loop, and end the thread soon; call it in the loop."""
        if self in _running:
            _running.remove(self)
        self.loop.stop()

    def join(self, seconds: float | None = None) -> None:
        """Wait for the thread's end."""
        self._thread.join(seconds)

    def hold(self) -> threading.Event:
        """Let the loop do nothing until the returned event is set: it holds no lock then that a forked process,
        which lacks its thread, would wait for.
        """
        is_held, is_released = threading.Event(), threading.Event()

        def wait() -> None:
            is_held.set()
            is_released.wait()

        try:
            self.loop.call_soon_threadsafe(wait)
        except RuntimeError:  # it was closed meanwhile
            return is_released
        is_held.wait(LONGEST_HOLD)
        return is_released


class _Threads(ThreadPoolExecutor):
    """The threads in which a loop stores answers and looks up names.

    Those of a pool take no work once the interpreter ends, and none can be started any more in its last
    phase. A child may still call then.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._todo: queue.SimpleQueue[tuple[Future[object], Callable[[], object]] | None] = (
            queue.SimpleQueue()
        )
        for _ in range(THREADS):
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(  # type: ignore[override]  # the loop alone calls it
        self, function: Callable[..., object], /, *args: object, **kwargs: object
    ) -> Future[object]:
        """Call a function in one of the threads."""
        future: Future[object] = Future()
        self._todo.put((future, functools.partial(function, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads, as the loop does when it is closed."""
        for _ in range(THREADS):
            self._todo.put(None)

    def _work(self) -> None:
        while (work := self._todo.get()) is not None:
            future, function = work
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:  # noqa: BLE001 - who waits for the future gets it
                    future.set_exception(error)
            del work, future, function


_running: list[LoopThread] = []


class _Forking(threading.local):
    """What holds while a thread forks: others may fork at the same moment."""

    def __init__(self) -> None:
        self.until_forked = ExitStack()


_forking = _Forking()


@before_fork
def _hold_all() -> None:
    _forking.until_forked.enter_context(beginning)  # first: no further one may begin
    for thread in tuple(_running):
        _forking.until_forked.callback(thread.hold().set)


@after_fork_in_parent
@after_fork_in_child
def _release_all() -> None:
    _forking.until_forked.close()


_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def close_in_forks(kept: socket.socket) -> None:
    """Close a forked process's copy of a socket: who connects would wait for ever if only that was left."""
    _sockets.add(kept)


@after_fork_in_child
def _leave_to_parent() -> None:
    _running.clear()
    for kept in _sockets:
        kept.close()
