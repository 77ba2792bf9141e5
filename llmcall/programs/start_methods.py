"""The ways to start a process: each gives a route to what it starts."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..link.commands import Command, caller_of, exit_code, is_python, program_name, words_of
from ..support.system import after_fork_in_parent, before_fork
from . import started
from .replacing import Replacement
from .routes import VARIABLE, Route, decoded, environment_of_child

if TYPE_CHECKING:
    import subprocess
    from asyncio import SubprocessTransport
    from multiprocessing.process import BaseProcess

MULTIPROCESSING = ("multiprocessing", "multiprocess", "billiard")  # copies: pathos's, Celery's
Environment = Mapping[Any, Any]


class Starting(threading.local):
    """The routes of the processes that a thread starts.

    :ivar route: the route of the process that it starts, in case that involves a fork.
    :ivar is_function: whether that process begins with a function, and not where it was forked.
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
            started.answer()


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
        started.answer()
        if self.route is not None:
            started.expect(self.route, self._args, process)


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
        started.answer()  # first: system() returns only when the command has ended
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
    if isinstance(routes, started.RoutesOfRecording):
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
    if starting.route is not None:
        return fork()
    with starting.process(started.new_route("process", "fork")):
        return fork()


@before_fork
def _name_forked() -> None:
    """Name the process that is about to be forked, even if the program imported ``os.fork`` before the recording."""
    starting.forked = starting.route or started.new_route("process", "fork")


after_fork_in_parent(started.answer)


# Processes of multiprocessing


class _Carrier:
    """An object that begins recording in a spawned process when it is unpickled there."""

    def __init__(self, begin: Callable[[Route], None], route: Route) -> None:
        self._begin = begin
        self._route = route

    def __reduce__(self) -> tuple[Callable[[Route], None], tuple[Route]]:
        return self._begin, (self._route,)


def _start(
    begin: Callable[[Route], None], start: Callable[[BaseProcess], None], process: BaseProcess
) -> None:
    target = getattr(process, "_target", None)
    label = getattr(target, "__name__", None) or type(process).__name__
    route = started.new_route("process", label)
    if route is not None:
        # What a process object holds is pickled for a spawned process.
        vars(process)["llmcall_route"] = _Carrier(begin, route)
        started.forget_after(process, route)  # Python keeps the object until the process has ended
    try:
        with starting.process(route, is_function=True):
            start(process)
    finally:
        vars(process).pop("llmcall_route", None)


def start_methods(begin: Callable[[Route], None]) -> dict[str, list[Replacement]]:
    """Return where in which module a process is started, and what takes the place.

    :param begin: begins recording in a process of multiprocessing.
    """
    of_process: list[Replacement] = [("BaseProcess", "start", functools.partial(_start, begin))]
    return {
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
        **dict.fromkeys([f"{library}.process" for library in MULTIPROCESSING], of_process),
    }
