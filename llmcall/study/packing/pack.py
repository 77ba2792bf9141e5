"""Pack a study: its program, data, recordings and results, so that others can run it again."""

from __future__ import annotations

import calendar
import fnmatch
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config import resolve as config
from ...display.formatting import counted
from ...errors import LLMCallError
from ...records.reader import read
from ...records.served import served_by
from ...records.writer import write
from ...secrets import names_credential
from . import readme
from .archive import write_zip
from .description import REPORT, facts_of, run_of, texts_of
from .differences import file_differences, text_differences
from .inspection import credentials, to_look_at
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
    is_portable,
    line_digests,
)
from .notebooks import SUFFIX, as_script
from .replay import Observed, Program, copy_file, files_below, run_program, scratch_folder

if TYPE_CHECKING:
    from ...records.reader import RecordFile

MAX_SIZE = 50_000_000  # bytes of one file
CODE_ENDINGS = (".ipynb", ".py", ".pyi", ".pyx")
# What the program does not get: version control, environments and caches; and .env, which holds keys.
LEFT_OUT = frozenset({".env", ".git", ".hg", ".llmcall", ".svn", "__pycache__", "node_modules"})
CACHES = re.compile(r"\.(mypy|pytest|ruff)_cache|\.ipynb_checkpoints|\.tox|\.nox")
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
PYTHON = re.compile(r"(python|pypy)[\d.]*w?(\.exe)?", re.IGNORECASE)
UNKNOWN_DAY = "1980-01-01"
NO_KEY = "none"
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
        place = str(self.folder) if self.zip is None else f"{self.folder} and {self.zip}"
        return "\n".join([*lines, *self.notes, f"packed: {place}"])


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
    :param env: environment variables that the program gets: ``NAME``, with its present value, or
        ``NAME=VALUE``. A variable whose name says that it holds a credential gets the value
        ``none``.
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
    _check_new(target, archive)
    if licence is not None and not Path(licence).is_file():
        raise ValueError(f"the licence {os.fspath(licence)} does not exist")
    with scratch_folder() as scratch:
        packing = _Packing(
            project,
            scratch,
            _program(project, command),
            _project_paths(project, cassettes, "--cassette"),
            left_out=(target, *([] if archive is None else [archive])),
        )
        packing.exclude = [each.rstrip("/\\").replace("\\", "/") for each in exclude]
        packing.added = list(_files_of(project, _project_paths(project, add, "--add")))
        packing.prune, packing.max_size = prune, max_size
        packing.given = dict(_variables(env))
        packing.licence = None if licence is None else Path(licence).absolute()
        built = scratch / "package"
        manifest = packing.build(built)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as near:
            made = Path(near) / target.name
            shutil.copytree(built, made)
            if archive is not None:
                archive.parent.mkdir(parents=True, exist_ok=True)
                write_zip(made, archive)
            os.replace(made, target)
    files = {each.file: each.role for each in manifest.files}
    return Package(target, archive, files, tuple(packing.notes))


def _check_new(target: Path, archive: Path | None) -> None:
    """Check that nothing is overwritten.

    :raises ValueError: if it would be.
    """
    for path in (target, *([] if archive is None else [archive])):
        if os.path.lexists(path):
            raise ValueError(f"{path} exists already; remove it, or choose another name")
    if archive is not None and archive.is_relative_to(target):
        raise ValueError(f"the ZIP file {archive} would be in the package itself; put it elsewhere")


class _Packing:
    """The packing of one study.

    :param project: the original folder.
    :param scratch: where it may write.
    :param program: what runs.
    :param cassettes: the recordings' project paths.
    :param left_out: what it writes itself, perhaps in the project.
    """

    def __init__(
        self,
        project: Path,
        scratch: Path,
        program: Program,
        cassettes: list[str],
        *,
        left_out: tuple[Path, ...],
    ) -> None:
        self.project = project
        self.scratch = scratch
        self.program = program
        self.cassettes = cassettes
        self.exclude: list[str] = []
        self.added: list[str] = []
        self.given: dict[str, str] = {}
        self.prune = False
        self.max_size = MAX_SIZE
        self.licence: Path | None = None
        self.notes: list[str] = []
        self._left_out = left_out
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
        whole, only = self.scratch / "whole", self.scratch / "packed"
        self._copy_project(whole)
        self._add_script(whole)
        lines = {path: self._recording(path) for path in self.cassettes}
        around = _around(lines)
        environment = self._environment(lines)
        first = self._run(whole, around, environment)
        _refuse(_problems(first, "in a copy of the project"))
        pruned = self._check_use(first, lines)
        reads = [path for path in [*first.read, *self.added] if path not in self.cassettes]
        reads = sorted(
            {each for each in (*reads, *self._own_code(whole)) if not self._is_excluded(each)}
        )
        written = [path for path in first.written if not self._is_excluded(path)]
        folders = self._folders(first.listed, written)
        original = self.scratch / "original"
        self._copy_project(original)
        self._add_script(original)
        for path in reads:
            copy_file(original / path, only / path)
        for path, held in lines.items():
            _copy_recording(self.project / path, only / path, held, pruned[path])
        for path in folders:
            (only / path).mkdir(parents=True, exist_ok=True)
        second = self._run(only, around, environment)
        _refuse(_problems(second, "in a folder with only what is packed"))
        kept = [path for path in second.written if not self._is_excluded(path)]
        _refuse(_unequal(whole, written, first, only, kept, second))
        _refuse(_name_problems([*reads, *self.cassettes, *kept]))
        self._compare_with_project(only, kept)
        self.notes += [
            f"look at ~/{path}: the program writes it into its home folder, and it is not packed"
            for path in second.at_home
        ]
        for path in reads:
            role = CODE if path.lower().endswith(CODE_ENDINGS) else DATA
            copy_file(original / path, package / FOLDERS[role] / path)
        for path in self.cassettes:
            copy_file(only / path, package / FOLDERS[RECORDING] / path)
        for path in kept:
            copy_file(only / path, package / FOLDERS[RESULT] / path)
        return self._describe(package, folders, environment, second, around)

    # The program's runs

    def _copy_project(self, folder: Path) -> None:
        """Copy the project without what a program does not need."""
        if folder.exists():
            return
        folder.mkdir()
        for place, folders, names in os.walk(self.project, followlinks=True):
            here = Path(place)
            links = [here / name for name in folders if self._leaves_project(here / name)]
            folders[:] = [name for name in folders if self._is_followed(here / name)]
            for link in links:  # what the program opens there is seen, and stops it
                (folder / link.relative_to(self.project)).symlink_to(link.resolve())
            for name in names:
                path = here / name
                if self._is_copied(path) and path.is_file():
                    target = folder / path.relative_to(self.project)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, target)
            for name in folders:
                (folder / here.relative_to(self.project) / name).mkdir(parents=True, exist_ok=True)

    def _leaves_project(self, path: Path) -> bool:
        return self._is_copied(path) and not path.resolve().is_relative_to(self.project)

    def _is_followed(self, path: Path) -> bool:
        """Return whether a folder is copied: a link is not if it leaves the project or leads back."""
        if not self._is_copied(path):
            return False
        real = path.resolve()
        leads_back = path.is_symlink() and any(real == each.resolve() for each in path.parents)
        return real.is_relative_to(self.project) and not leads_back

    def _is_copied(self, path: Path) -> bool:
        if path.relative_to(self.project).as_posix() in self.added:
            return True
        is_environment = (path / "pyvenv.cfg").exists()
        is_cache = path.name in LEFT_OUT or CACHES.fullmatch(path.name) is not None
        return not (is_environment or is_cache or path in self._left_out)

    def _add_script(self, folder: Path) -> None:
        """Put the script that a notebook makes beside it."""
        if self._script is not None:
            (folder / self.program.name).write_text(self._script, encoding="utf-8", newline="\n")

    def _own_code(self, folder: Path) -> list[str]:
        """Return the program's own files: they are read before the run is watched, or not at all."""
        if self.program.is_module:
            return []
        own = [self.program.name, *([self._notebook] if self._notebook else [])]
        return [path for path in own if (folder / path).is_file()]

    def _run(self, folder: Path, around: str | None, environment: dict[str, str]) -> Observed:
        return run_program(
            self.program,
            folder,
            cassettes=self.cassettes,
            around=around,
            environment=environment,
            project=self.project,
        )

    def _environment(self, lines: dict[str, RecordFile]) -> dict[str, str]:
        days = [each.last for held in lines.values() for each in held.days.values()]
        last = date.fromisoformat(max(days, default=UNKNOWN_DAY))
        seeds = [held.run["seed"] for held in lines.values() if held.run and "seed" in held.run]
        return {
            "LC_ALL": "C.UTF-8",
            "PYTHONHASHSEED": str(seeds[0]) if seeds else "0",
            "PYTHONUTF8": "1",
            "SOURCE_DATE_EPOCH": str(calendar.timegm(last.timetuple())),
            "TZ": "UTC",
            **self.given,
        }

    def _is_excluded(self, path: str) -> bool:
        return any(
            fnmatch.fnmatchcase(path, each) or path.startswith(f"{each}/") for each in self.exclude
        )

    def _folders(self, listed: Iterable[str], written: Iterable[str]) -> list[str]:
        """Return the folders that exist before the program runs, and that it lists or writes to."""
        above = {Path(path).parent.as_posix() for path in written}
        return sorted(
            path for path in {*listed, *above} if path != "." and (self.project / path).is_dir()
        )

    # The recordings

    def _recording(self, path: str) -> RecordFile:
        held = read(self.project / path)
        if not held.is_complete:
            raise LLMCallError(
                f"{path} is an incomplete recording: its run ended with an exception. Run it again "
                "in the mode 'once' to record the rest"
            )
        return held

    def _check_use(self, observed: Observed, lines: dict[str, RecordFile]) -> dict[str, set[str]]:
        """Return the keys of the records to leave out, by recording.

        :raises LLMCallError: if there are any, or lines that stand twice, and nothing is pruned.
        """
        problems = []
        dropped: dict[str, set[str]] = {}
        for path, held in lines.items():
            records = held.records()
            unused = observed.unused.get(path, {record.cache_key for record in records})
            dropped[path] = unused
            if unused:
                names = [_record_name(each) for each in records if each.cache_key in unused]
                problems.append(
                    f"{path}: {counted(len(names), 'record')} that no call used: {_some(names)}"
                )
            if len(records) < record_lines(self.project / path):
                problems.append(f"{path}: some records occur twice")
        if problems and not self.prune:
            remedy = "--prune leaves them out of the package, and your file as it is"
            _refuse([*problems, remedy])
        self.notes += [f"left out of the package: {problem}" for problem in problems]
        return dropped

    # What is in it

    def _compare_with_project(self, folder: Path, written: Iterable[str]) -> None:
        """Note the results that differ from those that lie in the project."""
        for path in written:
            there = self.project / path
            if there.is_file() and there.read_bytes() != (folder / path).read_bytes():
                self.notes.append(
                    f"look at {path}: the packed result differs from the file in the project"
                )

    def _describe(
        self,
        package: Path,
        folders: list[str],
        environment: dict[str, str],
        observed: Observed,
        around: str | None,
    ) -> Manifest:
        """Write what the package says of itself, check all of it, and return the manifest."""
        packed = package / FOLDERS[RECORDING]
        run = run_of([packed / path for path in self.cassettes])
        self._take_along(package)
        for name, text in texts_of(run, observed.packages).items():
            (package / name).write_text(text, encoding="utf-8", newline="\n")
        copy_file(readme.READER, package / readme.READER.name)
        manifest = Manifest(
            command=self.program.command(),
            environment=environment,
            files=[],
            folders=folders,
            recordings=[
                Recording(
                    path, len(read(packed / path)), path == around, line_digests(packed / path)
                )
                for path in self.cassettes
            ],
            printed=observed.printed,
            children=observed.children,
            **facts_of(run),
            python=platform.python_version(),
            packages=observed.packages,
        )
        manifest.files.extend(_packed_files(package))
        text = readme.text(manifest, served_by(run.records))
        (package / "README.md").write_text(text, encoding="utf-8", newline="\n")
        manifest.files[:] = _packed_files(package)
        (package / NAME).write_text(manifest.text(), encoding="utf-8", newline="\n")
        self._inspect(package, observed)
        return manifest

    def _take_along(self, package: Path) -> None:
        """Copy the licence and the citation file, if there are any."""
        named = self.licence or next(
            (self.project / name for name in LICENCES if (self.project / name).is_file()), None
        )
        if named is not None:
            copy_file(named, package / "LICENSE")
        else:
            self.notes.append("there is no licence: without one, nobody else may use the study")
        if (self.project / CITATION).is_file():
            copy_file(self.project / CITATION, package / CITATION)

    def _inspect(self, package: Path, observed: Observed) -> None:
        """Refuse credentials and large files, and note what the author should look at."""
        files = files_below(package)
        sizes = {file: (package / file).stat().st_size for file in files}
        problems = [
            f"{file} has {size:,} bytes, more than --max-size allows ({self.max_size:,})"
            for file, size in sizes.items()
            if size > self.max_size
        ]
        problems += credentials(package, files, config.settings().cassette_allow)
        _refuse(problems)
        own = [file for file in files if file not in (NAME, REPORT)]
        self.notes += [f"look at {place}" for place in to_look_at(package, own)]
        if observed.children:
            self.notes.append(
                "llmcall cannot see what child processes read and write; name their files with "
                f"--add: {', '.join(observed.children)}"
            )


def _program(project: Path, command: Sequence[str]) -> Program:
    """Return the program that a command names.

    :raises ValueError: if it names none.
    """
    if not command:
        raise ValueError("no program is named: give a script, or -m and a module")
    if PYTHON.fullmatch(os.path.basename(command[0])) and not (project / command[0]).is_file():
        raise ValueError(
            f"give the script alone, without {command[0]!r}: llmcall pack … -- SCRIPT [ARG…]"
        )
    if list(command) == ["-m"]:
        raise ValueError("-m needs the name of a module: llmcall pack … -- -m MODULE [ARG…]")
    program = Program.of(command)
    if program.is_module:
        return program
    return program._replace(name=_project_paths(project, [program.name], "the script")[0])


def _project_paths(project: Path, paths: Iterable[str | os.PathLike[str]], what: str) -> list[str]:
    """Return paths within the project, relative to it.

    :param what: what names them, for messages.
    :raises ValueError: if one does not exist or lies elsewhere.
    """
    found = []
    for each in paths:
        path = Path(os.path.abspath(each))
        if not path.exists():
            raise ValueError(f"{what}: {os.fspath(each)} does not exist")
        for folder in (project, Path.cwd()):
            if path.is_relative_to(folder):
                found.append(path.relative_to(folder).as_posix())
                break
        else:
            raise ValueError(
                f"{what}: {os.fspath(each)} is not below the project {project}; run pack in the "
                "folder that holds everything"
            )
    return list(dict.fromkeys(found))


def _files_of(project: Path, paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        if (project / path).is_dir():
            yield from (f"{path}/{each}" for each in files_below(project / path))
        else:
            yield path


def _variables(given: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the names and values of the variables that the program gets.

    :raises ValueError: if one is not set.
    """
    for each in given:
        name, sign, value = each.partition("=")
        if not sign:
            if name not in os.environ:
                raise ValueError(f"--env {name}: the variable is not set")
            value = os.environ[name]
        yield name, NO_KEY if names_credential(name) else value


def _around(lines: dict[str, RecordFile]) -> str | None:
    """Return the recording that ``llmcall run`` made, if one is."""
    found = [path for path, held in lines.items() if held.run is not None]
    if len(found) > 1:
        raise LLMCallError(
            f"{', '.join(found)} were each recorded by llmcall run, and only one can be opened around "
            "the program; pack one study for each"
        )
    return found[0] if found else None


def record_lines(path: Path) -> int:
    """Return how many lines of a recording are records."""
    with open(path, "rb") as file:
        return sum(line.lstrip().startswith(b'{"kind"') for line in file)


def _copy_recording(source: Path, target: Path, held: RecordFile, dropped: set[str]) -> None:
    """Copy a recording without the records that are left out."""
    records = held.records()
    if not dropped and len(records) == record_lines(source):
        copy_file(source, target)
        return
    kept = [record for record in records if record.cache_key not in dropped]
    write(target, held.settings, kept, run=held.run, allow=config.settings().cassette_allow)


def _problems(observed: Observed, where: str) -> list[str]:
    """Return why a run cannot be packed.

    :param where: the run was, for messages.
    """
    found = observed.failure_lines()
    found += [
        f"the program opens the cassette {path}; name it with --cassette"
        for path in dict.fromkeys(observed.unnamed)
    ]
    found += [
        f"the program tried to connect to {place}, and a packed program has no network"
        for place in dict.fromkeys(observed.connections)
    ]
    found += [
        f"the program opens {path} by an absolute path into the project; use a relative path"
        for path in observed.absolute
    ]
    found += [
        f"the program opens {path}, which is outside the project; put it into the project"
        for path in observed.outside
    ]
    if observed.code:
        found.append(
            f"the program ended with exit code {observed.code} {where}:\n{observed.complaints}"
        )
    elif not observed.has_ended:
        found.append(f"the program did not finish {where}:\n{observed.complaints}")
    return found


def _unequal(
    whole: Path, written: list[str], first: Observed, only: Path, kept: list[str], second: Observed
) -> list[str]:
    """Return in words what differs between the run in the whole project and that with only what is
    packed.
    """
    found = [
        f"printed text differs: {each}"
        for each in text_differences(first.printed, second.printed, 0.0)
    ]
    for path in sorted({*written, *kept}):
        if path not in kept or path not in written:
            found.append(f"{path} is written in one of the two runs only")
            continue
        old, new = (whole / path).read_bytes(), (only / path).read_bytes()
        found += [f"{path}: {each}" for each in file_differences(path, old, new, 0.0)]
    if found:
        found.insert(
            0,
            "the run in the whole project and the run with only what is packed differ. Seed the "
            "program's own random numbers, and print times to standard error. Name files that only a "
            "child process or C code reads with --add, and results that differ every time with "
            "--exclude",
        )
    return found


def _name_problems(paths: Iterable[str]) -> list[str]:
    """Return in words which files cannot be packed under their names."""
    found = []
    spelled: dict[str, str] = {}
    for path in sorted(set(paths)):
        if not is_portable(path):
            found.append(f"the name {path!r} does not work on every system; rename the file")
        other = spelled.setdefault(path.lower(), path)
        if other != path:
            found.append(
                f"the names {other!r} and {path!r} differ only in case, which some systems ignore; "
                "rename one of the files"
            )
    return found


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise LLMCallError(
            "the study is not packed:\n" + "\n".join(f"- {each}" for each in problems)
        )


def _packed_files(package: Path) -> list[PackedFile]:
    """Return the files of a package but its manifest, by role and path."""
    roles = {folder: role for role, folder in FOLDERS.items() if folder}
    found = []
    for file in files_below(package):
        top, _, rest = file.partition("/")
        role, path = (roles[top], rest) if rest and top in roles else (ABOUT, file)
        size = (package / file).stat().st_size
        if file != NAME:
            found.append(PackedFile(path, role, digest_of(package / file), size))
    return found


def _record_name(record: Any) -> str:
    return record.sample or "(outside any scope)"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
