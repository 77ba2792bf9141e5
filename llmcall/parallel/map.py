"""Many calls: ``map`` runs a function over items, in threads or on an executor, and goes on where
it was stopped.
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
from .items import (
    ItemNames,
    TaskPosition,
    check_options,
    item_words,
    job_of,
    length_of,
    rows_of,
)
from .plans import Planner
from .processes import (
    NotBegunError,
    Outcome,
    Task,
    TaskDraws,
    TaskGroup,
    check_picklable,
    run_task,
    take_report,
)
from .threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .items import Job, MapOptions
    from .plans import Plan

# Threads, unless MAX_CONCURRENT_CALLS allows fewer calls: most of the time they wait for a server.
WORKERS = 32
LOOK_AHEAD = 2  # tasks for each worker that are with the executor, so that none waits for the next
UNKNOWN_WORKERS = 512  # of an executor that does not say how many it has, such as a cluster's
TICK = 0.1  # seconds between two looks at an outer map, and two refreshes of the bar
GRACE = 1.0  # seconds in which calls under way may still end after Ctrl-C
PATIENCE = 5.0  # seconds after which it is said what is waited for

# What concerns the run and not one item: the next item would fail by it as well.
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
    "the executor is shut down"
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
    has a scope of its own, so sorting, inserting or dropping items makes no new call. All workers
    begin at once. Threads see the caller's context variables.

    :param fn: a function of one item; or an ``LLMCall`` or ``@llm`` function, whose items are rows:
        dicts of variables. It must not be asynchronous.
    :param items: any iterable; items are taken while there is room. A pandas DataFrame stands for
        its rows, as dicts.
    :param key: names an item's scope: a function of the item, a column of its row, or a list of
        columns, that give a text or a whole number; by default a digest of the item (of a row, only
        of the variables that the templates use), which must then be plain data. Items of one name
        are told apart by their order; a warning says so if they differ.
    :param repeats: how often each item is drawn. Repeat r > 0 has a child scope of its own, outside
        any scope too.
    :param workers: how many items run at once. The default is 32 threads, or fewer if
        ``MAX_CONCURRENT_CALLS`` of all endpoints allows fewer calls. With an executor, the number
        of its workers, if it does not say so itself: it is given twice as many items ahead.
    :param progress: whether to show a bar on standard error; ``None`` means only on a terminal or
        in a notebook.
    :param on_error: what happens to an item's exception: ``"raise"`` cancels what has not begun and
        raises it, ``"none"`` logs it and puts ``None`` in its place, ``"return"`` puts the
        exception itself there. ``ConfigError``, ``CacheMissError``, ``CacheCorruptError``,
        ``ScopeError``, ``BudgetExceededError`` and the ``CancelledError`` of an executor that is
        shut down concern all items and are always raised.
    :param executor: runs the items instead of threads, such as a ``ProcessPoolExecutor``. Scope,
        settings with their keys, open cassette, named budgets and usage travel there and back;
        function, items and results must be picklable.
    :param scope: the name of a scope to run in, or a scope.
    :param dry_run: call nothing and return a :class:`Plan`; only for an ``LLMCall`` or ``@llm``
        function.
    :returns: a list of results; with ``repeats``, a list of lists.
    :raises TypeError, ValueError: for a wrong argument, before anything runs.
    :raises KeyboardInterrupt: within two seconds after Ctrl-C. A call that still waits for a server
        is left behind in its thread, and its answer is stored if it comes. Like every exception
        that leaves, it has ``.results``: a list like the one that would have been returned, with
        ``None`` for what is missing. What finished is in the cache and all draws are given back, so
        running again, in the same scope too, goes on from there.

    >>> def greet(name):
    ...     return llmcall.client().send_message("Good morning!", temperature=1, max_tokens=16).sample
    >>> llmcall.map(greet, ["Ann", "Ben"], key=str, scope="trial-1")
    ['trial-1/Ann#0', 'trial-1/Ben#0']
    """
    options = check_options(items, key, repeats, workers, progress, on_error, executor, scope)
    job, context = job_of(fn), copy_context()
    if dry_run:
        return _planned(job, items, options, context)
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
    """Run a function over items, and yield index and result of each as it finishes; arguments and
    errors as for ``map``.

    Items are taken as results are asked for, a few ahead, so a million of them need not be in
    memory. (Inside a scope, the numbers of all their draws are kept.) With ``repeats``, a result is
    a list, yielded when it is complete. A failed item's exception is raised after the results of
    all that had begun; that of Ctrl-C has those not yielded yet in ``.results``, a list of index
    and result. Leaving the iterator early ends it: no further item begins, and the draws of what
    was begun and not yielded are given back. With several workers, which items those are depends on
    timing; a warning at the end of the run says so, also about an iterator that has not ended by
    then.

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


def _planned(job: Job, items: Any, options: MapOptions, context: Context) -> Plan:
    if not hasattr(job, "conversation"):
        raise TypeError(
            "dry_run needs an LLMCall or an @llm function: what another asks, only running it tells"
        )
    active = context.run(_active, options)
    planner = Planner(job, context)
    names = ItemNames(options.key, job.identity)
    for item, position in _positions(job, names, items, options, active, ()):
        planner.add(item, position, scopes.Draws() if active is None else active.draws)
    names.warn()
    return planner.plan()


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
            place_of_draw = (*place, index, repeat)
            yield item, TaskPosition(path, name, repeat, place_of_draw, in_default, arm, unscoped)
        del item  # nobody keeps what was taken


@contextmanager
def _running(job: Job, items: Any, options: MapOptions, context: Context) -> Iterator[_Run]:
    """Prepare a run, and clear up after it. The garbage collector may end it, in any thread:
    nothing is waited for.
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
        # what cannot travel is said now: an executor would wrap it in an error of its own
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


_MISSING = object()  # stands for a result that is not there yet


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
    """One run of a map: its tasks go to an executor while there is room, and come back as they
    finish.

    :param tasks: made one by one, as there is room.
    :param count: the number of items, or ``None`` if only taking them all would tell.
    :ivar results: what has finished.
    :ivar failures: reports at the end of the process or cassette that the map was left early, if
        draws depend on that.
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
        # Each task with its future, from when it is handed to the executor until it is taken back.
        self._under_way: dict[Task, Future[Outcome] | None] = {}
        self._done: queue.SimpleQueue[Task] = queue.SimpleQueue()  # the finished ones of them
        self._done_count = 0
        self._failed: Task | None = None
        # the draws of finished tasks: by item until it is received, then all together
        self._draws: dict[int, list[TaskDraws]] = {}
        self._received: list[TaskDraws] = []

    def finished(self) -> Iterator[int]:
        """Yield the number of each item that is complete. :meth:`end` must follow any exception."""
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
        # The last result waits until it is known whether another item follows: whoever receives it
        # then knows that there are no more.
        return len(self._under_way) > 1 and not self._done.empty()

    def _submit(self, task: Task) -> None:
        # A task is known before anything can run it: Ctrl-C may come while it is handed over.
        if self._executor is None:
            future: Future[Outcome] = Future()
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
        outcome = self._take(task)
        if outcome.error is not None and self._ends_run(outcome.error):
            self._failed = task
            raise outcome.error
        return task.position.number if self._put(task, outcome) else None

    def _wait(self) -> Task:
        while True:
            check_stops(self._group.around)
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

    def _take(self, task: Task) -> Outcome:
        """Take a finished task back, with what it drew and, in another process, did."""
        outcome = _outcome_of(self._under_way.pop(task))
        take_report(task, outcome)
        if self._group.active is not None:
            self._draws.setdefault(task.position.number, []).append(task.draws)
        return outcome

    def _put(self, task: Task, outcome: Outcome) -> bool:
        """Store a result; return whether its item is complete now."""
        value, error = outcome.value, outcome.error
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
        """Return an item's result, which is handed on to the caller, and forget it."""
        self._received.extend(self._draws.pop(number, ()))
        return self.results.take(number)

    # The end after an exception

    def end(self, error: BaseException, found: Callable[[], list[Any]]) -> None:
        """Begin nothing more, wait for what has begun, give all draws back, and attach the results
        to the exception.

        :param error: what ended the run. After ``KeyboardInterrupt`` it waits for a second at most.
        :param found: returns the results.
        :raises KeyboardInterrupt: if Ctrl-C is pressed while it waits.
        """
        ending = error
        self._cancel()
        deadline = self._interrupt() if isinstance(error, KeyboardInterrupt) else None
        begun = time.monotonic()
        is_said = False
        while self._awaited() and (deadline is None or time.monotonic() < deadline):
            try:
                self._take_leftovers()
                if not is_said and time.monotonic() - begun >= PATIENCE:
                    is_said = True
                    logger().warning(
                        "the map ends as soon as the %d items that have begun are done",
                        len(self._under_way),
                    )
            except KeyboardInterrupt as pressed:
                ending, deadline = pressed, self._interrupt()
        self._give_back_all()
        self._say(ending)
        _attach(ending, found())
        if ending is not error:
            shorten(ending)
            raise ending from error

    def _cancel(self) -> None:
        """Let no further task begin."""
        self._group.is_over = True
        for future in list(self._under_way.values()):
            if future is not None:
                future.cancel()

    def _interrupt(self) -> float:
        """Let no further call begin; return until when those under way are waited for."""
        if not self._group.stops[0].done():
            self._group.stops[0].set_result(None)
        return time.monotonic() + GRACE

    def _awaited(self) -> dict[Task, Future[Outcome]]:
        """Return the tasks that the executor has. One that it refused, or may not have got, is not
        waited for.
        """
        return {task: future for task, future in self._under_way.items() if future is not None}

    def _take_leftovers(self) -> None:
        """Take the tasks that end within a moment."""
        with suppress(queue.Empty):
            self._done.get(timeout=TICK)
        # What counts is the futures: Ctrl-C may have taken the place of an answer of the queue.
        for task, future in self._awaited().items():
            if future.done():
                outcome = self._take(task)
                if outcome.error is None or not self._ends_run(outcome.error):
                    self._put(task, outcome)

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

    def _say(self, error: BaseException) -> None:
        """Say how many results are kept, and which item failed."""
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
        """Begin to hand on results. An iterator that is kept and never asked again counts as left
        early, too.
        """
        return self.failures.begin(self._group.path, "an imap that was left before its end")

    def is_complete(self) -> bool:
        """Return whether everything was handed on."""
        return self._has_begun_all and not self._under_way

    def abandon(self, begun: object) -> None:
        """End a run whose iterator was left, and give back the draws that nobody received.

        :param begun: what :meth:`begin` returned.
        """
        self._cancel()
        if self._under_way and self._workers > 1:
            self.failures.end(begun, left=True)
        self._give_back_unreceived()

    def close(self) -> None:
        """Let the threads end; nothing is waited for."""
        self._cancel()
        self._threads.close()


def _outcome_of(future: Future[Outcome] | None) -> Outcome:
    """Return what a future that is done came to."""
    assert future is not None
    try:
        error = future.exception()
    except CancelledError:
        error = NotBegunError(CANCELLED)
    return future.result() if error is None else Outcome(error=error)


def _workers(options: MapOptions) -> int:
    """Return how many tasks run at once."""
    if options.workers is not None:
        return options.workers
    if options.executor is not None:
        return getattr(options.executor, "_max_workers", None) or UNKNOWN_WORKERS
    settings = config.settings()
    allowed = settings.limits_max_concurrent_calls  # by each endpoint
    return WORKERS if allowed is None else min(WORKERS, allowed * max(1, len(settings.endpoints)))
