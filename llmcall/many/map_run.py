"""The tasks of a map, from their submission to its results, or to an early end by an error, Ctrl-C or the reader."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sized
from concurrent.futures import CancelledError, Future
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ..config import resolve as config
from ..errors import (
    BudgetExceededError,
    CacheCorruptError,
    CacheMissError,
    ConfigError,
    OutputError,
    ScopeError,
)
from ..scopes.active import ActiveScope, here, next_order
from ..scopes.callers import current_caller
from ..scopes.draws import DrawList, Draws
from ..scopes.position import hold
from ..support import clock
from ..support.frames import is_at_hand
from ..support.notices import logger
from ..support.stops import Stop
from ..support.system import raise_limit_of_files
from ..support.waits import check_stops, set_stops, stops
from ..traffic import usage as metering
from ..traffic.call_listeners import report_refused
from .bar import Bar
from .map_options import of_feature
from .names import ItemNames
from .tasks import MISSING, DaemonThreads, NotBegunError, Task, TaskResult, run_job, tasks_of

if TYPE_CHECKING:
    from .map_options import MapOptions
    from .tasks import Job

LOOK_AHEAD = 2  # tasks submitted for each worker, so that no worker waits for its next task
BATCH_SIZE = 64  # finished tasks to wait for, because each wakeup of the map slows the workers down
TICK = 0.1  # seconds between checks of outer maps, and between refreshes of the bar
QUICK = 0.001  # seconds in which a task finishes that waits for nothing
GRACE = 1.0  # seconds that running calls get after Ctrl-C

# Errors of the whole run; the next item would raise them, too.
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


class Sender(Protocol):
    """A sender of a map's tasks to an executor: what a feature makes for the option ``executor``."""

    def submit(self, task: Task) -> Future[Any]:
        """Send a task; the future's result has ``value`` and ``error``."""

    def note(self, received: object, task: Task) -> None:
        """Note what came of a task: the future's result, or a ``TaskResult`` with its error."""

    def close(self) -> None:
        """End the sending."""


class MapRun:
    """One run of a map: it submits tasks as workers become free, collects their results, and ends.

    The tasks alone hold the state: each has its draws, the future of its result, and the result. So
    Ctrl-C may come at any moment.

    :param context: the caller's context; each task runs in a copy of it.
    :param yields: ``True`` if an iterator yields each result as it comes; else all are returned at the end.
    :ivar active: the scope in which it runs; outside any, its path is empty.
    :ivar begun: the tasks by the number of their item, and by repeat, until an iterator yields them.
    """

    def __init__(
        self, job: Job, items: object, options: MapOptions, context: Context, *, yields: bool
    ) -> None:
        try:
            self.active = context.run(options.active_scope)
        except ScopeError as error:
            path = here().path
            report_refused(path, "a map", error)
            metering.count(None, "llmcall.map", path, {"errors": 1, "refused": 1})
            raise
        self.job = job
        maker = current_caller()
        context.run(hold, caller=maker)  # a pool's thread may know it better
        self.context = context
        self.begun: dict[int, list[Task]] = {}
        self._repeats = options.repeats
        self._on_error = options.on_error
        self._outer_stops = stops(context)
        self._stop = Stop()
        context.run(set_stops, (self._stop, *self._outer_stops))
        self._is_over = False  # no further task may begin
        self._finished: deque[Task] = deque()
        self._uncollected = 0
        self._batch_size = self._awaited = 1 if yields else BATCH_SIZE
        # Gets an item when the awaited number of tasks has finished. Not an Event: Ctrl-C in one of the
        # lines of its wait() leaves its lock released, and would come out as a RuntimeError.
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()
        settings = config.settings() if job.client is None else job.client.settings
        self._workers = options.worker_count(settings)
        # The next item may be long in coming, from a generator or while an iterator is not read.
        with_one = not yields and is_at_hand(items)
        raise_limit_of_files()  # each worker may hold some of the cache
        self._threads = DaemonThreads(self._workers, with_one=with_one)
        self._sender: Sender | None = None
        if options.executor is not None:
            self._sender = of_feature("executor")(self, options.executor)
        self._names = ItemNames(options.item_key, job.identity)
        order = next_order()
        self._tasks = tasks_of(job, items, options.repeats, self._names, self.active, order, maker)
        self._item_count = len(items) if isinstance(items, Sized) else None  # None: unknown
        self._yields = yields
        self._yielded: list[DrawList] = []
        self._yielded_count = 0
        self._failed_task: Task | None = None
        total = None if self._item_count is None else self._item_count * options.repeats
        is_inside = options.progress is None and self._outer_stops  # the map around it has a bar
        self._bar = Bar(False if is_inside else options.progress, total)

    # Tasks are submitted, run, noted and collected

    def as_completed(self) -> Iterator[int]:
        """Run the tasks, and yield each item's number once it is complete. Call :meth:`end` afterwards,
        and after any exception.
        """
        for task in self._tasks:
            self._submit(task)
            while self._finished or self._is_full():
                yield from self._collect()
        while self._uncollected:
            yield from self._collect()

    def _is_full(self) -> bool:
        # While a whole batch waits to be collected, the workers still have their tasks.
        return self._uncollected >= LOOK_AHEAD * self._workers + self._batch_size - 1

    def _submit(self, task: Task) -> None:
        # Noted before the submission, because Ctrl-C may come during it.
        self.begun.setdefault(task.position.number, []).append(task)
        if self._sender is None:
            self._threads.submit(partial(self._run_here, task))
        else:
            task.future = self._sender.submit(task)
            task.future.add_done_callback(partial(self._note_received, task))
        self._uncollected += 1

    def _run_here(self, task: Task) -> None:
        self._note_result(task, self.run_task(task))

    def run_task(self, task: Task) -> TaskResult:
        """Run a task, in a worker's thread, and return its result."""
        if self._is_over:
            return TaskResult(error=NotBegunError())
        scope, context = self.scope_of(task), self.context.copy()
        return context.run(run_job, self.job, task.item, task.position, scope, self._outer_stops)

    def scope_of(self, task: Task) -> ActiveScope:
        """Return the scope in which a task runs."""
        draws = self.active.draws if self.active.path else Draws()
        return task.position.scope(draws, task.draw_list, self.active.used_records)

    def _note_received(self, task: Task, future: Future[Any]) -> None:
        """Note the result of a task that ran on an executor, in the thread that received it."""
        assert self._sender is not None
        try:
            error = future.exception()
        except CancelledError:
            error = NotBegunError(CANCELLED)
        received = TaskResult(error=error) if error else future.result()
        try:
            self._sender.note(received, task)
        finally:
            self._note_result(task, TaskResult(received.value, received.error))

    def _note_result(self, task: Task, result: TaskResult) -> None:
        """Note a task's result. If the error ends the run, no further task begins."""
        task.error = error = result.error
        if error is None:
            task.value = result.value
            task.item = None
        elif self._ends_run(error):
            self._is_over = True
        else:
            task.value = error if self._on_error == "return" else None
        task.future = None
        self._finished.append(task)
        if self._is_over or len(self._finished) >= self._awaited:
            self._wakeups.put(None)

    def _ends_run(self, error: BaseException) -> bool:
        return (
            self._on_error == "raise"
            or isinstance(error, ALWAYS_RAISED)
            or not isinstance(error, Exception)
        )

    def _collect(self) -> Iterator[int]:
        """Wait a moment for a finished task; yield the number of its item if the item is complete."""
        check_stops(self._outer_stops)
        if not self._finished:
            self._wait()
            return
        task = self._finished.popleft()
        self._uncollected -= 1
        if task.error is not None and task.value is MISSING:
            self._failed_task = task
            raise task.error
        if task.error is not None and self._on_error == "none":
            words = task.in_words(self._item_count)
            logger().error("%s failed: %s: %s", words, type(task.error).__name__, task.error)
        self._bar.step(failed=task.error is not None)
        if self._is_complete(task.position.number):
            yield task.position.number

    def _wait(self) -> None:
        """Wait a moment for finished tasks."""
        self._awaited = min(self._batch_size, self._uncollected)
        while not self._wakeups.empty():
            self._wakeups.get()
        if self._finished:
            return
        try:
            self._wakeups.get(timeout=TICK if self._threads.all_started else QUICK)
        except queue.Empty:
            if not self._finished:
                self._threads.start_all()
                self._bar.refresh()

    # Results

    def results(self, length: int = 0) -> list[object]:
        """Return the results in the order of the items, with ``None`` for missing ones. For an iterator,
        return the pairs of index and result not yet yielded.

        :param length: the number of items, if some may not have begun.
        """
        if self._yields:
            done = {task.position.number for task in self._done_tasks()}
            return [(number, self._result(number)) for number in sorted(done)]
        return [self._result(number) for number in range(max(len(self.begun), length))]

    def attach_results(self, error: BaseException) -> None:
        """Attach the results so far to an exception."""
        # Not by setattr(): the exception's class may refuse attributes.
        BaseException.__setattr__(error, "results", self.results(self._item_count or 0))

    def take(self, number: int) -> object:
        """Return an item's result for the caller of an iterator, and forget it."""
        result = self._result(number)
        self._yielded_count += self._repeats
        for task in self.begun.pop(number):
            if self.active.path:
                self._yielded.append(task.draw_list)
        return result

    def not_yielded(self) -> list[int]:
        """Return the numbers of the complete items that were not yielded, in order."""
        return sorted(filter(self._is_complete, self.begun))

    def _is_complete(self, number: int) -> bool:
        tasks = self.begun.get(number, ())
        return len(tasks) == self._repeats and all(task.value is not MISSING for task in tasks)

    def _result(self, number: int) -> object:
        tasks = self.begun.get(number, ())
        results = [None if task.value is MISSING else task.value for task in tasks]
        results += [None] * (self._repeats - len(results))
        return results if self._repeats > 1 else results[0]

    def _begun_tasks(self) -> list[Task]:
        return [task for tasks in list(self.begun.values()) for task in tasks]

    def _done_tasks(self) -> list[Task]:
        return [task for task in self._begun_tasks() if task.value is not MISSING]

    # The end

    def end(self, error: BaseException | None = None) -> None:
        """End the run. It may be called again, after an exception during an earlier call.

        After an error, tasks that have not begun are cancelled, and the others are waited for; after Ctrl-C for
        at most a second. All draws are retracted, and the error gets the results. If the caller leaves an
        iterator, nothing is waited for, and yielded items keep their draws.

        :param error: the exception that ended it: ``None`` if all is done, ``GeneratorExit`` if the
            caller left the iterator.
        :raises KeyboardInterrupt: if Ctrl-C is pressed while it waits.
        """
        self._is_over = True  # before calls are stopped, so that no worker begins another task
        ending = error
        if isinstance(error, GeneratorExit):
            self._cancel()
        elif error is not None:
            ending = self._wait_for_end(error)
            for draw_list in self._yielded:
                draw_list.retract()
        if error is not None:
            for task in self._begun_tasks():
                task.draw_list.retract()
        self._threads.end()
        if self._sender is not None:
            self._sender.close()
        if ending is not None and not isinstance(ending, GeneratorExit):
            self._report(ending)
            self.attach_results(ending)
        self._bar.close()
        if ending is None:
            self._names.warn()
        elif ending is not error:
            raise ending from error

    def _wait_for_end(self, error: BaseException) -> BaseException:
        """Wait for the running tasks; return the error, or a ``KeyboardInterrupt`` that came meanwhile."""
        deadline = self._interrupt() if isinstance(error, KeyboardInterrupt) else None
        while deadline is None or clock.monotonic() < deadline:
            try:
                if self._cancel() <= 0:  # Ctrl-C may have come before one was counted
                    break
                time.sleep(TICK / 10)
            except KeyboardInterrupt as interrupt:
                error = interrupt
                deadline = self._interrupt()
        return error

    def _cancel(self) -> int:
        """Cancel the tasks that have not begun; return the number of tasks that had not finished."""
        for task in self._begun_tasks():
            if (future := task.future) is not None:
                future.cancel()  # threads see that the run is over
        return self._uncollected - len(self._finished)

    def _interrupt(self) -> float:
        """Prevent further calls from beginning; return the time until which to wait for the others."""
        if not self._stop.done():
            self._stop.set_result(None)
        return clock.monotonic() + GRACE

    def _report(self, error: BaseException) -> None:
        """Report the number of finished items, and the item that failed."""
        count = self._item_count
        done_count = self._yielded_count + len(self._done_tasks())
        of_all = f" of {count * self._repeats}" if count is not None else ""
        done = f"{done_count}{of_all} done"
        self._bar.end_at(done_count)
        if isinstance(error, KeyboardInterrupt):
            if threading.current_thread() is threading.main_thread():
                self._bar.write(f"stopped: {done}; run it again to continue")
            return
        note = done
        if isinstance(error, OutputError):
            note = (
                f'{done}; its answers are also kept. on_error="return" continues past such an item'
            )
        elif done_count and not isinstance(error, CacheMissError):
            note = f"{done}; recorded answers are kept: run it again to continue"
        if self._failed_task is not None:
            note = f"{self._failed_task.in_words(count)}: {note}"
        try:
            error.add_note(note)
        except AttributeError:  # on Python 3.10, or if the exception's class refuses attributes
            logger().error("the map ended at %s", note)
