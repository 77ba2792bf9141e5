"""Pack a study: its program, data, recordings and results, so that others can run it again."""

from __future__ import annotations

import calendar
import os
import platform
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config import resolve as config
from ...display.formatting import counted
from ...errors import LLMCallError
from ...records.reader import read
from ...records.served import served_by
from ...records.writer import write
from . import readme
from .archive import write_zip
from .arguments import check_new, exclusions, files_of, program_of, project_paths, variables
from .description import REPORT, facts_of, run_of, texts_of
from .inspection import credentials, day_in, review_lines
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
    Recording,
    digest_of,
    is_excluded,
    line_digests,
)
from .notebooks import SUFFIX, as_script, has_outputs
from .problems import ProgramRun, name_problems, refuse, result_problems, run_problems
from .project_copy import ProjectCopy
from .replay import Observation, Program, copy_file, files_below, run_program
from .scratch import scratch_folder

if TYPE_CHECKING:
    from ...records.reader import RecordFile

MAX_SIZE = 50_000_000  # bytes of one file
CODE_ENDINGS = (".ipynb", ".py", ".pyi", ".pyx")
LICENCES = (
    "LICENSE",
    "LICENCE",
    "LICENSE.txt",
    "LICENCE.txt",
    "LICENSE.md",
    "LICENCE.md",
    "COPYING",
)
CITATION = "CITATION.cff"
UNKNOWN_DAY = "1980-01-01"
NAMED = 10  # records or files that a message names


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
    exclude: Sequence[str] = (),
    env: Sequence[str] = (),
    prune: bool = False,
    zip: str | os.PathLike[str] | None = None,
    max_size: int = MAX_SIZE,
    licence: str | os.PathLike[str] | None = None,
) -> Package:
    """Pack a study for others: run its program from its recordings, and collect what it needs.

    The project is the working directory. The program runs twice without network access: in a copy of
    the project, then in a folder with only what is packed. Both runs must give the same results.

    :param folder: the package; it must not exist.
    :param command: a script or a notebook and its arguments, or ``-m``, a module and its arguments.
    :param cassettes: every recording that answers the program.
    :param add: files and folders that the program needs and llmcall cannot see, such as those that a
        child process reads.
    :param exclude: files and folders to leave out: project paths, or patterns such as ``*.log``.
    :param env: environment variables that the program gets: ``NAME``, with its current value, or
        ``NAME=VALUE``. A variable whose name says that it holds a credential, such as
        ``LAB_TOKEN`` or ``PGPASSWORD``, gets the value ``none``.
    :param prune: whether to leave out records that no call used; without it, such records are an error.
    :param zip: a ZIP file to write, too; it must not exist.
    :param max_size: the maximum size of a file, in bytes.
    :param licence: the licence's file, if it has no usual name such as ``LICENSE``.
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
    project = Path.cwd().resolve()
    archive = None if zip is None else Path(os.path.abspath(zip))
    check_new(target, archive)
    if licence is not None and not Path(licence).is_file():
        raise ValueError(f"the licence {os.fspath(licence)} does not exist")
    with scratch_folder() as scratch:
        options = _PackOptions(
            program=program_of(project, command),
            cassettes=project_paths(project, cassettes, "--cassette"),
            added=list(files_of(project, project_paths(project, add, "--add"))),
            exclude=exclusions(project, exclude),
            variables=dict(variables(env)),
            prune=prune,
            max_size=max_size,
            licence=None if licence is None else Path(licence).absolute(),
        )
        packer = _Packer(project, scratch, options)
        built = scratch / "package"
        manifest = packer.build(built)
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(target) as folder_beside:
            finished = folder_beside / target.name
            shutil.copytree(built, finished)
            if archive is not None:
                archive.parent.mkdir(parents=True, exist_ok=True)
                write_zip(finished, archive)
            os.replace(finished, target)
    files = {each.file: each.role for each in manifest.files}
    return Package(target, archive, files, tuple(packer.notes))


@dataclass(frozen=True)
class _PackOptions:
    """What is packed, and how; see :func:`pack`.

    :ivar program: what runs: a script, a notebook or a module.
    :ivar cassettes: the recordings' project paths.
    :ivar added: the project paths of files that the author named.
    :ivar exclude: project paths and patterns of what is left out.
    :ivar variables: the environment variables that the author gave.
    :ivar prune: whether to leave out unused records.
    :ivar max_size: of a file, in bytes.
    :ivar licence: the licence's file if the author named one.
    """

    program: Program
    cassettes: list[str]
    added: list[str]
    exclude: list[str]
    variables: dict[str, str]
    prune: bool
    max_size: int
    licence: Path | None


class _Packer:
    """Packs one study.

    :param project: the original folder.
    :param scratch: a folder for copies and runs.
    :param options: what is packed, and how.
    :ivar program: what runs: a script or a module.
    :ivar notes: what the author should know or look at.
    """

    def __init__(self, project: Path, scratch: Path, options: _PackOptions) -> None:
        self.project = project
        self.scratch = scratch
        self.options = options
        self.notes: list[str] = []
        program = options.program
        self.program = program
        self._notebook: str | None = None
        self._script: str | None = None  # which the notebook makes
        if not program.is_module and program.name.endswith(SUFFIX):
            self._notebook = program.name
            self._script = as_script(project / program.name)
            self.program = program._replace(name=f"{program.name.removesuffix(SUFFIX)}.py")
            if (project / self.program.name).exists():
                raise LLMCallError(
                    f"{self.program.name} would be the script of {program.name}, but it exists already"
                )

    def build(self, package: Path) -> Manifest:
        """Build the package in a folder; return its manifest.

        :raises LLMCallError: if it cannot be packed.
        """
        copy = ProjectCopy(self.project, self.options.added)
        copied_folder = self.scratch / "whole"
        copy.make(copied_folder)
        self._add_script(copied_folder)
        recordings = {path: self._recording(path) for path in self.options.cassettes}
        run_cassette = _run_cassette(recordings)
        environment = self._environment(recordings)
        project_run = self._run(
            copied_folder, run_cassette, environment, "in a copy of the project"
        )
        refuse(self._exclude_problems(project_run.observation))
        unused_keys = self._check_use(project_run.observation, recordings)
        needed_files = self._needed_files(project_run)
        folders = self._folders(project_run)
        original = self.scratch / "original"  # as the program found it
        copy.make(original)
        self._add_script(original)
        packed_folder = self.scratch / "packed"
        for path in needed_files:
            copy_file(original / path, packed_folder / path)
        for path, recording in recordings.items():
            source, target = self.project / path, packed_folder / path
            _copy_recording(source, target, recording, unused_keys[path])
        for path in folders:
            (packed_folder / path).mkdir(parents=True, exist_ok=True)
        where = "in a folder with only what is packed"
        packed_run = self._run(packed_folder, run_cassette, environment, where)
        refuse(result_problems(project_run, packed_run))
        refuse(name_problems([*needed_files, *self.options.cassettes, *packed_run.results]))
        self._note_results(packed_run)
        self._copy_files(original, packed_run, needed_files, package)
        return self._describe(package, folders, environment, packed_run.observation, run_cassette)

    # The program's runs

    def _add_script(self, folder: Path) -> None:
        """Put the script that a notebook makes beside it."""
        if self._script is not None:
            (folder / self.program.name).write_text(self._script, encoding="utf-8", newline="\n")

    def _program_files(self, folder: Path) -> list[str]:
        """Return the program's own files: they are read before the run is watched, or not at all."""
        if self.program.is_module:
            return []
        files = [self.program.name, *([self._notebook] if self._notebook else [])]
        return [path for path in files if (folder / path).is_file()]

    def _run(
        self, folder: Path, run_cassette: str | None, environment: dict[str, str], where: str
    ) -> ProgramRun:
        """Run the program in a folder.

        :param where: the folder in words, for messages.
        :raises LLMCallError: if the run cannot be packed.
        """
        observation = run_program(
            self.program,
            folder,
            cassettes=self.options.cassettes,
            run_cassette=run_cassette,
            environment=environment,
            project=self.project,
        )
        refuse(run_problems(observation, where))
        results = [path for path in observation.files_written if not self._is_excluded(path)]
        return ProgramRun(folder, observation, results)

    def _needed_files(self, run: ProgramRun) -> list[str]:
        """Return the files that the program needs, besides its recordings."""
        needed = {*run.observation.files_read, *self.options.added}.difference(
            self.options.cassettes
        )
        needed.update(self._program_files(run.folder))
        return sorted(path for path in needed if not self._is_excluded(path))

    def _environment(self, recordings: dict[str, RecordFile]) -> dict[str, str]:
        days: list[str] = []
        seeds: list[int] = []
        for recording in recordings.values():
            days += [each.last for each in recording.days.values()]
            if recording.run and "seed" in recording.run:
                seeds.append(recording.run["seed"])
        last_day = date.fromisoformat(max(days, default=UNKNOWN_DAY))
        return {
            "LC_ALL": "C.UTF-8",
            "PYTHONHASHSEED": str(seeds[0]) if seeds else "0",
            "PYTHONUTF8": "1",
            "SOURCE_DATE_EPOCH": str(calendar.timegm(last_day.timetuple())),
            "TZ": "UTC",
            **self.options.variables,
        }

    def _exclude_problems(self, observation: Observation) -> list[str]:
        """Return in words which options of ``--exclude`` leave nothing out."""
        files = {*observation.files_read, *observation.files_written, *self.options.added}
        return [
            f"--exclude {each} is none of the files that the program reads or writes; correct the option, or leave "
            "it out"
            for each in self.options.exclude
            if not any(is_excluded(path, [each]) for path in files)
        ]

    def _is_excluded(self, path: str) -> bool:
        return is_excluded(path, self.options.exclude)

    def _folders(self, run: ProgramRun) -> list[str]:
        """Return the folders that exist before the program runs, and that it lists or writes to."""
        parents = {Path(path).parent.as_posix() for path in run.observation.files_written}
        return sorted(
            path
            for path in {*run.observation.folders_listed, *parents}
            if path != "." and (self.project / path).is_dir()
        )

    # The recordings

    def _recording(self, path: str) -> RecordFile:
        recording = read(self.project / path)
        if not recording.is_complete:
            raise LLMCallError(
                f"{path} is an incomplete recording: its run ended with an exception. Run it again "
                "in the mode 'once' to record the rest"
            )
        return recording

    def _check_use(
        self, observation: Observation, recordings: dict[str, RecordFile]
    ) -> dict[str, set[str]]:
        """Return the keys of the records to leave out, by recording.

        :raises LLMCallError: if there are any, or lines that stand twice, and nothing is pruned.
        """
        problems = []
        unused_keys: dict[str, set[str]] = {}
        for path, recording in recordings.items():
            records = recording.records()
            unused = observation.unused_keys.get(path, {record.cache_key for record in records})
            unused_keys[path] = unused
            if unused:
                names = [_record_name(each) for each in records if each.cache_key in unused]
                problems.append(
                    f"{path}: {counted(len(names), 'record')} that no call used: {_first_names(names)}"
                )
            if len(records) < record_lines(self.project / path):
                problems.append(f"{path}: some records occur twice")
        if problems and not self.options.prune:
            remedies = ["--prune leaves them out of the package, and your file as it is"]
            if observation.children:
                remedies.insert(
                    0,
                    "llmcall cannot see what child processes call "
                    f"({', '.join(observation.children)}). If one of them uses these records, run its code in the "
                    "program's own process, such as with runpy.run_path('part.py', run_name='__main__')",
                )
            refuse([*problems, *remedies])
        self.notes += [f"left out of the package: {problem}" for problem in problems]
        return unused_keys

    # What is in it

    def _note_results(self, run: ProgramRun) -> None:
        """Note the results that differ from those in the project, those with the day of the run, and
        those that are not packed.
        """
        for path in run.results:
            project_file = self.project / path
            if (
                project_file.is_file()
                and project_file.read_bytes() != (run.folder / path).read_bytes()
            ):
                self.notes.append(
                    f"look at {path}: the packed result differs from the file in the project"
                )
        outputs = {path: (run.folder / path).read_bytes() for path in run.results}
        outputs["printed text"] = run.observation.printed.encode()
        today = datetime.now(timezone.utc).date()  # the program's time zone is UTC
        self.notes += [
            f"look at {name}: it contains the day of this run, {day!r}. If the program takes it from the clock, "
            "verify will fail later: fix the date or leave it out"
            for name, data in outputs.items()
            if (day := day_in(data, today)) is not None
        ]
        self.notes += [
            f"look at ~/{path}: the program writes it into its home folder, and it is not packed"
            for path in run.observation.files_in_home_folder
        ]

    def _copy_files(
        self, original: Path, run: ProgramRun, needed_files: Iterable[str], package: Path
    ) -> None:
        """Copy the program's files, its recordings and its results into the package.

        :param original: the project as the program found it.
        :param run: the run with only what is packed.
        :param needed_files: the files that the program needs.
        """
        for path in needed_files:
            role = CODE if path.lower().endswith(CODE_ENDINGS) else DATA
            copy_file(original / path, package / FOLDERS[role] / path)
        for path in self.options.cassettes:
            copy_file(run.folder / path, package / FOLDERS[RECORDING] / path)
        for path in run.results:
            copy_file(run.folder / path, package / FOLDERS[RESULT] / path)

    def _describe(
        self,
        package: Path,
        folders: list[str],
        environment: dict[str, str],
        observation: Observation,
        run_cassette: str | None,
    ) -> Manifest:
        """Write what the package says of itself, check all of it, and return the manifest."""
        packed = package / FOLDERS[RECORDING]
        run = run_of(packed, self.options.cassettes)
        self._copy_licence_and_citation(package)
        for name, text in texts_of(run, observation.packages).items():
            (package / name).write_text(text, encoding="utf-8", newline="\n")
        copy_file(readme.READER, package / readme.READER.name)
        manifest = Manifest(
            command=self.program.command(),
            environment=environment,
            files=[],
            folders=folders,
            recordings=[
                Recording(
                    path,
                    len(read(packed / path)),
                    path == run_cassette,
                    line_digests(packed / path),
                )
                for path in self.options.cassettes
            ],
            printed=observation.printed,
            children=observation.children,
            **facts_of(run),
            python=platform.python_version(),
            packages=observation.packages,
            excluded=self.options.exclude,
        )
        manifest.files.extend(_packed_files(package))
        text = readme.text(manifest, served_by(run.records))
        (package / "README.md").write_text(text, encoding="utf-8", newline="\n")
        # Again: now with the README, which lists the others.
        manifest.files[:] = _packed_files(package)
        (package / NAME).write_text(manifest.text(), encoding="utf-8", newline="\n")
        self._inspect(package, observation)
        return manifest

    def _copy_licence_and_citation(self, package: Path) -> None:
        """Copy the licence and the citation file, if there are any."""
        licence = self.options.licence or next(
            (self.project / name for name in LICENCES if (self.project / name).is_file()), None
        )
        if licence is not None:
            copy_file(licence, package / "LICENSE")
        else:
            self.notes.append("there is no licence: without one, nobody else may use the study")
        if (self.project / CITATION).is_file():
            copy_file(self.project / CITATION, package / CITATION)

    def _inspect(self, package: Path, observation: Observation) -> None:
        """Refuse credentials and large files, and note what the author should look at."""
        files = files_below(package)
        sizes = {file: (package / file).stat().st_size for file in files}
        problems = [
            f"{file} has {size:,} bytes, more than --max-size allows ({self.options.max_size:,})"
            for file, size in sizes.items()
            if size > self.options.max_size
        ]
        problems += credentials(package, files, config.settings().cassette_allow)
        refuse(problems)
        self.notes += [
            f"look at {file}: llmcall does not compare the outputs stored in it; clear them, and print() the "
            "numbers that verify should compare"
            for file in files
            if file.endswith(SUFFIX) and has_outputs(package / file)
        ]
        if not observation.printed and not any(
            file.startswith(f"{FOLDERS[RESULT]}/") for file in files
        ):
            self.notes.append(
                "look at the results: there are none, since the program prints nothing, and no file that it "
                "writes is packed; print() the numbers that verify should compare"
            )
        files_to_review = [file for file in files if file not in (NAME, REPORT)]
        lines = review_lines(package, files_to_review, observation.printed, self.project)
        self.notes += [f"look at {line}" for line in lines]
        if observation.children:
            self.notes.append(
                "llmcall cannot see what child processes read and write; name their files with "
                f"--add: {', '.join(observation.children)}"
            )


def _run_cassette(recordings: dict[str, RecordFile]) -> str | None:
    """Return the path of the recording that ``llmcall run`` made, or ``None``."""
    paths = [path for path, recording in recordings.items() if recording.run is not None]
    if len(paths) > 1:
        raise LLMCallError(
            f"{', '.join(paths)} were each recorded by llmcall run, and only one can be opened around "
            "the program; pack one study for each"
        )
    return paths[0] if paths else None


def record_lines(path: Path) -> int:
    """Return how many lines of a recording are records."""
    with open(path, "rb") as file:
        return sum(line.lstrip().startswith(b'{"kind"') for line in file)


def _copy_recording(
    source: Path, target: Path, recording: RecordFile, unused_keys: set[str]
) -> None:
    """Copy a recording without the records that are left out."""
    records = recording.records()
    if not unused_keys and len(records) == record_lines(source):
        copy_file(source, target)
        return
    used_records = [record for record in records if record.cache_key not in unused_keys]
    write(
        target,
        recording.settings,
        used_records,
        run=recording.run,
        allow=config.settings().cassette_allow,
    )


def _packed_files(package: Path) -> list[PackedFile]:
    """Return the files of a package but its manifest, by role and path."""
    roles = {folder: role for role, folder in FOLDERS.items() if folder}
    packed_files = []
    for file in files_below(package):
        top, _, rest = file.partition("/")
        role, path = (roles[top], rest) if rest and top in roles else (ABOUT, file)
        size = (package / file).stat().st_size
        if file != NAME:
            packed_files.append(PackedFile(path, role, digest_of(package / file), size))
    return packed_files


def _record_name(record: Any) -> str:
    return record.sample or "(outside any scope)"


def _first_names(names: list[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
