"""Why a study cannot be packed, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import LLMCallError
from .differences import file_differences, text_differences
from .manifest import is_portable
from .replay import Observation


class ProgramRun(NamedTuple):
    """A run of the program.

    :param folder: where it ran.
    :param observation: what was seen of it.
    :param results: the files that it wrote, without those that are excluded.
    """

    folder: Path
    observation: Observation
    results: list[str]


def run_problems(observation: Observation, where: str) -> list[str]:
    """Return why a run cannot be packed.

    :param where: the run was, for messages.
    """
    problems = observation.failure_lines()
    problems += [
        f"the program opens the cassette {path}; name it with --cassette"
        for path in dict.fromkeys(observation.unnamed_cassettes)
    ]
    problems += [
        f"the program tried to connect to {address}, and a packed program has no network"
        for address in dict.fromkeys(observation.connections)
    ]
    problems += [
        f"the program opens {path} by an absolute path into the project; use a relative path, or, if it imports "
        "the file from an editable installation of the project, --env PYTHONPATH=FOLDER with the relative path of "
        "the folder that holds the package, such as src"
        for path in observation.absolute_paths
    ]
    problems += [
        f"the program opens {path}, which is outside the project; put it into the project, or, if a link in "
        "the project leads there, name the link with --add to pack what it points to"
        for path in observation.files_outside
    ]
    if observation.exit_code:
        problems.append(
            f"the program ended with exit code {observation.exit_code} {where}:\n{observation.error_output}"
        )
    elif not observation.has_ended:
        problems.append(f"the program did not finish {where}:\n{observation.error_output}")
    return problems


def result_problems(project_run: ProgramRun, packed_run: ProgramRun) -> list[str]:
    """Return in words what differs between two runs.

    :param project_run: the run in the whole project.
    :param packed_run: the run with only what is packed.
    """
    differences = [
        f"printed text differs: {each}"
        for each in text_differences(
            project_run.observation.printed, packed_run.observation.printed, 0.0
        )
    ]
    for path in sorted({*project_run.results, *packed_run.results}):
        if path not in project_run.results or path not in packed_run.results:
            differences.append(f"{path} is written in one of the two runs only")
            continue
        expected = (project_run.folder / path).read_bytes()
        actual = (packed_run.folder / path).read_bytes()
        differences += [f"{path}: {each}" for each in file_differences(path, expected, actual, 0.0)]
    if differences:
        differences.insert(
            0,
            "the run in the whole project and the run with only what is packed differ. Seed the "
            "program's own random numbers, and print times to standard error. Name files that only a "
            "child process or C code reads with --add, and results that differ every time with "
            "--exclude",
        )
    return differences


def name_problems(paths: Iterable[str]) -> list[str]:
    """Return in words which files cannot be packed under their names."""
    problems = []
    spellings: dict[str, str] = {}
    for path in sorted(set(paths)):
        if not is_portable(path):
            problems.append(f"the name {path!r} does not work on every system; rename the file")
        first_spelling = spellings.setdefault(path.lower(), path)
        if first_spelling != path:
            problems.append(
                f"the names {first_spelling!r} and {path!r} differ only in case, which some systems ignore; "
                "rename one of the files"
            )
    return problems


def refuse(problems: Sequence[str]) -> None:
    """Stop the packing if there are problems.

    :raises LLMCallError: with every problem.
    """
    if problems:
        raise LLMCallError(
            "the study is not packed:\n" + "\n".join(f"- {each}" for each in problems)
        )
