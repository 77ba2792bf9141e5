"""The child processes of a recorded program: their requests go to the run, which knows the caller that started each.

Environment variables are set for children alone: with them, the SDKs in the run's own process would call the run in a
circle. Python children patch their HTTP clients, so that base URLs in their code are covered, too; other
children find the base URLs in their environment.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pickle
import signal
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import Context, copy_context
from types import GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from ..config import resolve as config
from ..core.parents import linked, parents
from ..link import messages, programs
from ..link.child import Parent
from ..link.client_facts import layer_data, layer_in
from ..link.commands import (
    Command,
    caller_of,
    exit_code,
    is_python,
    program_name,
    tells_only,
    words_of,
)
from ..link.errand import standing_at
from ..scopes.callers import Caller, begin_naming, current_caller, known_caller, running_work
from ..scopes.position import hold, hold_in_process
from ..stores.cassettes.current import forget_all
from ..support.notices import notice
from ..support.request_origin import llmcall_sends
from ..support.system import (
    ProcessLock,
    after_fork_in_child,
    after_fork_in_parent,
    before_fork,
    last_in,
)
from .linked import recording_linked
from .placeholders import note_keys
from .replacing import Installation, Replacement
from .routes import VARIABLE, Route, decoded, environment_of_child

if TYPE_CHECKING:
    import subprocess
    from asyncio import SubprocessTransport
    from concurrent.futures import Executor, Future
    from multiprocessing.pool import Pool
    from multiprocessing.process import BaseProcess

    from ..link.link_server import Link
    from ..link.wire import Address
    from .http_server import Server
    from .proxy import Proxy
    from .recorder import Recorder

_lock = ProcessLock()
LONGEST_END = 30  # seconds to wait at the end for answers that are under way

Environment = Mapping[Any, Any]
JoblibWork = tuple[Callable[..., object], tuple[object, ...], dict[str, object]]


class RoutesOfRecording:
    """The maker of routes for what a recording process starts.

    :param recorder: the recorder of the process.
    :param is_run: whether it records a whole run: then processes in other languages are recorded, too, and none may
        outlive the recording.
    :ivar server: the server for those, or ``None``.
    :ivar names: the names of what it started.
    :ivar end_program: ends the program with the exit code of what it became.
    """

    def __init__(
        self, recorder: Recorder, *, is_run: bool, end_program: Callable[[int], NoReturn] = sys.exit
    ) -> None:
        self._recorder = recorder
        self._is_run = is_run
        self._context = copy_context()
        self._link: Link | None = None
        self.server: Server | None = None
        self._proxy: Proxy | None = None  # once something must send nothing
        self.names: dict[str, None] = {}
        self.end_program = end_program
        note_keys(os.environ)

    def new(self, caller: Caller, program: str = "") -> Route:
        """Return the route of a process, or of a pool's work, that the current context starts.

        :param program: its name in messages, instead of the caller's.
        """
        if caller.is_thread:  # a pool's work may run in threads of this process
            self.names.setdefault(program or caller.name)
        link = self._new_link()
        context = copy_context()
        context.run(hold, caller=caller)
        base = link.admit(context)
        with _lock:
            if self._is_run and self.server is None:
                from .http_server import Server

                self.server = Server(self._recorder, self.context_of)
        address = "" if self.server is None else self.server.address
        recording = programs.innermost_recorder() or self._recorder
        proxy = self._proxy_address() if recording.sends_nothing else ""
        layers = [layer_data(layer) for layer in config.layers.pushed]
        told = pickle.dumps((recording.options(), layers))
        return Route(address, link.address, base, caller.name, told, proxy, not self._is_run)

    def _proxy_address(self) -> str:
        from .proxy import Proxy

        with _lock:
            if self._proxy is None:
                self._proxy = Proxy(self._recorder)
            return self._proxy.address

    def _new_link(self) -> Link:
        from ..link.link_server import Link  # not for a program without children

        with _lock:
            if self._link is None:
                self._link = Link()
                self._link.other = self._link.ticket(self._link.admit(self._context).ticket)
            return self._link

    def context_of(self, name: str) -> Context | None:
        """Return the context of what a ticket was made for, or ``None``."""
        if self._link is None or (ticket := self._link.ticket(name)) is None:
            return None
        self._link.take(messages.Greet(name))
        return ticket.context

    def started(self) -> None:
        """Start answering the processes that were started, unless that has begun already."""
        with _lock:  # a thread of the program may start something at the same moment
            if self._link is not None:
                self._link.start()
            if self.server is not None:
                self.server.start()
            if self._proxy is not None:
                self._proxy.start()

    def made(self, route: Route) -> bool:
        """Return whether a route leads here."""
        return self._link is not None and route.link == self._link.address

    def note(self, note: messages.Note) -> None:
        """Note something about what was started."""
        if self._link is not None:
            self._link.take(note)

    def missed(self) -> list[str]:
        """Return the Python programs that were started, but whose processes were never recorded."""
        return [] if self._link is None else self._link.missed()

    def end(self, seconds: int) -> None:
        """Stop answering.

        :param seconds: how long to wait for calls that are under way.
        """
        if self.server is not None:
            self.server.close(seconds)
        if self._proxy is not None:
            self._proxy.close()
        if self._link is not None:
            self._link.close(seconds)


class RoutesOfChild:
    """The maker of routes for what a recorded process starts: they lead to the process that records it."""

    def __init__(self, parent: Parent, route: Route) -> None:
        self._parent = parent
        self._route = route
        self.note = parent.note

    def new(self, caller: Caller, program: str = "") -> Route:
        """Return the route of what the current context starts."""
        return self._route._replace(base=self._parent.admit(caller.name), caller=caller.name)

    def started(self) -> None:
        """Do nothing: the recording process answers."""


Routes = RoutesOfRecording | RoutesOfChild
_routes: list[Routes] = []  # while the calls of this process are recorded; the innermost last


def new_route(kind: str, label: str, program: str = "") -> Route | None:
    """Return a route for a process or work that the current context starts, or ``None`` if its calls are
    not recorded.

    :param program: the name of the process's program in messages, instead of the caller's.
    """
    maker = current_caller()
    if not _routes or maker is None or llmcall_sends():
        return None
    return _routes[-1].new(maker.child(kind, label), program)


def _started() -> None:
    """Answer what this process started."""
    for routes in _routes[-1:]:
        routes.started()


def forgetting(route: Route) -> Callable[..., None]:
    """Return a function that forgets a new route, unless its recording has ended; a forked copy does nothing."""
    makers = _routes[-1:]

    def forget(*_: object) -> None:
        for maker in makers:
            if maker in _routes:
                maker.note(messages.Dismiss(route.ticket))

    return forget


def _forget_after(kept: object, route: Route) -> None:
    """Forget a route when an object is no longer kept, as it is while what the route was made for goes on."""
    weakref.finalize(kept, forgetting(route)).atexit = False


class _Starting(threading.local):
    """The routes of what a thread starts.

    :ivar route: the route of the process that it starts, in case that involves a fork.
    :ivar is_function: whether that process begins with a function, and not where it was forked.
    :ivar forked: the route of the process that it forks, between the fork's two hooks.
    """

    route: Route | None = None
    is_function = False
    forked: Route | None = None


_starting = _Starting()


@contextlib.contextmanager
def recording_children(routes: Routes) -> Iterator[None]:
    """Record, for a block, the calls of the processes that this one starts, and of those that they start."""
    _patches.open()
    try:
        with last_in(_routes, routes):
            yield
    finally:
        if not _routes:
            _patches.close()


@contextlib.contextmanager
def recorded_children(recorder: Recorder) -> Iterator[None]:
    """Record the Python processes that a block starts, and those that they start, unless something around it does."""
    if _routes:
        yield
        return
    routes = RoutesOfRecording(recorder, is_run=False)
    try:
        with recording_children(routes):
            yield
    finally:
        for line in missed_lines(routes):
            notice("%s", line)
        routes.end(0)


@contextlib.contextmanager
def _starts(route: Route | None, *, is_function: bool = False) -> Iterator[None]:
    """Give a route to the process that a block starts; a fork in the block takes it over."""
    before = _starting.route, _starting.is_function
    _starting.route, _starting.is_function = route, is_function
    try:
        yield
    finally:
        _starting.route, _starting.is_function = before
        _started()


# Programs


def _open_process(
    init: Callable[..., None], process: subprocess.Popen[Any], *args: object, **kwargs: object
) -> None:
    import inspect  # slow

    given = inspect.signature(init).bind(process, *args, **kwargs)
    environment = given.arguments.get("env")
    environment = os.environ if environment is None else environment
    route, routed = _routed(given.arguments.get("args"), environment)
    if route is not None:
        given.arguments["env"] = routed
    with _starts(route):
        init(*given.args, **given.kwargs)
    _expect(route, given.arguments.get("args"), process.pid)


def _routed(
    args: Command | Sequence[Command] | None, environment: Environment
) -> tuple[Route | None, Environment]:
    """Return the route of a program that is started, and the environment that it gets."""
    if VARIABLE in environment:  # it is started on behalf of another process
        return None, environment
    route = new_route("process", caller_of(args, decoded(environment)), program_name(args))
    return route, environment if route is None else environment_of_child(environment, route)


def _system(system: Callable[[Command], int], command: Command) -> int:
    route, environment = _routed(os.fsdecode(command), os.environ)
    if route is None:
        return system(command)
    if os.name == "nt":
        changes = {key: value for key, value in environment.items() if os.environ.get(key) != value}
        sets = [f'set "{name}={value}"&& ' for name, value in changes.items()]
        _started()  # first: system() returns only when the command has ended
        return system("".join(sets) + os.fsdecode(command))
    # In an environment of its own, not on a command line that sets it: everybody can see those.
    interrupts = (signal.SIGINT, signal.SIGQUIT)
    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in interrupts:  # they are the command's, as in the C library's system()
                stack.callback(signal.signal, number, signal.signal(number, signal.SIG_IGN))
        shell = ["sh", "-c", os.fsdecode(command)]
        process = os.posix_spawn("/bin/sh", shell, environment, setsigdef=interrupts)
        _started()
        _expect(route, command, process)
        return os.waitpid(process, 0)[1]


def _spawn(
    spawn: Callable[..., int],
    path: Command,
    argv: Sequence[Command],
    env: Environment,
    /,
    **kwargs: object,
) -> int:
    command = [path, *argv[1:]]
    route, environment = _routed(command, env)
    with _starts(route):
        process = spawn(path, argv, environment, **kwargs)
    _expect(route, command, process)
    return process


async def _start_by_uvloop(
    is_shell: bool,
    start: Callable[..., Awaitable[tuple[SubprocessTransport, object]]],
    loop: object,
    protocol: object,
    program: Command,
    *args: Command,
    **options: Any,
) -> tuple[SubprocessTransport, object]:
    command = program if is_shell else [program, *args]
    given = options.get("env")
    route, environment = _routed(command, os.environ if given is None else given)
    if route is not None:
        options["env"] = environment
    transport, made = await start(loop, protocol, program, *args, **options)
    _started()
    _expect(route, command, transport.get_pid())
    return transport, made


def _execute(
    execute: Callable[..., object], path: Command, argv: Sequence[Command], env: Environment
) -> object:
    if not _routes or not os.path.exists(path):  # each folder of the path is tried
        return execute(path, argv, env)
    routes = _routes[-1]
    if isinstance(routes, RoutesOfRecording):
        import subprocess

        # This process records what the program becomes, and has to stay: a child becomes that instead.
        done = subprocess.run(argv, executable=path, env=env, close_fds=False, check=False)
        routes.end_program(exit_code(done.returncode))
    command = [path, *argv[1:]]
    route, environment = _routed(command, env)
    if is_python(words_of(command)):  # else it would be seen as the Python that it still is
        _expect(route, command, os.getpid())
    return execute(path, argv, environment)


def _execute_here(
    execute: Callable[..., object], path: Command, argv: Sequence[Command], /
) -> object:
    return os.execve(path, argv, os.environ)  # type: ignore[arg-type]


def _expect(route: Route | None, args: Command | Sequence[Command] | None, process: int) -> None:
    if route is not None:
        for routes in _routes[-1:]:
            expect_pythons(routes, route, args, process)


def expect_pythons(
    routes: Routes, route: Route, args: Command | Sequence[Command] | None, process: int
) -> None:
    """Expect a process that was started to say hello if its program is Python; otherwise, expect that of every Python
    that it starts.
    """
    words = words_of(args)
    if is_python(words):
        if not tells_only(words):
            routes.note(messages.Started(route.ticket, process, program_name(words)))
    else:
        routes.note(messages.Started(route.ticket, process, None))


def missed_lines(routes: RoutesOfRecording) -> list[str]:
    """Return a line about the Python children that were not recorded, if there are any."""
    programs = routes.missed()
    number = len(programs)
    were = "1 Python child was" if number == 1 else f"{number:,} Python children were"
    return [f"{were} not recorded: {', '.join(programs)}"] if programs else []


def begin_started(route: str) -> None:
    """Begin recording in a Python process that a recorded program started.

    :param route: its route, as the environment has it.
    """
    begin(pickle.loads(bytes.fromhex(route)), is_function=False)


# Processes of multiprocessing


class _Carrier:
    """An object that begins recording in a spawned process when it is unpickled there."""

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
        _forget_after(process, route)  # Python keeps the object until the process has ended
    try:
        with _starts(route, is_function=True):
            start(process)
    finally:
        vars(process).pop("llmcall_route", None)


def _fork(fork: Callable[[], Any]) -> Any:
    """Name the process that is about to be forked. That may import modules which have hooks of a fork, so it comes
    before those are called: else only the hooks after the fork would be.
    """
    if _starting.route is not None:
        return fork()
    with _starts(new_route("process", "fork")):
        return fork()


@before_fork
def _name_forked() -> None:
    """Name the process that is about to be forked, also if the program took ``os.fork`` before the recording."""
    _starting.forked = _starting.route or new_route("process", "fork")


after_fork_in_parent(_started)


@after_fork_in_child
def _begin_forked() -> None:
    _routes.clear()
    parents.clear()
    forked, is_function = _starting.forked, _starting.is_function
    # what this process forks in its turn has a route of its own
    _starting.route, _starting.is_function, _starting.forked = None, False, None
    if forked is not None:
        programs.interceptors.clear()
        begin(forked, is_function=is_function)


# Pools of processes: calls of their work count as calls of its submitter


class Work(NamedTuple):
    """A function that a pool of processes runs for its submitter.

    :param route: the route of the work.
    """

    route: Route
    function: Callable[..., object]

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Run the function on behalf of its submitter."""
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
        """Run the function on behalf of the item's submitter."""
        number, value = item
        with _working(self.route._replace(caller=f"{self.route.caller}/item {number}")):
            return self.function(*value) if self.is_star else self.function(value)


@contextlib.contextmanager
def _working(route: Route) -> Iterator[None]:
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
    _started()  # its processes may be older than the recording
    future.add_done_callback(forgetting(route))
    return future


def _awaited(result: object, pool: object, route: Route) -> object:
    """Return a pool's result, and forget the route of its work when that has ended."""
    if result is None or isinstance(result, list):  # billiard's has none where its pool ends
        forgetting(route)()
    else:  # a pool keeps what it has not yet completed, but not a generator
        _forget_after(pool if isinstance(result, GeneratorType) else result, route)
    return result


def _apply_async(
    apply: Callable[..., object],
    pool: Pool,
    func: Callable[..., object],
    *args: object,
    **kwargs: object,
) -> object:
    route = new_route("work", _name(func))
    if route is None:
        return apply(pool, func, *args, **kwargs)
    _started()
    return _awaited(apply(pool, Work(route, func), *args, **kwargs), pool, route)


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
    _started()
    has_length = hasattr(iterable, "__len__")  # it decides how many items are sent at once
    items: Iterable[object] = enumerate(iterable)
    work = ItemWork(route, func, is_star)
    if is_star:  # a starmap would give the number and the item as two arguments
        items = ((item,) for item in items)
    numbered = list(items) if has_length else items
    return _awaited(map_items(pool, work, numbered, *args, **kwargs), pool, route)


def _run_in_parallel(
    run: Callable[..., object], parallel: object, iterable: Iterable[JoblibWork]
) -> object:
    route = new_route("work", "joblib")
    if route is None:
        return run(parallel, iterable)
    _started()
    named = (
        (Work(route._replace(caller=f"{route.caller}/item {number}"), function), args, kwargs)
        for number, (function, args, kwargs) in enumerate(iterable)
    )
    return _awaited(run(parallel, named), parallel, route)


# How a process begins to be recorded

_recorded = contextlib.ExitStack()  # what holds while this process is recorded
_begun: tuple[int, Address] | None = None  # the process that began, and the link of its recorder


def begin(route: Route, *, is_function: bool = True) -> None:
    """Have the process that started this one record its calls, and those of what it starts.

    In the recording process, whose threads may run a pool's work, this does nothing.

    :param is_function: whether this process begins with a function, which needs ``bind`` to be in a scope.
    """
    global _begun, _recorded
    if _begun == (os.getpid(), route.link):
        return
    if any(isinstance(routes, RoutesOfRecording) and routes.made(route) for routes in _routes):
        return
    if _begun is not None and _begun[0] == os.getpid():
        _recorded.close()  # an earlier recording's
    if _begun is None:
        atexit.register(lambda: _recorded.close())
    _begun, _recorded = (os.getpid(), route.link), contextlib.ExitStack()
    options, layers = pickle.loads(route.told)
    outlives = route.outlives and not options.sends_nothing
    parent = Parent(route.link, route.ticket, outlives=outlives)
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


_SUBMIT = [("ProcessPoolExecutor", "submit", _submit)]
_START: list[Replacement] = [("BaseProcess", "start", _start)]
_POOL: list[Replacement] = [
    ("Pool", "apply_async", _apply_async),
    *(
        ("Pool", name, functools.partial(_map, False))
        for name in ("map", "map_async", "imap", "imap_unordered")
    ),
    *(("Pool", name, functools.partial(_map, True)) for name in ("starmap", "starmap_async")),
]
_patches = Installation(
    {
        "os": [
            ("", "system", _system),
            *(("", name, _fork) for name in ("fork", "forkpty") if hasattr(os, name)),
            ("", "execv", _execute_here),  # the other os.exec… and os.spawn… call these two
            ("", "execve", _execute),
            *(("", name, _spawn) for name in ("posix_spawn", "posix_spawnp") if hasattr(os, name)),
        ],
        "subprocess": [("Popen", "__init__", _open_process)],
        "uvloop": [
            ("Loop", "subprocess_exec", functools.partial(_start_by_uvloop, False)),
            ("Loop", "subprocess_shell", functools.partial(_start_by_uvloop, True)),
        ],
        # and its copies: pathos's with dill, and Celery's
        **{
            f"{library}.{module}": patches
            for library in ("multiprocessing", "multiprocess", "billiard")
            for module, patches in (("process", _START), ("pool", _POOL))
        },
        "concurrent.futures.process": _SUBMIT,
        "loky.process_executor": _SUBMIT,
        "joblib.externals.loky.process_executor": _SUBMIT,
        "joblib.parallel": [("Parallel", "__call__", _run_in_parallel)],
    }
)
