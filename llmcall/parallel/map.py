"""Many calls: ``map`` runs a function over items, in threads or on an executor, and can be stopped
and run again.
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import CancelledError, Executor, Future
from contextlib import contextmanager, nullcontext, suppress
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Literal, overload

from .. import scopes
from ..cassettes.current import current_cassette
from ..cassettes.uses import current_position
from ..config import resolve as config
from ..engine import usage as metering
from ..engine.interrupts import check_stops, current_stops
from ..engine.refusals import note_refused
from ..errors import (
    BudgetExceededError,
    CacheCorruptError,
    CacheMissError,
    ConfigError,
    ScopeError,
    short_traceback,
    shorten,
)
from ..failures import Failures
from ..notices import logger
from .bar import Bar, progress_bar
from .item_names import ItemNames, item_words
from .jobs import job_of, job_of_cell
from .options import check_options
from .plans import Planner
from .positions import TaskPosition
from .rows import cell_of, length_of, rows_of
from .task_results import NotBegunError, TaskResult
from .tasks import Task, TaskDraws, TaskGroup, apply_report, run_task
from .threads import DaemonThreads
from .workers import check_picklable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .jobs import Job
    from .options import MapOptions
    from .plans import Plan

# Threads, which mostly wait for a server; fewer if MAX_CONCURRENT_CALLS allows fewer calls.
WORKERS = 32
LOOK_AHEAD = 2  # tasks under way for each worker, so that no worker has to wait for its next task
UNKNOWN_WORKERS = 512  # if an executor does not say how many it has, such as a cluster's
TICK = 0.1  # seconds between two checks of outer maps and refreshes of the bar
GRACE = 1.0  # seconds that calls under way get after Ctrl-C
PATIENCE = 5.0  # seconds after which a warning says what the map waits for

# Errors of the whole run: they would hit the next item too.
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


@overload
def map(
    fn: Any,
    items: Iterable[Any],
    *,
    key: Any = None,
    repeats: int = 1,
    workers: int | None = None,
    progress: bool | None = None,
    on_error: str = "raise",
    executor: Executor | None = None,
    scope: Any = None,
    dry_run: Literal[True],
) -> Plan: ...
@overload
def map(
    fn: Any,
    items: Iterable[Any],
    *,
    key: Any = None,
    repeats: int = 1,
    workers: int | None = None,
    progress: bool | None = None,
    on_error: str = "raise",
    executor: Executor | None = None,
    scope: Any = None,
    dry_run: Literal[False] = False,
) -> list[Any]: ...


@short_traceback
def map(
    fn: Any,
    items: Iterable[Any],
    *,
    key: Any = None,
    repeats: int = 1,
    workers: int | None = None,
    progress: bool | None = None,
    on_error: str = "raise",
    executor: Executor | None = None,
    scope: Any = None,
    dry_run: bool = False,
) -> Any:
    """Run a function over items, many at a time, and return the results in the order of the items.

    Outside a scope, ``map`` behaves like a cached loop. Inside one, or with ``scope=``, each item
    has a scope of its own, so sorting, inserting or dropping items causes no new calls. All workers
    begin at once. Threads see the caller's context variables.

    :param fn: a function of one item, which must not be asynchronous; or an ``LLMCall`` or ``@llm``
        function, whose items are rows: dicts of variables.
    :param items: any iterable; items are taken as workers become free. A pandas DataFrame means its
        rows, as dicts.
    :param key: names an item's scope: a function of the item, a column of its row, or a list of
        columns. The name is a text or a whole number. The default is a digest of the item (of a
        row, only of the variables that the templates use), which must then be plain data. Items with
        the same name are told apart by their order; a warning says so if they differ.
    :param repeats: the number of draws of each item. Each draw after the first has a child scope of
        its own, even outside a scope.
    :param workers: the number of items that run at once. The default is 32 threads, or fewer if
        ``MAX_CONCURRENT_CALLS`` of all endpoints allows fewer calls. With an executor, it is the
        number of the executor's workers, which you only need to give if the executor does not say;
        the executor gets twice as many items ahead.
    :param progress: whether to show a bar on standard error; ``None`` means only on a terminal or
        in a notebook.
    :param on_error: what to do if an item fails: ``"raise"`` cancels all items that have not begun
        and raises the exception, ``"none"`` logs it and returns ``None`` for the item, ``"return"``
        returns the exception for the item. ``ConfigError``, ``CacheMissError``,
        ``CacheCorruptError``, ``ScopeError``, ``BudgetExceededError`` and the ``CancelledError`` of
        an executor that is shut down affect all items and are always raised.
    :param executor: runs the items instead of threads, such as a ``ProcessPoolExecutor``. The
        workers use the caller's scope, settings and keys, open cassette and named budgets; usage
        and records come back. Function, items and results must be picklable.
    :param scope: a scope to run in, or its name.
    :param dry_run: whether to make no call and return a :class:`Plan`; only for an ``LLMCall`` or
        ``@llm`` function.
    :returns: a list of results; with ``repeats``, a list of lists.
    :raises TypeError, ValueError: if an argument is wrong, before anything runs.
    :raises KeyboardInterrupt: within two seconds after Ctrl-C. A call that still waits for a server
        is left in its thread; if its answer arrives, it is stored. Like every exception that ``map``
        raises while it runs, it has ``.results``: the list of results, with ``None`` for each
        missing one. Finished calls are in the cache and all draws are given back, so if you run the
        map again, in the same scope too, it goes on from there.

    >>> def greet(name):
    ...     return llmcall.client().send_message("Good morning!", temperature=1, max_tokens=16).sample
    >>> llmcall.map(greet, ["Ann", "Ben"], key=str, scope="trial-1")
    ['trial-1/Ann#0', 'trial-1/Ben#0']
    """
    options = check_options(items, key, repeats, workers, progress, on_error, executor, scope)
    job, context = job_of(fn), copy_context()
    if dry_run:
        return _plan(job, items, options, context)
    with _running(job, items, options, context) as run:
        try:
            for _ in run.finished():
                pass
        except BaseException as error:
            run.end(error, lambda: run.results.listed(length_of(items)))
            raise
    return run.results.listed()


@short_traceback
def imap(
    fn: Any,
    items: Iterable[Any],
    *,
    key: Any = None,
    repeats: int = 1,
    workers: int | None = None,
    progress: bool | None = None,
    on_error: str = "raise",
    executor: Executor | None = None,
    scope: Any = None,
) -> Iterator[tuple[int, Any]]:
    """Run a function over items, and yield each item's index and result as it finishes.

    Arguments and errors are those of ``map``. Items are taken a few ahead of the results that you
    read, so a million items need not fit in memory. (Inside a scope, the numbers of all their draws
    are kept.) With ``repeats``, a result is a list, yielded once it is complete.

    If an item fails, its exception is raised after the results of all items that had begun. After
    Ctrl-C, the exception has the results that were not yielded in ``.results``, a list of pairs of
    index and result. If you leave the iterator early, no further item begins, and the draws of items
    that were not yielded are given back. With several workers, timing decides which items these are;
    a warning at the end of the run says so, also if the iterator has not ended by then.

    >>> sorted(llmcall.imap(str.upper, ["ann", "ben"]))
    [(0, 'ANN'), (1, 'BEN')]
    """
    options = check_options(items, key, repeats, workers, progress, on_error, executor, scope)
    return _each(job_of(fn), items, options, copy_context())


def _each(job: Job, items: Any, options: MapOptions, context: Context) -> Iterator[tuple[int, Any]]:
    with _running(job, items, options, context) as run:
        results = run.results
        begun = run.begin()
        try:
            for number in run.finished():
                if run.is_complete():
                    run.failures.end(begun)
                yield number, run.receive(number)
        except GeneratorExit:
            run.abandon(begun)
            raise
        except BaseException as error:
            run.end(error, results.pairs)
            if isinstance(error, Exception):
                for number in results.complete():
                    yield number, results.take(number)
            _attach(error, results.pairs())
            shorten(error)
            raise error
        finally:
            run.failures.end(begun)


def _plan(job: Job, items: Any, options: MapOptions, context: Context) -> Plan:
    if not hasattr(job, "conversation"):
        raise TypeError(
            "dry_run needs an LLMCall or an @llm function: nobody knows what another function asks before it runs"
        )
    active = context.run(_active, options)
    planners: dict[int, Planner] = {}
    asked: set[str] = set()  # by any of them
    names = ItemNames(options.key, job.identity)
    for item, position in _positions(job, names, items, options, active, ()):
        planner = planners.get(position.cell)
        if planner is None:
            planner = Planner(job_of_cell(job, position.cell), context, asked)
            planners[position.cell] = planner
        planner.add(item, position, scopes.Draws() if active is None else active.draws)
    names.warn()
    if not planners:
        return Planner(job_of_cell(job, 0), context, asked).plan()
    first, *others = (planner.plan() for planner in planners.values())
    return sum(others, first)


def _active(options: MapOptions) -> scopes.Active | None:
    """Return the scope in which a map runs, or ``None`` outside any."""
    with options.scope or nullcontext():
        return scopes.scope_of_call()


def _positions(
    job: Job,
    names: ItemNames,
    items: Any,
    options: MapOptions,
    active: scopes.Active | None,
    place: tuple[int, ...],
) -> Iterator[tuple[Any, TaskPosition]]:
    """Yield each item as often as it is drawn, with the position of the draw."""
    path = "" if active is None else active.path
    in_default = active is not None and active.without_default is not None
    arm = None if active is None else active.arm
    wants_names = getattr(job, "wants_names", False)
    for index, item in enumerate(rows_of(items)):
        name = names.name(item, takes_all=in_default) if path else ""
        unscoped = names.name_or_none(item) if wants_names and not path else ""
        for repeat in range(options.repeats):
            yield (
                item,
                TaskPosition(
                    path,
                    name,
                    repeat,
                    (*place, index, repeat),
                    in_default,
                    arm,
                    unscoped,
                    cell_of(item),
                ),
            )
        del item  # items may be large: keep none while waiting


@contextmanager
def _running(job: Job, items: Any, options: MapOptions, context: Context) -> Iterator[_Run]:
    """Prepare a run, and clean up after it.

    The garbage collector may end it in any thread, so this waits for nothing.
    """
    try:
        active = context.run(_active, options)
    except ScopeError as error:
        note_refused("a map", "llmcall.map", metering.Meter(), error)
        raise
    cassette = context.run(current_cassette)
    stops = (Future[None](), *context.get(current_stops, ()))
    context.run(current_stops.set, stops)
    group = TaskGroup(job, context, active, stops, cassette)
    kinds = {kind.__name__ for kind in type(options.executor).__mro__}
    if "ProcessPoolExecutor" in kinds:
        check_picklable(job)
    if kinds & {"ProcessPoolExecutor", "ClientExecutor"}:  # the latter is Dask's
        # Fail now if something cannot be pickled: an executor would wrap it in its own error.
        _ = group.packed
    place = cassette.place() if cassette is not None else current_position.get()
    count = length_of(items)
    total = None if count is None else count * options.repeats
    with progress_bar(options.progress, total) as bar:
        names = ItemNames(options.key, job.identity)
        tasks = (
            Task(group, item, position)
            for item, position in _positions(job, names, items, options, active, place)
        )
        run = _Run(group, tasks, count, options, bar)
        try:
            yield run
        finally:
            run.close()
            names.warn()


# Results


_MISSING = object()  # in place of a result that is not there yet


class _Results:
    """The results by item; with repeats, a list for each item.

    :param repeats: how many results each item has.
    """

    def __init__(self, repeats: int) -> None:
        self._repeats = repeats
        self._values: dict[int, list[Any]] = {}

    def put(self, number: int, repeat: int, value: Any) -> bool:
        """Store a result; return whether its item is complete now."""
        values = self._values.setdefault(number, [_MISSING] * self._repeats)
        values[repeat] = value
        return all(each is not _MISSING for each in values)

    def take(self, number: int) -> Any:
        """Return an item's result and forget it."""
        result = self._shown(number)
        del self._values[number]
        return result

    def _shown(self, number: int) -> Any:
        values = self._values.get(number, [_MISSING] * self._repeats)
        shown = [None if value is _MISSING else value for value in values]
        return shown if self._repeats > 1 else shown[0]

    def listed(self, length: int | None = None) -> list[Any]:
        """Return the results in the order of the items, with ``None`` for each missing one.

        :param length: the number of items; ``None`` means up to the last one that has a result.
        """
        known = max(self._values, default=-1) + 1
        return [self._shown(number) for number in range(max(known, length or 0))]

    def pairs(self) -> list[tuple[int, Any]]:
        """Return index and result of each item that was not taken and has one, in their order."""
        return [(number, self._shown(number)) for number in sorted(self._values)]

    def complete(self) -> list[int]:
        """Return the indexes of the items that were not taken and lack no repeat, in order."""
        return [
            number
            for number, values in sorted(self._values.items())
            if all(value is not _MISSING for value in values)
        ]


def _attach(error: BaseException, results: list[Any]) -> None:
    """Attach results to an exception as ``.results``, even if its class refuses attributes."""
    BaseException.__setattr__(error, "results", results)


# Runs


class _Run:
    """One run of a map: it submits tasks as workers become free, and collects their results.

    :param tasks: the tasks, made one by one.
    :param count: the number of items, or ``None`` if it is unknown.
    :ivar results: the results so far.
    :ivar failures: gets a note if the map was left early and draws depend on that.
    """

    def __init__(
        self,
        group: TaskGroup,
        tasks: Iterator[Task],
        count: int | None,
        options: MapOptions,
        bar: Bar,
    ) -> None:
        self.results = _Results(options.repeats)
        self.failures = group.failures if group.path or group.cassette is not None else Failures()
        self._group = group
        self._tasks = tasks
        self._count = count
        self._total = None if count is None else count * options.repeats
        self._on_error = options.on_error
        self._bar = bar
        self._workers = _workers(options)
        self._threads = DaemonThreads(self._workers)  # none begins if an executor is given
        self._executor = options.executor
        self._has_begun_all = False
        # Each task with its future, from its submission until its result is collected.
        self._under_way: dict[Task, Future[TaskResult] | None] = {}
        self._done: queue.SimpleQueue[Task] = queue.SimpleQueue()  # those that finished
        self._done_count = 0
        self._failed: Task | None = None
        # The draws of finished tasks: by item until its result is yielded, then all together.
        self._draws: dict[int, list[TaskDraws]] = {}
        self._received: list[TaskDraws] = []

    def finished(self) -> Iterator[int]:
        """Yield each item's number once it is complete. Call :meth:`end` after any exception."""
        for task in self._tasks:
            self._submit(task)
            while self._is_full() or self._can_hand_on():
                if (number := self._next()) is not None:
                    yield number
        self._has_begun_all = True
        while self._under_way:
            if (number := self._next()) is not None:
                yield number

    def _is_full(self) -> bool:
        return len(self._under_way) >= LOOK_AHEAD * self._workers

    def _can_hand_on(self) -> bool:
        # Keep the last result until it is known whether another item follows, so that its receiver
        # knows whether it was the last.
        return len(self._under_way) > 1 and not self._done.empty()

    def _submit(self, task: Task) -> None:
        # Ctrl-C may come during the submission, so the task is noted before.
        if self._executor is None:
            future: Future[TaskResult] = Future()
            future.add_done_callback(lambda _: self._done.put(task))
            self._under_way[task] = future
            self._threads.run(future, task.run)
        else:
            self._under_way[task] = None
            future = self._executor.submit(run_task, task)
            self._under_way[task] = future
            future.add_done_callback(lambda _: self._done.put(task))

    def _next(self) -> int | None:
        """Wait for the next finished task; return the number of its item if that is complete."""
        task = self._wait()
        result = self._collect(task)
        if result.error is not None and self._ends_run(result.error):
            self._failed = task
            raise result.error
        return task.position.number if self._put(task, result) else None

    def _wait(self) -> Task:
        while True:
            check_stops(self._group.outer_stops)
            try:
                return self._done.get(timeout=TICK)
            except queue.Empty:
                self._bar.refresh()

    def _ends_run(self, error: BaseException) -> bool:
        return (
            self._on_error == "raise"
            or isinstance(error, ALWAYS_RAISED)
            or not isinstance(error, Exception)
        )

    def _collect(self, task: Task) -> TaskResult:
        """Return a finished task's result, once its draws, and what it did in another process, are
        counted here.
        """
        result = _result_of(self._under_way.pop(task))
        apply_report(task, result)
        if self._group.active is not None:
            self._draws.setdefault(task.position.number, []).append(task.draws)
        return result

    def _put(self, task: Task, result: TaskResult) -> bool:
        """Store a result; return whether its item is complete now."""
        value = result.value
        error = result.error
        if error is not None:
            self._bar.failed += 1
            if self._on_error == "return":
                value = error
            else:
                words = item_words(task.item, task.position, self._count)
                logger().error("%s failed: %s: %s", words, type(error).__name__, error)
        self._done_count += 1
        self._bar.step()
        return self.results.put(task.position.number, task.position.repeat, value)

    def receive(self, number: int) -> Any:
        """Return an item's result for the caller, and forget it."""
        self._received.extend(self._draws.pop(number, ()))
        return self.results.take(number)

    # The end after an exception

    def end(self, error: BaseException, found: Callable[[], list[Any]]) -> None:
        """Begin no further task, wait for those under way, give all draws back, and attach the
        results to the exception.

        :param error: what ended the run. After ``KeyboardInterrupt``, this waits for a second at
            most.
        :param found: returns the results.
        :raises KeyboardInterrupt: if Ctrl-C is pressed while it waits.
        """
        ending = error
        self._cancel()
        deadline = self._interrupt() if isinstance(error, KeyboardInterrupt) else None
        begun = time.monotonic()
        has_warned = False
        while self._awaited() and (deadline is None or time.monotonic() < deadline):
            try:
                self._collect_finished()
                if not has_warned and time.monotonic() - begun >= PATIENCE:
                    has_warned = True
                    logger().warning(
                        "the map ends as soon as the %d items that have begun are done",
                        len(self._under_way),
                    )
            except KeyboardInterrupt as pressed:
                ending, deadline = pressed, self._interrupt()
        self._give_back_all()
        self._report_end(ending)
        _attach(ending, found())
        if ending is not error:
            shorten(ending)
            raise ending from error

    def _cancel(self) -> None:
        """Prevent further tasks from beginning."""
        self._group.is_over = True
        for future in list(self._under_way.values()):
            if future is not None:
                future.cancel()

    def _interrupt(self) -> float:
        """Prevent further calls from beginning; return the time until which to wait for the others."""
        if not self._group.stops[0].done():
            self._group.stops[0].set_result(None)
        return time.monotonic() + GRACE

    def _awaited(self) -> dict[Task, Future[TaskResult]]:
        """Return the tasks to wait for: not those that the executor refused or may not have got."""
        return {task: future for task, future in self._under_way.items() if future is not None}

    def _collect_finished(self) -> None:
        """Collect the results of tasks that finish within a moment."""
        with suppress(queue.Empty):
            self._done.get(timeout=TICK)
        # The futures decide: Ctrl-C may have come while a task was taken from the queue.
        for task, future in self._awaited().items():
            if future.done():
                result = self._collect(task)
                if result.error is None or not self._ends_run(result.error):
                    self._put(task, result)

    def _give_back_all(self) -> None:
        self._give_back_unreceived()
        for draws in self._received:
            draws.give_all_back()

    def _give_back_unreceived(self) -> None:
        for task in list(self._under_way):
            task.draws.give_all_back()
        for of_item in self._draws.values():
            for draws in of_item:
                draws.give_all_back()

    def _report_end(self, error: BaseException) -> None:
        """Report how many results are kept, and which item failed."""
        of_all = f" of {self._total}" if self._total is not None else ""
        done = f"{self._done_count}{of_all} done"
        if isinstance(error, KeyboardInterrupt):
            if threading.current_thread() is threading.main_thread():
                self._bar.write(f"stopped: {done}; run again to go on")
            return
        note = f"{done}; what is done is kept, so running again goes on from there"
        if self._failed is not None:
            note = f"{item_words(self._failed.item, self._failed.position, self._count)}: {note}"
        if hasattr(error, "add_note"):
            error.add_note(note)
        else:  # Python 3.10
            logger().error("the map ended at %s", note)

    # The end of an iterator

    def begin(self) -> object:
        """Begin to yield results. An iterator that is kept but not read to its end counts as left
        early, too.
        """
        return self.failures.begin(self._group.path, "an imap that was left before its end")

    def is_complete(self) -> bool:
        """Return whether all results were collected."""
        return self._has_begun_all and not self._under_way

    def abandon(self, begun: object) -> None:
        """End a run whose iterator was left, and give back the draws of results not yielded.

        :param begun: what :meth:`begin` returned.
        """
        self._cancel()
        if self._under_way and self._workers > 1:
            self.failures.end(begun, left=True)
        self._give_back_unreceived()

    def close(self) -> None:
        """End the threads, without waiting for them."""
        self._cancel()
        self._threads.close()


def _result_of(future: Future[TaskResult] | None) -> TaskResult:
    """Return the result of a task whose future is done."""
    assert future is not None
    try:
        error = future.exception()
    except CancelledError:
        error = NotBegunError(CANCELLED)
    return future.result() if error is None else TaskResult(error=error)


def _workers(options: MapOptions) -> int:
    """Return the number of tasks that run at once."""
    if options.workers is not None:
        return options.workers
    if options.executor is not None:
        return getattr(options.executor, "_max_workers", None) or UNKNOWN_WORKERS
    settings = config.settings()
    allowed = settings.limits_max_concurrent_calls  # by one endpoint
    return WORKERS if allowed is None else min(WORKERS, allowed * max(1, len(settings.endpoints)))
