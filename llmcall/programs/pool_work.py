"""The work of pools of processes: its calls count as calls of its submitter."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from types import GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..scopes.callers import known_caller, running_work
from . import started
from .replacing import Replacement
from .routes import Route
from .start_methods import MULTIPROCESSING

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future
    from multiprocessing.pool import Pool

Begin = Callable[[Route], None]
JoblibWork = tuple[Callable[..., object], tuple[object, ...], dict[str, object]]


class Work(NamedTuple):
    """A function that a pool of processes runs for its submitter.

    :param begin: begins recording in the process that runs it.
    :param route: the route of the work.
    """

    begin: Begin
    route: Route
    function: Callable[..., object]

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Run the function on behalf of its submitter."""
        with _working(self.begin, self.route):
            return self.function(*args, **kwargs)


class ItemWork(NamedTuple):
    """A function that a pool of processes runs for each item; it gets the item's number first.

    :param is_star: whether the rest are the function's arguments.
    """

    begin: Begin
    route: Route
    function: Callable[..., object]
    is_star: bool

    def __call__(self, item: tuple[int, Any]) -> object:
        """Run the function on behalf of the item's submitter."""
        number, value = item
        route = self.route._replace(caller=f"{self.route.caller}/item {number}")
        with _working(self.begin, route):
            return self.function(*value) if self.is_star else self.function(value)


@contextlib.contextmanager
def _working(begin: Begin, route: Route) -> Iterator[None]:
    """Make the calls of a block on behalf of a pool's work."""
    begin(route)  # the pool may be older than the recording
    caller = known_caller(route.caller, route.ticket)
    with contextlib.nullcontext() if caller is None else running_work(caller):
        yield


def _name(function: Callable[..., object]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def _submit(
    begin: Begin,
    submit: Callable[..., Future[object]],
    executor: Executor,
    function: Callable[..., object],
    /,
    *args: object,
    **kwargs: object,
) -> Future[object]:
    route = started.new_route("work", _name(function))
    if route is None:
        return submit(executor, function, *args, **kwargs)
    future = submit(executor, Work(begin, route, function), *args, **kwargs)
    started.answer()  # its processes may be older than the recording
    future.add_done_callback(started.forgetting(route))
    return future


def _awaited(result: object, pool: object, route: Route) -> object:
    """Return a pool's result, and forget the route of its work when that has ended."""
    if result is None or isinstance(result, list):  # billiard's has none where its pool ends
        started.forgetting(route)()
    else:  # a pool keeps what it has not yet completed, but not a generator
        started.forget_after(pool if isinstance(result, GeneratorType) else result, route)
    return result


def _apply_async(
    begin: Begin,
    apply: Callable[..., object],
    pool: Pool,
    func: Callable[..., object],
    *args: object,
    **kwargs: object,
) -> object:
    route = started.new_route("work", _name(func))
    if route is None:
        return apply(pool, func, *args, **kwargs)
    started.answer()
    return _awaited(apply(pool, Work(begin, route, func), *args, **kwargs), pool, route)


def _map(
    begin: Begin,
    is_star: bool,
    map_items: Callable[..., object],
    pool: Pool,
    func: Callable[..., object],
    iterable: Iterable[object],
    *args: object,
    **kwargs: object,
) -> object:
    route = started.new_route("work", _name(func))
    if route is None:
        return map_items(pool, func, iterable, *args, **kwargs)
    started.answer()
    has_length = hasattr(iterable, "__len__")  # it decides how many items are sent at once
    items: Iterable[object] = enumerate(iterable)
    work = ItemWork(begin, route, func, is_star)
    if is_star:  # a starmap would give the number and the item as two arguments
        items = ((item,) for item in items)
    numbered = list(items) if has_length else items
    return _awaited(map_items(pool, work, numbered, *args, **kwargs), pool, route)


def _run_in_parallel(
    begin: Begin,
    run: Callable[..., object],
    parallel: object,
    iterable: Iterable[JoblibWork],
) -> object:
    route = started.new_route("work", "joblib")
    if route is None:
        return run(parallel, iterable)
    started.answer()
    named = (
        (
            Work(begin, route._replace(caller=f"{route.caller}/item {number}"), function),
            args,
            kwargs,
        )
        for number, (function, args, kwargs) in enumerate(iterable)
    )
    return _awaited(run(parallel, named), parallel, route)


def pool_methods(begin: Begin) -> dict[str, list[Replacement]]:
    """Return where in which module pools of processes get work, and what takes the place.

    :param begin: as of :class:`Work`.
    """
    submit: list[Replacement] = [
        ("ProcessPoolExecutor", "submit", functools.partial(_submit, begin))
    ]
    each, star = (functools.partial(_map, begin, is_star) for is_star in (False, True))
    of_pool: list[Replacement] = [
        ("Pool", "apply_async", functools.partial(_apply_async, begin)),
        *(("Pool", name, each) for name in ("map", "map_async", "imap", "imap_unordered")),
        *(("Pool", name, star) for name in ("starmap", "starmap_async")),
    ]
    parallel = functools.partial(_run_in_parallel, begin)
    return {
        **dict.fromkeys([f"{library}.pool" for library in MULTIPROCESSING], of_pool),
        "concurrent.futures.process": submit,
        "loky.process_executor": submit,
        "joblib.externals.loky.process_executor": submit,
        "joblib.parallel": [("Parallel", "__call__", parallel)],
    }
