"""``llmcall.pack``: a study's program, data, recordings and results in one folder, to be run by
others.
"""

from __future__ import annotations

import calendar
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from ...config import resolve as config
from ...display.formatting import counted
from ...errors import LLMCallError
from ...records.reader import read
from ...records.writer import write
from ...review.page import page
from .archive import write_zip
from .contents import READER, README, REPORT, REQUIREMENTS, readme, requirements, run_of
from .differences import differences
from .inspection import credentials, personal_lines, text_of
from .manifest import (
    ABOUT,
    CODE,
    DATA,
    FOLDERS,
    NAME,
    RECORDING,
    RESULT,
    Manifest,
    PackedFile,
    digest_of,
    read_manifest,
)
from .project import command_of, copy_file, copy_project, files_of, project_paths, variables
from .replay import Observation, files_below, run_cassettes, run_program

if TYPE_CHECKING:
    from ...records.reader import RecordFile

CODE_ENDINGS = (".py", ".pyi", ".pyx")
# Files that are packed though the program does not read them.
TAKEN_ALONG = ("LICENSE*", "LICENCE*", "COPYING*", "CITATION.cff")
UNKNOWN_DAY = "1980-01-01"
NAMED = 10  # records that a message names


@dataclass(frozen=True)
class Package:
    """A packed study.

    :ivar folder: where it is.
    :ivar zip: the ZIP file of it, or ``None``.
    :ivar files: its files, by their paths in the package, each with its role.
    :ivar notes: what the author should know or look at.
    """

    folder: Path
    zip: Path | None
    files: dict[str, str]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{role:9}  {file}" for file, role in self.files.items()]
        locations = str(self.folder) if self.zip is None else f"{self.folder} and {self.zip}"
        return "\n".join([*lines, *self.notes, f"packed: {locations}"])


def pack(
    folder: str | os.PathLike[str],
    command: Sequence[str],
    *,
    cassettes: Sequence[str | os.PathLike[str]],
    add: Sequence[str | os.PathLike[str]] = (),
    env: Sequence[str] = (),
    prune: bool = False,
    zip: str | os.PathLike[str] | None = None,
) -> Package:
    """Pack a study for others: run its program from its recordings, and collect what it needs.

    The project is the working directory. The program runs twice without network access: in a copy of
    the project, then in a folder with only what is packed. Both runs must give the same results.

    :param folder: the package; it must not exist.
    :param command: a script and its arguments, or ``-m``, a module and its arguments.
    :param cassettes: every recording that answers the program.
    :param add: files and folders that the program needs and llmcall cannot see, such as those that a
        child process reads.
    :param env: environment variables that the program gets: ``NAME``, with its current value, or
        ``NAME=VALUE``. A variable whose name says that it holds a credential, such as
        ``LAB_TOKEN`` or ``PGPASSWORD``, gets the value ``none``.
    :param prune: whether to leave out records that no call used; without it, such records are an error.
    :param zip: a ZIP file to write, too; it must not exist.
    :returns: the package's files, and notes for its author.
    :raises LLMCallError: if the study cannot be packed, with every reason.
    :raises ValueError: for an argument that is wrong.

    >>> from pathlib import Path
    >>> with llmcall.cassette("greeting.jsonl"):
    ...     llmcall.client("local").send_message("Good morning!", max_tokens=16).content
    'Good morning!'
    >>> program = '''
    ... import llmcall
    ... with llmcall.cassette("greeting.jsonl"):
    ...     print(llmcall.client("local").send_message("Good morning!", max_tokens=16).content)
    ... '''
    >>> _ = Path("greet.py").write_text(program)
    >>> package = llmcall.pack("greeting", ["greet.py"], cassettes=["greeting.jsonl"])
    >>> [file for file, role in package.files.items() if role != "about"]
    ['code/greet.py', 'recordings/greeting.jsonl']
    """
    target = Path(os.path.abspath(folder))
    archive = None if zip is None else Path(os.path.abspath(zip))
    for path in (target, *([] if archive is None else [archive])):
        if os.path.lexists(path):
            raise ValueError(f"{path} exists already; remove it, or choose another name")
    if archive is not None and archive.is_relative_to(target):
        raise ValueError(f"the ZIP file {archive} would be in the package itself; put it elsewhere")
    project = Path.cwd().resolve()
    study = _Study(
        project,
        command_of(project, command),
        project_paths(project, cassettes, "--cassette"),
        list(files_of(project, project_paths(project, add, "--add"))),
        dict(variables(env)),
        prune=prune,
    )
    # Not in the project: some programs search the folders above them, for .env or .git.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        built = Path(scratch).resolve() / "package"
        manifest, notes = study.build(built, built.parent)
        if archive is not None:
            write_zip(built, target.name, archive)
        shutil.copytree(built, target)
    files = {each.file: each.role for each in manifest.files}
    return Package(target, archive, files, tuple(notes))


class _Study:
    """A study that is packed.

    :param project: the original folder.
    :param command: the program's.
    :param cassettes: the recordings' project paths.
    :param added: the project paths of files that the author named.
    :param variables: the environment variables that the author gave.
    :param prune: whether to leave out unused records.
    """

    def __init__(
        self,
        project: Path,
        command: list[str],
        cassettes: list[str],
        added: list[str],
        variables: Mapping[str, str],
        *,
        prune: bool,
    ) -> None:
        self._project = project
        self._command = command
        self._cassettes = cassettes
        self._added = added
        self._prune = prune
        self._recordings = {path: read(project / path) for path in cassettes}
        self._environment = {**_environment(self._recordings), **variables}
        self._notes: list[str] = []

    def build(self, package: Path, scratch: Path) -> tuple[Manifest, list[str]]:
        """Build the package in a folder; return its manifest, and notes for its author.

        :param scratch: a folder for copies and runs.
        :raises LLMCallError: if it cannot be packed.
        """
        self._check_recordings()
        whole, packed = scratch / "whole", scratch / "packed"
        copy_project(self._project, whole, self._project)
        for path in self._added:
            copy_file(self._project / path, whole / path)
        first = self._run(whole, "in a copy of the project")
        unused_keys = self._check_use(first)
        inputs = {*first.files_read, *self._added, *self._command[:1]} - {*self._cassettes}
        inputs = {path for path in inputs if (self._project / path).is_file()}
        for path in inputs:
            copy_file(self._project / path, packed / path)
        for path, recording in self._recordings.items():
            _copy_recording(self._project / path, packed / path, recording, unused_keys[path])
        parents = {Path(path).parent.as_posix() for path in first.files_written}
        folders = sorted(path for path in parents - {"."} if (self._project / path).is_dir())
        for path in folders:
            (packed / path).mkdir(parents=True, exist_ok=True)
        second = self._run(packed, "in a folder with only what is packed")
        _refuse(_result_problems(whole, first, packed, second))
        for path in inputs:
            role = CODE if path.lower().endswith(CODE_ENDINGS) else DATA
            copy_file(self._project / path, package / FOLDERS[role] / path)
        for role, paths in ((RECORDING, self._cassettes), (RESULT, second.files_written)):
            for path in paths:
                copy_file(packed / path, package / FOLDERS[role] / path)
        manifest = self._describe(package, folders, second)
        self._inspect(package, manifest)
        return manifest, self._notes

    def _run(self, folder: Path, where: str) -> Observation:
        """Run the program in a folder.

        :param where: the folder in words, for messages.
        :raises LLMCallError: if the run cannot be packed.
        """
        observation = run_program(
            self._command,
            folder,
            cassettes=self._cassettes,
            environment=self._environment,
            project=self._project,
        )
        problems = [f"{where}, {each}" for each in observation.problems()[:1]]
        problems += observation.problems()[1:]
        problems += [
            f"the program tried to connect to {address}, and a packed program has no network"
            for address in dict.fromkeys(observation.connections)
        ]
        problems += [
            f"the program opens {path} by an absolute path into the project; use a relative path, or, if it "
            "imports the file from an editable installation of the project, --env PYTHONPATH=FOLDER with the "
            "relative path of the folder that holds the package, such as src"
            for path in dict.fromkeys(observation.absolute_paths)
        ]
        problems += [
            f"the program opens {path}, which is outside the project; put it into the project, or, if a link in "
            "the project leads there, name the link with --add to pack what it points to"
            for path in dict.fromkeys(observation.files_outside)
        ]
        _refuse(problems)
        return observation

    # The recordings

    def _check_recordings(self) -> None:
        """Check that the recordings are whole, and at most one is of ``llmcall run``."""
        problems = [
            f"{path} is an incomplete recording: its run ended with an exception. Run it again in the mode "
            "'once' to record the rest"
            for path, recording in self._recordings.items()
            if not recording.is_complete
        ]
        of_run = run_cassettes(self._project, self._cassettes)
        if len(of_run) > 1:
            problems.append(
                f"{', '.join(of_run)} were each recorded by llmcall run, and only one can be opened around the "
                "program; pack one study for each"
            )
        _refuse(problems)

    def _check_use(self, observation: Observation) -> dict[str, set[str]]:
        """Return the keys of the records to leave out, by recording.

        :raises LLMCallError: if there are any, and nothing is pruned.
        """
        problems = []
        unused_keys: dict[str, set[str]] = {}
        for path, recording in self._recordings.items():
            names = {
                record.cache_key: record.sample or "(outside any scope)"
                for record in recording.records()
            }
            unused = unused_keys[path] = observation.unused_keys.get(path, set(names))
            shown = [names[key] for key in names if key in unused]
            if shown:
                more = f" and {len(shown) - NAMED:,} more" if len(shown) > NAMED else ""
                problems.append(
                    f"{path}: {counted(len(shown), 'record')} that no call used: {', '.join(shown[:NAMED])}{more}"
                )
        if problems and not self._prune:
            _refuse([*problems, "--prune leaves them out of the package, and your file as it is"])
        self._notes += [f"left out of the package: {problem}" for problem in problems]
        return unused_keys

    # What the package says

    def _describe(self, package: Path, folders: list[str], run: Observation) -> Manifest:
        """Write what the package says of itself, and return the manifest."""
        taken = {path for pattern in TAKEN_ALONG for path in self._project.glob(pattern)}
        for path in filter(Path.is_file, sorted(taken)):
            copy_file(path, package / path.name)
        if not any(path.name != "CITATION.cff" for path in taken):
            self._notes.append("there is no licence: without one, nobody else may use the study")
        if not run.printed and not run.files_written:
            self._notes.append(
                "look at the results: there are none, since the program prints nothing and writes no file; "
                "print() the numbers that verify should compare"
            )
        copy_file(READER, package / READER.name)
        manifest = Manifest(
            command=self._command,
            environment=self._environment,
            folders=folders,
            printed=run.printed,
            python=platform.python_version(),
            packages=run.packages or {},
        )
        recorded = run_of(package / FOLDERS[RECORDING], self._cassettes)
        _write(package / REPORT, page(recorded))
        _write(package / REQUIREMENTS, requirements(manifest))
        manifest = replace(manifest, files=_packed_files(package))  # which the README lists
        _write(package / README, readme(package, manifest, recorded))
        manifest = replace(manifest, files=_packed_files(package))
        _write(package / NAME, manifest.text())
        return read_manifest(package)

    def _inspect(self, package: Path, manifest: Manifest) -> None:
        """Refuse credentials, and note what the author should look at."""
        files = files_below(package)
        _refuse(list(credentials(package, files, config.settings().cassette_allow)))
        for each in manifest.files_with_role(RESULT):
            project_file = self._project / each.path
            if project_file.is_file() and digest_of(project_file) != each.sha256:
                self._notes.append(
                    f"look at {each.path}: the packed result differs from the file in the project"
                )
        for file in files:
            if file not in (NAME, REPORT):
                self._notes += personal_lines(file, text_of(package / file), self._project)
        self._notes += personal_lines("printed text", manifest.printed, self._project)


def _environment(recordings: Mapping[str, RecordFile]) -> dict[str, str]:
    """Return the variables that fix what a program takes from its environment."""
    days = [day.last for recording in recordings.values() for day in recording.days.values()]
    last_day = date.fromisoformat(max(days, default=UNKNOWN_DAY))
    seeds = [run["seed"] for each in recordings.values() if "seed" in (run := each.run or {})]
    return {
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": str(seeds[0] if seeds else 0),
        "PYTHONUTF8": "1",
        "SOURCE_DATE_EPOCH": str(calendar.timegm(last_day.timetuple())),
        "TZ": "UTC",
    }


def _copy_recording(
    source: Path, target: Path, recording: RecordFile, unused_keys: set[str]
) -> None:
    """Copy a recording without the records that are left out."""
    if not unused_keys:
        copy_file(source, target)
        return
    records = [record for record in recording.records() if record.cache_key not in unused_keys]
    allow = config.settings().cassette_allow
    write(target, recording.settings, records, run=recording.run, allow=allow)


def _result_problems(
    whole: Path, first: Observation, packed: Path, second: Observation
) -> list[str]:
    """Return in words what differs between two runs.

    :param whole: the folder of the first one, in the whole project.
    :param packed: the folder of the second one, with only what is packed.
    """
    problems = []
    if diff := differences(first.printed.encode(), second.printed.encode()):
        problems.append("\n  ".join(["the printed text differs:", *diff]))
    for path in sorted({*first.files_written, *second.files_written}):
        if path not in first.files_written or path not in second.files_written:
            problems.append(f"{path} is written in one of the two runs only")
        elif diff := differences((whole / path).read_bytes(), (packed / path).read_bytes()):
            problems.append("\n  ".join([f"{path} differs:", *diff]))
    if problems:
        problems.insert(
            0,
            "the run in the whole project and the run with only what is packed differ. Seed the program's own "
            "random numbers, print times to standard error, and write logs to a temporary folder. Name files that "
            "only a child process or C code reads with --add",
        )
    return problems


def _packed_files(package: Path) -> list[PackedFile]:
    """Return the files of a package but its manifest, by role and path."""
    roles = {folder: role for role, folder in FOLDERS.items() if folder}
    files = []
    for file in files_below(package):
        top, _, rest = file.partition("/")
        role, path = (roles[top], rest) if rest else (ABOUT, file)
        size = (package / file).stat().st_size
        files.append(PackedFile(path, role, digest_of(package / file), size))
    return files


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="\n")


def _refuse(problems: Sequence[str]) -> None:
    """Stop the packing if there are problems.

    :raises LLMCallError: with every problem.
    """
    if problems:
        raise LLMCallError(
            "the study is not packed:\n" + "\n".join(f"- {each}" for each in problems)
        )
