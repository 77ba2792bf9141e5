"""One run of a map: its tasks are submitted as workers become free, and their results collected."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import scopes
from ..call.options import ON_ERROR
from ..config import resolve as config
from ..errors import (
    BudgetExceededError,
    CacheCorruptError,
    CacheMissError,
    ConfigError,
    ScopeError,
)
from ..interrupts import check_stops
from ..notices import logger
from .names import item_words, key_function
from .processes import run_task
from .tasks import NotBegunError, TaskResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..scopes import Journal
    from .bar import Bar
    from .processes import MapGroup, Task
    from .tasks import TaskPosition

# Threads, which mostly wait for a server; fewer if MAX_CONCURRENT_CALLS allows fewer calls.
WORKERS = 32
LOOK_AHEAD = 2  # tasks submitted for each worker, so that none has to wait for its next task
UNKNOWN_WORKERS = 512  # if an executor does not say how many it has, such as a cluster's
MOST_WAITING = 1000  # calls that wait in a window, for which as many other items begin
BATCH_SIZE = 64  # finished tasks that a map waits for, since each waking slows the workers down
TICK = 0.1  # seconds between two checks of outer maps and refreshes of the bar
GRACE = 1.0  # seconds that calls under way get after Ctrl-C

# Errors of the whole run, which the next item would raise too.
ALWAYS_RAISED = (
    ConfigError,
    CacheMissError,
    CacheCorruptError,
    ScopeError,
    BudgetExceededError,
    NotBegunError,
)
CANCELLED = (
    "the executor cancelled it before it began, as executor.shutdown(cancel_futures=True) does: let the map end before "
    "you shut the executor down"
)
_MISSING: Any = object()  # in place of a result that is not there yet


@dataclass(frozen=True)
class MapOptions:
    """The arguments of a map; see :func:`llmcall.map`.

    :raises TypeError: if one has the wrong type.
    :raises ValueError: if one has the wrong value.
    """

    key: Any
    repeats: int
    workers: int | None
    progress: bool | None
    on_error: str
    executor: Executor | None
    scope: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", key_function(self.key))
        checked_count("repeats", self.repeats)
        if self.workers is not None:
            checked_count("workers", self.workers)
        if self.on_error not in ON_ERROR:
            raise ValueError(
                f"on_error is {self.on_error!r}; it must be one of {', '.join(ON_ERROR)}"
            )
        if self.progress is not None and not isinstance(self.progress, bool):
            raise TypeError(
                f"progress is {self.progress!r}; it must be True, False or None (on a terminal or in a notebook)"
            )
        if self.executor is not None and not isinstance(self.executor, Executor):
            hint = ": pass client.get_executor()" if hasattr(self.executor, "get_executor") else ""
            raise TypeError(
                f"executor is {type(self.executor).__name__}; it must be a concurrent.futures.Executor{hint}"
            )
        if self.scope is not None and not isinstance(self.scope, scopes.Scope):
            object.__setattr__(self, "scope", scopes.scope(self.scope))


def checked_count(name: str, value: Any) -> int:
    """Return a whole number of at least 1.

    :param name: the argument's name, for the message.
    :raises TypeError, ValueError: if it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it must be a whole number")
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1")
    return value


class DaemonThreads:
    """Threads that nobody waits for: neither a map that is left nor the end of the interpreter.

    :param most: how many there may be.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._todo: queue.SimpleQueue[tuple[Task, Future[TaskResult]] | None] = queue.SimpleQueue()

    def submit(self, task: Task, future: Future[TaskResult]) -> None:
        """Run a task, and give the future its result."""
        self._todo.put((task, future))
        self.grow(min(self._count + 1, self._most))

    def grow(self, count: int) -> None:
        """Begin further threads, up to so many."""
        while self._count < count:
            self._count += 1
            name = f"llmcall map {self._count}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while (work := self._todo.get()) is not None:
            task, future = work
            if future.set_running_or_notify_cancel():
                future.set_result(task.run())
            del work, task, future  # keep nothing while waiting for the next one

    def end(self) -> None:
        """End the threads, once they have done what was submitted."""
        for _ in range(self._count):
            self._todo.put(None)


class MapRun:
    """One run of a map: it submits tasks as workers become free, and collects their results.

    What happened stands in the tasks alone: each has its draws and the future of its result. So
    Ctrl-C may come at any moment.

    :param tasks: the tasks, made one by one.
    :param count: the number of items, or ``None`` if it is unknown.
    """

    def __init__(
        self,
        group: MapGroup,
        tasks: Iterator[Task],
        count: int | None,
        options: MapOptions,
        bar: Bar,
    ) -> None:
        self._group = group
        self._tasks = tasks
        self._item_count = count
        self._repeats = options.repeats
        self._on_error = options.on_error
        self._bar = bar
        self._workers = _worker_count(options)
        self._threads = DaemonThreads(self._workers)
        self._executor = options.executor
        # Calls that wait in a window make room for others, unless somebody said how many run.
        self._grows = options.workers is None and options.executor is None
        self._begun: dict[int, list[Task]] = {}  # by item, until an iterator yields it
        self._finished: deque[Task] = deque()
        self._is_ready = threading.Event()  # as many have finished as are awaited
        self._batch_size = self._awaited = 1
        group.stops[0].note_change = self._is_ready.set
        self._uncollected = 0
        self._yielded: list[Journal] = []
        self._yielded_count = 0
        self._failed_task: Task | None = None
        self._has_ended = False

    def complete_items(self, batch_size: int = 1) -> Iterator[int]:
        """Yield each item's number once it is complete. Call :meth:`end` after any exception.

        :param batch_size: the number of finished tasks to wait for, but not for long.
        """
        self._batch_size = batch_size
        for task in self._tasks:
            self._submit(task)
            while self._finished or self._is_full():
                yield from self._collect()
        while self._uncollected:
            yield from self._collect()

    def _is_full(self) -> bool:
        # While a whole batch waits to be collected, the workers still have their tasks.
        return self._uncollected >= LOOK_AHEAD * self._most_at_once + self._batch_size - 1

    @property
    def _most_at_once(self) -> int:
        """Return how many tasks may run: more while calls wait in a window."""
        waiting = min(self._group.stops[0].waiting, MOST_WAITING) if self._grows else 0
        return self._workers + waiting

    def _submit(self, task: Task) -> None:
        # Ctrl-C may come during the submission, so the task is noted before.
        self._begun.setdefault(task.position.number, []).append(task)
        self._uncollected += 1
        note = partial(self._note_result, task.position)  # a future keeps it, so it keeps no task
        if self._executor is None:
            task.future = Future()
            task.future.add_done_callback(note)
            self._threads.submit(task, task.future)
        else:
            task.future = self._executor.submit(run_task, task)
            task.future.add_done_callback(note)

    def _note_result(self, position: TaskPosition, future: Future[TaskResult]) -> None:
        """Note a task's result, in the thread that ran it or that got it from another process; what it did
        there counts here. If its error ends the run, no other task begins here.
        """
        task = self._begun[position.number][position.repeat]
        try:
            error = future.exception()
        except CancelledError:
            error = NotBegunError(CANCELLED)
        task.result = result = TaskResult(error=error) if error else future.result()
        try:
            self._group.apply(task, result)
            if result.error is None:
                task.item = None
            elif self._ends_run(result.error):
                self._group.is_over = True
        finally:
            task.is_noted = True
            task.future = None
            self._finished.append(task)
            if self._group.is_over or len(self._finished) >= self._awaited:
                self._is_ready.set()

    def _ends_run(self, error: BaseException) -> bool:
        return (
            self._on_error == "raise"
            or isinstance(error, ALWAYS_RAISED)
            or not isinstance(error, Exception)
        )

    def _collect(self) -> Iterator[int]:
        """Wait a moment for a finished task; yield the number of its item if that is complete.

        :raises BaseException: the task's error, if it ends the run.
        """
        check_stops(self._group.stops[1:])
        if not self._finished:
            self._wait()
            return
        task = self._finished.popleft()
        self._uncollected -= 1
        error = task.result and task.result.error
        if error is not None and self._ends_run(error):
            self._failed_task = task
            raise error
        if error is not None and self._on_error == "none":
            words = item_words(task.item, task.position, self._item_count)
            logger().error("%s failed: %s: %s", words, type(error).__name__, error)
        self._bar.step(self._group.stops[0].waiting, failed=error is not None)
        if self._is_complete(task.position.number):
            yield task.position.number

    def _wait(self) -> None:
        """Wait a moment for finished tasks, or for a call that begins to wait in a window."""
        self._awaited = min(self._batch_size, self._uncollected)
        self._is_ready.clear()
        if not self._finished and not self._is_ready.wait(TICK):
            self._bar.refresh(self._group.stops[0].waiting)
        if self._most_at_once > self._workers:
            self._threads.grow(self._most_at_once)

    # Results

    def _value(self, task: Task) -> Any:
        result = task.result
        if result is None or (result.error is not None and self._ends_run(result.error)):
            return _MISSING
        if result.error is None:
            return result.value
        return result.error if self._on_error == "return" else None

    def _is_complete(self, number: int) -> bool:
        tasks = self._begun.get(number, ())
        return len(tasks) == self._repeats and all(
            each.is_noted and self._value(each) is not _MISSING for each in tasks
        )

    def results(self, length: int | None = None) -> list[Any]:
        """Return the results in the order of the items, with ``None`` for each missing one.

        :param length: the number of items; ``None`` means up to the last one that has a result.
        """
        length = max(max(self._done(), default=-1) + 1, length or 0)
        return [self._result(number) for number in range(length)]

    def _done(self) -> list[int]:
        """Return the item's number of each task that has a value, in order."""
        return [
            task.position.number for task in self._all_begun() if self._value(task) is not _MISSING
        ]

    def complete(self) -> list[int]:
        """Return the indexes of the items that have all results and were not yielded, in order."""
        return sorted(filter(self._is_complete, self._begun))

    def take(self, number: int) -> Any:
        """Return an item's result for the caller, and forget it."""
        result = self._result(number)
        self._yielded_count += self._repeats
        for task in self._begun.pop(number):
            if self._group.active is not None:
                self._yielded.append(task.journal)
        return result

    def _result(self, number: int) -> Any:
        values = [self._value(task) for task in self._begun.get(number, ())]
        results = [None if value is _MISSING else value for value in values]
        results += [None] * (self._repeats - len(results))
        return results if self._repeats > 1 else results[0]

    # The end

    def end(self, error: BaseException, length: int | None = None) -> None:
        """Begin no further task, wait for those under way, but not for calls that wait in a window,
        give all draws back, and attach the results to the exception; once.

        :param error: what ended the run. After ``KeyboardInterrupt``, this waits for a second at
            most.
        :param length: the number of items, if it is known.
        :raises KeyboardInterrupt: if Ctrl-C is pressed while it waits.
        """
        if self._has_ended:
            return
        ending = error
        self._group.is_over = True  # before calls are stopped, so that no worker goes on to a task
        deadline = self._interrupt() if isinstance(error, KeyboardInterrupt) else None
        while (count := len(self._under_way())) and (
            deadline is None or time.monotonic() < deadline
        ):
            try:
                self._cancel()
                if deadline is None and count <= self._group.stops[0].waiting:
                    deadline = self._interrupt()  # hours would pass; another run waits on for them
                time.sleep(TICK / 10)
            except KeyboardInterrupt as interrupt:
                ending = interrupt
                deadline = self._interrupt()
        self._undo_unyielded()
        for journal in self._yielded:
            journal.undo()
        self.close()
        self._report_end(ending)
        # An exception's own class may refuse attributes.
        BaseException.__setattr__(ending, "results", self.results(length))
        self._has_ended = True
        if ending is not error:
            raise ending from error

    def attach_pairs(self, error: BaseException) -> None:
        """Attach to an exception what was not yielded: pairs of index and result."""
        pairs = [(number, self._result(number)) for number in sorted(set(self._done()))]
        BaseException.__setattr__(error, "results", pairs)

    def abandon(self) -> None:
        """End a run whose iterator was left, and give back the draws of results not yielded."""
        self._cancel()
        self._undo_unyielded()

    def close(self) -> None:
        """End the threads, without waiting for them."""
        self._cancel()
        self._threads.end()
        self._group.close()

    def _cancel(self) -> None:
        """Prevent further tasks from beginning."""
        self._group.is_over = True
        for task in self._under_way():
            if (future := task.future) is not None:
                future.cancel()

    def _all_begun(self) -> list[Task]:
        return [task for tasks in list(self._begun.values()) for task in tasks]

    def _under_way(self) -> list[Task]:
        """Return the tasks that were submitted and have not ended."""
        return [task for task in self._all_begun() if not task.is_noted and task.future is not None]

    def _interrupt(self) -> float:
        """Prevent further calls from beginning; return the time until which to wait for the others."""
        if not self._group.stops[0].done():
            self._group.stops[0].set_result(None)
        return time.monotonic() + GRACE

    def _undo_unyielded(self) -> None:
        for task in self._all_begun():
            task.journal.undo()

    def _report_end(self, error: BaseException) -> None:
        """Report how many results are kept, and which item failed."""
        count = self._item_count
        done_count = self._yielded_count + len(self._done())
        of_all = f" of {count * self._repeats}" if count is not None else ""
        done = f"{done_count}{of_all} done"
        if isinstance(error, KeyboardInterrupt):
            if threading.current_thread() is threading.main_thread():
                self._bar.write(f"stopped: {done}; run it again to continue")
            return
        note = done
        if done_count:
            note = f"{done}; finished items are kept, so another run continues from there"
        if self._failed_task is not None:
            words = item_words(self._failed_task.item, self._failed_task.position, count)
            note = f"{words}: {note}"
        if hasattr(error, "add_note"):
            error.add_note(note)
        else:  # Python 3.10
            logger().error("the map ended at %s", note)


def _worker_count(options: MapOptions) -> int:
    """Return the number of tasks that run at once."""
    if options.workers is not None:
        return options.workers
    if options.executor is not None:
        # No public way says how many workers an executor has.
        return getattr(options.executor, "_max_workers", None) or UNKNOWN_WORKERS
    settings = config.settings()
    allowed = settings.limits_max_concurrent_calls  # by one endpoint
    return WORKERS if allowed is None else min(WORKERS, allowed * max(1, len(settings.endpoints)))
