"""Verify a packed study: run it again from its recorded answers, and compare all that it gives."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

from ..._version import __version__
from ...display.formatting import counted
from ...display.printable import visible
from ...errors import CacheError, LLMCallError
from ...records.reader import read
from ...records.served import served_by
from .archive import unpack_zip
from .description import facts_of, run_of, texts_of
from .differences import file_differences, text_differences
from .manifest import (
    ABOUT,
    CODE,
    FOLDERS,
    LINE_DIGITS,
    NAME,
    RECORDING,
    RESULT,
    Manifest,
    digest_of,
    is_excluded,
    line_digests,
    read_manifest,
)
from .notebooks import SUFFIX, has_outputs
from .pack import record_lines
from .project_copy import is_left_out
from .readme import PROOF, README, text
from .replay import (
    OWN_FOLDERS,
    PYTHON,
    Observation,
    Program,
    copy_file,
    has_namespace,
    run_program,
)
from .scratch import scratch_folder

OK, DIFFERS, NOTE = "ok", "DIFFERS", "note"
DISTRIBUTION = "llmcall-sim"
NAMED = 10  # things of a kind that are named
# What macOS and Windows put into folders that somebody looks at.
DESKTOP_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
WARNING = (
    "verify runs the author's code on this machine, in a temporary folder, without network access."
)


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    :ivar name: what was checked.
    :ivar status: ``"ok"``, ``"DIFFERS"`` or ``"note"``, which fails nothing.
    :ivar found: what was found, in words.
    :ivar details: what differs, each with its place.
    """

    name: str
    status: str
    found: str
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        first = f"{self.status:8} {self.name}: {self.found}"
        return visible("\n".join([first, *(f"           {each}" for each in self.details)]))


@dataclass(frozen=True)
class Verification:
    """What the verification of a packed study found.

    :ivar checks: what was checked, in order.
    :ivar network: how the network was refused.
    :ivar has_results: whether the package holds anything that the program printed or wrote.
    """

    checks: tuple[Check, ...]
    network: str
    has_results: bool

    @property
    def ok(self) -> bool:
        """Return whether nothing differs."""
        return all(check.status != DIFFERS for check in self.checks)

    def conclusion(self) -> str:
        """Return what was proved, or how much differs."""
        if self.ok and not self.has_results:
            return (
                "verified, but no result was compared: the program prints nothing, and no file that it "
                "writes is packed"
            )
        if self.ok:
            return f"verified. {PROOF}"
        count = sum(check.status == DIFFERS for check in self.checks)
        return f"not verified: {counted(count, 'check')} failed"

    def __str__(self) -> str:
        return "\n".join([*map(str, self.checks), self.conclusion()])


def verify(package: str | os.PathLike[str], *, tolerance: float = 0.0) -> Verification:
    """Run a packed study again without network access, and compare it with what was packed.

    It runs the author's code, in a temporary folder; the package stays as it is.

    :param package: a folder, or a ZIP file.
    :param tolerance: by which numbers in CSV, JSON and printed text may differ, relative to the
        larger one and at least to 1.
    :returns: a check for each thing that was compared.
    :raises ValueError: if it is not a package, or the tolerance is negative.
    :raises LLMCallError: if the package is damaged, or unsafe to unpack or to run.

    >>> verification = llmcall.verify("greeting")  # packed as in the example of llmcall.pack
    >>> verification.ok
    True
    >>> print(verification.checks[2])
    ok       replay: 1 record used, no call unanswered
    """
    path = Path(package)
    if not tolerance >= 0:
        raise ValueError(f"the tolerance is {tolerance}; it must be 0 or more")
    if not path.exists():
        raise ValueError(f"{package} does not exist")
    with scratch_folder() as scratch:
        if not path.is_dir():
            unpacked = scratch / "unpacked"
            unpacked.mkdir()
            path = unpack_zip(path, unpacked)
        if not (path / NAME).is_file():
            raise ValueError(f"{package} is not a packed study: it has no {NAME}")
        _refuse_link(path / NAME)
        manifest = read_manifest(path)
        for entry in _entries(path, manifest):
            _refuse_link(entry)
        return _Verifier(path, scratch, manifest, tolerance).verification()


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise LLMCallError(
            f"{path} is a symbolic link. A package contains no links, so nothing was run"
        )


def _entries(package: Path, manifest: Manifest) -> Iterator[Path]:
    """Yield the files and folders of a package, without what a reader's own tools put there: version
    control, environments, caches, and the files of desktops.
    """
    listed_files = {NAME, *(each.file for each in manifest.files)}
    listed_folders = {
        parent.as_posix() for file in listed_files for parent in PurePosixPath(file).parents
    }
    for root, folders, names in os.walk(package):
        parent = Path(root)
        folders[:] = [
            name
            for name in folders
            if (parent / name).relative_to(package).as_posix() in listed_folders
            or not is_left_out(parent / name)
        ]
        yield from (parent / name for name in folders)
        yield from (parent / name for name in names if name not in DESKTOP_FILES)


class _Verifier:
    """Verifies one package.

    :param package: its folder.
    :param scratch: where it may write.
    """

    def __init__(self, package: Path, scratch: Path, manifest: Manifest, tolerance: float) -> None:
        self._package = package
        self._folder = scratch / "run"
        self._manifest = manifest
        self._tolerance = tolerance

    def verification(self) -> Verification:
        """Check everything."""
        checks = [self._files(), self._recordings()]
        observation = self._run()
        checks += [
            self._replay(observation),
            self._printed(observation),
            *self._results(observation),
            self._files_read(observation),
            self._network(observation),
            self._children(observation),
            self._other_files(),
            *self._notebooks(),
            self._description(),
            self._versions(observation),
        ]
        network = "an audit hook in Python"
        if has_namespace():
            network = "a network namespace of its own and an audit hook in Python"
        has_results = bool(self._manifest.printed or self._manifest.files_with_role(RESULT))
        return Verification(tuple(checks), network, has_results)

    # The package

    def _files(self) -> Check:
        """Compare the files with the sums in the manifest."""
        details = []
        for each in self._manifest.files:
            path = self._package / each.file
            if not path.is_file():
                details.append(f"{each.file} is missing")
            elif digest_of(path) != each.sha256:
                details.append(f"{each.file} was changed: its SHA-256 is not that of the manifest")
        count = counted(len(self._manifest.files), "file")
        return _check("files", f"{count} as in the manifest", "changed after packing", details)

    def _recordings(self) -> Check:
        details = []
        count = 0
        paths = {each.path for each in self._manifest.files_with_role(RECORDING)}
        for recording in self._manifest.recordings:
            path = self._package / FOLDERS[RECORDING] / recording.path
            if recording.path not in paths:
                details.append(f"{recording.path}: the manifest names no such file")
            if not path.is_file():
                continue
            try:
                record_file = read(path)
                details += _changed_lines(path, recording.path, recording.lines)
                records = len(record_file.records())
                is_complete = record_file.is_complete
            except CacheError as error:
                details.append(f"{recording.path} is damaged: {error}")
                continue
            count += records
            if not is_complete:
                details.append(f"{recording.path} is incomplete")
            if records != recording.records:
                details.append(
                    f"{recording.path} contains {records:,} records, but the manifest says "
                    f"{recording.records:,}"
                )
            if record_lines(path) > records:
                details.append(f"{recording.path}: {_doubled_records(path)}")
        summary = f"{counted(count, 'record')}, all readable"
        return _check("recordings", summary, "not as they were packed", details)

    # The run

    def _run(self) -> Observation:
        self._folder.mkdir()
        for each in self._manifest.files:
            source = self._package / each.file
            if each.role not in (ABOUT, RESULT) and source.is_file():
                copy_file(source, self._folder / each.path)
        for path in self._manifest.folders:
            (self._folder / path).mkdir(parents=True, exist_ok=True)
        run_cassettes = [each.path for each in self._manifest.recordings if each.around]
        return run_program(
            Program.from_command(self._manifest.command),
            self._folder,
            cassettes=[each.path for each in self._manifest.recordings],
            run_cassette=run_cassettes[0] if run_cassettes else None,
            environment=self._manifest.environment,
        )

    def _replay(self, observation: Observation) -> Check:
        details = observation.failure_lines()
        details += [
            f"it opens the cassette {path}, which is not packed"
            for path in observation.unnamed_cassettes
        ]
        if observation.exit_code:
            details.append(f"the program ended with exit code {observation.exit_code}:")
            details += [f"  {line}" for line in observation.error_output.split("\n")]
        elif not observation.has_ended:
            details.append("the program did not finish")
        count = 0
        for recording in self._manifest.recordings:
            path = self._package / FOLDERS[RECORDING] / recording.path
            try:
                records = read(path).records() if path.is_file() else []
            except CacheError:
                records = []  # what is damaged is told by the check of the recordings
            unused = observation.unused_keys.get(recording.path)
            keys = {each.cache_key for each in records} if unused is None else unused
            names = [
                each.sample or "(outside any scope)" for each in records if each.cache_key in keys
            ]
            count += len(records) - len(names)
            details += [
                f"{recording.path}: no call used the record {name}" for name in names[:NAMED]
            ]
            if len(names) > NAMED:
                details.append(f"{recording.path}: … nor {len(names) - NAMED:,} more records")
        summary = f"{counted(count, 'record')} used, no call unanswered"
        return _check("replay", summary, "not as it was packed", details, most=None)

    def _printed(self, observation: Observation) -> Check:
        expected, actual = self._manifest.printed, observation.printed
        details = text_differences(expected, actual, self._tolerance)
        lines = counted(expected.count("\n"), "line")
        found = self._same_words(is_exact=expected == actual)
        return _check("printed text", f"{lines}, {found}", "differs", details)

    def _results(self, observation: Observation) -> Iterator[Check]:
        """Compare every result, in the package too, since its sum says nothing if it was mended."""
        packed = {each.path: each for each in self._manifest.files_with_role(RESULT)}
        for path, each in packed.items():
            found = "the same"
            packed_file, new_file = self._package / each.file, self._folder / path
            if not packed_file.is_file():
                details = ["it is not in the package"]
            elif path not in observation.files_written:
                details = ["the program did not write it"]
            else:
                expected, actual = packed_file.read_bytes(), new_file.read_bytes()
                details = file_differences(path, expected, actual, self._tolerance)
                found = self._same_words(is_exact=expected == actual)
            yield _check(f"result {path}", found, "differs", details)
        unexpected = [
            path
            for path in observation.files_written
            if path not in packed and not is_excluded(path, self._manifest.excluded)
        ]
        if unexpected:
            yield _check("results", "", "written, but not packed", unexpected)
        if self._manifest.excluded:
            left_out = ", ".join(self._manifest.excluded)
            yield Check("results", NOTE, f"left out by the author, and not compared: {left_out}")

    def _same_words(self, *, is_exact: bool) -> str:
        """Return in words that something is as it was packed."""
        return "the same" if is_exact else f"the same within the tolerance of {self._tolerance:g}"

    def _files_read(self, observation: Observation) -> Check:
        packed_paths = {each.path for each in self._manifest.files if each.role != ABOUT}
        missing_paths = [
            path
            for path in observation.files_read
            if path not in packed_paths and not OWN_FOLDERS & {*path.split("/")}
        ]
        details = [*observation.files_outside, *observation.absolute_paths, *missing_paths]
        return _check("files read", "all of them are packed", "read, but not packed", details)

    def _network(self, observation: Observation) -> Check:
        attempts = list(dict.fromkeys(observation.connections))
        count = counted(len(observation.connections), "attempt")
        return _check("network", "no attempt to connect", f"{count} to connect, refused", attempts)

    def _children(self, observation: Observation) -> Check:
        # How multiprocessing starts a process depends on the system.
        expected_children = {*self._manifest.children, PYTHON}
        new_children = [name for name in observation.children if name not in expected_children]
        if (self._manifest.children or observation.children) and not new_children:
            names = ", ".join(self._manifest.children or observation.children)
            return Check("child processes", NOTE, f"as when it was packed, not watched: {names}")
        return _check("child processes", "none", "not started when it was packed", new_children)

    # What was found beside it

    def _other_files(self) -> Check:
        listed_files = {NAME, *(each.file for each in self._manifest.files)}
        files = [
            path.relative_to(self._package).as_posix()
            for path in sorted(_entries(self._package, self._manifest))
            if path.is_file()
        ]
        extra = [path for path in files if path not in listed_files]
        return _check("other files", "none", "not in the manifest", extra)

    def _notebooks(self) -> Iterator[Check]:
        """Note the notebooks that contain outputs: the run makes no others to compare them with."""
        files = [
            each.file for each in self._manifest.files_with_role(CODE) if each.path.endswith(SUFFIX)
        ]
        with_outputs = [
            file
            for file in files
            if (self._package / file).is_file() and has_outputs(self._package / file)
        ]
        if with_outputs:
            found = f"the outputs stored in {', '.join(with_outputs)} are the author's, and not compared"
            yield Check("notebooks", NOTE, found)

    def _description(self) -> Check:
        """Compare what the package says of its recordings with the recordings."""
        name = "description"
        packed_with = self._manifest.packages.get(DISTRIBUTION)
        if packed_with != __version__:
            return Check(name, NOTE, f"made by llmcall {packed_with}, and not compared")
        folder = self._package / FOLDERS[RECORDING]
        try:
            run = run_of(folder, [each.path for each in self._manifest.recordings])
        except (CacheError, OSError) as error:
            return _check(name, "", "not compared", [f"a recording cannot be read: {error}"])
        facts = json.loads(json.dumps(facts_of(run)))
        details = [
            f"{NAME}: {field!r} is {getattr(self._manifest, field)!r}, and the recordings say {fact!r}"
            for field, fact in facts.items()
            if fact != getattr(self._manifest, field)
        ]
        texts = texts_of(run, self._manifest.packages)
        texts[README] = text(self._manifest, served_by(run.records))
        for file, expected in texts.items():
            path = self._package / file
            if path.is_file() and path.read_bytes() != expected.encode():
                details.append(f"{file} is not what llmcall makes of the recordings and {NAME}")
        return _check(name, "matches the recordings", "differs", details)

    def _versions(self, observation: Observation) -> Check:
        differences = [
            _version_difference("Python", self._manifest.python, platform.python_version())
        ]
        for name, packed in self._manifest.packages.items():
            installed = observation.packages.get(name) or _installed(name)
            differences.append(_version_difference(name, packed, installed))
        details = tuple(filter(None, differences))
        if not details:
            return Check("versions", OK, "the same")
        return Check("versions", NOTE, "not those it was packed with", details)


def _check(
    name: str, good: str, bad: str, details: Sequence[str], *, most: int | None = NAMED
) -> Check:
    """Return a check, which holds if there are no details."""
    if not details:
        return Check(name, OK, good)
    more = len(details) - (most or len(details))
    lines = [*details[:most], *([f"… and {more:,} more"] if more > 0 else [])]
    return Check(name, DIFFERS, bad, tuple(lines))


def _changed_lines(path: Path, name: str, expected: list[str]) -> Iterator[str]:
    """Yield the records whose lines are not those that were packed."""
    digests = line_digests(path)
    if digests == expected:
        return
    lines = set(expected)
    data = path.read_bytes().split(b"\n")
    for number, digest in enumerate(digests, 1):
        if digest not in lines:
            yield f"{name}:{number}: {_line_name(data[number - 1])} was changed or added"
    missing_count = len(lines - set(digests))
    if missing_count:
        yield f"{name}: {counted(missing_count, 'line')} of the packed file changed or missing"


def _line_name(line: bytes) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return "a line that is not JSON"
    if "kind" in entry:
        return f"the record {entry.get('sample') or '(outside any scope)'}"
    return "a text" if "text" in entry else "the header"


def _doubled_records(path: Path) -> str:
    """Return in words which records stand in a file twice."""
    digests: set[str] = set()
    names = []
    for line in path.read_bytes().split(b"\n"):
        digest = hashlib.sha256(line.rstrip(b"\r")).hexdigest()[:LINE_DIGITS]
        if digest in digests and line.lstrip().startswith(b'{"kind"'):
            names.append(_line_name(line))
        digests.add(digest)
    return f"occurs twice: {', '.join(names[:NAMED]) or 'records'}"


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _version_difference(name: str, packed: str, installed: str | None) -> str:
    if packed == installed:
        return ""
    return f"{name} {installed or 'is not installed'} (packed with {packed})"
