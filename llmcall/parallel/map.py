"""Many calls: ``map`` runs a function over items, in threads or on an executor, and goes on where
it was stopped.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections import deque
from concurrent.futures import CancelledError, Executor, Future
from contextlib import contextmanager, nullcontext
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

from .. import scopes
from ..cassettes import cassette as cassettes
from ..config import resolve as config
from ..engine import usage as metering
from ..engine.drivers import check_stops, current_stops
from ..engine.prepare import note_refused
from ..errors import (
    BudgetExceededError,
    CacheCorruptError,
    CacheMissError,
    ConfigError,
    ScopeError,
    short_traceback,
    shorten,
)
from ..notices import Failures, logger
from .items import (
    Planner,
    TaskPosition,
    check_options,
    item_names,
    item_words,
    job_of,
    length_of,
    rows_of,
)
from .processes import (
    NotBegunError,
    Outcome,
    Task,
    TaskGroup,
    check_picklable,
    run_task,
    take_report,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from ..scopes.draws import Number
    from .items import Job, MapOptions, Plan

# threads, unless MAX_CONCURRENT_CALLS allows fewer calls: most of the time they wait for a server
WORKERS = 32
LOOK_AHEAD = 2  # tasks for each worker that are with the executor, so that none waits for the next
# tasks that are with the threads of a map, which wants all results, however few threads it has
FEWEST_AHEAD = 64
UNKNOWN_WORKERS = 512  # of an executor that does not say how many it has, such as a cluster's
TICK = 0.1  # seconds between two looks at an outer map, and two refreshes of the bar
MOMENT = 0.001  # seconds in which a thread that finds recorded answers finishes some
# Threads that run Python at a time, and how many waiting tasks each of them finishes before it
# tells.
AT_ONCE = 1 if getattr(sys, "_is_gil_enabled", lambda: True)() else os.cpu_count() or 1
HANDFUL = 16
# seconds for which no thread is added while the process computes: it is done no sooner by more of
# them
COMPUTING = 1.0
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

    Outside any scope it is what a loop would be, over a cache. Inside one, or with ``scope=``, each
    item has a scope of its own, so that sorting, inserting or dropping items makes no new call.
    Threads see the caller's context variables.

    :param fn: a function of one item; or an ``LLMCall`` or ``@llm`` function, of which the items
        are rows: dicts of variables. It must not be asynchronous.
    :param items: any iterable, taken from as there is room; a pandas DataFrame stands for its rows,
        as dicts.
    :param key: names an item's scope: a function of the item, or a column of its row, that gives a
        text or a whole number; by default a digest of the item (of a row, only of the variables
        that the templates use), which must then be plain data. Equal keys are told apart by their
        order.
    :param repeats: how often each item is drawn; repeat r > 0 in a child scope of its own, outside
        any scope too.
    :param workers: how many items at once; by default 32 threads, or ``MAX_CONCURRENT_CALLS`` of
        each endpoint where that is less. Of an executor, how many workers it has, where it does not
        say so itself: it is given twice as many items ahead.
    :param progress: whether a bar is shown on standard error; ``None`` means only on a terminal or
        in a notebook.
    :param on_error: what becomes of an item's exception: ``"raise"`` cancels what has not begun and
        raises it, ``"none"`` logs it and puts ``None`` in its place, ``"return"`` puts it there
        itself. ``ConfigError``, ``CacheMissError``, ``CacheCorruptError``, ``ScopeError``,
        ``BudgetExceededError`` and the ``CancelledError`` of an executor that is shut down concern
        all items and are always raised.
    :param executor: what runs the items instead of threads, such as a ``ProcessPoolExecutor``.
        Scope, settings with their keys, open cassette, named budgets and usage travel there and
        back; function, items and results must be picklable.
    :param scope: the name of a scope to run in, or a scope.
    :param dry_run: call nothing and return a :class:`Plan`; of an ``LLMCall`` or ``@llm`` function
        only.
    :returns: a list of results; with ``repeats``, a list of lists.
    :raises TypeError, ValueError: for a wrong argument, before anything is run.
    :raises KeyboardInterrupt: within two seconds after Ctrl-C. A call that still waits for a server
        is left behind in its thread, and its answer stored if it comes. As every exception that
        leaves, it has ``.results``: a list like the one that would have been returned, with
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
    with _running(job, items, options, context, FEWEST_AHEAD if executor is None else 0) as run:
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
    errors as of ``map``.

    Items are taken as results are asked for, a few ahead, so that a million of them need not be in
    memory. (Inside a scope, some 50 bytes stay of each item with its draw.) With ``repeats``, a
    result is a list, yielded when all of it is there. A failed item's exception is raised after the
    results of all that had begun; that of Ctrl-C has those not yielded yet in ``.results``, a list
    of index and result. Whoever leaves the iterator early ends it: no further item begins, and the
    draws of what was begun and not yielded are given back. With several workers, which items those
    are depends on timing; a warning at the end of the run says so, also of an iterator that has not
    ended by then.

    >>> sorted(llmcall.imap(str.upper, ["ann", "ben"]))
    [(0, 'ANN'), (1, 'BEN')]
    """
    options = check_options(items, key, repeats, workers, progress, on_error, executor, scope)
    return _each(job_of(fn), items, options, copy_context())


def _each(job: Job, items: Any, options: MapOptions, context: Context) -> Iterator[tuple[int, Any]]:
    with _running(job, items, options, context, 0) as run:
        results = run.results
        begun = run.begin()
        try:
            for number in run.finished():
                if run.is_complete():
                    run.failures.end(begun)
                yield number, results.take(number)
        except GeneratorExit:
            run.abandon(begun)
            raise
        except BaseException as error:
            run.end(error, results.pairs)
            for number, _ in results.pairs(all) if isinstance(error, Exception) else ():
                yield number, results.take(number)
            _attach(error, results.pairs())
            shorten(error)
            raise error
        finally:
            run.failures.end(begun)


def _planned(job: Job, items: Any, options: MapOptions, context: Context) -> Plan:
    if not hasattr(job, "asking"):
        raise TypeError(
            "dry_run needs an LLMCall or an @llm function: what another asks, only running it tells"
        )
    active = context.run(_active, options)
    planner = Planner(job, context)
    for item, position in _positions(job, items, options, active, ()):
        planner.add(item, position, scopes.Draws() if active is None else active.draws)
    return planner.plan


def _active(options: MapOptions) -> scopes.Active | None:
    """Return the scope in which a map runs, or ``None`` outside any."""
    with options.scope or nullcontext():
        return scopes.here()


def _positions(
    job: Job,
    items: Any,
    options: MapOptions,
    active: scopes.Active | None,
    place: tuple[int, ...],
) -> Iterator[tuple[Any, TaskPosition]]:
    """Yield each item as often as it is drawn, with the position of the draw."""
    path = "" if active is None else active.path
    in_default = active is not None and active.without_default is not None
    rows = rows_of(items)
    named = item_names(rows, options.key, job.identity) if path else ((item, "") for item in rows)
    for index, (item, name) in enumerate(named):
        for repeat in range(options.repeats):
            yield item, TaskPosition(path, name, repeat, (*place, index, repeat), in_default)


@contextmanager
def _running(
    job: Job, items: Any, options: MapOptions, context: Context, ahead: int
) -> Iterator[_Run]:
    """Prepare a run, and clear up after it. The garbage collector may end it, in any thread:
    nothing is waited for.

    :param ahead: how many tasks may be taken beyond those that have finished, whatever the number
        of workers.
    """
    try:
        active = context.run(_active, options)
    except ScopeError as error:
        note_refused("a map", "llmcall.map", metering.Meter(), error)
        raise
    cassette = context.run(cassettes.current_cassette)
    stops = (Future[None](), *context.get(current_stops, ()))
    context.run(current_stops.set, stops)
    group = TaskGroup(job, context, active, stops, cassette)
    kinds = {kind.__name__ for kind in type(options.executor).__mro__}
    if "ProcessPoolExecutor" in kinds:
        check_picklable(job)
    if kinds & {"ProcessPoolExecutor", "ClientExecutor"}:  # the latter is Dask's
        # what cannot travel is said now: an executor would wrap it in an error of its own
        _ = group.packed
    place = cassette.place() if cassette is not None else cassettes.position.get()
    count = length_of(items)
    total = None if count is None else count * options.repeats
    with _progress_bar(options.progress, total) as bar:
        todo = (
            Task(group, item, position)
            for item, position in _positions(job, items, options, active, place)
        )
        run = _Run(group, todo, count, options, bar, ahead)
        try:
            yield run
        finally:
            run.close()


# Results


# in the place of a result that is not there yet, or no longer
_MISSING, _TAKEN = (
    object(),
    object(),
)


class _Results:
    """Put results in the order of the items; with repeats, a list of them for each item.

    :param repeats: how many each item has.
    """

    def __init__(self, repeats: int) -> None:
        self._repeats = repeats
        self._values: list[Any] = []  # of all draws, item by item

    def _of(self, number: int) -> slice:
        return slice(number * self._repeats, (number + 1) * self._repeats)

    def _shown(self, number: int) -> Any:
        values = [None if value is _MISSING else value for value in self._values[self._of(number)]]
        return values if self._repeats > 1 else values[0]

    def put(self, number: int, repeat: int, value: Any) -> bool:
        """Take a result in; return whether its item is complete by it."""
        values, place = self._values, self._of(number)
        values.extend([_MISSING] * (place.stop - len(values)))
        values[place.start + repeat] = value
        return self._repeats == 1 or all(each is not _MISSING for each in values[place])

    def take(self, number: int) -> Any:
        """Return an item's result and forget it."""
        found = self._shown(number)
        self._values[self._of(number)] = [_TAKEN] * self._repeats
        return found

    def is_taken(self, number: int) -> bool:
        """Return whether an item's result was there and is forgotten."""
        return self._values[number * self._repeats] is _TAKEN

    def listed(self, length: int | None = None) -> list[Any]:
        """Return the results in the order of the items; ``None`` where there is none.

        :param length: how many items there are; ``None`` means up to the last one that has a
            result.
        """
        values, step = (
            [None if value is _MISSING else value for value in self._values],
            self._repeats,
        )
        values.extend([None] * ((length or 0) * step - len(values)))
        return (
            values
            if step == 1
            else [values[first : first + step] for first in range(0, len(values), step)]
        )

    def pairs(self, found: Callable[[Iterable[bool]], bool] = any) -> list[tuple[int, Any]]:
        """Return index and result of each item that was not taken and has one, in their order.

        :param found: ``all`` means only items that lack no repeat.
        """
        numbers = range(len(self._values) // self._repeats)
        there = [
            n
            for n in numbers
            if not self.is_taken(n) and found(v is not _MISSING for v in self._values[self._of(n)])
        ]
        return [(number, self._shown(number)) for number in there]


def _attach(error: BaseException, results: list[Any]) -> None:
    """Attach results to an exception as ``.results``, also to one that lets nobody set its
    attributes.
    """
    BaseException.__setattr__(error, "results", results)


# Runs


class _Threads:
    """Run tasks in daemon threads: whoever leaves, and the interpreter's end, wait for none of
    them.

    Recorded answers come faster from one thread than from several that take turns, so another one
    starts only where nothing finishes for a moment, while the process waits. What finishes is told
    at once where it took longer, else once nothing waits any more: to change from one thread to
    another takes as long as some recorded answers. Threads that run at once tell earlier, so that
    there is always something for each.

    :param most: how many threads there may be.
    :param done: takes each task with its outcome.
    :param told: takes a token when there is something done to be taken.
    """

    def __init__(
        self, most: int, done: deque[tuple[Task, Outcome]], told: queue.SimpleQueue[None]
    ) -> None:
        self._most, self._done, self._told = most, done, told
        self._todo: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._count = 0

    def submit(self, task: Task) -> None:
        """Run a task as soon as a thread is free."""
        self._todo.put(task)
        if self._count < min(AT_ONCE, self._most):
            self._start(1)

    def grow(self) -> bool:
        """Start as many more threads as there are, if tasks wait for one; return whether any was."""
        more = 0 if self._todo.empty() else min(self._count, self._most - self._count)
        self._start(more)
        return more > 0

    def _start(self, more: int) -> None:
        for _ in range(more):
            self._count += 1
            threading.Thread(
                target=self._work, name=f"llmcall map {self._count}", daemon=True
            ).start()

    def _work(self) -> None:
        while (task := self._todo.get()) is not None:
            begun = time.monotonic()
            self._done.append((task, task.run()))
            del task
            left = self._todo.qsize()
            if (
                left == 0
                or (AT_ONCE > 1 and left % HANDFUL == 0)
                or time.monotonic() - begun > MOMENT
            ):
                self._told.put(None)

    def close(self) -> None:
        """Let each thread end once it has nothing more to do."""
        for _ in range(self._count):
            self._todo.put(None)


class _Run:
    """Run tasks: they go to an executor as there is room, and come back as they finish.

    :param count: how many items there are, or ``None`` where only taking them all would tell.
    :ivar results: what has finished.
    :ivar failures: what tells of it where it is left.
    """

    def __init__(
        self,
        group: TaskGroup,
        todo: Iterator[Task],
        count: int | None,
        options: MapOptions,
        bar: _Bar,
        ahead: int,
    ) -> None:
        self.results = _Results(options.repeats)
        self._group, self._todo, self._count, self._bar = group, todo, count, bar
        self._total = None if count is None else count * options.repeats
        self._on_error = options.on_error
        self._running: dict[Task, Future[Outcome] | None] = {}
        self._done: deque[tuple[Task, Outcome]] = deque()
        self._told: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._moment = MOMENT  # seconds between two looks at what a thread has finished
        self._done_count = 0
        self._failed: Task | None = None
        # By item: the numbers that its finished tasks drew.
        self._drawn: dict[int, list[Number]] = {}
        # What tells of it at the end of the run where it is left; nobody does where no draw depends
        # on it.
        self.failures = group.failures if group.path or group.cassette is not None else Failures()
        self._executor, workers = options.executor, _workers(options)
        # none begins where an executor is given
        self._threads = _Threads(workers, self._done, self._told)
        self._window = max(LOOK_AHEAD * workers, ahead)
        self._has_begun_all = False

    def finished(self) -> Iterator[int]:
        """Yield the number of each item that is complete; whatever exception leaves, :meth:`end`
        must follow it.
        """
        for task in self._todo:
            self._submit(task)
            # One is kept back until it is known whether another item follows: whoever has the last
            # result has all.
            while (self._done and len(self._running) > 1) or len(self._running) >= self._window:
                if (number := self._next()) is not None:
                    yield number
        self._has_begun_all = True
        while self._running:
            if (number := self._next()) is not None:
                yield number

    def _submit(self, task: Task) -> None:
        if self._executor is None:
            self._running[task] = None
            self._threads.submit(task)
        else:
            self._running[task] = future = self._executor.submit(run_task, task)
            future.add_done_callback(partial(self._tell_done, task))

    def _tell_done(self, task: Task, future: Future[Outcome]) -> None:
        """Tell what an executor's task came to."""
        try:
            error = future.exception()
        except CancelledError:
            error = NotBegunError(CANCELLED)
        self._done.append((task, future.result() if error is None else Outcome(error=error)))
        self._told.put(None)

    def _next(self) -> int | None:
        """Take what has finished next, waiting for it; return the number of its item where that is
        complete.
        """
        check_stops(self._group.around)
        if not self._done:
            self._wait_for_some()
        task, outcome = self._taken()
        if outcome.error is not None and self._ends_run(outcome.error):
            self._failed = task
            raise outcome.error
        return task.position.number if self._put(task, outcome) else None

    def _wait_for_some(self) -> None:
        """Wait until something done is told, or some is done and no more of it comes."""
        seconds, known, until = self._moment, 0, time.monotonic() + COMPUTING
        while True:
            check_stops(self._group.around)
            computed = time.process_time()
            if self._wait(seconds):
                if self._done:
                    return
            elif len(self._done) > known:
                known = len(self._done)
                seconds = self._moment = min(2 * seconds, TICK)
            elif time.process_time() - computed > seconds / 2 and time.monotonic() < until:
                seconds = min(2 * seconds, TICK)
            elif self._threads.grow():
                seconds = self._moment = MOMENT
            elif self._done:
                return
            elif seconds < TICK:
                seconds = TICK
            else:
                self._bar.refresh()

    def _ends_run(self, error: BaseException) -> bool:
        return (
            self._on_error == "raise"
            or isinstance(error, ALWAYS_RAISED)
            or not isinstance(error, Exception)
        )

    def _wait(self, seconds: float) -> bool:
        """Wait for something done; return whether there may be."""
        try:
            self._told.get(timeout=seconds)
        except queue.Empty:
            return False
        return True

    def _taken(self) -> tuple[Task, Outcome]:
        """Take what a task came to, with its draws."""
        task, outcome = self._done.popleft()
        del self._running[task]
        take_report(task, outcome)
        self._drawn.setdefault(task.position.number, []).extend(task.draws.taken)
        return task, outcome

    def _put(self, task: Task, outcome: Outcome) -> bool:
        """Put a result into its place; return whether its item is complete by it."""
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

    # The end after an exception

    def end(self, error: BaseException, found: Callable[[], list[Any]]) -> None:
        """Let nothing begin any more, wait for what has, give all draws back, and attach the
        results to the exception.

        :param error: what ended the run. After ``KeyboardInterrupt`` only what ends within a second
            is waited for.
        :param found: returns the results.
        :raises KeyboardInterrupt: where it comes while this waits.
        """
        ending = error
        self._cancel()
        deadline = self._interrupt() if isinstance(error, KeyboardInterrupt) else None
        begun, is_said = time.monotonic(), False
        while self._running and (deadline is None or time.monotonic() < deadline):
            try:
                self._take_leftover()
                if not is_said and time.monotonic() - begun >= PATIENCE:
                    is_said = True
                    logger().warning(
                        "the map ends as soon as the code of %d items does that had begun",
                        len(self._running),
                    )
            except KeyboardInterrupt as pressed:
                ending, deadline = pressed, self._interrupt()
        self._give_back(lambda number: False)
        self._say(ending)
        _attach(ending, found())
        if ending is not error:
            shorten(ending)
            raise ending from error

    def _cancel(self) -> None:
        """Let no task begin any more."""
        self._group.is_over = True
        for future in [*self._running.values()]:
            if future is not None:
                future.cancel()

    def _interrupt(self) -> float:
        """Let no call begin, and return until when those under way are waited for."""
        if not self._group.stops[0].done():
            self._group.stops[0].set_result(None)
        return time.monotonic() + GRACE

    def _take_leftover(self) -> None:
        """Take what ends within a moment."""
        if not self._done and not self._wait(TICK):
            return
        if self._done:
            task, outcome = self._taken()
            if outcome.error is None or not self._ends_run(outcome.error):
                self._put(task, outcome)

    def _give_back(self, is_kept: Callable[[int], bool]) -> None:
        """Give back the draws of all tasks.

        :param is_kept: returns of an item that has finished whether its draws stay taken.
        """
        for task in [*self._running]:
            task.draws.give_all_back()
        if self._group.active is None:
            return
        for item, numbers in self._drawn.items():
            if not is_kept(item):
                for number in numbers:
                    self._group.active.draws.give_back(*number)

    def _say(self, error: BaseException) -> None:
        """Say how many results are kept, and, of a failed item, which it is."""
        of_all = (
            f"{self._done_count} of {self._total} done"
            if self._total is not None
            else f"{self._done_count} done"
        )
        if isinstance(error, KeyboardInterrupt):
            if threading.current_thread() is threading.main_thread():
                self._bar.write(f"stopped: {of_all}; run again to go on")
            return
        where = (
            ""
            if self._failed is None
            else f"{item_words(self._failed.item, self._failed.position, self._count)}: "
        )
        note = f"{where}{of_all}; what is done is kept, so running again goes on from there"
        if hasattr(error, "add_note"):
            error.add_note(note)
        else:  # Python 3.10
            logger().error("the map ended at %s", note)

    def begin(self) -> object:
        """Begin to hand on results: whoever keeps the iterator, and never comes back, has left it
        as well.
        """
        return self.failures.begin(self._group.path, "an imap that was left before its end")

    def is_complete(self) -> bool:
        """Return whether everything was handed on."""
        return self._has_begun_all and not self._running

    def abandon(self, begun: object) -> None:
        """End a run that nobody asks any more, and give back the draws of what was not received.

        :param begun: what :meth:`begin` returned.
        """
        self._cancel()
        if self._running and self._window > LOOK_AHEAD:
            self.failures.end(begun, left=True)
        self._give_back(self.results.is_taken)

    def close(self) -> None:
        """Let the threads end, as soon as they may."""
        self._cancel()
        self._threads.close()


def _workers(options: MapOptions) -> int:
    """Return how many tasks run at once."""
    if options.workers is not None:
        return options.workers
    if options.executor is not None:
        return getattr(options.executor, "_max_workers", None) or UNKNOWN_WORKERS
    settings = config.settings()
    allowed = settings.limits_max_concurrent_calls  # by each endpoint
    return WORKERS if allowed is None else min(WORKERS, allowed * max(1, len(settings.endpoints)))


# The bar


# columns under which bar, tokens and the time that has passed make room for the other figures
NARROW = 79
NARROW_FORMAT = "{n_fmt}/{total_fmt} [{remaining}{postfix}]"


def in_notebook() -> bool:
    """Return whether the code runs in a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _is_terminal(stream: Any) -> bool:
    """Return whether a stream is a terminal: a program without a console has none, and what logs
    may only write.
    """
    return (
        hasattr(stream, "isatty") and not getattr(stream, "closed", False) and bool(stream.isatty())
    )


class _Bar:
    """Be the bar of a map, which may be one that is not shown.

    :param shown: the tqdm bar, or ``None``.
    :param usage: what is used while it is shown.
    :param narrow: whether there is little room.
    :ivar failed: how many items failed. A call that failed may be one of them, or one whose item
        went on without it.
    """

    def __init__(
        self, shown: Any = None, usage: metering.Tracked | None = None, narrow: bool = False
    ) -> None:
        self._shown, self._usage, self._narrow = shown, usage or metering.Tracked(), narrow
        self.failed = 0

    def step(self) -> None:
        """Say that one more is done."""
        if self._shown is not None and self._shown.update():
            self.refresh()

    def refresh(self) -> None:
        """Show the time and the figures anew; failures and retries only where there are any."""
        if self._shown is None:
            return
        usage = self._usage.usage()
        counts = {"failed": max(self.failed, usage.errors), "retries": usage.retries}
        shown = [f"{name}={count:,}" for name, count in counts.items() if count] + [
            f"cached={usage.cached_calls:,}"
        ]
        if not self._narrow:
            tokens: Any = usage.input_tokens, usage.output_tokens
            shown.append("tokens=?" if None in tokens else f"tokens={sum(tokens):,}")
        places = 2 if self._narrow else 4
        shown.append("cost=?" if usage.cost is None else f"cost=${usage.cost:,.{places}f}")
        self._shown.set_postfix_str(", ".join(shown))

    def write(self, line: str) -> None:
        """Write a line above the bar, or on standard error."""
        if self._shown is not None:
            self._shown.write(line, file=sys.stderr)
        elif sys.stderr is not None:
            print(line, file=sys.stderr)


@contextmanager
def _progress_bar(progress: bool | None, total: int | None) -> Iterator[_Bar]:
    """Give a bar for a block; every call of the process counts in it meanwhile.

    :param progress: whether it is shown; ``None`` means only on a terminal or in a notebook.
    :param total: how many steps there will be; ``None`` where nobody knows.
    """
    shown = (in_notebook() or _is_terminal(sys.stderr)) if progress is None else progress
    if not shown or sys.stderr is None:
        yield _Bar()
        return
    import warnings

    with warnings.catch_warnings():
        # in a notebook without ipywidgets tqdm warns, and shows a bar of text
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    with (
        tqdm(total=total, file=sys.stderr, dynamic_ncols=True) as inner,
        metering.track() as usage,
        _logs_above(),
    ):
        narrow = not in_notebook() and total is not None and (inner.ncols or NARROW) < NARROW
        if narrow:
            inner.bar_format = NARROW_FORMAT
        bar = _Bar(inner, usage, narrow)
        try:
            yield bar
        finally:
            bar.refresh()


def _logs_above() -> AbstractContextManager[None]:
    """Let what log handlers write on the console stand above the bar."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    loggers = [logging.getLogger(), logging.getLogger("llmcall")]
    on_console = [
        logger
        for logger in loggers
        if any(
            getattr(handler, "stream", None) in (sys.stdout, sys.stderr)
            for handler in logger.handlers
        )
    ]
    # then logging itself writes warnings there
    unconfigured = not any(logger.handlers for logger in loggers)
    return logging_redirect_tqdm(on_console or loggers[:unconfigured])  # type: ignore[no-any-return]
