"""``llmcall.verify``: a packed study run again from its recorded answers, and compared."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..._version import __version__
from ...display.formatting import counted
from ...display.printable import visible
from ...errors import CacheError
from ...records.reader import read
from .archive import unpack_zip
from .contents import PROOF, README, readme, run_of
from .differences import differences
from .manifest import ABOUT, FOLDERS, NAME, RECORDING, RESULT, Manifest, digest_of, read_manifest
from .project import copy_file, is_left_out
from .replay import Observation, has_namespace, run_program

OK, DIFFERS, NOTE = "ok", "DIFFERS", "note"
DISTRIBUTION = "llmcall-sim"
NAMED = 10  # records that are named
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
            return "verified, but no result was compared: the program prints nothing and writes no file"
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
    :param tolerance: by which numbers in results and in the printed text may differ, relative to the
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
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        scratch = Path(folder).resolve()
        if not path.is_dir():
            (scratch / "unpacked").mkdir()
            path = unpack_zip(path, scratch / "unpacked")
        if not (path / NAME).is_file():
            raise ValueError(f"{package} is not a packed study: it has no {NAME}")
        return _Verifier(path, scratch / "run", read_manifest(path), tolerance).verification()


class _Verifier:
    """Verifies one package.

    :param package: its folder.
    :param folder: a new one, in which the program runs.
    """

    def __init__(self, package: Path, folder: Path, manifest: Manifest, tolerance: float) -> None:
        self._package = package
        self._folder = folder
        self._manifest = manifest
        self._tolerance = tolerance

    def verification(self) -> Verification:
        """Check everything."""
        checks = [self._files(), self._recordings()]
        observation = self._run()
        checks += [
            self._replay(observation),
            self._compared(
                "printed text", self._manifest.printed.encode(), observation.printed.encode()
            ),
            *self._results(observation),
            self._files_read(observation),
            self._network(observation),
            self._readme(),
            self._versions(observation),
        ]
        network = "an audit hook in Python"
        if has_namespace():
            network = "a network namespace of its own and an audit hook in Python"
        has_results = bool(self._manifest.printed or self._manifest.files_with_role(RESULT))
        return Verification(tuple(checks), network, has_results)

    def _files(self) -> Check:
        """Compare the files with the manifest."""
        details = []
        for each in self._manifest.files:
            path = self._package / each.file
            if path.is_symlink() or not path.is_file():
                details.append(f"{each.file} is missing")
            elif digest_of(path) != each.sha256:
                details.append(f"{each.file} was changed: its SHA-256 is not that of the manifest")
        listed = {NAME, *(each.file for each in self._manifest.files)}
        details += [
            f"{file} was added" for file in self._found(self._package) if file not in listed
        ]
        count = counted(len(self._manifest.files), "file")
        return _check("files", f"{count} as in the manifest", "changed after packing", details)

    def _found(self, folder: Path) -> Iterator[str]:
        """Yield the files below a folder, without what a reader's own tools put beside a study."""
        for path in sorted(folder.iterdir()):
            if is_left_out(path):
                continue
            if path.is_dir() and not path.is_symlink():
                yield from self._found(path)
            else:
                yield path.relative_to(self._package).as_posix()

    def _recordings(self) -> Check:
        details = []
        count = 0
        for path in self._manifest.recordings:
            try:
                recording = read(self._package / FOLDERS[RECORDING] / path)
                count += len(recording.records())
                if not recording.is_complete:
                    details.append(f"{path} is incomplete")
            except (CacheError, OSError) as error:
                details.append(f"{path} is damaged: {error}")
        summary = f"{counted(count, 'record')}, all readable"
        return _check("recordings", summary, "not as they were packed", details)

    def _run(self) -> Observation:
        self._folder.mkdir()
        for each in self._manifest.files:
            source = self._package / each.file
            if each.role not in (ABOUT, RESULT) and source.is_file():
                copy_file(source, self._folder / each.path)
        for path in self._manifest.folders:
            (self._folder / path).mkdir(parents=True, exist_ok=True)
        return run_program(
            self._manifest.command,
            self._folder,
            cassettes=self._manifest.recordings,
            environment=self._manifest.environment,
        )

    def _replay(self, observation: Observation) -> Check:
        details = observation.problems()
        count = 0
        for path in self._manifest.recordings:
            try:
                records = read(self._package / FOLDERS[RECORDING] / path).records()
            except (CacheError, OSError):
                continue  # the check of the recordings names it
            names = {each.cache_key: each.sample or "(outside any scope)" for each in records}
            unused = [
                names[key] for key in observation.unused_keys.get(path, names) if key in names
            ]
            count += len(names) - len(unused)
            details += [f"{path}: no call used the record {name}" for name in unused[:NAMED]]
            if len(unused) > NAMED:
                details.append(f"{path}: … nor {len(unused) - NAMED:,} more records")
        summary = f"{counted(count, 'record')} used, no call unanswered"
        return _check("replay", summary, "not as it was packed", details)

    def _compared(self, name: str, expected: bytes, actual: bytes) -> Check:
        same = "the same"
        if expected != actual:
            same = f"the same within the tolerance of {self._tolerance:g}"
        return _check(name, same, "differs", differences(expected, actual, self._tolerance))

    def _results(self, observation: Observation) -> Iterator[Check]:
        """Compare every result with that of the package, whatever its sum in the manifest."""
        packed = {each.path: each.file for each in self._manifest.files_with_role(RESULT)}
        for path, file in packed.items():
            if not (self._package / file).is_file():
                yield Check(f"result {path}", DIFFERS, "it is not in the package")
            elif path not in observation.files_written:
                yield Check(f"result {path}", DIFFERS, "the program did not write it")
            else:
                expected = (self._package / file).read_bytes()
                yield self._compared(f"result {path}", expected, (self._folder / path).read_bytes())
        new = [path for path in observation.files_written if path not in packed]
        if new:
            yield _check("results", "", "written, but not packed", new)

    def _files_read(self, observation: Observation) -> Check:
        packed = {each.path for each in self._manifest.files if each.role != ABOUT}
        outside = [*observation.files_outside, *observation.absolute_paths]
        details = [*outside, *(path for path in observation.files_read if path not in packed)]
        return _check("files read", "all of them are packed", "read, but not packed", details)

    def _network(self, observation: Observation) -> Check:
        attempts = list(dict.fromkeys(observation.connections))
        count = counted(len(observation.connections), "attempt")
        return _check("network", "no attempt to connect", f"{count} to connect, refused", attempts)

    def _readme(self) -> Check:
        """Compare what the README says with the recordings and the manifest."""
        made_by = self._manifest.packages.get(DISTRIBUTION)
        if made_by != __version__:
            return Check(README, NOTE, f"made by llmcall {made_by}, and not compared")
        try:
            run = run_of(self._package / FOLDERS[RECORDING], self._manifest.recordings)
            expected = readme(self._package, self._manifest, run).encode()
            actual = (self._package / README).read_bytes()
        except (CacheError, OSError) as error:
            return Check(README, DIFFERS, "not compared", (str(error),))
        details = differences(expected, actual)
        return _check(README, "says what the recordings say", "is not what they say", details)

    def _versions(self, observation: Observation) -> Check:
        now = {
            **{name: _installed(name) for name in self._manifest.packages},
            **(observation.packages or {}),
        }
        pairs = [("Python", self._manifest.python, platform.python_version())]
        pairs += [(name, packed, now[name]) for name, packed in self._manifest.packages.items()]
        details = tuple(
            f"{name} {installed} (packed with {packed})"
            for name, packed, installed in pairs
            if installed != packed
        )
        if not details:
            return Check("versions", OK, "the same")
        return Check("versions", NOTE, "not those it was packed with", details)


def _check(name: str, good: str, bad: str, details: Sequence[str]) -> Check:
    """Return a check, which holds if there are no details."""
    return Check(name, DIFFERS, bad, tuple(details)) if details else Check(name, OK, good)


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "is not installed"
