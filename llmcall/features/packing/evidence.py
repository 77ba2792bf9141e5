"""Whether results come from the answers: the program runs once more, with exchanged answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .exchange import WAYS, exchange_answers
from .observed_run import Observation, run_program
from .package import ABOUT, RESULT, Manifest
from .project import copy_file

PRINTED = "printed text"
# What becomes of a result with exchanged answers
CHANGES, SAME = "changes", "stays the same"
NOT_REACHED, NO_OTHERS = "is not reached", "cannot change"
# Exchanged answers may keep a program going; seconds, and multiples of its own time.
LEAST_TIME, TIMES = 60, 10
TRIED = (
    "The program also runs with exchanged answers: those of each form are permuted among its records. Where that "
    "changes nothing, such as a mean, half of the records then get one and the same answer. Requests that are not "
    "recorded, because they contain other answers, are answered from the same form. What the results do then:"
)


class Evidence(NamedTuple):
    """The evidence that results come from the answers.

    :param states: by the name of a result or the printed text: what becomes of it with exchanged answers.
    :param failure: how the program ended if it did not reach its end then; else empty.
    """

    states: dict[str, str]
    failure: str = ""


def lay_out(package: Path, manifest: Manifest, folder: Path) -> None:
    """Make the folder in which a package's program runs."""
    folder.mkdir()
    for file in manifest.files:
        source = package / file.file
        if file.role not in (ABOUT, RESULT) and source.is_file():
            copy_file(source, folder / file.path)
    for path in manifest.folders:
        (folder / path).mkdir(parents=True, exist_ok=True)


def find_evidence(package: Path, manifest: Manifest, replay: Observation, folder: Path) -> Evidence:
    """Run a package's program with exchanged answers, and return what becomes of its results.

    :param replay: its run with its own answers.
    :param folder: the folder of that run; the others get theirs beside it.
    """
    expected = {
        f"result {file.path}": (folder / file.path).read_bytes()
        for file in manifest.files_with_role(RESULT)
    }
    if replay.printed:
        expected[PRINTED] = replay.printed.encode()
    states, failure = dict.fromkeys(expected, NO_OTHERS), ""
    for way in WAYS:
        left = [name for name, state in states.items() if state != CHANGES]
        if not left:
            break
        place = folder.with_name(f"{folder.name}-{way}")
        lay_out(package, manifest, place)
        has_others = [exchange_answers(place / path, way) for path in manifest.recordings]
        if not any(has_others):
            continue
        run = run_program(
            manifest.command,
            place,
            cassettes=manifest.recordings,
            environment=manifest.environment,
            answers_all=True,
            longest=LEAST_TIME + TIMES * replay.seconds,
        )
        for name in left:
            path = place / name.removeprefix("result ")
            found = run.printed.encode() if name == PRINTED else b""
            if name != PRINTED and path.is_file():
                found = path.read_bytes()
            states[name] = _state(expected[name], found, has_ended=not run.failure)
        failure = run.failure
    return Evidence(states, failure)


def _state(expected: bytes, found: bytes, *, has_ended: bool) -> str:
    if expected == found:
        return SAME
    return CHANGES if has_ended or not expected.startswith(found) else NOT_REACHED


def claim(states: Mapping[str, str]) -> str:
    """Return in words what a successful check proves.

    :param states: by the name of a result or the printed text: what becomes of it with exchanged answers.
    """
    others = [name for name, state in states.items() if state != CHANGES]
    if not states:
        words = "This program replays these answers; it has no results"
    elif not others:
        words = "These results follow from these answers and this code"
    else:
        words = (
            "This code gives these results with these answers. Nothing shows that these come from them: "
            f"{', '.join(others)}"
        )
        if len(others) < len(states):
            words += ". The others follow from these answers and this code"
    return (
        f"{words}. This does not prove who gave the answers; a DOI or a signed tag gives the date."
    )


def verdict(states: Mapping[str, str]) -> str:
    """Return the beginning of a successful check's last line. Printed text beside results may just count calls."""
    results = {name: state for name, state in states.items() if name != PRINTED} or states
    is_shown = all(state == CHANGES for state in results.values())
    return "verified" if is_shown else "verified in part"
