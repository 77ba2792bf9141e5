"""A program replayed from its recordings in a folder of its own, without network access, and
watched.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import CacheError
from ...records.reader import header_in

CHILD = Path(__file__).with_name("child.py")
PACKAGE = Path(__file__).resolve().parents[2]
OWN_FOLDERS = frozenset({".llmcall", "__pycache__"})  # what Python and llmcall write for themselves
SYSTEM_FOLDERS = (
    *("/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/nix", "/proc", "/run", "/sbin"),
    *("/sys", "/usr", "/var/lib", "/Library", "/System", "/private/etc", "/private/var/db"),
)
NAMESPACE = ("unshare", "--user", "--map-current-user", "--net")
TAIL = 15  # lines of standard error that a failure shows


@dataclass
class Observation:
    """What a run did.

    :ivar exit_code: its exit code.
    :ivar printed: its standard output.
    :ivar error_output: the end of its standard error.
    :ivar files_read: the project's files that it read before it wrote them, by their project paths.
    :ivar files_written: the project's files that it wrote and left behind.
    :ivar files_outside: files elsewhere that it read or wrote.
    :ivar absolute_paths: the original project's files that it opened by absolute paths.
    :ivar connections: what it tried to connect to, each attempt.
    :ivar failures: the calls that were not answered, in words.
    :ivar unnamed_cassettes: cassettes that it opened and that are not packed.
    :ivar unused_keys: by cassette, the keys of the records that no call used; a cassette that was
        never opened is missing.
    :ivar packages: the versions of the distributions that it imported; ``None`` if it did not come
        to its end.
    """

    exit_code: int
    printed: str
    error_output: str
    files_read: list[str] = field(default_factory=list)
    files_written: list[str] = field(default_factory=list)
    files_outside: list[str] = field(default_factory=list)
    absolute_paths: list[str] = field(default_factory=list)
    connections: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    unnamed_cassettes: list[str] = field(default_factory=list)
    unused_keys: dict[str, set[str]] = field(default_factory=dict)
    packages: dict[str, str] | None = None

    def problems(self) -> list[str]:
        """Return in words why the run did not go as a packed one must."""
        problems = [*self.failures]
        problems += [
            f"it opens the cassette {path}, which is not packed" for path in self.unnamed_cassettes
        ]
        if self.exit_code:
            problems.append(f"the program ended with exit code {self.exit_code}:")
            problems += [f"  {line}" for line in self.error_output.split("\n")]
        elif self.packages is None:
            problems.append("the program did not come to its end")
        return problems


@functools.cache
def has_namespace() -> bool:
    """Return whether a program can get a network namespace of its own, in which there is nothing."""
    if not sys.platform.startswith("linux") or shutil.which(NAMESPACE[0]) is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


def run_program(
    command: Sequence[str],
    folder: Path,
    *,
    cassettes: Sequence[str],
    environment: Mapping[str, str],
    project: Path | None = None,
) -> Observation:
    """Run a program in a folder that holds what it needs.

    :param command: a script and its arguments, or ``-m``, a module and its arguments.
    :param folder: the project's copy: the working directory, in a scratch folder of its own.
    :param cassettes: the recordings' project paths. The one that ``llmcall run`` made, if there is
        one, is opened around the program.
    :param environment: what it gets besides PATH, HOME and a temporary folder.
    :param project: the original folder.
    """
    scratch = folder.parent / f"{folder.name}-scratch"
    for name in ("home", "tmp"):
        (scratch / name).mkdir(parents=True)
    (folder / ".llmcall").mkdir(
        exist_ok=True
    )  # ends the search for a config.ini in the folders above
    is_module = command[0] == "-m"
    plan = {
        "log": str(scratch / "log.jsonl"),
        "folder": str(folder),
        "cassettes": list(cassettes),
        "run_cassette": next(iter(run_cassettes(folder, cassettes)), None),
        "program": list(command[is_module:]),
        "module": is_module,
    }
    (scratch / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    before = _file_states(folder)
    python = [sys.executable, "-B", str(CHILD), str(scratch / "plan.json")]
    completed = subprocess.run(
        [*(NAMESPACE if has_namespace() else ()), *python],
        cwd=folder,
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(scratch / "home"),
            "TMPDIR": str(scratch / "tmp"),
            "LLMCALL_CACHE_PATH": str(scratch / "cache"),
            "LLMCALL_CASSETTE_MODE": "none",
            **environment,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    error_lines = completed.stderr.decode(errors="backslashreplace").strip().split("\n")
    observation = Observation(
        completed.returncode,
        completed.stdout.decode(errors="backslashreplace"),
        "\n".join(error_lines[-TAIL:]),
    )
    _add_events(observation, scratch, folder, project)
    after = _file_states(folder)
    observation.files_written = [path for path in after if before.get(path) != after[path]]
    return observation


def run_cassettes(folder: Path, cassettes: Sequence[str]) -> list[str]:
    """Return the recordings that ``llmcall run`` made, as far as they can be read."""
    paths = []
    for path in cassettes:
        with suppress(CacheError):
            if (header_in(folder / path) or {}).get("run") is not None:
                paths.append(path)
    return paths


def files_below(folder: Path) -> list[str]:
    """Return the files below a folder, sorted, without links and what Python and llmcall write for
    themselves.
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


def _file_states(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return what shows whether a file of a folder was written, by its path below the folder."""
    return {
        path: (status.st_mtime_ns, status.st_size, status.st_ino)
        for path in files_below(folder)
        for status in [os.stat(folder / path)]
    }


def _add_events(
    observation: Observation, scratch: Path, folder: Path, project: Path | None
) -> None:
    """Take the events of a run's log."""
    log = scratch / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    first_access: dict[str, str] = {}  # by project path, what came first: reading or writing
    for kind, *values in map(json.loads, lines):
        if kind in ("read", "write"):
            path = os.path.realpath(values[0])
            if _is_below(path, [folder]):
                first_access.setdefault(Path(path).relative_to(folder).as_posix(), kind)
            elif project is not None and _is_below(path, [project]):
                # An environment in the project is Python's; one around it, such as /usr, is not meant.
                if not _is_below(path, [each for each in _python() if _is_below(each, [project])]):
                    observation.absolute_paths.append(path)
            elif not _is_below(path, [scratch, *_python(), *SYSTEM_FOLDERS]):
                observation.files_outside.append(path)
        elif kind == "connect":
            observation.connections.append(values[0])
        elif kind == "failure":
            scope, description, reason = values
            where = f"in scope {scope!r}" if scope else "outside any scope"
            observation.failures.append(f"a call {where} {reason} ({description})")
        elif kind == "unnamed":
            observation.unnamed_cassettes.append(values[0])
        elif kind == "used":  # what one opening left, another may use
            path, keys = values[0], set(values[1])
            observation.unused_keys[path] = observation.unused_keys.get(path, keys) & keys
        elif kind == "end":
            observation.packages = values[0]
    observation.files_read = sorted(
        path
        for path, kind in first_access.items()
        if kind == "read" and OWN_FOLDERS.isdisjoint(path.split("/"))
    )


def _is_below(path: str, folders: Iterable[str | Path]) -> bool:
    return any(path.startswith(f"{str(folder).rstrip(os.sep)}{os.sep}") for folder in folders)


@functools.cache
def _python() -> tuple[str, ...]:
    """Return the folders of Python's installation and of llmcall."""
    installed = [
        path
        for path in (*sys.path, *site.getsitepackages(), site.getusersitepackages())
        if os.path.basename(path) in ("site-packages", "dist-packages")
    ]
    folders = {sys.prefix, sys.base_prefix, sys.exec_prefix, str(PACKAGE), *installed}
    return tuple(sorted({each for path in folders for each in (path, os.path.realpath(path))}))
