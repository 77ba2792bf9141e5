"""Run a packed program in its own process, and log what it reads, writes and tries to reach.

``python packed_program.py PLAN``: PLAN is the JSON file that :mod:`llmcall.features.packing.observed_run` writes.
Only the standard library is imported before the audit hook is installed.
"""

from __future__ import annotations

import atexit
import errno
import ipaddress
import json
import os
import re
import runpy
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmcall.core.calls import Call
    from llmcall.stores.cassettes.cassette import Cassette
    from llmcall.stores.misses.report import Miss

PACKAGE = Path(__file__).resolve().parents[2]
SITE = Path(__file__).resolve().parent / "site"
VARIABLE = "_LLMCALL_TRACE"  # read by site/sitecustomize.py
ACCESS = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
CONNECTS = ("socket.connect", "socket.sendto", "socket.sendmsg")
LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
AT_START = frozenset(sys.modules)  # includes what .pth files import, such as setuptools'


class Trace:
    """An audit hook that logs the files Python opens and refuses connections.

    :param log: the file that gets a line for each event.
    :param program: the address of the program that started this process, which alone it may reach.
    """

    def __init__(self, log: str, program: str = "") -> None:
        self._log = log
        self._program = program
        self._file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._files: set[tuple[str, str]] = set()
        self._has_ended = False
        self._own_names = ("", "localhost", socket.gethostname())

    def add(self, kind: str, *values: object) -> None:
        """Log an event."""
        os.write(self._file, json.dumps([kind, *values]).encode() + b"\n")

    def end(self, folder: str) -> None:
        """Log the versions of what the program and its processes imported; files read for this are not
        logged.
        """
        self._has_ended = True
        events = map(json.loads, Path(self._log).read_text(encoding="utf-8").splitlines())
        children = (names for kind, *values in events if kind == "imported" for names in values)
        self.add("end", _versions(_imported(folder).union(*children)))

    def on_audit_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Log or refuse the operation that Python is about to do."""
        if event == "open":
            path, _, flags = arguments
            # Unless it is created or emptied, a file that is written may be read, or keep its contents.
            if flags & ACCESS == os.O_RDONLY or not flags & (os.O_TRUNC | os.O_EXCL):
                self._add_file("read", path)
            if flags & ACCESS != os.O_RDONLY:
                self._add_file("write", path)
        elif event == "sqlite3.connect":
            self._add_file("read", arguments[0])
        elif event == "os.rename":
            self._add_file("write", arguments[1])
        elif event == "subprocess.Popen":
            self._add_command(arguments[1], arguments[2])
        elif event == "os.system":
            self._add_command(arguments[0], None)
        elif event in CONNECTS and isinstance(arguments[1], tuple):  # no Unix socket
            self._refuse(f"{_text(arguments[1][0])}:{arguments[1][1]}")
        elif event in LOOKUPS and not self._is_own(_text(arguments[0] or "")):
            self._refuse(_text(arguments[0]))

    def _add_file(self, kind: str, path: object) -> None:
        if self._has_ended or not isinstance(path, (str, bytes, os.PathLike)):
            return  # a file descriptor, or llmcall reading versions
        try:
            file = os.path.abspath(os.fsdecode(path))
            is_there = kind == "write" or os.path.isfile(file)
        except (FileNotFoundError, ValueError):  # no working directory, or a zero byte in the name
            return
        if is_there and (kind, file) not in self._files:
            self._files.add((kind, file))
            self.add(kind, file)

    def _add_command(self, command: Any, folder: object) -> None:
        """Log the program of a command, and its script: of further words, some name what it is to write."""
        if isinstance(command, (str, bytes, os.PathLike)):
            words = os.fsdecode(command).split()
        else:
            words = [*map(_text, command)]
        files = [os.path.join(_text(folder or ""), word) for word in words]
        for file in files[:1] + [*filter(os.path.isfile, files[1:])][:1]:
            self._add_file("read", file)

    def _is_own(self, host: str) -> bool:
        try:
            return host in self._own_names or bool(ipaddress.ip_address(host))
        except ValueError:
            return False

    def _refuse(self, destination: str) -> None:
        if f"//{destination}/" in self._program:
            return
        self.add("connect", destination)
        raise ConnectionRefusedError(
            errno.ECONNREFUSED, f"a packed program has no network: {destination} is refused"
        )


def _text(value: object) -> str:
    return os.fsdecode(value) if isinstance(value, (str, bytes, os.PathLike)) else str(value)


def _imported(folder: str) -> set[str]:
    """Return the modules that this process imported, without those of packages and of the project, which are
    packed themselves.
    """
    return {
        name.partition(".")[0]
        for name, module in list(sys.modules.items())
        if module
        and name not in AT_START
        and not str(getattr(module, "__file__", "")).startswith(folder + os.sep)
    }


def _versions(imported: set[str]) -> dict[str, str]:
    """Return the version of each distribution that has one of some modules."""
    from importlib.metadata import distributions

    found: dict[str, str] = {}
    for distribution in distributions():  # packages_distributions() takes longer than most programs
        names = (distribution.read_text("top_level.txt") or "").split()
        files = "" if names else distribution.read_text("RECORD") or ""
        names += [re.split(r"[/.,]", line, maxsplit=1)[0] for line in files.splitlines()]
        if not imported.isdisjoint(names):
            found.setdefault(distribution.metadata["Name"], distribution.version)
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _replay_only(trace: Trace, folder: str, cassettes: list[str], *, answers_all: bool) -> None:
    """Open every cassette in mode ``none``, log its unused records, and refuse other calls.

    :param answers_all: ``True`` if a stand-in answers requests that the cassettes do not have.
    """
    from llmcall.errors import CacheError, CacheMissError
    from llmcall.support.listeners import CallListener, listen

    if answers_all:
        from llmcall.features.packing.shuffled import StandIn

    project_paths = {os.path.realpath(os.path.join(folder, path)): path for path in cassettes}

    misses: list[Miss] = []

    class ReadOnly(CallListener):
        def opened(self, cassette: Cassette) -> None:
            cassette.replay_only()
            if answers_all:
                cassette.stand_in = StandIn(cassette).key_for
            if os.path.realpath(cassette.path) not in project_paths:
                problem = f"the program opens the cassette {cassette.path}, which is not packed"
                trace.add("problem", problem)
                raise CacheError(problem)

        def closed(self, cassette: Cassette) -> None:
            unused = [record.cache_key for record in cassette.unused()]
            trace.add("unused", project_paths[cassette.file.real_path], unused)

        def asks(self, call: Call) -> None:
            if not call.at.sends_nothing:
                raise CacheMissError(
                    "no cassette is open, and a packed program cannot call a model. Only a recording of llmcall run "
                    "is opened around it; the program opens others by llmcall.cassette"
                )

        def refused(self, call: Call | None, error: Exception) -> None:
            if isinstance(error, CacheMissError) and error.miss is not None and not misses:
                misses.append(error.miss)  # later ones may follow from it
                for line in error.miss.comparison().split("\n"):
                    trace.add("problem", f"  {line}")

        def unrecorded(self, scope: str, words: str, reason: str) -> None:
            where = f"in scope {scope!r}" if scope else "outside any scope"
            trace.add("problem", f"a call {where} {reason} ({words})")

    listen(ReadOnly())


def trace_started_process() -> None:
    """Trace this process, which a packed program started."""
    log, folder = json.loads(os.environ[VARIABLE])
    trace = Trace(log, os.environ.get("OPENAI_BASE_URL", ""))
    atexit.register(lambda: trace.add("imported", sorted(_imported(folder))))
    sys.addaudithook(trace.on_audit_event)


def main(plan_file: str) -> None:
    """Run the program of a plan as ``__main__``."""
    plan = json.loads(Path(plan_file).read_text(encoding="utf-8"))
    sys.path.pop(0)  # the folder of this file
    if find_spec("llmcall") is None:
        sys.path.append(str(PACKAGE.parent))
    trace = Trace(plan["log"])
    # Registered first, so called last.
    atexit.register(trace.end, plan["folder"])
    _replay_only(trace, plan["folder"], plan["cassettes"], answers_all=plan["answers_all"])
    sys.addaudithook(trace.on_audit_event)
    os.environ[VARIABLE] = json.dumps([plan["log"], plan["folder"]])
    paths = (str(SITE), os.environ.get("PYTHONPATH"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    script, *arguments = plan["program"]
    if not plan["run_options"]:
        from llmcall.programs.execution import execute
        from llmcall.programs.placeholders import set_placeholder_keys

        set_placeholder_keys(replace=True)
        execute(script, tuple(arguments), module=plan["module"])
        return
    module = ["-m"] * plan["module"]
    sys.argv = ["llmcall", "run", *plan["run_options"], *module, script, *arguments]
    runpy.run_module("llmcall", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
