"""The child processes of a recorded program: their requests go to the run, which knows who started each.

Environment variables are set for children alone: the SDKs of the run's own process would go in a circle.
Python children put a front before their HTTP clients, so that base URLs in their code count, too; other
children have the base URLs in their environment.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import scopes
from ..config import resolve as config
from ..stores.cassettes.current import hide_all
from ..support.system import after_fork_in_child, before_fork
from .forwarding import (
    Forwarder,
    Routes,
    forwarder,
    give_routes,
    gives_routes,
    new_route,
    release,
)
from .front import in_front
from .replacing import replace, when_imported
from .routes import Route, environment_of_child, route_in_environment
from .shared_server import sender_here, shared_server
from .stack import fronts

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future
    from multiprocessing.pool import Pool
    from multiprocessing.process import BaseProcess

    from .recorder import Recorder

Command = str | bytes | os.PathLike[str]
JoblibWork = tuple[Callable[..., object], tuple[object, ...], dict[str, object]]
# The class and the name of a method, and what takes its place
ReplacedMethod = tuple[str, str, Callable[..., object]]


class RoutesOfRun:
    """Makes the routes of what the process of a run starts.

    :param recorder: the run's.
    :ivar started: the names of what it started.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.started: dict[str, None] = {}

    def new(self, asker: scopes.Asker) -> Route:
        """Return the route of what the current context starts."""
        server = shared_server()
        self.started.setdefault(asker.name)
        return Route(server.address, server.admit(sender_here(self._recorder, asker)), asker.name)

    def release(self, route: Route) -> None:
        """Forget the sender that has a route."""
        shared_server().dismiss(route.ticket)


class _Starting(threading.local):
    """The routes of what a thread starts.

    :ivar route: of the process that it starts, for a fork in there.
    :ivar forked: of the process that it forks, between the fork's two hooks.
    """

    route: Route | None = None
    forked: Route | None = None


_starting = _Starting()


def record_children(undo: contextlib.ExitStack, routes: Routes) -> None:
    """Record the calls of the processes that this one starts, and of theirs.

    :param undo: gets the callbacks that end it.
    """
    give_routes(routes)
    undo.callback(give_routes, None)
    replace(undo, os, "system", _system)
    when_imported(undo, {name: functools.partial(_put_in, undo) for name in REPLACEMENTS})


def _put_in(undo: contextlib.ExitStack, module: ModuleType) -> None:
    for class_name, name, replacement in REPLACEMENTS[module.__name__]:
        replace(undo, getattr(module, class_name), name, replacement)


@contextlib.contextmanager
def _starts(route: Route | None) -> Iterator[None]:
    """Give the process that a block starts a route; a fork in there takes it over."""
    before = _starting.route
    _starting.route = route
    try:
        yield
    finally:
        _starting.route = before


# Programs


def _open_process(
    init: Callable[..., None], process: object, *args: object, **kwargs: object
) -> None:
    given = inspect.signature(init).bind(process, *args, **kwargs)
    route = new_route("process", program_name(given.arguments.get("args")))
    if route is not None:
        environment = given.arguments.get("env")
        given.arguments["env"] = environment_of_child(
            os.environ if environment is None else environment, route
        )
    with _starts(route):
        init(*given.args, **given.kwargs)


def _system(system: Callable[[Command], int], command: Command) -> int:
    route = new_route("process", program_name(os.fsdecode(command)))
    if route is not None:
        before = dict(os.environ)
        after = environment_of_child(before, route)
        changes = {name: value for name, value in after.items() if before.get(name) != value}
        if os.name == "nt":
            sets = [f'set "{name}={value}"&& ' for name, value in changes.items()]
        else:
            sets = [f"export {name}={shlex.quote(value)}\n" for name, value in changes.items()]
        command = "".join(sets) + os.fsdecode(command)
    return system(command)


def program_name(args: Command | Sequence[Command] | None) -> str:
    """Return the name of the program that a command runs; of Python, the name of its script or module. It
    is the same on every machine.
    """
    if isinstance(args, (str, bytes, os.PathLike)):
        words = os.fsdecode(args).split()
    else:
        words = [os.fsdecode(word) for word in args or ()]
    names = [os.path.basename(word) for word in words]
    if not names:
        return ""
    if not names[0].lower().startswith("python") and words[0] != sys.executable:
        return names[0].removesuffix(".exe")
    arguments = itertools.takewhile(lambda name: name != "-c", names[1:])
    return next((name for name in arguments if not name.startswith("-")), "python")


def begin_by_environment(value: str) -> None:
    """Begin a Python process that a recorded program started, with its environment as the program gave it.

    :param value: of the variable that the run set.
    """
    begin(route_in_environment(value))


# Processes of multiprocessing


class _Carrier:
    """Begins a spawned process where it is unpickled there."""

    def __init__(self, route: Route) -> None:
        self._route = route

    def __reduce__(self) -> tuple[Callable[[Route], None], tuple[Route]]:
        return begin, (self._route,)


def _start(start: Callable[[BaseProcess], None], process: BaseProcess) -> None:
    target = getattr(process, "_target", None)
    label = getattr(target, "__name__", None) or type(process).__name__
    route = new_route("process", label)
    if route is not None:
        # What a process object holds is pickled for a spawned process.
        vars(process)["llmcall_route"] = _Carrier(route)
    try:
        with _starts(route):
            start(process)
    finally:
        vars(process).pop("llmcall_route", None)


@before_fork
def _name_forked() -> None:
    """Name the process that is about to be forked."""
    _starting.forked = _starting.route or new_route("process", "fork")


@after_fork_in_child
def _begin_forked() -> None:
    if _starting.forked is not None:
        fronts.clear()
        begin(_starting.forked)


# Pools of processes: their work is asked in the name of whoever submitted it


class Work(NamedTuple):
    """A function that a pool of processes runs for whoever submitted it.

    :param route: of the work.
    """

    route: Route
    function: Callable[..., object]

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Run the function in its submitter's name."""
        with _working(self.route):
            return self.function(*args, **kwargs)


class ItemWork(NamedTuple):
    """A function that a pool of processes runs for each item; it gets the item's number first.

    :param is_star: whether the rest are the function's arguments.
    """

    route: Route
    function: Callable[..., object]
    is_star: bool

    def __call__(self, item: tuple[int, Any]) -> object:
        """Run the function in the name of whoever submitted the item."""
        number, value = item
        with _working(self.route._replace(asker=f"{self.route.asker}/item {number}")):
            return self.function(*value) if self.is_star else self.function(value)


@contextlib.contextmanager
def _working(route: Route) -> Iterator[None]:
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
    future = submit(executor, Work(route, function), *args, **kwargs)
    future.add_done_callback(lambda _: release(route))
    return future


def _apply_async(
    apply: Callable[..., object],
    pool: Pool,
    func: Callable[..., object],
    *args: object,
    **kwargs: object,
) -> object:
    route = new_route("work", _name(func))
    return apply(pool, func if route is None else Work(route, func), *args, **kwargs)


def _map(
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
    work = ItemWork(route, func, is_star)
    if is_star:  # a starmap would give the number and the item as two arguments
        items = ((item,) for item in items)
    return map_items(pool, work, list(items) if has_length else items, *args, **kwargs)


def _run_in_parallel(
    run: Callable[..., object], parallel: object, iterable: Iterable[JoblibWork]
) -> object:
    route = new_route("work", "joblib")
    if route is None:
        return run(parallel, iterable)
    named = (
        (Work(route._replace(asker=f"{route.asker}/item {number}"), function), args, kwargs)
        for number, (function, args, kwargs) in enumerate(iterable)
    )
    return run(parallel, named)


# A process's own beginning

_undo = contextlib.ExitStack()


def begin(route: Route) -> None:
    """Send the requests of this process to the run that started it, and record its children's."""
    current = forwarder()
    if current is None:
        overrides = {"cache_mode": "off", "cassette_path": None}
        config.push_layer(config.layer_above_files(overrides, "llmcall run"))
        hide_all()
        current = Forwarder(route)
        if not gives_routes():
            _undo.enter_context(in_front(current))
            record_children(_undo, current)
        else:  # a forked process has the replacements of its parent
            fronts.append(current)
            give_routes(current)
    else:
        current.route = route
    scopes.begin_naming(route.asker, route.ticket)


_SUBMIT: ReplacedMethod = ("ProcessPoolExecutor", "submit", _submit)
REPLACEMENTS: dict[str, list[ReplacedMethod]] = {
    "subprocess": [("Popen", "__init__", _open_process)],
    "multiprocessing.process": [("BaseProcess", "start", _start)],
    "multiprocessing.pool": [
        ("Pool", "apply_async", _apply_async),
        *(
            ("Pool", name, functools.partial(_map, False))
            for name in ("map", "map_async", "imap", "imap_unordered")
        ),
        *(("Pool", name, functools.partial(_map, True)) for name in ("starmap", "starmap_async")),
    ],
    "concurrent.futures.process": [_SUBMIT],
    "loky.process_executor": [_SUBMIT],
    "joblib.externals.loky.process_executor": [_SUBMIT],
    "joblib.parallel": [("Parallel", "__call__", _run_in_parallel)],
}
