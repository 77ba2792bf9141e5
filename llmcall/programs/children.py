"""The ways to start a process, or to give work to a pool of processes: each gives a route to what it starts, and the
process begins to be recorded by it.

Environment variables are set for children alone: with them, the SDKs in the run's own process would call the run in a
circle. Python children patch their HTTP clients, so that base URLs in their code are covered, too; other
children find the base URLs in their environment.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import os
import pickle
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager
from types import GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import resolve as config
from ..core.parents import linked, parents
from ..link import programs
from ..link.child import Parent
from ..link.client_facts import layer_in
from ..link.commands import Command, caller_of, exit_code, is_python, program_name, words_of
from ..link.errand import standing_at
from ..scopes.callers import begin_naming, known_caller, running_work
from ..scopes.position import hold_in_process
from ..stores.cassettes.current import forget_all
from ..support.libraries import importing
from ..support.notices import notice
from ..support.system import after_fork_in_child, after_fork_in_parent, before_fork, last_in
from . import started
from .linked import recording_linked
from .replacing import Installation, Replacement
from .routes import VARIABLE, Route, decoded, environment_of_child
from .started import Routes, RoutesOfChild, RoutesOfRecording, making

if TYPE_CHECKING:
    import subprocess
    from asyncio import SubprocessTransport
    from concurrent.futures import Executor, Future
    from multiprocessing.pool import Pool
    from multiprocessing.process import BaseProcess

    from .recorder import Recorder

MULTIPROCESSING = ("multiprocessing", "multiprocess", "billiard")  # copies: pathos's, Celery's
Environment = Mapping[Any, Any]


class Starting(threading.local):
    """The routes of the processes that a thread starts.

    :ivar route: the route of the process that it starts, in case that involves a fork.
    :ivar is_function: ``True`` if that process begins with a function, and not where it was forked.
    :ivar forked: the route of the process that it forks, between the fork's two hooks.
    """

    route: Route | None = None
    is_function = False
    forked: Route | None = None

    @contextlib.contextmanager
    def process(self, route: Route | None, *, is_function: bool = False) -> Iterator[None]:
        """Give a route to the process that a block starts; a fork in the block takes it over."""
        before = self.route, self.is_function
        self.route, self.is_function = route, is_function
        try:
            yield
        finally:
            self.route, self.is_function = before
            started.start_servers()


starting = Starting()


class Program:
    """A program that is started.

    :param args: its command.
    :param given: the environment that it was to get.
    :ivar route: its route; ``None`` if its calls are not recorded.
    :ivar environment: that it gets.
    """

    def __init__(self, args: Command | Sequence[Command] | None, given: Environment) -> None:
        self._args = args
        self.route: Route | None = None
        self.environment = given
        if VARIABLE not in given:  # else it is started on behalf of another process
            name = caller_of(args, decoded(given))
            self.route = started.new_route("process", name, program_name(args))
        if self.route is not None:
            self.environment = environment_of_child(given, self.route)

    def begun(self, process: int) -> None:
        """Answer the process, and expect a hello of the Pythons that it is or starts."""
        started.start_servers()
        if self.route is not None and (routes := started.innermost()) is not None:
            routes.expect(self.route, self._args, process)


# Programs


def _open_process(
    init: Callable[..., None], process: subprocess.Popen[Any], *args: object, **kwargs: object
) -> None:
    import inspect  # slow

    given = inspect.signature(init).bind(process, *args, **kwargs)
    environment = given.arguments.get("env")
    program = Program(
        given.arguments.get("args"), os.environ if environment is None else environment
    )
    if program.route is not None:
        given.arguments["env"] = program.environment
    with starting.process(program.route):
        init(*given.args, **given.kwargs)
    program.begun(process.pid)


def _system(system: Callable[[Command], int], command: Command) -> int:
    program = Program(os.fsdecode(command), os.environ)
    environment = program.environment
    if program.route is None:
        return system(command)
    if os.name == "nt":
        changes = {key: value for key, value in environment.items() if os.environ.get(key) != value}
        sets = [f'set "{name}={value}"&& ' for name, value in changes.items()]
        started.start_servers()  # first: system() returns only when the command has ended
        return system("".join(sets) + os.fsdecode(command))
    # In an environment of its own, not on a command line that sets it: everybody can see those.
    interrupts = (signal.SIGINT, signal.SIGQUIT)
    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in interrupts:  # they are the command's, as in the C library's system()
                stack.callback(signal.signal, number, signal.signal(number, signal.SIG_IGN))
        shell = ["sh", "-c", os.fsdecode(command)]
        process = os.posix_spawn("/bin/sh", shell, environment, setsigdef=interrupts)
        program.begun(process)
        return os.waitpid(process, 0)[1]


def _spawn(
    spawn: Callable[..., int],
    path: Command,
    argv: Sequence[Command],
    env: Environment,
    /,
    **kwargs: object,
) -> int:
    program = Program([path, *argv[1:]], env)
    with starting.process(program.route):
        process = spawn(path, argv, program.environment, **kwargs)
    program.begun(process)
    return process


async def _start_by_uvloop(
    is_shell: bool,
    start: Callable[..., Awaitable[tuple[SubprocessTransport, object]]],
    loop: object,
    protocol: object,
    command: Command,
    *args: Command,
    **options: Any,
) -> tuple[SubprocessTransport, object]:
    given = options.get("env")
    environment = os.environ if given is None else given
    program = Program(command if is_shell else [command, *args], environment)
    if program.route is not None:
        options["env"] = program.environment
    transport, made = await start(loop, protocol, command, *args, **options)
    program.begun(transport.get_pid())
    return transport, made


def _execute(
    execute: Callable[..., object], path: Command, argv: Sequence[Command], env: Environment
) -> object:
    routes = started.innermost()
    if routes is None or not os.path.exists(path):  # each folder of the path is tried
        return execute(path, argv, env)
    if isinstance(routes, RoutesOfRecording):
        import subprocess

        # This process records what the program becomes, and has to stay: a child becomes that instead.
        done = subprocess.run(argv, executable=path, env=env, close_fds=False, check=False)
        routes.end_program(exit_code(done.returncode))
    command = [path, *argv[1:]]
    program = Program(command, env)
    if is_python(words_of(command)):  # else it would be seen as the Python that it still is
        program.begun(os.getpid())
    return execute(path, argv, program.environment)


def _execute_here(
    execute: Callable[..., object], path: Command, argv: Sequence[Command], /
) -> object:
    return os.execve(path, argv, os.environ)  # type: ignore[arg-type]


# Forks


def _fork(fork: Callable[[], Any]) -> Any:
    """Name the process that is about to be forked. That may import modules which have hooks of a fork, so it comes
    before those are called: else only the hooks after the fork would be.
    """
    named: AbstractContextManager[None] = contextlib.nullcontext()
    if starting.route is None:
        named = starting.process(started.new_route("process", "fork"))
    with named, importing:  # else the child would wait for ever for the other half of a library
        return fork()


@before_fork
def _name_forked() -> None:
    """Name the process that is about to be forked, even if the program imported ``os.fork`` before the recording."""
    starting.forked = starting.route or started.new_route("process", "fork")
    for library in ("httpx2", "httpx"):  # one that another thread imports would stay locked there
        if starting.forked is not None and library in sys.modules:
            importlib.import_module(library)


after_fork_in_parent(started.start_servers)


# Processes of multiprocessing


class _Carrier(NamedTuple):
    """An object that begins recording in a spawned process when it is unpickled there."""

    route: Route

    def __reduce__(self) -> tuple[Callable[[Route], None], tuple[Route]]:
        return begin, (self.route,)


def _start(start: Callable[[BaseProcess], None], process: BaseProcess) -> None:
    target = getattr(process, "_target", None)
    label = getattr(target, "__name__", None) or type(process).__name__
    route = started.new_route("process", label)
    if route is not None:
        # What a process object holds is pickled for a spawned process.
        vars(process)["llmcall_route"] = _Carrier(route)
        started.forget_after(process, route)  # Python keeps the object until the process has ended
    try:
        with starting.process(route, is_function=True):
            start(process)
    finally:
        vars(process).pop("llmcall_route", None)


# The work of pools of processes: its calls count as calls of its submitter

JoblibWork = tuple[Callable[..., object], tuple[object, ...], dict[str, object]]


class Work(NamedTuple):
    """A function that a pool of processes runs for its submitter.

    :param route: the route of the work.
    :param given: the function's arguments; others may follow.
    """

    route: Route
    function: Callable[..., object]
    given: tuple[object, ...] = ()

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Run the function on behalf of its submitter."""
        begin(self.route)  # the pool may be older than the recording
        caller = known_caller(self.route.caller, self.route.ticket)
        with contextlib.nullcontext() if caller is None else running_work(caller):
            return self.function(*self.given, *args, **kwargs)

    def of_item(self, number: int, function: Callable[..., object], *given: object) -> Work:
        """Return the work on one of its items."""
        route = self.route._replace(caller=f"{self.route.caller}/item {number}")
        return Work(route, function, given)


def _run(work: Callable[[], object]) -> object:
    return work()


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
    route = started.new_route("work", _name(function))
    if route is None:
        return submit(executor, function, *args, **kwargs)
    future = submit(executor, Work(route, function), *args, **kwargs)
    started.start_servers()  # its processes may be older than the recording
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
    apply: Callable[..., object],
    pool: Pool,
    func: Callable[..., object],
    *args: object,
    **kwargs: object,
) -> object:
    route = started.new_route("work", _name(func))
    if route is None:
        return apply(pool, func, *args, **kwargs)
    started.start_servers()
    return _awaited(apply(pool, Work(route, func), *args, **kwargs), pool, route)


def _map(
    is_star: bool,
    map_items: Callable[..., object],
    pool: Pool,
    func: Callable[..., object],
    iterable: Iterable[Any],
    *args: object,
    **kwargs: object,
) -> object:
    route = started.new_route("work", _name(func))
    if route is None:
        return map_items(pool, func, iterable, *args, **kwargs)
    started.start_servers()
    work = Work(route, func)
    items: Iterable[object] = (
        work.of_item(number, func, *(item if is_star else (item,)))
        for number, item in enumerate(iterable)
    )
    if is_star:
        items = ((item,) for item in items)
    # A length decides how many items are sent at once.
    items = list(items) if isinstance(iterable, Sized) else items
    return _awaited(map_items(pool, _run, items, *args, **kwargs), pool, route)


def _run_in_parallel(
    run: Callable[..., object], parallel: object, iterable: Iterable[JoblibWork]
) -> object:
    route = started.new_route("work", "joblib")
    if route is None:
        return run(parallel, iterable)
    started.start_servers()
    work = Work(route, _run)
    named = (
        (work.of_item(number, function), args, kwargs)
        for number, (function, args, kwargs) in enumerate(iterable)
    )
    return _awaited(run(parallel, named), parallel, route)


# How recording begins


@contextlib.contextmanager
def recording_children(routes: Routes) -> Iterator[None]:
    """Record, for a block, the calls of the processes that this one starts, and of those that they start."""
    _start_methods.open()
    try:
        with last_in(making, routes):
            yield
    finally:
        if not making:
            _start_methods.close()


@contextlib.contextmanager
def recorded_children(recorder: Recorder) -> Iterator[None]:
    """Record the Python processes that a block starts, and those that they start, unless something around it does."""
    if making:
        yield
        return
    routes = RoutesOfRecording(recorder, is_run=False)
    try:
        with recording_children(routes):
            yield
    finally:
        for line in routes.missed_lines():
            notice("%s", line)
        routes.end(0)


_recorded = contextlib.ExitStack()  # what holds while another process records this one
atexit.register(lambda: _recorded.close())


def begin(route: Route, process: int | None = None, *, is_function: bool = True) -> None:
    """Ask the parent to record this process's calls and its children's, unless it already does.

    In the recording process, whose threads may run a pool's work, this does nothing.

    :param process: the number of this process's hello, or ``None``.
    :param is_function: ``True`` if this process begins with a function, which needs ``bind`` to be in a scope.
    """
    global _recorded
    if any(routes.made(route) for routes in making):
        return
    _recorded.close()  # an earlier recording's
    options, layers = pickle.loads(route.told)
    outlives = route.outlives and not route.sends_nothing
    parent = Parent(route.link, route.ticket, outlives=outlives, process=process)
    with contextlib.ExitStack() as stack:
        # A cassette from its own settings would not see what the recording process answers.
        layer = config.layer_above_files({"cassette_path": None}, "the recording process")
        stack.callback(config.push_layer(layer))
        for pushed in layers:
            stack.callback(config.push_layer(layer_in(pushed)))
        forget_all()
        stack.callback(parent.close)
        stack.enter_context(linked(parent))
        stack.enter_context(recording_linked(options, parent))
        stack.enter_context(recording_children(RoutesOfChild(parent, route)))
        begin_naming(route.caller, route.ticket)
        if route.base.opened_by != "default" and not is_function:
            hold_in_process(active=standing_at(route.base._replace(ticket="")))
        _recorded = stack.pop_all()


def begin_started(route: str, process: int | None) -> None:
    """Begin recording in a Python process that a recorded program started.

    :param route: its route, as the environment has it.
    :param process: the number of its hello, or ``None``.
    """
    begin(pickle.loads(bytes.fromhex(route)), process, is_function=False)


@after_fork_in_child
def _begin_forked() -> None:
    global _recorded
    making.clear()
    parents.clear()
    forked, is_function = starting.forked, starting.is_function
    # what this process forks in its turn has a route of its own
    starting.route, starting.is_function, starting.forked = None, False, None
    if forked is not None:
        programs.interceptors.clear()
        _recorded = contextlib.ExitStack()
        begin(forked, is_function=is_function)


# By the module: where in it something is started, and what takes the place
_each, _star = (functools.partial(_map, is_star) for is_star in (False, True))
_submits: list[Replacement] = [("ProcessPoolExecutor", "submit", _submit)]
_processes: list[Replacement] = [("BaseProcess", "start", _start)]
_pools: list[Replacement] = [
    ("Pool", "apply_async", _apply_async),
    *(("Pool", name, _each) for name in ("map", "map_async", "imap", "imap_unordered")),
    *(("Pool", name, _star) for name in ("starmap", "starmap_async")),
]
_start_methods = Installation(
    {
        "os": [
            ("", name, function)
            for name, function in (
                ("system", _system),
                ("fork", _fork),
                ("forkpty", _fork),
                ("execv", _execute_here),  # the other os.exec… and os.spawn… call these two
                ("execve", _execute),
                ("posix_spawn", _spawn),
                ("posix_spawnp", _spawn),
            )
            if hasattr(os, name)
        ],
        "subprocess": [("Popen", "__init__", _open_process)],
        "uvloop": [
            ("Loop", "subprocess_exec", functools.partial(_start_by_uvloop, False)),
            ("Loop", "subprocess_shell", functools.partial(_start_by_uvloop, True)),
        ],
        **{f"{library}.process": _processes for library in MULTIPROCESSING},
        **{f"{library}.pool": _pools for library in MULTIPROCESSING},
        "concurrent.futures.process": _submits,
        "loky.process_executor": _submits,
        "joblib.externals.loky.process_executor": _submits,
        "joblib.parallel": [("Parallel", "__call__", _run_in_parallel)],
    }
)
