"""Verify a packed study: run it again from its recorded answers, and compare its results."""

from __future__ import annotations

import difflib
import itertools
import math
import os
import platform
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...additions import load
from ...errors import ArgumentError, CacheError
from ...review.outputs import first_difference
from ...stores.differences import common_ends
from ...stores.notes import known_header_notes
from ...stores.records.reader import read
from ...support.display import counted, visible
from ..report.facts import RunFacts
from .contents import PROOF, merged_run, packed_facts, write_pages
from .observed_run import Observation, describe_unused, has_namespace, run_program, unused_records
from .package import (
    ABOUT,
    FOLDERS,
    NAME,
    RECORDING,
    RESULT,
    Manifest,
    file_digest,
    is_left_out,
    lay_out,
    new_path,
    read_manifest,
    unpack_zip,
)
from .shuffled import NUMBER, PRINTED, changes_when_shuffled, numbers_from_answers

OK, DIFFERS, NOTE = "ok", "DIFFERS", "note"
MAX_LINES = 40  # of a diff
LONGEST_LINE = 500  # characters
ITEM_END = re.compile("(?<=[,>])")
MAX_COMPARED = 1_000  # lines from the first difference on: difflib may take the square of the time
WARNING = (
    "verify runs the author's code on this machine, in a temporary folder, without network access."
)


@dataclass(frozen=True)
class Check:
    """One check of a verification.

    :ivar name: the thing checked.
    :ivar status: ``"ok"``, ``"DIFFERS"`` or ``"note"``, which is not a failure.
    :ivar found: the finding in words.
    :ivar details: each difference, with its location.
    """

    name: str
    status: str
    found: str
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        first = f"{self.status:8} {self.name}: {self.found}"
        return visible("\n".join([first, *(f"           {line}" for line in self.details)]))


@dataclass(frozen=True)
class Verification:
    """The result of verifying a packed study.

    :ivar checks: the checks, in order.
    :ivar facts: what the recordings say of the answers, by label.
    :ivar proof: what a success proves, in words.
    """

    checks: tuple[Check, ...]
    facts: dict[str, str]
    proof: str

    @property
    def ok(self) -> bool:
        """Return whether nothing differs."""
        return all(check.status != DIFFERS for check in self.checks)

    def conclusion(self) -> str:
        """Return what is proved, or the number of failed checks."""
        if self.ok:
            return f"verified. {self.proof}"
        count = sum(check.status == DIFFERS for check in self.checks)
        return f"not verified: {counted(count, 'check')} failed"

    def __str__(self) -> str:
        facts = [visible(f"fact     {label}: {words}") for label, words in self.facts.items()]
        return "\n".join([*map(str, self.checks), *facts, self.conclusion()])


def verify(
    package: str | os.PathLike[str],
    *,
    tolerance: float = 0.0,
    pages: str | os.PathLike[str] | None = None,
) -> Verification:
    """Rerun a packed study without network access, and compare the results.

    It runs the author's code, in a temporary folder: with the recorded answers, and with shuffled ones, to count the
    numbers that come from them. The package stays as it is.

    :param package: a folder, or a ZIP file.
    :param tolerance: the largest difference of numbers in results and printed text, relative to the
        larger number, or to 1 if both are smaller.
    :param pages: a folder to write README.md, REPORTING.md and report.html to, made anew from the recordings; it must
        not exist.
    :returns: a check for each comparison, and the facts that the recordings hold.
    :raises ValueError: if it is not a package.
    :raises LLMCallError: if the package is damaged, or unsafe to unpack or to run.

    >>> verification = llmcall.verify("greeting")  # packed as in the example of llmcall.pack
    >>> verification.ok
    True
    >>> print(verification.checks[2])
    ok       replay: 1 record used, every call answered
    """
    path = Path(os.path.expanduser(package))
    if not path.exists():
        raise ArgumentError(f"{path} does not exist. Give the folder or ZIP file that pack wrote")
    pages_folder = None if pages is None else new_path(pages)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        scratch = Path(folder).resolve()
        unpacked = None
        if not path.is_dir():
            unpacked = scratch / "unpacked"
            unpacked.mkdir()
            path = unpack_zip(path, unpacked)
        if not (path / NAME).is_file():
            raise ArgumentError(f"{package} is not a packed study: it has no {NAME}")
        manifest = read_manifest(path)
        run_folder = scratch / "run"
        lay_out(path, manifest, run_folder)
        replay = run_program(
            manifest.command,
            run_folder,
            cassettes=manifest.recordings,
            environment=manifest.environment,
        )
        count = counted(len(manifest.files), "file")
        changes = [*_changed_files(path, manifest), *_added_files(path, manifest, unpacked)]
        checks = [
            _make_check("files", f"{count} as in the manifest", "not as in the manifest", changes),
            *run_checks(path, manifest, replay, run_folder, tolerance),
        ]
        checks.append(_version_check(manifest, replay))
        proof = PROOF
        facts: dict[str, str] = {}
        if all(check.status != DIFFERS for check in checks if check.name == "recordings"):
            run = merged_run(path, manifest)
            facts = packed_facts(RunFacts(run), manifest)
            if pages_folder is not None:
                write_pages(pages_folder, path, manifest)
            checks += _remake_checks(path, manifest, scratch / "remade")
        if all(check.status != DIFFERS for check in checks[1:]):
            shuffled = _shuffled_check(path, manifest, replay, run_folder)
            checks.append(shuffled)
            proof = f"{shuffled.found}. {PROOF}"
        return Verification(tuple(checks), facts, proof)


def run_checks(
    package: Path,
    manifest: Manifest,
    observation: Observation,
    folder: Path,
    tolerance: float = 0.0,
) -> Iterator[Check]:
    """Yield a check for each comparison of a package with its program's run in a folder.

    :param tolerance: see :func:`verify`.
    """

    def compare_bytes(name: str, expected: bytes, actual: bytes) -> Check:
        within = "" if expected == actual else f" within the tolerance of {tolerance:g}"
        details = unified_diff(expected, actual, tolerance)
        found = first_difference(expected, actual, has_hash_seed=True) if details else None
        if found is not None and found.kind:
            details.append(f"It looks like {found.kind}. {found.remedy}.")
        return _make_check(name, f"the same{within}", "differs", details)

    yield from _replay_checks(package, manifest, observation)
    yield compare_bytes(PRINTED, manifest.printed.encode(), observation.printed.encode())
    packed_results = {file.path: file.file for file in manifest.files_with_role(RESULT)}
    for path, file in packed_results.items():  # the manifest's digests are checked above
        if not (package / file).is_file():
            yield Check(f"result {path}", DIFFERS, "it is not in the package")
        elif path not in observation.files_written:
            yield Check(f"result {path}", DIFFERS, "the program did not write it")
        else:
            expected = (package / file).read_bytes()
            yield compare_bytes(f"result {path}", expected, (folder / path).read_bytes())
    if new := [path for path in observation.files_written if path not in packed_results]:
        yield _make_check("results", "", "written, but not packed", new)
    packed = {file.path for file in manifest.files if file.role != ABOUT}
    hidden = [path for path in observation.files_read if path not in packed]
    hidden += observation.files_outside
    yield _make_check("files read", "all of them are packed", "read, but not packed", hidden)
    blocked_by = "a network namespace and an audit hook" if has_namespace() else "an audit hook"
    attempts = counted(len(observation.connections), "attempt")
    yield _make_check(
        "network",
        f"no connection attempted (it would have been blocked by {blocked_by})",
        f"{attempts} to connect, blocked",
        list(dict.fromkeys(observation.connections)),
    )


def _changed_files(package: Path, manifest: Manifest) -> Iterator[str]:
    """Yield the files that are not as the manifest has them."""
    for packed in manifest.files:
        path = package / packed.file
        if path.is_symlink() or not path.is_file():
            yield f"{packed.file} is missing"
        elif file_digest(path) != packed.sha256:
            yield f"{packed.file} was changed: its SHA-256 is not the manifest's"


def _added_files(package: Path, manifest: Manifest, unpacked: Path | None) -> Iterator[str]:
    """Yield the files that the manifest lacks, except a reader's own tool files in a folder.

    :param unpacked: the folder of a ZIP file's entries.
    """

    def is_tool(path: Path) -> bool:
        return unpacked is None and is_left_out(path)

    listed = {package / NAME, *(package / packed.file for packed in manifest.files)}
    for root, folders, names in os.walk(unpacked or package):
        folders[:] = sorted(name for name in folders if not is_tool(Path(root, name)))
        links = [name for name in folders if Path(root, name).is_symlink()]
        for path in (Path(root, name) for name in sorted([*names, *links])):
            if path not in listed and not is_tool(path):
                yield f"{path.relative_to(unpacked or package).as_posix()} was added"


def _replay_checks(package: Path, manifest: Manifest, observation: Observation) -> Iterator[Check]:
    """Yield the checks of the recordings, and of the records that the program used."""
    damages = []
    details = [*observation.problems]
    count = used = 0
    for path in manifest.recordings:
        try:
            recording = read(package / FOLDERS[RECORDING] / path)
            unused = unused_records(observation, path, recording)
            for record in recording:
                _ = record.request  # reads its line
        except (CacheError, OSError) as error:
            damages.append(f"{path} is damaged: {error}")
            continue
        if not recording.header.is_complete:
            damages.append(f"{path} is incomplete")
        count += len(recording)
        used += len(recording) - len(unused)
        if len(unused) != manifest.unused.get(path, 0):
            details.append(describe_unused(path, unused))
    readable = f"{counted(count, 'record')}, all readable"
    yield _make_check("recordings", readable, "not as they were packed", damages)
    evidence = f", {count - used:,} more packed as evidence" if count > used else ""
    good = f"{counted(used, 'record')} used{evidence}, every call answered"
    yield _make_check("replay", good, "not as it was packed", details)


def _shuffled_check(package: Path, manifest: Manifest, replay: Observation, folder: Path) -> Check:
    """Return the note about the run with shuffled answers."""
    changes, failure = changes_when_shuffled(package, manifest, replay, folder)
    details = [str(change) for change in changes] + ([failure] if failure else [])
    numbers, others = sum(c.numbers for c in changes), [c for c in changes if not c.numbers]
    found = numbers_from_answers(sum(change.changed for change in changes), numbers)
    if others:
        changing = sum(change.has_changed is True for change in others)
        verb = "changes" if 1 in (changing, len(others)) else "change"
        found += (
            f"; {changing} of {counted(len(others), 'result')} without numbers {verb} with them"
        )
    if not changes:
        found = "No number can be shown to come from the answers: no two answers differ, or there are no results"
    return Check("shuffled answers", NOTE, found, tuple(details))


def _remake_checks(package: Path, manifest: Manifest, scratch: Path) -> Iterator[Check]:
    """Yield a check of each recording that was imported: its files, where they are packed, are imported again."""
    packed = {file.sha256: package / file.file for file in manifest.files}
    for number, path in enumerate(manifest.recordings):
        recording = package / FOLDERS[RECORDING] / path
        for name, value in read(recording).header.notes.items():
            if place := known_header_notes()[name].remake:
                folder = scratch / str(number)
                folder.mkdir(parents=True)
                is_whole = path not in manifest.pruned
                found = load(place)(value, recording, packed, folder, is_whole=is_whole)
                title, good = f"{name} {path}", "the packed files give the same answers"
                yield (
                    Check(title, NOTE, f"not {name} again: {found}")
                    if isinstance(found, str)
                    else _make_check(title, good, "differs", found[:MAX_LINES])
                )


def _version_check(manifest: Manifest, observation: Observation) -> Check:
    pairs = [("Python", manifest.python, platform.python_version())]
    pairs += [
        (name, packed, observation.packages.get(name, "was not imported"))
        for name, packed in manifest.packages.items()
    ]
    details = [
        f"{name} {found} (packed with {packed})" for name, packed, found in pairs if found != packed
    ]
    different = "different versions from those it was packed with"
    return _make_check("versions", "the same", different, details, NOTE)


def _make_check(
    name: str, good: str, bad: str, details: Sequence[str], status: str = DIFFERS
) -> Check:
    """Return a check that passes if there are no details.

    :param status: of one with details.
    """
    return Check(name, status, bad, tuple(details)) if details else Check(name, OK, good)


def unified_diff(old: bytes, new: bytes, tolerance: float = 0.0) -> list[str]:
    """Return the beginning of a unified diff of two versions; empty if they are the same.

    :param old: the expected version.
    :param tolerance: the largest difference of two numbers, relative to the larger one, or to 1 if
        both are smaller.
    """
    if old == new:
        return []
    try:
        old_lines, new_lines = (_lines(data.decode("utf-8-sig")) for data in (old, new))
    except UnicodeDecodeError:
        return [f"its bytes differ ({len(old):,} and {len(new):,} bytes)"]
    if tolerance and len(old_lines) == len(new_lines):
        pairs = zip(old_lines, new_lines, strict=True)
        new_lines = [line if _is_near(line, other, tolerance) else other for line, other in pairs]
        if old_lines == new_lines:
            return []
    begun = _beginnings(old_lines, new_lines)
    diff = difflib.unified_diff(*begun, "packed", "now", n=1, lineterm="")
    shown = (line[:LONGEST_LINE] for line in diff if line.strip())
    lines = list(itertools.islice(shown, MAX_LINES + 1))
    if not lines:
        return ["its bytes differ, but not its text (a byte order mark)"]
    is_whole = begun == (old_lines, new_lines) and len(lines) <= MAX_LINES
    return lines if is_whole else [*lines[:MAX_LINES], "…"]


def _lines(text: str) -> list[str]:
    """Return the lines of a text; a line of data that is too long to be shown is parted into its items."""
    return [
        part
        for line in text.split("\n")
        for part in (ITEM_END.split(line) if len(line) > LONGEST_LINE else [line])
    ]


def _beginnings(old: list[str], new: list[str]) -> tuple[list[str], list[str]]:
    """Return the lines of two versions that are compared: all, unless they differ in too many.

    They end with a line of both versions: what follows it may have moved further down in one of them.
    """
    before, after = common_ends(old, new)
    end = before + MAX_COMPARED
    if max(len(old), len(new)) - after <= end:
        return old, new
    matcher = difflib.SequenceMatcher(None, old[before:end], new[before:end])
    blocks = [block for block in matcher.get_matching_blocks() if block.size]
    if not blocks:
        return old[:end], new[:end]
    old_at, new_at, size = blocks[-1]
    return old[: before + old_at + size], new[: before + new_at + size]


def _is_near(line: str, other: str, tolerance: float) -> bool:
    """Return whether two lines are the same except for numbers close to each other."""
    if line == other:
        return True
    if NUMBER.sub("#", line) != NUMBER.sub("#", other):
        return False
    pairs = zip(NUMBER.findall(line), NUMBER.findall(other), strict=True)
    return all(
        math.isclose(float(one), float(two), rel_tol=tolerance, abs_tol=tolerance)
        for one, two in pairs
    )
