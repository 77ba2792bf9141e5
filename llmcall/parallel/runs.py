"""One run of a ``map``: tasks go to an executor as there is room, and come back as they finish."""

from __future__ import annotations

import os
import queue
import threading
import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from ..errors import BudgetExceededError, CacheCorruptError, CacheMissError, ConfigError, ScopeError
from . import tasks, workers
from .presses import Presses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

    from .progress import Bar
    from .tasks import Outcome, Task, Work

__all__ = ["Finished", "Run"]

TICK = 0.5  # seconds between two looks at the time and at an outer map
BATCHES = 4  # in a window: while one is taken home and made up for, no worker runs out of tasks
PATIENCE = 5.0  # seconds after which it is said what is waited for

# What concerns the run and not one item: the next item would fail by it as well.
ALWAYS_RAISED = (ConfigError, CacheMissError, CacheCorruptError, ScopeError, BudgetExceededError)


class Finished(NamedTuple):
    """Hold what one draw of one item came to.

    :param number: which item it is, counted from 0.
    """

    number: int
    repeat: int
    value: Any


class Run:
    """Run tasks on an executor.

    :param window: how many tasks may be with the executor at once; no more are taken from the items.
    :param on_error: what becomes of an item's exception: ``raise``, ``none`` or ``return``.
    :param add_usage: adds to the usage what was used in another process.
    :ivar presses: of Ctrl-C, heard by whoever takes what is finished.
    :ivar leftovers: what finished and was not yielded, after :meth:`end`.
    """

    def __init__(
        self,
        executor: Executor,
        window: int,
        work: Work,
        bar: Bar,
        on_error: str,
        add_usage: Callable[[str, str, Any], Any],
    ) -> None:
        self._executor, self._window, self._work = executor, window, work
        self._bar, self._on_error, self._add_usage = bar, on_error, add_usage
        self._running: dict[Future[Outcome], Task] = {}
        self._done: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
        self._enough = threading.Event()  # are done
        self._awaited = self._batch = 1
        self.presses = Presses()
        self.leftovers: list[Finished] = []
        _end_at_exit(self)

    def take_many(self) -> None:
        """Wait for several tasks at once: each time that this thread runs it keeps the workers from running."""
        self._batch = max(1, self._window // BATCHES)

    def finished(self, todo: Iterator[Task]) -> Iterator[Finished]:
        """Yield what each task comes to, as they finish; whatever exception leaves, :meth:`end` must follow it."""
        for task in todo:
            self._submit(task)
            yield from self._ready(len(self._running) >= self._window)
        while self._running:
            yield from self._ready(True)

    def _submit(self, task: Task) -> None:
        self.presses.hold()  # else an interrupt in between would leave a task that nobody knows
        try:
            future = self._executor.submit(tasks.run, task)
            self._running[future] = task
            future.add_done_callback(self._note)
        finally:
            self.presses.release()

    def _note(self, future: Future[Outcome]) -> None:
        """Take note of a task that is done, in the thread that knows it first."""
        self._done.put(future)
        if future.cancelled() or future.exception() is not None or future.result().error is not None:
            self._awaited = self._batch = 1  # it may end the run
        if self._done.qsize() >= self._awaited:
            self._enough.set()

    def _ready(self, block: bool) -> Iterator[Finished]:
        """Yield what is done; wait for the first where ``block`` says so."""
        future = self._next() if block else None
        while True:
            if future is not None:
                yield self._finished(future)
            try:
                future = self._done.get(block=False)
            except queue.Empty:
                return

    def _finished(self, future: Future[Outcome]) -> Finished:
        self.presses.hold()
        try:
            task = self._running.pop(future)
            value = self._value(task, self._outcome(task, future))
        finally:
            self.presses.release()
        self._bar.step()
        return Finished(task.stand.number, task.stand.repeat, value)

    def _next(self) -> Future[Outcome]:
        self._awaited = min(self._batch, len(self._running))
        while True:
            self._enough.clear()
            if self._done.qsize() < self._awaited and not self._enough.wait(TICK):
                self._bar.refresh()
                self._work.stop.check()
            if not self._done.empty():
                return self._done.get()

    def _outcome(self, task: Task, future: Future[Outcome]) -> Outcome:
        """Return what a task came to, and let count here what it did in another process."""
        outcome = task.settle(future.result())
        if outcome.returned is not None:
            workers.take_home(outcome.returned.cargo, self._work.cassette, self._add_usage)
        return outcome

    def _value(self, task: Task, outcome: Outcome) -> Any:
        error = outcome.error
        if error is None:
            return outcome.value
        if self._on_error == "raise" or isinstance(error, ALWAYS_RAISED) or not isinstance(error, Exception):
            raise error
        if self._on_error == "return":
            return error
        _log().error("item %d failed: %s: %s", task.stand.number, type(error).__name__, error)
        return None

    # The end after an exception

    def end(self, error: BaseException) -> BaseException:
        """Cancel what has not begun, wait for what has, and return the exception to raise: now nothing runs any more.

        :param error: what ended the run. ``KeyboardInterrupt``, or one that comes while this waits, cuts the
            connections of what has begun; it never leaves from here.
        """
        pressed = [error] if isinstance(error, KeyboardInterrupt) else []
        with self.presses.heard(pressed):
            self._wait_for_all(pressed)
            for future, task in self._running.items():
                self._keep(task, future)
            self._running.clear()
        return pressed[0] if pressed else error

    def close(self) -> None:
        """Leave nothing to end with the interpreter: it is over."""
        _live.discard(self)

    def _wait_for_all(self, pressed: list[KeyboardInterrupt]) -> None:
        self._work.halt()
        board = self._work.board()
        marks = set() if board is None else board.marks()
        for future, task in self._running.items():
            # What has begun is waited for. Not every executor says that it has: Dask's futures let themselves be
            # cancelled all the same, and its tasks run on.
            if not task.has_begun(marks):
                future.cancel()
        begun, said = time.monotonic(), False
        interrupted: float | None = None
        while left := [each for each in self._running if not each.done()]:
            now = time.monotonic()
            if pressed and interrupted is None:
                self._work.interrupt()
                interrupted = now
            if interrupted is not None and now - interrupted >= workers.GRACE:
                self._work.stop.cut()
            wait(left, workers.CUT_AGAIN)
            if not said and now - begun >= PATIENCE:
                said = True
                _log().warning("the map ends as soon as the code of %d items does that had begun", len(left))

    def _keep(self, task: Task, future: Future[Outcome]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        outcome = self._outcome(task, future)
        error = outcome.error
        if error is None or (self._on_error == "return" and isinstance(error, Exception)):
            value = outcome.value if error is None else error
            self.leftovers.append(Finished(task.stand.number, task.stand.repeat, value))


_live: WeakSet[Run] = WeakSet()


def _end_at_exit(run: Run) -> None:
    """End a run with the interpreter, where Ctrl-C has ended whoever asked an ``imap`` for results.

    It must come before the interpreter waits for the threads of all pools, as only ``threading``'s own hook does, which
    ``concurrent.futures`` uses as well.
    """
    if not _registered and hasattr(threading, "_register_atexit"):
        _registered.append(True)
        threading._register_atexit(_end_all)
    _live.add(run)


_registered: list[bool] = []


def _end_all() -> None:
    for run in list(_live):
        run.end(KeyboardInterrupt())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_live.clear)  # a forked process would wait for threads that are not in it


def _log() -> Any:
    import logging

    return logging.getLogger("llmcall")
