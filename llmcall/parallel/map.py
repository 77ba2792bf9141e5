"""Many calls: ``map`` runs a function over items, in threads or on an executor, and can be stopped
and run again.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor
from contextlib import contextmanager, nullcontext
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Literal, overload

from .. import scopes
from ..call import usage as metering
from ..call.refusals import report_refused
from ..cassettes.current import current_cassette
from ..errors import ScopeError, short_traceback, shorten
from ..interrupts import Stop, current_stops
from .bar import progress_bar
from .item_names import ItemNames
from .jobs import job_of, job_of_cell
from .options import check_options
from .plans import Planner
from .positions import TaskPosition
from .results import attach
from .rows import CellRow, cell_of, length_of, rows_of
from .run import MapRun
from .tasks import Task, TaskGroup
from .workers import check_picklable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .jobs import Job
    from .options import MapOptions
    from .plans import Plan


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
    :param items: any iterable. Items are taken as workers become free: up to twice as many as
        workers, and 63 more, before their results are there. A pandas DataFrame means its rows, as
        dicts.
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
        in a notebook, and not inside another map.
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
    job = job_of(fn)
    context = copy_context()
    if dry_run:
        return _plan(job, items, options, context)
    with _open_run(job, items, options, context) as run:
        try:
            for _ in run.complete_items(in_batches=True):
                pass
        except BaseException as error:
            run.end(error, lambda: run.results.in_order(length_of(items)))
            raise
    return run.results.in_order()


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
    return _yield_results(job_of(fn), items, options, copy_context())


def _yield_results(
    job: Job, items: Any, options: MapOptions, context: Context
) -> Iterator[tuple[int, Any]]:
    """Yield each item's index and result, and end the run, also if the caller stops reading."""
    with _open_run(job, items, options, context) as run:
        results = run.results
        token = run.begin()
        try:
            for number in run.complete_items():
                if run.is_complete():
                    run.failures.end(token)
                yield number, run.receive(number)
        except GeneratorExit:
            run.abandon(token)
            raise
        except BaseException as error:
            run.end(error, results.pairs)
            if isinstance(error, Exception):
                for number in results.complete():
                    yield number, results.take(number)
            attach(error, results.pairs())
            shorten(error)
            raise error
        finally:
            run.failures.end(token)


def _plan(job: Job, items: Any, options: MapOptions, context: Context) -> Plan:
    """Return what a map would ask, without asking.

    :raises TypeError: if the function is neither an ``LLMCall`` nor an ``@llm`` function.
    """
    if not hasattr(job, "conversation"):
        raise TypeError(
            "dry_run needs an LLMCall or an @llm function: llmcall cannot know what another function will ask"
        )
    active = context.run(_scope_of_map, job, options)
    planners: dict[int, Planner] = {}
    planned_keys: set[str] = set()  # of the requests of all planners
    names = ItemNames(options.key, job.identity)
    for item, position in _positions(job, names, items, options, active, ()):
        planner = planners.get(position.cell)
        if planner is None:
            planner = Planner(job_of_cell(job, position.cell), context, planned_keys)
            planners[position.cell] = planner
        planner.add(item, position, scopes.Draws() if active is None else active.draws)
    names.warn()
    if not planners:
        return Planner(job_of_cell(job, 0), context, planned_keys).plan()
    first_plan, *other_plans = (planner.plan() for planner in planners.values())
    return sum(other_plans, first_plan)


def _scope_of_map(job: Job, options: MapOptions) -> scopes.ActiveScope | None:
    """Return the scope in which a map runs, or ``None`` outside any.

    :raises ScopeError: if timing would decide, or if ``key`` would name no scope.
    """
    with options.scope or nullcontext():
        active = scopes.scope_of_call()
    if active is None and options.key is not None and not getattr(job, "wants_names", False):
        raise ScopeError(
            "key= names the scope of each item, but the map is outside any scope, where it is a cache: give it one, "
            'scope="…", or leave out key='
        )
    return active


def _positions(
    job: Job,
    names: ItemNames,
    items: Any,
    options: MapOptions,
    active: scopes.ActiveScope | None,
    order: scopes.CallOrder,
) -> Iterator[tuple[Any, TaskPosition]]:
    """Yield each item once for each of its draws, with the position of the draw."""
    path = "" if active is None else active.path
    is_in_default = active is not None and active.without_default is not None
    forks = outer_forks = () if active is None else active.forks
    wants_names = getattr(job, "wants_names", False)
    table = os.urandom(8).hex()
    for number, item in enumerate(rows_of(items)):
        name = names.name(item, takes_all=is_in_default) if path else ""
        unscoped_name = names.name_or_empty(item) if wants_names and not path else ""
        if isinstance(item, CellRow):
            forks = *outer_forks, scopes.Fork(table, "", str(item.cell))
        for repeat in range(options.repeats):
            position = TaskPosition(
                path=path,
                name=name,
                number=number,
                repeat=repeat,
                order=(*order, number, repeat),
                is_in_default=is_in_default,
                forks=forks,
                item=unscoped_name,
                cell=cell_of(item),
            )
            yield item, position
        del item  # items may be large: keep none while waiting


def _task_group(job: Job, context: Context, active: scopes.ActiveScope | None) -> TaskGroup:
    """Return the group of a map's tasks, which the map's own stop and those of outer maps interrupt.

    :param context: the caller's context, in which the stops are set.
    """
    stops = (Stop(), *context.get(current_stops, ()))
    context.run(current_stops.set, stops)
    return TaskGroup(job, context, active, stops, context.run(current_cassette))


def _check_executor(executor: Executor, group: TaskGroup) -> None:
    """Check that an executor's worker processes can get what a map's tasks need.

    The executor itself would wrap an error of pickle in its own.

    :raises TypeError: if the function or a setting cannot be pickled.
    :raises ValueError: if a budget without a name is open.
    """
    kinds = {kind.__name__ for kind in type(executor).__mro__}
    if "ProcessPoolExecutor" in kinds:
        check_picklable(group.job)
    if kinds & {"ProcessPoolExecutor", "ClientExecutor"}:  # the latter is Dask's
        group.pack()


@contextmanager
def _open_run(job: Job, items: Any, options: MapOptions, context: Context) -> Iterator[MapRun]:
    """Prepare a run, and clean up after it.

    The garbage collector may end it in any thread, so this waits for nothing.
    """
    try:
        active = context.run(_scope_of_map, job, options)
    except ScopeError as error:
        path = scopes.current_path()
        report_refused(path, "a map", error)
        metering.count(metering.Meter(), "llmcall.map", path, {"errors": 1})
        raise
    group = _task_group(job, context, active)
    if options.executor is not None:
        _check_executor(options.executor, group)
    order = scopes.next_order()
    count = length_of(items)
    total = None if count is None else count * options.repeats
    progress = options.progress
    if progress is None and group.outer_stops:
        progress = False  # the map around it has a bar
    with progress_bar(progress, total) as bar:
        names = ItemNames(options.key, job.identity)
        tasks = (
            Task(group, item, position)
            for item, position in _positions(job, names, items, options, active, order)
        )
        run = MapRun(group, tasks, count, options, bar)
        try:
            yield run
        finally:
            run.close()
            names.warn()
