"""One run of a map: its tasks are submitted as workers become free, and their results collected."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import deque
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

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
from .names import item_words
from .processes import Task, run_task
from .tasks import NotBegunError, TaskResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..scopes import Journal
    from .bar import Bar
    from .options import MapOptions
    from .processes import MapGroup

# Threads, which mostly wait for a server; fewer if MAX_CONCURRENT_CALLS allows fewer calls.
WORKERS = 32
LOOK_AHEAD = 2  # tasks submitted for each worker, so that none has to wait for its next task
BATCH_SIZE = 64  # finished tasks that a map in threads waits for; more would gain little
UNKNOWN_WORKERS = 512  # if an executor does not say how many it has, such as a cluster's
MOST_WAITING = 1000  # calls that wait in a window, for which as many other items begin
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


class MapRun:
    """One run of a map: it submits tasks as workers become free, and collects their results.

    Its threads are daemons: a map that is left, and the end of the interpreter, wait for none of them.

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
        self._executor = options.executor
        self._worker_count = _worker_count(options)
        # Calls that wait in a window make room for others, unless somebody said how many run.
        self._grows = options.workers is None and options.executor is None
        self._group.stops[0].note_change = self._wake
        self._thread_count = 0
        self._todo: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        # Each task, and its future if an executor has it, from its submission until its result is
        # collected.
        self._under_way: dict[Task, Future[TaskResult] | None] = {}
        # In the order in which they finished. Their collector waits for several: if it woke up for
        # each recorded answer, it would slow the workers down.
        self._finished: deque[Task] = deque()
        self._awaited_count = 1
        self._signals: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._finished_count = 0
        self._failed_task: Task | None = None
        self._has_ended = False
        self._results: dict[int, list[Any]] = {}  # by item, until an iterator yields it
        # The draws of tasks that were collected: by item until its result is yielded, then together.
        self._journals: dict[int, list[Journal]] = {}
        self._yielded_journals: list[Journal] = []

    def complete_items(self, *, in_batches: bool = False) -> Iterator[int]:
        """Yield each item's number once it is complete. Call :meth:`end` after any exception.

        :param in_batches: whether threads may finish several tasks before one is collected. This
            makes a replay faster, but a result may come :data:`TICK` seconds late.
        """
        # A worker process's records reach the cassette when its task is collected: without delay.
        batch_size = BATCH_SIZE if in_batches and self._executor is None else 1
        for task in self._tasks:
            self._submit(task)
            while self._is_full(batch_size) or self._finished:
                if (number := self._next_complete_item(batch_size)) is not None:
                    yield number
        while self._under_way:
            if (number := self._next_complete_item(batch_size)) is not None:
                yield number

    @property
    def _most_at_once(self) -> int:
        """Return how many tasks may run: more while calls wait in a window."""
        if not self._grows:
            return self._worker_count
        return self._worker_count + min(self._group.stops[0].waiting, MOST_WAITING)

    def _is_full(self, batch_size: int) -> bool:
        # While a whole batch waits to be collected, the workers still have their tasks.
        return len(self._under_way) >= LOOK_AHEAD * self._most_at_once + batch_size - 1

    def _submit(self, task: Task) -> None:
        # Ctrl-C may come during the submission, so the task is noted before.
        self._under_way[task] = None
        if self._executor is not None:
            future = self._executor.submit(run_task, task)
            self._under_way[task] = future
            future.add_done_callback(partial(self._note_done, task))
            return
        self._todo.put(task)
        if self._thread_count < self._most_at_once:
            self._start_thread()

    def _start_thread(self) -> None:
        self._thread_count += 1
        name = f"llmcall map {self._thread_count}"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        """Run tasks in a thread."""
        while (task := self._todo.get()) is not None:
            self._note_finished(task, task.run())
            del task  # keep nothing of a finished task while waiting for the next one

    def _note_done(self, task: Task, future: Future[TaskResult]) -> None:
        try:
            error = future.exception()
        except CancelledError:
            error = NotBegunError(CANCELLED)
        self._note_finished(task, future.result() if error is None else TaskResult(error=error))

    def _note_finished(self, task: Task, result: TaskResult) -> None:
        """Note a task's result. If its error ends the run, no other task begins here."""
        task.result = result
        if result.error is not None and self._ends_run(result.error):
            self._group.is_over = True
        self._finished.append(task)
        if len(self._finished) >= self._awaited_count:
            self._wake()

    def _wake(self) -> None:
        if self._signals.empty():
            self._signals.put(None)

    def _ends_run(self, error: BaseException) -> bool:
        return (
            self._on_error == "raise"
            or isinstance(error, ALWAYS_RAISED)
            or not isinstance(error, Exception)
        )

    def _next_complete_item(self, batch_size: int) -> int | None:
        """Wait a moment for the next finished task; return the number of its item if that is complete."""
        check_stops(self._group.outer_stops)
        if not self._finished:
            if not self._wait(min(batch_size, len(self._under_way))):
                self._bar.waiting = self._group.stops[0].waiting
                self._bar.refresh()
            while self._thread_count < self._most_at_once and not self._todo.empty():
                self._start_thread()
        if not self._finished:
            return None
        task = self._finished.popleft()
        is_complete = self._collect(task)
        error = None if task.result is None else task.result.error
        if error is not None and self._ends_run(error):
            self._failed_task = task
            raise error
        return task.position.number if is_complete else None

    def _wait(self, count: int) -> bool:
        """Wait a moment for finished tasks; return whether there may be some."""
        self._awaited_count = count
        while not self._signals.empty():  # from before
            self._signals.get()
        # No signal is missed: a task that is not here yet is added, and then signalled, after this.
        if self._finished:
            return True
        with suppress(queue.Empty):
            self._signals.get(timeout=TICK)
            return True
        return False

    def _collect(self, task: Task) -> bool:
        """Store a finished task's result; return whether its item is complete now."""
        result, number = task.result, task.position.number
        assert result is not None
        self._group.apply(task, result)
        if self._group.active is not None:
            self._journals.setdefault(number, []).append(task.journal)
        value = result.value
        if result.error is not None:
            if self._ends_run(result.error):
                del self._under_way[task]
                return False
            self._bar.failed += 1
            value = result.error if self._on_error == "return" else None
            if self._on_error == "none":
                words = item_words(task.item, task.position, self._item_count)
                logger().error(
                    "%s failed: %s: %s", words, type(result.error).__name__, result.error
                )
        values = self._results.setdefault(number, [_MISSING] * self._repeats)
        values[task.position.repeat] = value
        del self._under_way[task]  # after the result is stored: Ctrl-C may come at any moment
        self._finished_count += 1
        self._bar.step()
        return all(each is not _MISSING for each in values)

    # Results

    def results(self, length: int | None = None) -> list[Any]:
        """Return the results in the order of the items, with ``None`` for each missing one.

        :param length: the number of items; ``None`` means up to the last one that has a result.
        """
        length = max(max(self._results, default=-1) + 1, length or 0)
        return [self._result(number) for number in range(length)]

    def complete(self) -> list[int]:
        """Return the indexes of the items that have all results and were not yielded, in order."""
        return [
            number
            for number, values in sorted(self._results.items())
            if all(value is not _MISSING for value in values)
        ]

    def take(self, number: int) -> Any:
        """Return an item's result for the caller, and forget it."""
        result = self._result(number)
        del self._results[number]
        self._yielded_journals.extend(self._journals.pop(number, ()))
        return result

    def _result(self, number: int) -> Any:
        values = self._results.get(number, [_MISSING] * self._repeats)
        results = [None if value is _MISSING else value for value in values]
        return results if self._repeats > 1 else results[0]

    # The end

    def end(self, error: BaseException, length: int | None = None) -> None:
        """Begin no further task, wait for those under way, give all draws back, and attach the
        results to the exception; once.

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
        while self._awaited() and (deadline is None or time.monotonic() < deadline):
            try:
                self._cancel()
                self._wait(1)
                self._finished.clear()
                # The tasks themselves decide: Ctrl-C may have come after one was taken.
                for task in self._awaited():
                    if task.result is not None:
                        self._collect(task)
            except KeyboardInterrupt as interrupt:
                ending = interrupt
                deadline = self._interrupt()
        self._undo_unyielded()
        for journal in self._yielded_journals:
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
        pairs = [(number, self._result(number)) for number in sorted(self._results)]
        BaseException.__setattr__(error, "results", pairs)

    def abandon(self) -> None:
        """End a run whose iterator was left, and give back the draws of results not yielded."""
        self._cancel()
        self._undo_unyielded()

    def close(self) -> None:
        """End the threads, without waiting for them."""
        self._cancel()
        for _ in range(self._thread_count):
            self._todo.put(None)
        self._group.close()

    def _cancel(self) -> None:
        """Prevent further tasks from beginning."""
        self._group.is_over = True
        with suppress(queue.Empty):
            while (task := self._todo.get_nowait()) is not None:
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

    def _undo_unyielded(self) -> None:
        under_way = [task.journal for task in self._under_way]
        for journal in itertools.chain(under_way, *self._journals.values()):
            journal.undo()

    def _report_end(self, error: BaseException) -> None:
        """Report how many results are kept, and which item failed."""
        count = self._item_count
        of_all = f" of {count * self._repeats}" if count is not None else ""
        done = f"{self._finished_count}{of_all} done"
        if isinstance(error, KeyboardInterrupt):
            if threading.current_thread() is threading.main_thread():
                self._bar.write(f"stopped: {done}; run it again to continue")
            return
        note = done
        if self._finished_count:
            note = f"{done}; finished items are kept, so another run continues from there"
        if self._failed_task is not None:
            note = (
                f"{item_words(self._failed_task.item, self._failed_task.position, count)}: {note}"
            )
        if hasattr(error, "add_note"):
            error.add_note(note)
        else:  # Python 3.10
            logger().error("the map ended at %s", note)


def _worker_count(options: MapOptions) -> int:
    """Return the number of tasks that run at once."""
    if options.workers is not None:
        return options.workers
    if options.executor is not None:
        return getattr(options.executor, "_max_workers", None) or UNKNOWN_WORKERS
    settings = config.settings()
    allowed = settings.limits_max_concurrent_calls  # by one endpoint
    return WORKERS if allowed is None else min(WORKERS, allowed * max(1, len(settings.endpoints)))
