"""Many calls: ``map`` runs a function over items, in threads or on an executor, and goes on where it was stopped."""

from __future__ import annotations

import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Literal, overload

from ..cassettes import cassette as cassettes
from ..config import resolve as config
from ..engine import interrupts
from ..engine import usage as metering
from ..engine.interrupts import Stop
from ..replay import scopes
from . import frames
from .gathered import Gathered, attach
from .items import ItemNames
from .jobs import CallJob, check_picklable, job_of
from .options import checked
from .progress import progress_bar
from .runs import Run
from .stands import Stand
from .tasks import Task, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .jobs import Job
    from .options import MapOptions
    from .plans import Plan

__all__ = ["imap", "map"]

WORKERS = 32  # threads, unless MAX_CONCURRENT_CALLS allows fewer calls: most of the time they wait for a server
LOOK_AHEAD = 2  # tasks for each worker that are with the executor, so that none waits for the next
UNKNOWN_WORKERS = 512  # of an executor that does not say how many it has, such as a cluster's


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

    Outside any scope it is what a loop would be, over a cache. Inside one, or with ``scope=``, each item has a scope of
    its own, so that sorting, inserting or dropping items makes no new call. Threads see the caller's context variables.

    :param fn: a function of one item; or an ``LLMCall`` or ``@llm`` function, of which the items are rows: dicts of
        variables. It must not be asynchronous.
    :param items: any iterable, taken from as there is room; a pandas DataFrame stands for its rows, as dicts.
    :param key: names an item's scope: a function of the item, or a column of its row, that gives a text or a whole
        number; by default a digest of the item (of a row, only of the variables that the templates use), which must
        then be plain data. Equal keys are told apart by their order.
    :param repeats: how often each item is drawn; repeat r > 0 in a child scope named r, outside any scope too.
    :param workers: how many items at once; by default 32 threads, or ``MAX_CONCURRENT_CALLS`` of each endpoint where
        that is less. Of an executor, how many workers it has, where it does not say so itself: it is given twice as
        many items ahead.
    :param progress: whether a bar is shown on standard error; ``None`` means only on a terminal or in a notebook.
    :param on_error: what becomes of an item's exception: ``"raise"`` cancels what has not begun and raises it,
        ``"none"`` logs it and puts ``None`` in its place, ``"return"`` puts it there itself. ``ConfigError``,
        ``CacheMissError``, ``CacheCorruptError``, ``ScopeError`` and ``BudgetExceededError`` concern all items and are
        always raised.
    :param executor: what runs the items instead of threads, such as a ``ProcessPoolExecutor``. Scope, settings with
        their keys, open cassette, named budgets and usage travel there and back; function, items and results must be
        picklable. Ctrl-C reaches them through the cache, ``[Cache] PATH``, which they must share.
    :param scope: the name of a scope to run in, or a scope.
    :param dry_run: call nothing and return a :class:`Plan`; of an ``LLMCall`` or ``@llm`` function only.
    :returns: a list of results; with ``repeats``, a list of lists.
    :raises TypeError, ValueError: for a wrong argument, before anything is run.
    :raises KeyboardInterrupt: after Ctrl-C. Connections are cut, and it is raised once no code of ``fn`` runs any more.
        As every exception that leaves, it has ``.results``: a list like the one that would have been returned, with
        ``None`` for what is missing. What finished is in the cache, so running again goes on from there.
    """
    job, options = job_of(fn), checked(items, key, repeats, workers, progress, on_error, executor, scope)
    context = copy_context()
    if dry_run:
        return _planned(job, items, options, context)
    gathered, total = Gathered(options.repeats), frames.length_of(items)
    with _run(job, items, options, context) as (run, todo):
        try:
            run.take_many()
            with run.presses.heard():
                for finished in run.finished(todo):
                    gathered.put(finished)
        except BaseException as error:
            ending = run.end(error)
            for finished in run.leftovers:
                gathered.put(finished)
            attach(ending, gathered.listed(total))
            if ending is not error:
                raise ending from error
            raise
    return gathered.listed()


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
    """Run a function over items, and yield index and result of each as it finishes; arguments and errors as of ``map``.

    Items are taken as results are asked for, a few ahead, so that a million of them take no more memory than a hundred.
    (With ``scope="name"`` outside any scope, some 20 bytes stay of each, by which equal ones are told apart; inside a
    scope, some 100 bytes of each draw as well, since its block may come back to them; with ``key=``, each one's usage.)
    With ``repeats``, a result is a list, yielded when all of it is there. A failed item's exception is raised after the
    results of all that had begun; that of Ctrl-C has those not yielded yet in ``.results``, a list of index and result.
    """
    job, options = job_of(fn), checked(items, key, repeats, workers, progress, on_error, executor, scope)
    return _each(job, items, options, copy_context())


def _each(job: Job, items: Any, options: MapOptions, context: Context) -> Iterator[tuple[int, Any]]:
    gathered = Gathered(options.repeats)
    with _run(job, items, options, context) as (run, todo):
        each = run.finished(todo)
        try:
            while True:
                with run.presses.heard():  # and not by those who do something with a result meanwhile
                    finished = next(each, None)
                    is_whole = finished is not None and gathered.put(finished)
                if finished is None:
                    return
                if is_whole:
                    yield finished.number, gathered.take(finished.number)
        except BaseException as error:
            ending = run.end(error)
            for finished in run.leftovers:
                gathered.put(finished)
            if isinstance(ending, Exception):
                yield from gathered.take_complete()
            attach(ending, gathered.pairs())
            if ending is not error:
                raise ending from error
            raise


def _planned(job: Job, items: Any, options: MapOptions, context: Context) -> Plan:
    from .plans import Planner

    if not isinstance(job, CallJob):
        raise TypeError("dry_run needs an LLMCall or an @llm function: what another asks, only running it tells")
    with _stand(context, options) as active:
        planner = Planner(job, context)
        work = Work(job, context, active, Stop(), None)
        for task in _tasks(job, items, options, work, ()):
            planner.add(task)
    return planner.plan()


@contextmanager
def _stand(context: Context, options: MapOptions) -> Iterator[scopes.Active | None]:
    """Enter the map's scope in a context, and give where that stands."""
    opened = options.scope
    if opened is not None:
        context.run(opened.__enter__)
    try:
        yield context.run(scopes.here)
    finally:
        if opened is not None:
            context.run(opened.__exit__, None, None, None)


@contextmanager
def _run(job: Job, items: Any, options: MapOptions, context: Context) -> Iterator[tuple[Run, Iterator[Task]]]:
    """Prepare a run and its tasks, and clear up after it."""
    with ExitStack() as stack:
        active = stack.enter_context(_stand(context, options))
        cassette = context.run(cassettes.current_cassette)
        stop = Stop(context.run(interrupts.current))
        stack.enter_context(stop.attached())
        work = Work(job, context, active, stop, cassette, comes_back=not _is_own(options, active))
        stack.callback(work.end)
        if _is_process_pool(options.executor):
            check_picklable(job)
        if _is_elsewhere(options.executor):
            work.away()  # what cannot travel is said now: an executor would wrap it in an error of its own
        place = cassette.place() if cassette is not None else cassettes.position()
        total = frames.length_of(items)
        bar = stack.enter_context(progress_bar(options.shown, None if total is None else total * options.repeats))
        executor, workers = _executor(options)
        if options.executor is None:
            stack.callback(executor.shutdown, cancel_futures=True)
        run = Run(executor, LOOK_AHEAD * workers, work, bar, options.on_error, _add_usage(job))
        stack.callback(run.close)
        yield run, _tasks(job, items, options, work, place)


def _is_own(options: MapOptions, active: scopes.Active | None) -> bool:
    """Return whether a scope was made for the map alone, and stands in no other."""
    made = options.scope if options.scope_is_own else None
    return made is not None and active is not None and active.path == made.name


def _tasks(job: Job, items: Any, options: MapOptions, work: Work, place: tuple[int, ...]) -> Iterator[Task]:
    names = ItemNames(options.key, job.identity) if work.path else None
    for index, item in enumerate(frames.rows_of(items)):
        name = names.name(item, index) if names else ""
        draws = work.draws()
        for repeat in range(options.repeats):
            yield Task(work, item, Stand(work.path, name, repeat, (*place, index, repeat)), draws)


def _executor(options: MapOptions) -> tuple[Executor, int]:
    """Return what runs the tasks, and how many workers it has."""
    if options.executor is not None:
        workers = options.workers or getattr(options.executor, "_max_workers", None) or UNKNOWN_WORKERS
        return options.executor, workers
    settings = config.settings()
    allowed = settings.limits_max_concurrent_calls  # by each endpoint
    most = WORKERS if allowed is None else min(WORKERS, allowed * max(1, len(settings.endpoints)))
    workers = options.workers or most
    return ThreadPoolExecutor(workers, thread_name_prefix="llmcall map"), workers


def _is_process_pool(executor: Executor | None) -> bool:
    return _is_a("concurrent.futures.process", "ProcessPoolExecutor", executor)


def _is_elsewhere(executor: Executor | None) -> bool:
    """Return whether an executor is known to pickle what it is given."""
    return _is_process_pool(executor) or _is_a("distributed.cfexecutor", "ClientExecutor", executor)


def _is_a(module: str, kind: str, executor: Executor | None) -> bool:
    """Return whether an executor is of a kind, without importing where that is defined."""
    found = sys.modules.get(module)
    return found is not None and isinstance(executor, getattr(found, kind))


def _add_usage(job: Job) -> Callable[[str, str, Any], Any]:
    """Return what counts here what was used in another process: for the job's client, where it has one."""
    if isinstance(job, CallJob):
        return job.call.client.count_usage
    unknown = metering.Meter()  # the clients that a plain function asks are not known here
    return lambda model, scope, amounts: metering.count(unknown, model, scope, amounts)
