"""Why a study cannot be packed, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import LLMCallError
from .differences import file_differences, text_differences
from .manifest import is_portable
from .replay import Observed


class ProgramRun(NamedTuple):
    """A run of the program.

    :param folder: where it ran.
    :param observed: what was seen of it.
    :param results: the files that it wrote, without those that are excluded.
    """

    folder: Path
    observed: Observed
    results: list[str]


def run_problems(observed: Observed, where: str) -> list[str]:
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


def result_problems(whole: ProgramRun, packed: ProgramRun) -> list[str]:
    """Return in words what differs between two runs.

    :param whole: the run in the whole project.
    :param packed: the run with only what is packed.
    """
    found = [
        f"printed text differs: {each}"
        for each in text_differences(whole.observed.printed, packed.observed.printed, 0.0)
    ]
    for path in sorted({*whole.results, *packed.results}):
        if path not in whole.results or path not in packed.results:
            found.append(f"{path} is written in one of the two runs only")
            continue
        before = (whole.folder / path).read_bytes()
        after = (packed.folder / path).read_bytes()
        found += [f"{path}: {each}" for each in file_differences(path, before, after, 0.0)]
    if found:
        found.insert(
            0,
            "the run in the whole project and the run with only what is packed differ. Seed the "
            "program's own random numbers, and print times to standard error. Name files that only a "
            "child process or C code reads with --add, and results that differ every time with "
            "--exclude",
        )
    return found


def name_problems(paths: Iterable[str]) -> list[str]:
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


def refuse(problems: Sequence[str]) -> None:
    """Stop the packing if there are problems.

    :raises LLMCallError: with every problem.
    """
    if problems:
        raise LLMCallError(
            "the study is not packed:\n" + "\n".join(f"- {each}" for each in problems)
        )
