"""The work of a recorded program's pools of processes, asked in the name of whoever submitted it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import scopes
from .forwarding import forwarder, gives_routes, new_route, release
from .routes import Route

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future
    from multiprocessing.pool import Pool


JoblibWork = tuple[Callable[..., object], tuple[object, ...], dict[str, object]]
Begin = Callable[[Route], None]  # records the process in which it is called
# The class and the name of a method, and what takes its place
ReplacedMethod = tuple[str, str, Callable[..., object]]


class Work(NamedTuple):
    """A function that a pool of processes runs for whoever submitted it.

    :param begin: records the process in which it runs.
    :param route: of the work.
    """

    begin: Begin
    route: Route
    function: Callable[..., object]

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Run the function in its submitter's name."""
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
        """Run the function in the name of whoever submitted the item."""
        number, value = item
        with _working(self.begin, self.route._replace(asker=f"{self.route.asker}/item {number}")):
            return self.function(*value) if self.is_star else self.function(value)


@contextlib.contextmanager
def _working(begin: Begin, route: Route) -> Iterator[None]:
    """Ask in the name of a pool's work for a block."""
    if not gives_routes():  # the pool is older than the recording
        begin(route)
    asker = scopes.known_asker(route.asker, route.ticket if forwarder() else "")
    with contextlib.nullcontext() if asker is None else scopes.running_work(asker):
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
    route = new_route("work", _name(function))
    if route is None:
        return submit(executor, function, *args, **kwargs)
    future = submit(executor, Work(begin, route, function), *args, **kwargs)
    future.add_done_callback(lambda _: release(route))
    return future


def _apply_async(
    begin: Begin,
    apply: Callable[..., object],
    pool: Pool,
    func: Callable[..., object],
    *args: object,
    **kwargs: object,
) -> object:
    route = new_route("work", _name(func))
    return apply(pool, func if route is None else Work(begin, route, func), *args, **kwargs)


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
    route = new_route("work", _name(func))
    if route is None:
        return map_items(pool, func, iterable, *args, **kwargs)
    has_length = hasattr(iterable, "__len__")  # it decides how many items are sent at once
    items: Iterable[object] = enumerate(iterable)
    work = ItemWork(begin, route, func, is_star)
    if is_star:  # a starmap would give the number and the item as two arguments
        items = ((item,) for item in items)
    return map_items(pool, work, list(items) if has_length else items, *args, **kwargs)


def _run_in_parallel(
    begin: Begin, run: Callable[..., object], parallel: object, iterable: Iterable[JoblibWork]
) -> object:
    route = new_route("work", "joblib")
    if route is None:
        return run(parallel, iterable)
    named = (
        (Work(begin, route._replace(asker=f"{route.asker}/item {number}"), function), args, kwargs)
        for number, (function, args, kwargs) in enumerate(iterable)
    )
    return run(parallel, named)


def pool_methods(begin: Begin) -> dict[str, list[ReplacedMethod]]:
    """Return what takes the place of pools' methods, by the module that has them.

    :param begin: records a process, in a pool that is older than the recording.
    """
    submit = ("ProcessPoolExecutor", "submit", functools.partial(_submit, begin))
    items, arguments = (functools.partial(_map, begin, is_star) for is_star in (False, True))
    return {
        "multiprocessing.pool": [
            ("Pool", "apply_async", functools.partial(_apply_async, begin)),
            *(("Pool", name, items) for name in ("map", "map_async", "imap", "imap_unordered")),
            *(("Pool", name, arguments) for name in ("starmap", "starmap_async")),
        ],
        "concurrent.futures.process": [submit],
        "loky.process_executor": [submit],
        "joblib.externals.loky.process_executor": [submit],
        "joblib.parallel": [("Parallel", "__call__", functools.partial(_run_in_parallel, begin))],
    }
