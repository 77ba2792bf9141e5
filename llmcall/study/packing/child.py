"""Run a packed program in a process of its own, and log what it reads, writes and tries to reach.

``python child.py PLAN``: PLAN is the JSON file that :mod:`llmcall.study.packing.replay` writes. Only
the standard library is imported before the audit hook is installed.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import os
import runpy
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

PACKAGE = Path(__file__).resolve().parents[2]
ACCESS = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
# Modules whose child processes describe this machine, and are others on another one.
DESCRIBING_MODULES = frozenset({"ctypes.util", "matplotlib.font_manager", "platform", "uuid"})


class Log:
    """Appends events to a file, a line each, from this process and those that it forks.

    :param path: the file.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._events: set[tuple[str, ...]] = set()

    def add(self, kind: str, *values: Any) -> None:
        """Add an event."""
        line = json.dumps([kind, *values]).encode() + b"\n"
        os.write(self._file, line)

    def add_once(self, kind: str, *values: str) -> None:
        """Add an event unless it is there already."""
        if (kind, *values) not in self._events:
            self._events.add((kind, *values))
            self.add(kind, *values)


class Trace:
    """Hears what Python does: the files that it opens, and the connections that it makes.

    :param log: gets the events.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._is_on = True
        self._host = socket.gethostname()

    def start(self) -> None:
        """Start. An audit hook cannot be removed; after :meth:`stop` it does nothing."""
        sys.addaudithook(self._on_audit_event)
        self._log_multiprocessing()

    def stop(self) -> None:
        """Stop."""
        self._is_on = False

    def _log_multiprocessing(self) -> None:
        """Log the processes that multiprocessing and joblib start: on POSIX, that raises no audit event
        (Python 3.15), unless they fork.
        """
        try:
            import _posixsubprocess
        except ModuleNotFoundError:  # on Windows
            return
        fork_exec = _posixsubprocess.fork_exec

        def logged_fork_exec(arguments: Any, executables: Any, *others: Any) -> int:
            caller = sys._getframe(1).f_globals.get("__name__")
            if self._is_on and caller != "subprocess":  # an audit event tells of that one
                self._log_unaudited_child(_text(executables[0]))
            return fork_exec(arguments, executables, *others)

        _posixsubprocess.fork_exec = logged_fork_exec

    def _on_audit_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_on:
            return
        if event == "open":
            self._log_open(arguments[0], arguments[2])
        elif event == "import":
            self._log_read(arguments[1])
        elif event in ("os.listdir", "os.scandir"):
            self._log_listing(arguments[0])
        elif event == "os.rename":
            self._log_write(arguments[1])
        elif event == "sqlite3.connect":
            self._log_read(arguments[0])
        elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            self._refuse_connection(arguments[1])
        elif event in LOOKUPS:
            self._refuse_lookup(arguments[0])
        elif event == "subprocess.Popen":
            self._log_child(arguments[0] or _first_argument(arguments[1]))
        elif event == "_winapi.CreateProcess" and arguments[0] == sys.executable:
            self._log_unaudited_child(sys.executable)
        elif event in ("os.posix_spawn", "os.exec", "os.startfile"):
            self._log_child(arguments[0])
        elif event == "os.spawn":
            self._log_child(arguments[1])
        elif event == "os.system":
            self._log_child(os.fsdecode(arguments[0]).partition(" ")[0])

    def _log_open(self, path: Any, flags: int) -> None:
        if flags & ACCESS == os.O_RDONLY:
            self._log_read(path)
            return
        if not flags & (os.O_TRUNC | os.O_EXCL):
            self._log_read(path)  # what it held stays, or is read
        self._log_write(path)

    def _log_read(self, path: Any) -> None:
        file = _absolute(path)
        if file is not None and os.path.isfile(file):
            self._log.add_once("read", file)

    def _log_write(self, path: Any) -> None:
        file = _absolute(path)
        if file is not None:
            self._log.add_once("write", file)

    def _log_listing(self, path: Any) -> None:
        folder = _absolute("." if path is None else path)
        if folder is not None:
            self._log.add_once("list", folder)

    def _refuse_connection(self, address: Any) -> None:
        if not isinstance(address, tuple):
            return  # a Unix socket
        self._refuse(f"{_text(address[0])}:{address[1]}")

    def _refuse_lookup(self, host: Any) -> None:
        name = _text(host or "localhost")
        if name not in ("localhost", self._host) and not _is_number(name):
            self._refuse(name)

    def _refuse(self, destination: str) -> NoReturn:
        self._log.add("connect", destination)
        raise ConnectionRefusedError(
            errno.ECONNREFUSED, f"a packed program has no network: {destination} is refused"
        )

    def _log_unaudited_child(self, path: str) -> None:
        """Log a child process of which no audit event tells.

        One that runs Python is multiprocessing's; its path differs between machines.
        """
        if path == sys.executable:
            self._log.add_once("multiprocessing")
        else:
            self._log_child(path)

    def _log_child(self, program: Any) -> None:
        if not _describes_machine():
            self._log.add_once("child", os.path.basename(_text(program)))


def _first_argument(arguments: Any) -> Any:
    return arguments if isinstance(arguments, (str, bytes)) else arguments[0]


def _text(value: Any) -> str:
    return os.fsdecode(value) if isinstance(value, (str, bytes, os.PathLike)) else str(value)


def _absolute(path: Any) -> str | None:
    if not isinstance(path, (str, bytes, os.PathLike)):
        return None  # a file descriptor
    try:
        return os.path.abspath(os.fsdecode(path))
    # The working directory is gone, or the name has a zero byte.
    except (FileNotFoundError, ValueError):
        return None


def _is_number(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, UnicodeEncodeError):
            socket.inet_pton(family, host)
            return True
    return False


def _describes_machine() -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") in (__name__, "subprocess", "os"):
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__") in DESCRIBING_MODULES


def _log_end(log: Log, trace: Trace, folder: str) -> Callable[[], None]:
    """Return a function that logs the versions of what was imported; only the first call counts."""
    process = os.getpid()
    end_lock = threading.Lock()

    def end() -> None:
        if os.getpid() == process and end_lock.acquire(blocking=False):
            trace.stop()
            log.add("end", _versions(folder))

    return end


def _versions(folder: str) -> dict[str, str]:
    """Return the version of each distribution that a module was imported from.

    A module of the project, in whose folder the program runs, is packed itself: its name may be that
    of a distribution, such as the installed project.
    """
    from importlib.metadata import packages_distributions, version

    distributions = packages_distributions()
    imported = {
        name.partition(".")[0]
        for name, module in list(sys.modules.items())
        if module and not str(getattr(module, "__file__", "")).startswith(folder + os.sep)
    }
    names = {each for module in imported for each in distributions.get(module, ())}
    return {name: version(name) for name in sorted(names, key=str.lower)}


def _replay_only(log: Log, folder: str, cassettes: list[str]) -> None:
    """Read every cassette in mode ``none``, log what it is used for, and refuse other calls."""
    from llmcall import failures
    from llmcall.cassettes import cassette as cassette_module
    from llmcall.cassettes.guards import guards
    from llmcall.errors import CacheError, CacheMissError
    from llmcall.testing import answers_in_process

    project_paths = {os.path.realpath(os.path.join(folder, path)): path for path in cassettes}

    def before_start(cassette: Any) -> None:
        cassette.replay_only()
        path = os.path.realpath(cassette.path)
        if path not in project_paths:
            log.add("unnamed", str(cassette.path))
            raise CacheError(f"the program opens the cassette {cassette.path}, which is not packed")

    def after_stop(cassette: Any) -> None:
        unused = [record.cache_key for record in cassette.unused()]
        log.add("used", project_paths[cassette.file], unused)

    def refuse(client: object, cassette: object) -> None:
        if not answers_in_process(client):
            raise CacheMissError("no answer is recorded, and a packed program cannot call a model")

    def log_failure(scope: str, description: str, reason: str) -> None:
        log.add("failure", scope, description, reason)

    cassette_module.before_start.append(before_start)
    cassette_module.after_stop.append(after_stop)
    guards.append(refuse)
    failures.before_add.append(log_failure)


def main(plan_file: str) -> None:
    """Run the program of a plan as ``__main__``."""
    plan = json.loads(Path(plan_file).read_text(encoding="utf-8"))
    sys.path.pop(0)  # the folder of this file
    try:
        import llmcall  # noqa: F401 - is it installed?
    except ModuleNotFoundError:
        sys.path.append(str(PACKAGE.parent))
    log = Log(plan["log"])
    trace = Trace(log)
    end = _log_end(log, trace, plan["folder"])
    exit_now = os._exit

    def log_end_and_exit(status: int) -> NoReturn:
        end()
        exit_now(status)

    os._exit = log_end_and_exit
    atexit.register(end)  # the first to be registered is the last to be called
    _replay_only(log, plan["folder"], plan["cassettes"])
    trace.start()
    script, *arguments = plan["program"]
    if plan["run_cassette"] is None:
        from llmcall.programs.execution import execute

        execute(script, tuple(arguments), module=plan["module"])
        return
    options = ["--cassette", plan["run_cassette"], "--mode", "none", *["-m"] * plan["module"]]
    sys.argv = ["llmcall", "run", *options, script, *arguments]
    runpy.run_module("llmcall", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
