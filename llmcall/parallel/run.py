"""One run of a map: its tasks are submitted as workers become free, and their results collected."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import TYPE_CHECKING, Any

from ..config import resolve as config
from ..errors import (
    BudgetExceededError,
    CacheCorruptError,
    CacheMissError,
    ConfigError,
    ScopeError,
    shorten,
)
from ..failures import Failures
from ..interrupts import check_stops
from ..notices import logger
from .finished_tasks import FinishedTasks
from .item_names import item_words
from .results import Results, attach
from .task_results import NotBegunError, TaskResult
from .tasks import Task, TaskGroup, apply_report, run_task
from .threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..scopes import Journal
    from .bar import Bar
    from .options import MapOptions

# Threads, which mostly wait for a server; fewer if MAX_CONCURRENT_CALLS allows fewer calls.
WORKERS = 32
LOOK_AHEAD = 2  # tasks submitted for each worker, so that none has to wait for its next task
BATCH_SIZE = 64  # finished tasks that a map in threads waits for; more would gain little
UNKNOWN_WORKERS = 512  # if an executor does not say how many it has, such as a cluster's
TICK = 0.1  # seconds between two checks of outer maps and refreshes of the bar
GRACE = 1.0  # seconds that calls under way get after Ctrl-C
WARNING_AFTER = 5.0  # seconds of waiting at the end, after which a warning says for what

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


class MapRun:
    """One run of a map: it submits tasks as workers become free, and collects their results.

    :param tasks: the tasks, made one by one.
    :param count: the number of items, or ``None`` if it is unknown.
    :ivar results: the results so far.
    :ivar failures: receives a note if the map was left early and draws depend on that.
    """

    def __init__(
        self,
        group: TaskGroup,
        tasks: Iterator[Task],
        count: int | None,
        options: MapOptions,
        bar: Bar,
    ) -> None:
        self.results = Results(options.repeats)
        self.failures = group.failures if group.path or group.cassette is not None else Failures()
        self._group = group
        self._tasks = tasks
        self._item_count = count
        self._draw_count = None if count is None else count * options.repeats
        self._on_error = options.on_error
        self._bar = bar
        self._worker_count = _worker_count(options)
        self._threads = DaemonThreads(self._worker_count)  # none begins if an executor is given
        self._executor = options.executor
        self._has_begun_all = False
        # Each task, and its future if an executor has it, from its submission until its result is
        # collected.
        self._under_way: dict[Task, Future[TaskResult] | None] = {}
        self._finished_tasks = FinishedTasks()
        self._batch_size = 1  # the number of finished tasks to wait for
        self._finished_count = 0
        self._failed_task: Task | None = None
        # The draws of finished tasks: by item until its result is yielded, then all together.
        self._draws: dict[int, list[Journal]] = {}
        self._received_draws: list[Journal] = []

    def complete_items(self, *, in_batches: bool = False) -> Iterator[int]:
        """Yield each item's number once it is complete. Call :meth:`end` after any exception.

        :param in_batches: whether threads may finish several tasks before one is collected. This
            makes a replay faster, but a result may come :data:`TICK` seconds late.
        """
        # A worker process's records reach the cassette when its task is collected: without delay.
        self._batch_size = BATCH_SIZE if in_batches and self._executor is None else 1
        for task in self._tasks:
            self._submit(task)
            while self._is_full() or self._can_collect():
                if (number := self._next_complete_item()) is not None:
                    yield number
        self._has_begun_all = True
        while self._under_way:
            if (number := self._next_complete_item()) is not None:
                yield number

    def _is_full(self) -> bool:
        # While a whole batch waits to be collected, the workers still have their tasks.
        return len(self._under_way) >= LOOK_AHEAD * self._worker_count + self._batch_size - 1

    def _can_collect(self) -> bool:
        # The last result waits until it is known whether another item follows, so that the caller
        # knows whether it was the last.
        return len(self._under_way) > 1 and len(self._finished_tasks) > 0

    def _submit(self, task: Task) -> None:
        # Ctrl-C may come during the submission, so the task is noted before.
        self._under_way[task] = None
        if self._executor is None:
            self._threads.submit(self._run_in_thread, task)
        else:
            future = self._executor.submit(run_task, task)
            self._under_way[task] = future
            future.add_done_callback(partial(self._note_done, task))

    def _run_in_thread(self, task: Task) -> None:
        self._note_finished(task, task.run())

    def _note_done(self, task: Task, future: Future[TaskResult]) -> None:
        self._note_finished(task, _result_of(future))

    def _note_finished(self, task: Task, result: TaskResult) -> None:
        """Note a task's result. If its error ends the run, no other task begins here."""
        task.result = result
        self._finished_tasks.add(task)
        if result.error is not None and self._ends_run(result.error):
            self._group.is_over = True

    def _next_complete_item(self) -> int | None:
        """Wait for the next finished task; return the number of its item if that is complete."""
        task = self._wait()
        result = self._collect(task)
        if result.error is not None and self._ends_run(result.error):
            self._failed_task = task
            raise result.error
        return task.position.number if self._store_result(task, result) else None

    def _wait(self) -> Task:
        while True:
            check_stops(self._group.outer_stops)
            if (task := self._finished_tasks.take()) is not None:
                return task
            if not self._finished_tasks.wait(min(self._batch_size, len(self._under_way)), TICK):
                self._bar.refresh()

    def _ends_run(self, error: BaseException) -> bool:
        return (
            self._on_error == "raise"
            or isinstance(error, ALWAYS_RAISED)
            or not isinstance(error, Exception)
        )

    def _collect(self, task: Task) -> TaskResult:
        """Return a finished task's result, after counting its draws and what it did in another
        process.
        """
        del self._under_way[task]
        result = task.result
        assert result is not None  # it is finished
        apply_report(task, result)
        if self._group.active is not None:
            self._draws.setdefault(task.position.number, []).append(task.journal)
        return result

    def _store_result(self, task: Task, result: TaskResult) -> bool:
        """Store a result; return whether its item is complete now."""
        value = result.value
        error = result.error
        if error is not None:
            self._bar.failed += 1
            if self._on_error == "return":
                value = error
            else:
                words = item_words(task.item, task.position, self._item_count)
                logger().error("%s failed: %s: %s", words, type(error).__name__, error)
        self._finished_count += 1
        self._bar.step()
        return self.results.put(task.position.number, task.position.repeat, value)

    def receive(self, number: int) -> Any:
        """Return an item's result for the caller, and forget it."""
        self._received_draws.extend(self._draws.pop(number, ()))
        return self.results.take(number)

    # The end after an exception

    def end(self, error: BaseException, results: Callable[[], list[Any]]) -> None:
        """Begin no further task, wait for those under way, give all draws back, and attach the
        results to the exception.

        :param error: what ended the run. After ``KeyboardInterrupt``, this waits for a second at
            most.
        :param results: returns the results.
        :raises KeyboardInterrupt: if Ctrl-C is pressed while it waits.
        """
        ending = error
        self._group.is_over = True  # before calls are stopped, so that no worker goes on to a task
        deadline = self._interrupt() if isinstance(error, KeyboardInterrupt) else None
        started_at = time.monotonic()
        has_warned = False
        while self._awaited() and (deadline is None or time.monotonic() < deadline):
            try:
                self._cancel()
                self._collect_finished()
                if not has_warned and time.monotonic() - started_at >= WARNING_AFTER:
                    has_warned = True
                    logger().warning(
                        "the map ends as soon as the %d items that have started are done",
                        len(self._under_way),
                    )
            except KeyboardInterrupt as interrupt:
                ending = interrupt
                deadline = self._interrupt()
        self._give_back_all()
        self._report_end(ending)
        attach(ending, results())
        if ending is not error:
            shorten(ending)
            raise ending from error

    def _cancel(self) -> None:
        """Prevent further tasks from beginning."""
        self._group.is_over = True
        for task in self._threads.cancel():
            self._note_finished(task, TaskResult(error=NotBegunError()))
        for future in list(self._under_way.values()):
            if future is not None:
                future.cancel()

    def _interrupt(self) -> float:
        """Prevent further calls from beginning; return the time until which to wait for the others."""
        if not self._group.stops[0].done():
            self._group.stops[0].set_result(None)
        return time.monotonic() + GRACE

    def _awaited(self) -> list[Task]:
        """Return the tasks to wait for: an executor's only if they were submitted for certain."""
        return [
            task
            for task, future in self._under_way.items()
            if self._executor is None or future is not None
        ]

    def _collect_finished(self) -> None:
        """Collect the results of tasks that finish within a moment."""
        self._finished_tasks.wait(1, TICK)
        self._finished_tasks.clear()
        # The tasks themselves decide: Ctrl-C may have come after one was taken.
        for task in self._awaited():
            if task.result is not None:
                result = self._collect(task)
                if result.error is None or not self._ends_run(result.error):
                    self._store_result(task, result)

    def _give_back_all(self) -> None:
        self._give_back_unreceived()
        for draws in self._received_draws:
            draws.undo()

    def _give_back_unreceived(self) -> None:
        for task in list(self._under_way):
            task.journal.undo()
        for item_draws in self._draws.values():
            for draws in item_draws:
                draws.undo()

    def _report_end(self, error: BaseException) -> None:
        """Report how many results are kept, and which item failed."""
        of_all = f" of {self._draw_count}" if self._draw_count is not None else ""
        done = f"{self._finished_count}{of_all} done"
        if isinstance(error, KeyboardInterrupt):
            if threading.current_thread() is threading.main_thread():
                self._bar.write(f"stopped: {done}; run it again to continue")
            return
        note = done
        if self._finished_count:
            note = f"{done}; finished items are kept, so another run continues from there"
        if self._failed_task is not None:
            note = f"{item_words(self._failed_task.item, self._failed_task.position, self._item_count)}: {note}"
        if hasattr(error, "add_note"):
            error.add_note(note)
        else:  # Python 3.10
            logger().error("the map ended at %s", note)

    # The end of an iterator

    def begin(self) -> object:
        """Begin to yield results. An iterator that is kept but not read to its end counts as left
        early, too.

        :returns: the token for :meth:`abandon`.
        """
        description = "an imap that was not read to its end"
        return self.failures.begin(self._group.path, description, asks_model=False)

    def is_complete(self) -> bool:
        """Return whether all results were collected."""
        return self._has_begun_all and not self._under_way

    def abandon(self, token: object) -> None:
        """End a run whose iterator was left, and give back the draws of results not yielded.

        :param token: the token from :meth:`begin`.
        """
        self._cancel()
        if self._under_way and self._worker_count > 1:
            self.failures.end(token, is_early=True)
        self._give_back_unreceived()

    def close(self) -> None:
        """End the threads, without waiting for them."""
        self._cancel()
        self._threads.close()


def _result_of(future: Future[TaskResult]) -> TaskResult:
    """Return the result of a task whose future is done."""
    try:
        error = future.exception()
    except CancelledError:
        error = NotBegunError(CANCELLED)
    return future.result() if error is None else TaskResult(error=error)


def _worker_count(options: MapOptions) -> int:
    """Return the number of tasks that run at once."""
    if options.workers is not None:
        return options.workers
    if options.executor is not None:
        return getattr(options.executor, "_max_workers", None) or UNKNOWN_WORKERS
    settings = config.settings()
    allowed = settings.limits_max_concurrent_calls  # by one endpoint
    return WORKERS if allowed is None else min(WORKERS, allowed * max(1, len(settings.endpoints)))
