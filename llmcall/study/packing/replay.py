"""Run a program from its recordings in a folder of its own, without network access, and watch it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import LLMCallError

CHILD = Path(__file__).with_name("child.py")
PACKAGE = Path(__file__).resolve().parents[2]
OWN_FOLDERS = frozenset({".llmcall", "__pycache__"})  # what Python and llmcall write for themselves
PYTHON = "python (multiprocessing)"  # a process that multiprocessing or joblib started
MARKER = ".llmcall"  # ends the search for a config.ini in the folders above
SYSTEM_FOLDERS = (
    *("/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/nix", "/proc", "/run", "/sbin"),
    *("/sys", "/usr", "/var/lib", "/Library", "/System", "/private/etc", "/private/var/db"),
)
# Folders of the system's in which users have files: disks that are mounted, sources of containers.
USERS_FOLDERS = ("/run/media", "/run/user", "/usr/src")
NAMESPACE = ("unshare", "--user", "--map-current-user", "--net")
TAIL = 15  # lines of standard error that a failure shows


class Program(NamedTuple):
    """A program, as the command line names it.

    :param name: a script's path in the project, or a module's name.
    :param arguments: its own.
    :param is_module: whether it is a module.
    """

    name: str
    arguments: tuple[str, ...] = ()
    is_module: bool = False

    @classmethod
    def from_command(cls, command: Sequence[str]) -> Program:
        """Return the program of a command: ``SCRIPT [ARG…]`` or ``-m MODULE [ARG…]``."""
        if command[0] == "-m" and len(command) > 1:
            return cls(command[1], tuple(command[2:]), is_module=True)
        return cls(command[0], tuple(command[1:]))

    def command(self) -> list[str]:
        """Return the command."""
        return [*["-m"] * self.is_module, self.name, *self.arguments]


@dataclass
class Observation:
    """What a run did.

    :ivar exit_code: its exit code.
    :ivar printed: its standard output.
    :ivar error_output: the end of its standard error.
    :ivar files_read: the project's files that it read before it wrote them, by their project paths.
    :ivar files_written: the project's files that it wrote and left behind.
    :ivar folders_listed: the project's folders that it listed.
    :ivar files_outside: files elsewhere that it read or wrote.
    :ivar absolute_paths: the original project's files that it opened by absolute paths.
    :ivar files_in_home_folder: files that it wrote into its home folder, without hidden ones.
    :ivar connections: what it tried to connect to, each attempt.
    :ivar children: the names of the child processes that it started.
    :ivar failures: the calls that were not answered, each as scope, description and reason.
    :ivar unnamed_cassettes: cassettes that it opened without leave.
    :ivar unused_keys: by cassette, the keys of the records that no call used; a cassette that was
        never opened is missing.
    :ivar packages: the versions of the distributions that it imported.
    :ivar has_ended: whether it came to its end.
    """

    exit_code: int
    printed: str
    error_output: str
    files_read: list[str] = field(default_factory=list)
    files_written: list[str] = field(default_factory=list)
    folders_listed: list[str] = field(default_factory=list)
    files_outside: list[str] = field(default_factory=list)
    absolute_paths: list[str] = field(default_factory=list)
    files_in_home_folder: list[str] = field(default_factory=list)
    connections: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    unnamed_cassettes: list[str] = field(default_factory=list)
    unused_keys: dict[str, set[str]] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    has_ended: bool = False

    def failure_lines(self) -> list[str]:
        """Return in words the calls that were not answered."""
        return [
            f"a call {_scope_words(scope)} {reason} ({description})"
            for scope, description, reason in self.failures
        ]


def _scope_words(scope: str) -> str:
    return f"in scope {scope!r}" if scope else "outside any scope"


@functools.cache
def has_namespace() -> bool:
    """Return whether a program can get a network namespace of its own, in which there is nothing."""
    if not sys.platform.startswith("linux") or shutil.which(NAMESPACE[0]) is None:
        return False
    completed = subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False)
    return completed.returncode == 0


def run_program(
    program: Program,
    folder: Path,
    *,
    cassettes: Sequence[str],
    run_cassette: str | None,
    environment: Mapping[str, str],
    project: Path | None = None,
) -> Observation:
    """Run a program in a folder that holds what it needs.

    :param folder: the project's copy: the working directory, in a scratch folder of its own.
    :param cassettes: the recordings' project paths.
    :param run_cassette: the path of the one that ``llmcall run`` made, or ``None``.
    :param environment: what it gets besides PATH, HOME and a temporary folder.
    :param project: the original folder.
    """
    scratch = folder.parent / f"{folder.name}-scratch"
    for name in ("home", "tmp"):
        (scratch / name).mkdir(parents=True)
    (folder / MARKER).mkdir(exist_ok=True)
    log_file, plan_file = scratch / "log.jsonl", scratch / "plan.json"
    plan = {
        "log": str(log_file),
        "folder": str(folder),
        "cassettes": list(cassettes),
        "run_cassette": run_cassette,
        "program": [program.name, *program.arguments],
        "module": program.is_module,
    }
    plan_file.write_text(json.dumps(plan), encoding="utf-8")
    before = _file_states(folder)
    completed = subprocess.run(
        [*(NAMESPACE if has_namespace() else ()), sys.executable, "-B", str(CHILD), str(plan_file)],
        cwd=folder,
        env=_environment(scratch, environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    error_lines = _text(completed.stderr).strip().split("\n")
    observation = Observation(
        completed.returncode, _text(completed.stdout), "\n".join(error_lines[-TAIL:])
    )
    locator = _Locator(folder, scratch, project)
    if log_file.exists():
        with open(log_file, encoding="utf-8") as lines:
            _add_events(observation, locator, (json.loads(line) for line in lines))
    after = _file_states(folder)
    observation.files_written = sorted(path for path in after if before.get(path) != after[path])
    observation.files_in_home_folder = [
        path for path in files_below(scratch / "home") if not path.startswith(".")
    ]
    return observation


def _environment(scratch: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return all variables of the program's environment."""
    home, temporary = str(scratch / "home"), str(scratch / "tmp")
    variables = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": home,
        "TMPDIR": temporary,
        "LLMCALL_CACHE_PATH": str(scratch / "cache"),
        "LLMCALL_CASSETTE_MODE": "none",
    }
    if os.name == "nt":
        variables.update(USERPROFILE=home, TEMP=temporary, TMP=temporary)
        variables["SYSTEMROOT"] = os.environ.get("SYSTEMROOT", "")
    return {**variables, **environment}


def _text(output: bytes) -> str:
    return output.decode("utf-8", "backslashreplace").replace("\r\n", "\n")


def _file_states(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return what tells whether a file of a folder was written, by its path below the folder."""
    return {
        path: (status.st_mtime_ns, status.st_size, status.st_ino)
        for path in files_below(folder)
        for status in [os.stat(folder / path)]
    }


def files_below(folder: Path) -> list[str]:
    """Return the files below a folder, sorted, without what Python and llmcall write for themselves.

    Links are left out.
    """
    paths = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in OWN_FOLDERS]
        files = [Path(root, name) for name in names]
        paths += [
            file.relative_to(folder).as_posix()
            for file in files
            if file.is_file() and not file.is_symlink()
        ]
    return sorted(paths)


class _Locator:
    """Tells where a path lies.

    :param folder: where the program runs.
    :param scratch: its home, its temporary folder and its cache.
    :param project: the original folder.
    """

    def __init__(self, folder: Path, scratch: Path, project: Path | None) -> None:
        self._folder = str(folder)
        self._scratch = str(scratch)
        self._project = None if project is None else os.path.realpath(project)
        self._python = _python_folders()
        self._system = [*SYSTEM_FOLDERS, *_windows_folders()]

    def locate(self, path: str) -> tuple[str, str]:
        """Return ``"project"``, ``"absolute"``, ``"outside"`` or ``"known"``, and the path: in the
        project, if it lies there.
        """
        real = os.path.realpath(path)
        if _is_below(real, self._folder):
            return "project", Path(os.path.relpath(real, self._folder)).as_posix()
        if _is_below(real, self._scratch):
            return "known", real
        project = self._project
        if project is not None and _is_below(real, project):
            # An environment in the project is known; one around it, such as /usr, is not meant.
            inner = [each for each in self._python if _is_below(each, project)]
            return "known" if _is_below_any(real, inner) else "absolute", real
        if _is_below_any(real, self._python):
            return "known", real
        is_system = _is_below_any(real, self._system) and not _is_below_any(real, USERS_FOLDERS)
        return "known" if is_system else "outside", real


def _is_below(path: str, folder: str) -> bool:
    return os.path.normcase(path).startswith(os.path.normcase(folder.rstrip(os.sep)) + os.sep)


def _is_below_any(path: str, folders: Iterable[str]) -> bool:
    return any(_is_below(path, folder) for folder in folders)


def _python_folders() -> list[str]:
    """Return the folders of Python's installation and of llmcall."""
    installed = [
        path
        for path in (*sys.path, *site.getsitepackages(), site.getusersitepackages())
        if os.path.basename(path) in ("site-packages", "dist-packages")
    ]
    folders = {sys.prefix, sys.base_prefix, sys.exec_prefix, str(PACKAGE), *installed}
    return sorted({each for folder in folders for each in (folder, os.path.realpath(folder))})


def _windows_folders() -> list[str]:
    names = ("SYSTEMROOT", "PROGRAMFILES", "PROGRAMDATA") if os.name == "nt" else ()
    return [os.environ[name] for name in names if name in os.environ]


def _add_events(observation: Observation, locator: _Locator, events: Iterator[list[Any]]) -> None:
    """Take the events of a run's log."""
    first_access: dict[
        str, str
    ] = {}  # by project path, what came first: its reading or its writing
    paths_by_location = {
        "absolute": observation.absolute_paths,
        "outside": observation.files_outside,
    }
    for kind, *values in events:
        if kind in ("read", "write", "list"):
            location, path = locator.locate(values[0])
            if location == "project":
                if kind == "list":
                    observation.folders_listed.append(path)
                else:
                    first_access.setdefault(path, kind)
            elif location != "known" and kind != "list" and path not in paths_by_location[location]:
                paths_by_location[location].append(path)
        elif kind == "connect":
            observation.connections.append(values[0])
        elif kind == "child":
            observation.children.append(values[0])
        elif kind == "multiprocessing":
            observation.children.append(PYTHON)
        elif kind == "failure":
            observation.failures.append((values[0], values[1], values[2]))
        elif kind == "unnamed":
            observation.unnamed_cassettes.append(values[0])
        elif kind == "used":
            _add_unused_keys(observation.unused_keys, *values)
        elif kind == "end":
            observation.packages = values[0]
            observation.has_ended = True
    observation.children = sorted(set(observation.children))
    observation.files_read = sorted(
        path
        for path, kind in first_access.items()
        if kind == "read" and not OWN_FOLDERS & set(path.split("/"))
    )


def _add_unused_keys(unused: dict[str, set[str]], path: str, keys: list[str]) -> None:
    """Note the records that one opening of a cassette left unused."""
    unused[path] = unused[path] & set(keys) if path in unused else set(keys)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes, into folders that are made."""
    if source.is_symlink() and not source.exists():
        raise LLMCallError(f"{source} is a link to a file that does not exist")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
