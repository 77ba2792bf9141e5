"""``map`` and ``imap``: they run a function over items, in threads or on an executor, and can be
stopped and run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Literal, overload

from ..scopes.scope import Scope
from ..support.tracebacks import hide_own_frames
from .map_options import MapOptions, of_feature
from .map_run import MapRun
from .tasks import job_of

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ..types import Plan
    from .names import Key
    from .tasks import Function, Job


@overload
def map(
    fn: Function, items: Iterable[object], *, dry_run: Literal[True], **options: object
) -> Plan: ...
@overload
def map(
    fn: Function,
    items: Iterable[object],
    *,
    key: Key | None = None,
    repeats: int = 1,
    workers: int | None = None,
    progress: bool | None = None,
    on_error: str = "raise",
    executor: Executor | None = None,
    scope: Scope | str | float | None = None,
    dry_run: Literal[False] = False,
) -> list[Any]: ...


def map(  # type: ignore[misc]  # options are those that it names
    fn: Function,
    items: Iterable[object],
    *,
    key: Key | None = None,
    repeats: int = 1,
    workers: int | None = None,
    progress: bool | None = None,
    on_error: str = "raise",
    executor: Executor | None = None,
    scope: Scope | str | float | None = None,
    dry_run: bool = False,
) -> Any:
    """Run a function over items, many at a time, and return the results in the order of the items.

    Outside a scope, ``map`` behaves like a cached loop. Inside one, or with ``scope=``, each item
    has its own scope, so sorting, inserting or dropping items causes no new calls. All workers start
    at once; but as long as each item of a list or DataFrame takes less than a millisecond, as in a
    replay, a single worker runs them all. Threads see the caller's context variables.

    :param fn: a function of one item, which must not be asynchronous; or an ``LLMCall`` or ``@llm``
        function, whose items are rows: dicts of variables.
    :param items: any iterable. Items are taken as workers become free; at most twice as many as
        workers, plus 63, are taken ahead of their results. A pandas DataFrame means its rows, as
        dicts.
    :param key: the name of an item's scope, so only for a map in a scope: a function of the item, a
        column of its row, or a list of columns. The name is a text or a whole number. The default is a
        digest of the item (of a row, only of the variables that the templates use), which must then be
        plain data, dates, decimals, enumerations, dataclasses or pydantic models. Items with the same name
        are numbered in their order; a warning reports if they differ.
    :param repeats: the number of draws of each item. Each draw after the first has its own child
        scope, even outside a scope.
    :param workers: the number of items that run at once. The default is 32 threads, or fewer if
        ``MAX_CONCURRENT_CALLS`` of all endpoints allows fewer calls; if it is
        ``auto``, there or for the client whose method it is, 256 for each endpoint, up to 1,000. With an
        executor, it is the number of the executor's workers, needed only if the executor does not report
        it; twice as many items are submitted ahead.
    :param progress: ``True`` shows a bar on standard error, ``None`` only on a terminal or
        in a notebook, and not inside another map.
    :param on_error: if an item fails, ``"raise"`` cancels all items that have not begun
        and raises the exception, ``"none"`` logs it and returns ``None`` for the item, and ``"return"``
        returns the exception for the item. ``ConfigError``, ``CacheMissError``,
        ``CacheCorruptError``, ``ScopeError``, ``BudgetExceededError`` and the ``CancelledError`` of
        an executor that is shut down affect all items and are always raised.
    :param executor: runs the items instead of threads, such as a ``ProcessPoolExecutor``. The
        workers use the caller's scope, settings and keys, open cassette, budgets and limits; usage
        and records come back. Function, items and results must be picklable.
    :param scope: a scope to run in, or its name.
    :param dry_run: ``True`` makes no call and returns a :class:`.Plan`: what is recorded, and what the rest would cost;
        only for an ``LLMCall`` or ``@llm`` function.
    :returns: a list of results; with ``repeats``, a list of lists.
    :raises TypeError, ValueError: if an argument is wrong, before anything runs.
    :raises TemplateError: for a row without a prompt, of a list or DataFrame before anything runs.
    :raises ScopeError: for ``key`` outside any scope.
    :raises KeyboardInterrupt: within two seconds after Ctrl-C. A call that still waits for a server
        is left in its thread; if its answer arrives, it is stored. Like every exception that ``map``
        raises while it runs, it has ``.results``: the list of results, with ``None`` for each
        missing one. Finished calls are in the cache and all draws are retracted, so if you run the map
        again, even in the same scope, it continues from there.

    >>> def greet(name):
    ...     return llmcall.client().send_message("Good morning!", temperature=1, max_tokens=16).sample
    >>> llmcall.map(greet, ["Ann", "Ben"], key=str, scope="trial-1")
    ['trial-1/Ann#0', 'trial-1/Ben#0']
    """
    options = MapOptions(key, repeats, workers, progress, on_error, executor, scope)
    job = job_of(fn)
    job.check(items)
    if options.on_error == "raise":
        job.rehearse(items)
    if dry_run:
        return copy_context().run(of_feature("dry_run"), job, items, options)
    run = MapRun(job, items, options, copy_context(), yields=False)
    try:
        for _ in run.as_completed():
            pass  # the results are in the tasks
        run.end()
        return run.results()
    except BaseException as error:  # Ctrl-C may come even after the last task
        run.end(error)
        hide_own_frames(error)
        raise error


def imap(
    fn: Function,
    items: Iterable[object],
    *,
    key: Key | None = None,
    repeats: int = 1,
    workers: int | None = None,
    progress: bool | None = None,
    on_error: str = "raise",
    executor: Executor | None = None,
    scope: Scope | str | float | None = None,
) -> Iterator[tuple[int, Any]]:
    """Run a function over items, and yield each item's index and result as it finishes.

    Arguments and errors are those of ``map``. Items are taken only a few ahead of the results that
    you read, so a million items need not fit in memory. (Inside a scope, the numbers of all their
    draws are kept.) With ``repeats``, a result is a list, yielded once it is complete.

    If an item fails, its exception is raised after the results of all items that had begun. After
    Ctrl-C, the exception's ``.results`` has the results that were not yielded: pairs of index and
    result. If you leave the iterator early, no further item begins, and the draws of items that were
    not yielded are retracted. With several workers, timing decides which items these are.

    >>> sorted(llmcall.imap(str.upper, ["ann", "ben"]))
    [(0, 'ANN'), (1, 'BEN')]
    """
    options = MapOptions(key, repeats, workers, progress, on_error, executor, scope)
    job = job_of(fn)
    job.check(items)
    if options.on_error == "raise":
        job.rehearse(items)
    return _yield_results(job, items, options, copy_context())


def _yield_results(
    job: Job, items: object, options: MapOptions, context: Context
) -> Iterator[tuple[int, object]]:
    """Yield each item's index and result, and end the run, even if the caller stops reading."""
    run = MapRun(job, items, options, context, yields=True)
    try:
        for number in run.as_completed():
            yield number, run.take(number)
        run.end()
    except BaseException as error:
        run.end(error)
        if isinstance(error, Exception):
            for number in run.not_yielded():
                yield number, run.take(number)
            run.attach_results(error)
        hide_own_frames(error)
        raise error
