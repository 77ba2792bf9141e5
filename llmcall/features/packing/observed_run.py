"""Run a program from its recordings in its own folder, without network access, and observe it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import site
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import CacheError
from ...stores.records.reader import RecordFile, header_in
from ...support.display import counted

CHILD = Path(__file__).with_name("packed_program.py")
PACKAGE = Path(__file__).resolve().parents[2]
OWN_FOLDERS = frozenset({".llmcall", "__pycache__"})  # Python's and llmcall's own files
SYSTEM_FOLDERS = (
    *("/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/nix", "/proc", "/run", "/sbin"),
    *("/sys", "/usr", "/var/lib", "/Library", "/System", "/private/etc", "/private/var/db"),
)
NAMESPACE = (
    *("unshare", "--user", "--map-current-user", "--keep-caps", "--net"),
    *(sys.executable, "-I", "-S", str(CHILD.with_name("loopback.py")), sys.executable),
)
MAX_NAMED_RECORDS = 10  # in a message
ERROR_LINES = 15  # of standard error, shown for a failure


@dataclass
class Observation:
    """The observation of a run: the files, the output, the connections, the unused records.

    :ivar printed: its standard output.
    :ivar problems: in words, why it fails as a packed study: unanswered calls, cassettes that are
        not packed, an exit code.
    :ivar files_read: project paths of the files that it read before it wrote them.
    :ivar files_written: project paths of the files that it wrote and left behind.
    :ivar files_outside: files elsewhere that it read or wrote, including the original project's.
    :ivar connections: the address of each attempt to connect.
    :ivar unused_keys: by cassette, the keys of the records that no call used, without cassettes that
        were never opened.
    :ivar packages: the versions of the distributions that it imported.
    :ivar seconds: how long it took.
    :ivar failure: how it ended otherwise, in one line; empty if it succeeded.
    """

    printed: str
    problems: list[str] = field(default_factory=list)
    files_read: list[str] = field(default_factory=list)
    files_written: list[str] = field(default_factory=list)
    files_outside: list[str] = field(default_factory=list)
    connections: list[str] = field(default_factory=list)
    unused_keys: dict[str, set[str]] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    failure: str = ""


@functools.cache
def has_namespace() -> bool:
    """Return whether programs can run in an empty network namespace."""
    if not sys.platform.startswith("linux") or shutil.which(NAMESPACE[0]) is None:
        return False
    command = [*NAMESPACE, "-I", "-S", "-c", ""]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def run_program(
    command: Sequence[str],
    folder: Path,
    *,
    cassettes: Sequence[str],
    environment: Mapping[str, str],
    project: Path | None = None,
    answers_all: bool = False,
    longest: float | None = None,
) -> Observation:
    """Run a program in a folder that contains all that it needs.

    :param command: a script and its arguments, or ``-m``, a module and its arguments.
    :param folder: the project's copy, which is the working directory.
    :param cassettes: the recordings' project paths. A recording by ``llmcall run`` is opened around
        the program.
    :param environment: its variables besides PATH, HOME and a temporary folder.
    :param project: the original folder.
    :param answers_all: ``True`` if a stand-in answers requests that the cassettes do not have.
    :param longest: the seconds after which it is ended.
    """
    scratch = folder.parent / f"{folder.name}-scratch"
    for name in ("home", "tmp"):
        (scratch / name).mkdir(parents=True)
    (folder / ".llmcall").mkdir(exist_ok=True)  # ends the search for a config.ini further up
    is_module = command[0] == "-m"
    plan = {
        "log": str(scratch / "log.jsonl"),
        "folder": str(folder),
        "cassettes": list(cassettes),
        "run_options": run_options(folder, cassettes),
        "program": list(command[is_module:]),
        "module": is_module,
        "answers_all": answers_all,
    }
    (scratch / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    before = _file_states(folder)
    python = NAMESPACE if has_namespace() else (sys.executable,)
    start = time.monotonic()
    output, errors = scratch / "stdout.txt", scratch / "stderr.txt"
    # To files: a pipe ends with the last process that holds it, which a program may leave behind. To their
    # ends: the program may open /dev/stdout, too.
    with output.open("ab") as output_file, errors.open("ab") as error_file:
        try:
            exit_code = subprocess.run(
                [*python, "-B", str(CHILD), str(scratch / "plan.json")],
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
                stdout=output_file,
                stderr=error_file,
                timeout=longest,
                check=False,
            ).returncode
            ending = f"the program ended with exit code {exit_code}" if exit_code else ""
        except subprocess.TimeoutExpired:
            ending = f"the program did not end in {longest:.0f} s"
    observation = Observation(output.read_bytes().decode(errors="backslashreplace"))
    observation.seconds = time.monotonic() - start
    has_ended = _add_events(observation, scratch, folder, project)
    if ending or not has_ended:
        ending = ending or "the program stopped early, with exit code 0"
        error_lines = errors.read_bytes().decode(errors="backslashreplace").strip().split("\n")
        cause = next(iter(observation.problems), error_lines[-1].strip())
        observation.failure = f"{ending}: {cause}"
        last_lines = (f"  {line}" for line in error_lines[-ERROR_LINES:])
        observation.problems += [f"{ending}:", *last_lines]
    after = _file_states(folder)
    observation.files_written = [path for path in after if before.get(path) != after[path]]
    return observation


def run_cassettes(folder: Path, cassettes: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Return the options of ``llmcall run`` in the readable recordings that it made, by their paths."""
    options = {}
    for path in cassettes:
        with suppress(CacheError):
            if (header := header_in(folder / path)) is not None and header.run is not None:
                options[path] = header.run
    return options


def run_options(folder: Path, cassettes: Sequence[str]) -> list[str]:
    """Return the options with which ``llmcall run`` replays its recording; empty without one."""
    for path, recorded in run_cassettes(folder, cassettes).items():
        actor = recorded.get("actor")
        return ["--cassette", path, "--mode", "none", *(["--actor", actor] if actor else [])]
    return []


def unused_records(run: Observation, path: str, recording: RecordFile) -> dict[str, str]:
    """Return the samples, by key, of a cassette's records that no call of a run used."""
    names = {record.cache_key: record.sample or "(outside any scope)" for record in recording}
    unused = run.unused_keys.get(path, names)
    return {key: name for key, name in names.items() if key in unused}


def describe_unused(path: str, names: Mapping[str, str]) -> str:
    """Say which records of a cassette were not used."""
    more = f" and {len(names) - MAX_NAMED_RECORDS:,} more" if len(names) > MAX_NAMED_RECORDS else ""
    listed = ", ".join([*names.values()][:MAX_NAMED_RECORDS])
    return f"{path}: {counted(len(names), 'record')} that no call used: {listed}{more}"


def files_below(folder: Path) -> list[str]:
    """Return the files below a folder, sorted, without links and Python's and llmcall's own files."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and OWN_FOLDERS.isdisjoint(path.relative_to(folder).parts)
    )


def _file_states(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return each file's state, by its path below the folder; it changes when the file is written."""
    return {
        path: (status.st_mtime_ns, status.st_size, status.st_ino)
        for path in files_below(folder)
        for status in [os.stat(folder / path)]
    }


def _add_events(
    observation: Observation, scratch: Path, folder: Path, project: Path | None
) -> bool:
    """Add the events of a run's log to an observation; return whether the program reached its end."""
    has_ended = False
    log = scratch / "log.jsonl"
    first_access: dict[str, str] = {}  # by project path: "read" or "write", whichever came first
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        kind, *values = json.loads(line)
        if kind in ("read", "write"):
            path = os.path.realpath(values[0])
            if _is_below(path, [folder]):
                first_access.setdefault(Path(path).relative_to(folder).as_posix(), kind)
                continue
            allowed: list[str | Path] = [scratch, *_python_folders(), *SYSTEM_FOLDERS]
            if project is not None and _is_below(path, [project]):
                # Python may lie in the project; a folder of Python around it, such as /usr, allows nothing.
                allowed = [
                    python_folder
                    for python_folder in _python_folders()
                    if _is_below(python_folder, [project])
                ]
            is_allowed = any(_is_below(each, allowed) for each in (path, values[0]))
            if not is_allowed and path not in observation.files_outside:  # a library may be a link
                observation.files_outside.append(path)
        elif kind == "connect":
            observation.connections.append(values[0])
        elif kind == "problem":
            observation.problems.append(values[0])
        elif kind == "unused":  # a cassette may be opened several times
            path, keys = values[0], set(values[1])
            observation.unused_keys[path] = observation.unused_keys.get(path, keys) & keys
        elif kind == "end":
            observation.packages, has_ended = values[0], True
    observation.files_read = sorted(
        path
        for path, kind in first_access.items()
        if kind == "read" and OWN_FOLDERS.isdisjoint(path.split("/"))
    )
    return has_ended


def _is_below(path: str, folders: Iterable[str | Path]) -> bool:
    return any(path.startswith(f"{str(folder).rstrip(os.sep)}{os.sep}") for folder in folders)


@functools.cache
def _python_folders() -> tuple[str, ...]:
    """Return the folders of Python's installation and of llmcall."""
    installed = [
        path
        for path in (*sys.path, *site.getsitepackages(), site.getusersitepackages())
        if os.path.basename(path) in ("site-packages", "dist-packages")
    ]
    folders = {sys.prefix, sys.base_prefix, sys.exec_prefix, str(PACKAGE), *installed}
    return tuple(
        sorted({variant for path in folders for variant in (path, os.path.realpath(path))})
    )
