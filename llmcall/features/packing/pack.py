"""Pack a study for others to run again: its program, data, recordings and results."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...config import resolve as config
from ...errors import ArgumentError, LLMCallError
from ...stores.records.reader import RecordFile, read
from ...stores.records.writer import write
from ...support.display import counted
from ...support.secrets import names_credential
from .contents import (
    PAGES,
    READER,
    REPORT,
    credentials,
    personal_lines,
    read_text,
    write_pages,
    write_requirements,
)
from .observed_run import (
    Observation,
    describe_unused,
    files_below,
    run_cassettes,
    run_program,
    unused_records,
)
from .package import (
    ABOUT,
    CODE,
    DATA,
    FOLDERS,
    NAME,
    RECORDING,
    RESULT,
    Manifest,
    PackedFile,
    copy_file,
    file_digest,
    is_left_out,
    lay_out,
    new_path,
    write_zip,
)
from .verify import DIFFERS, Check, run_checks

CODE_ENDINGS = (".py", ".pyi", ".pyx")
# Files that are packed although the program does not read them
TAKEN_ALONG = ("LICENSE*", "LICENCE*", "COPYING*", "CITATION.cff")
# Names of variables that usually hold a credential: PGPASSWORD, MYSQL_PWD, DB_PASS, LAB_TOKEN
CREDENTIAL_ENDING = re.compile(
    r"(?:_pwd|(?:^|_)(?:pass|token|secret|key|credentials?)|passwd|password|passphrase)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Package:
    """A packed study.

    :ivar folder: its folder.
    :ivar zip: its ZIP file, or ``None``.
    :ivar files: the role of each file, by its path in the package.
    :ivar notes: notes for the author.
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
    whole: bool = False,
    zip: str | os.PathLike[str] | None = None,
) -> Package:
    """Pack a study for others: run its program from its recordings, and collect what it needs.

    The project is the working directory. The program runs without network access: in a copy of the
    project, then in a folder with only the packed files. Both runs must give the same results.

    :param folder: the package; it must not exist.
    :param command: a script and its arguments, or ``-m``, a module and its arguments.
    :param cassettes: all recordings that answer the program.
    :param add: files and folders whose use llmcall cannot see, such as those that C code or a child
        process in another language reads.
    :param env: environment variables that the program gets: ``NAME``, with its current value, or
        ``NAME=VALUE``. A variable whose name says that it holds a credential, such as
        ``LAB_TOKEN`` or ``PGPASSWORD``, gets the value ``none``.
    :param prune: ``True`` leaves out records that no call used; without ``prune`` and ``whole``, such
        records are an error.
    :param whole: ``True`` packs the recordings unchanged, as evidence, although the program uses only
        a part of them.
    :param zip: a ZIP file to write as well; it must not exist.
    :returns: the package's files, and notes for its author.
    :raises LLMCallError: if the study cannot be packed, with all reasons.
    :raises ValueError: for a wrong argument.

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
    target, archive = new_path(folder), None if zip is None else new_path(zip)
    project = Path.cwd().resolve()
    program = checked_command(project, command)
    recording_paths = project_paths(project, cassettes, "--cassette")
    added = list(files_at(project, project_paths(project, add, "--add")))
    recordings = {path: read(project / path) for path in recording_paths}
    environment = {**_environment(recordings), **dict(environment_variables(env))}
    _raise_problems(_recording_problems(project, recordings))
    # Not in the project: some programs search the folders above theirs for .env or .git.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        copied, package = (Path(scratch).resolve() / name for name in ("copied", "package"))
        copy_project(project, copied, project)
        for path in added:
            copy_file(project / path, copied / path)
        run = run_program(
            program, copied, cassettes=recording_paths, environment=environment, project=project
        )
        _raise_problems(_run_problems(run, project))
        unused = {path: unused_records(run, path, recordings[path]) for path in recording_paths}
        notes = [describe_unused(path, names) for path, names in unused.items() if names]
        if notes and not (prune or whole):
            hint = "--prune leaves them out of the package (your file stays as it is); --whole packs them as evidence"
            _raise_problems([*notes, hint])
        fate = "packed as evidence" if whole else "left out of the package"
        notes = [f"{fate}: {note}" for note in notes]
        for path in {*run.files_read, *added, *program[:1]} - {*recording_paths}:
            role = CODE if path.lower().endswith(CODE_ENDINGS) else DATA
            if (project / path).is_file():
                copy_file(project / path, package / FOLDERS[role] / path)
        pruned = {}
        for path, names in unused.items():
            recording, packed = recordings[path], package / FOLDERS[RECORDING] / path
            if whole or not names:
                copy_file(project / path, packed)
                continue
            kept = [record for record in recording if record.cache_key not in names]
            write(packed, recording.header, kept)
            answers = counted(len(recording), "recorded answer")
            pruned[path] = f"{path}: {len(names):,} of {answers} were left out (--prune)"
        for path in run.files_written:
            copy_file(copied / path, package / FOLDERS[RESULT] / path)
        for pattern in TAKEN_ALONG:
            for file in filter(Path.is_file, project.glob(pattern)):
                copy_file(file, package / file.name)
        parents = {Path(path).parent.as_posix() for path in run.files_written}
        manifest = Manifest(
            command=program,
            environment=environment,
            folders=sorted(path for path in parents - {"."} if (project / path).is_dir()),
            printed=run.printed,
            python=platform.python_version(),
            packages=run.packages,
            unused={path: len(names) for path, names in unused.items() if whole and names},
            pruned=pruned,
            files=_packed_files(package),
        )
        manifest.write(package)
        texts = files_below(package)  # all others are made of them
        _raise_problems(credentials(package, texts, config.settings().cassette_allow))
        again = Path(scratch).resolve() / "again"
        lay_out(package, manifest, again)
        second_run = run_program(program, again, cassettes=recording_paths, environment=environment)
        _raise_problems(_second_run_problems(run_checks(package, manifest, second_run, again)))
        manifest = _write_about_files(package, manifest)
        notes += _notes(package, manifest, project)
        if archive is not None:
            write_zip(package, target.name, archive)
        shutil.copytree(package, target)
    files = {file.file: file.role for file in manifest.files}
    return Package(target, archive, files, tuple(notes))


def _environment(recordings: Mapping[str, RecordFile]) -> dict[str, str]:
    """Return the variables that make a program's environment the same everywhere."""
    headers = [recording.header for recording in recordings.values()]
    seeds = [header.run["seed"] for header in headers if header.run and "seed" in header.run]
    return {
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": str(seeds[0] if seeds else 0),
        "PYTHONUTF8": "1",
        "SOURCE_DATE_EPOCH": "315532800",  # of Matplotlib's files: 1980, as in the ZIP file
        "TZ": "UTC",
    }


# Problems that stop the packing


def _raise_problems(problems: Iterable[str]) -> None:
    """Stop the packing if there are problems."""
    if lines := "\n".join(f"- {problem}" for problem in problems):
        raise LLMCallError(f"the study is not packed:\n{lines}")


def _recording_problems(project: Path, recordings: Mapping[str, RecordFile]) -> Iterator[str]:
    """Yield the reasons why some recordings cannot be packed."""
    for path, recording in recordings.items():
        if not recording.header.is_complete:
            yield (
                f"{path} is an incomplete recording: its run ended with an exception, or did not close it. Run the "
                "program again in mode 'once' to record the rest; after open(), call close()"
            )
    run_recordings = run_cassettes(project, list(recordings))
    if len(run_recordings) > 1:
        yield (
            f"llmcall run recorded each of {', '.join(run_recordings)}, but only one of them can be opened around the "
            "program; pack a study for each"
        )


def _run_problems(observation: Observation, project: Path) -> Iterator[str]:
    """Yield the reasons why a run cannot be packed."""
    if observation.problems:
        yield "\n  ".join(observation.problems)
    for address in dict.fromkeys(observation.connections):
        yield f"the program tried to connect to {address}, but a packed program has no network"
    for path in observation.files_outside:
        if Path(path).is_relative_to(project):
            yield (
                f"the program opens {path} by an absolute path into the project; use a relative path, or, if it "
                "imports the file from an editable installation of the project, --env PYTHONPATH=FOLDER with the "
                "relative path of the folder that holds the package, such as src"
            )
        else:
            yield (
                f"the program opens {path}, which is outside the project; put it into the project, or, if a link in "
                "the project leads there, name the link with --add to pack what it points to"
            )


def _second_run_problems(checks: Iterable[Check]) -> list[str]:
    """Describe how the run with only the packed files differs."""
    problems = [
        "\n  ".join([f"{check.name}: {check.found}", *check.details])
        for check in checks
        if check.status == DIFFERS
    ]
    hint = (
        "with only the packed files, the program behaves differently. Seed its own random numbers, print times to "
        "standard error, and write logs to a temporary folder. Name files that only C code or a child in another "
        "language reads with --add"
    )
    return [hint, *problems] if problems else []


# The contents of the package


def _write_about_files(package: Path, manifest: Manifest) -> Manifest:
    """Write the files about a package, and return its manifest with all files."""
    copy_file(READER, package / READER.name)
    write_requirements(package, manifest)
    for name in PAGES:  # the README lists the others
        (package / name).touch()
    manifest = replace(manifest, files=_packed_files(package))
    write_pages(package, package, manifest)
    manifest = replace(manifest, files=_packed_files(package))
    manifest.write(package)
    return manifest


def _packed_files(package: Path) -> list[PackedFile]:
    """Return all files of a package except its manifest."""
    roles = {folder: role for role, folder in FOLDERS.items() if folder}
    files = []
    for file in filter(NAME.__ne__, files_below(package)):
        top, _, rest = file.partition("/")
        role, path = (roles[top], rest) if rest else (ABOUT, file)
        size = (package / file).stat().st_size
        files.append(PackedFile(path, role, file_digest(package / file), size))
    return files


def _notes(package: Path, manifest: Manifest, project: Path) -> Iterator[str]:
    """Yield notes for the author."""
    for packed in manifest.files_with_role(RESULT):
        file = project / packed.path
        if file.is_file() and file_digest(file) != packed.sha256:
            yield f"look at {packed.path}: the packed result differs from the file in the project"
    for packed in manifest.files:
        # neither the report, which repeats the recordings, nor the wheel
        if packed.file != REPORT and not packed.file.endswith(".whl"):
            yield from personal_lines(packed.file, read_text(package / packed.file))
    yield from personal_lines("printed text", manifest.printed)


# The project: its copy, and the paths and variables that its author names


def copy_project(source: Path, target: Path, project: Path) -> None:
    """Copy a folder of a project without the files that are left out.

    :param project: the whole project. The targets of links are copied, except outside the project:
        there the link stays, so that its use is seen and stops the packing.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        real = path.resolve()
        if is_left_out(path):
            continue
        if not real.is_relative_to(project):
            (target / path.name).symlink_to(real)
        elif path.is_dir() and not (path.is_symlink() and path.is_relative_to(real)):
            copy_project(path, target / path.name, project)
        elif path.is_file():
            shutil.copy2(path, target / path.name)


def project_paths(
    project: Path, paths: Iterable[str | os.PathLike[str]], argument: str
) -> list[str]:
    """Return paths within the project, relative to it, each once.

    :param argument: the argument that names them, for messages.
    :raises ValueError: if one does not exist or is outside the project.
    """
    relative_paths = []
    for named_path in paths:
        path = Path(os.path.abspath(os.path.expanduser(named_path)))
        if not path.exists():
            raise ArgumentError(f"{argument}: {os.fspath(named_path)} does not exist")
        if not path.is_relative_to(project):
            raise ArgumentError(
                f"{argument}: {os.fspath(named_path)} is not in the project {project}; run pack in the folder that "
                "contains everything"
            )
        relative_paths.append(path.relative_to(project).as_posix())
    return list(dict.fromkeys(relative_paths))


def checked_command(project: Path, command: Iterable[str]) -> list[str]:
    """Return a program's command, the script by its path in the project.

    :raises ValueError: if it names no program.
    """
    words = list(command)
    if not words or words == ["-m"]:
        raise ArgumentError(
            "the program is missing: give a script, or -m and a module, and its arguments"
        )
    if words[0] == "-m":
        return words
    return [*project_paths(project, words[:1], "the script"), *words[1:]]


def files_at(project: Path, paths: Iterable[str]) -> Iterator[str]:
    """Yield the files at some project paths and in the folders there, without those left out."""
    for path in paths:
        if not (project / path).is_dir():
            yield path
            continue
        for entry in sorted((project / path).iterdir()):
            if not is_left_out(entry) and not entry.name.startswith(".env"):
                yield from files_at(project, [entry.relative_to(project).as_posix()])


def environment_variables(env: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the names and values of the program's variables.

    :param env: ``NAME``, for its current value, or ``NAME=VALUE``.
    :raises ValueError: if a variable is not set.
    """
    for entry in env:
        name, equals_sign, value = entry.partition("=")
        is_credential = names_credential(name)
        if not equals_sign:
            if name not in os.environ:
                raise ArgumentError(f"--env {name}: the variable is not set")
            value = os.environ[name]
            is_credential = is_credential or CREDENTIAL_ENDING.search(name) is not None
        yield name, "none" if is_credential else value
