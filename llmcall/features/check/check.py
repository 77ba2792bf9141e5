"""The check of a recording: replays in processes of their own, and what they have in common."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from ...cli.options import NUMBERED, NumberOption, RunOption
from ...cli.output import echo
from ...config import resolve as config
from ...errors import CacheError
from ...review.outputs import first_difference
from ...stores.records.reader import header_in
from ...support.display import counted, visible
from .held_back import Note, Plan, held_back

if TYPE_CHECKING:
    from ...stores.records.header import Header

USUAL = 3  # replays
FEWEST = 2  # whose output can be compared
ERROR_LINES = 3  # of standard error, shown for another exit code


class Replay(NamedTuple):
    """The result of a replay.

    :param seed: of its times and its hash seed.
    :param code: its exit code.
    :param output: its standard output.
    :param errors: the last lines of its standard error.
    :param note: what it asked.
    """

    seed: int
    code: int
    output: bytes
    errors: list[str]
    note: Note


def check_replays(replays: int | None) -> None:
    """Run the program of the current command again and again from its recording; compare, and end the command.

    :param replays: how often; ``None`` lets the command run the program.
    """
    if replays is None:
        return
    context = click.get_current_context()
    given, program = context.meta[NUMBERED]
    path = context.params["path"] or config.settings().cassette_path
    header = None if path is None else header_in(os.path.expanduser(path))
    if path is not None and header is None:
        raise CacheError(
            f"{path} does not exist, so there is nothing to check; run the program without --check to record it"
        )
    place = "" if path is None else f" from {path}"
    if header is not None and not header.is_complete:
        place += ", which is incomplete"
    echo(
        f"running {context.params['script']} {replays} times{place}: no model is called, "
        "but everything else happens again",
        err=True,
    )
    options = [option for option in given if option.partition("=")[0] != "--check"]
    done: list[Replay] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for seed in range(1, replays + 1):
            plan = Plan(seed, Path(folder) / f"{seed}.json")
            command = [sys.executable, "-m", "llmcall", "run", *options]
            command += ["--mode", "none", "--held-back", *map(str, plan), *program]
            done.append(_replay(command, plan))
            if problem := _problem(done, _recorded_code(header)):
                echo(visible(f"replay {seed} of {replays} (seed {seed}): {problem[0]}"))
                for line in problem[1:]:
                    echo(visible(line))
                context.exit(1)
    echo(_summary(done))
    context.exit(0)


def _recorded_code(header: Header | None) -> int | None:
    """Return the exit code of the program when it was recorded; ``None`` if it is unknown."""
    if header is None or header.run is None:
        return None
    code: int | None = header.run.get("exit_code")
    return 0 if code is None and header.is_complete else code


def _replay(command: Sequence[str], plan: Plan) -> Replay:
    """Run a program once more. It reads standard input from its beginning, if that is a file; else it gets none."""
    output, errors = (plan.note.with_suffix(suffix) for suffix in (".out", ".err"))
    is_file = False
    with contextlib.suppress(OSError):
        is_file = stat.S_ISREG(os.fstat(0).st_mode)
        os.lseek(0, 0, os.SEEK_SET)
    with output.open("wb") as output_file, errors.open("wb") as error_file:
        code = subprocess.run(
            command,
            env={**os.environ, "PYTHONHASHSEED": str(plan.seed)},
            stdin=0 if is_file else subprocess.DEVNULL,
            stdout=output_file,
            stderr=error_file,
            check=False,
        ).returncode
    lines = errors.read_bytes().decode(errors="backslashreplace").splitlines()[-ERROR_LINES:]
    return Replay(plan.seed, code, output.read_bytes(), lines, Note.read(plan.note))


def _problem(done: Sequence[Replay], recorded_code: int | None) -> list[str]:
    """Return, line by line, what is wrong with the last replay; empty if nothing is.

    :param recorded_code: the exit code in the recording; ``None`` if it is unknown.
    """
    first, last = done[0], done[-1]
    note = last.note
    if note.missed:
        return [f"a call has no recorded answer. {note.missed}", *_hints(note)]
    if note.moved:
        return [
            f"{counted(note.moved, 'call')} may have another caller's answer",
            f"  {note.other}",
            "It looks like workers that take jobs from a queue, or a call that was cancelled in the recording.",
            "Name the actors with --actor, or open a scope for each job.",
        ]
    if last.code != (recorded_code or 0):
        ends = [f"exit code {last.code}", *last.errors]
        return [
            "the program failed:" if recorded_code is None else "the exit code differs:",
            *([] if recorded_code is None else [f"  the recording: exit code {recorded_code}"]),
            *(f"  replay {last.seed}: {line}" for line in ends),
        ]
    if note.unused:
        return [
            f"{counted(note.calls, 'call')}, and {counted(note.unused, 'record')} not used: the recording has further "
            "calls",
            "If the program no longer makes them, run it with --mode update.",
        ]
    difference = first_difference(
        first.output,
        last.output,
        has_seed=note.has_seed,
        is_alone=note.is_whole and not note.has_several_callers,
    )
    if difference is not None:
        return difference.lines(f"replay {first.seed}", f"replay {last.seed}")
    if note.used == first.note.used:
        return []
    calls = f"{counted(note.calls, 'call')}, but {first.note.calls:,} in replay {first.seed}"
    return [
        f"{calls}: the program sends different requests",
        *([] if note.has_seed else ["It looks like chance. Record with --seed N, which fixes it."]),
    ]


def _hints(note: Note) -> Iterator[str]:
    """Yield sentences on what may decide the program's requests, each with the remedy."""
    if not note.has_seed:
        yield "If chance decides what the program asks, record it with --seed N."
    if note.has_several_callers:
        yield "If the order in which answers arrive decides it, wait for all of them, and sort them."


def _summary(done: Sequence[Replay]) -> str:
    """Return in a sentence what replays had in common."""
    first = done[0]
    same = f"the same output and exit code {first.code}" if first.code else "the same output"
    text = f"{counted(len(done), 'replay')}: {same}"
    if not first.note.is_whole:
        return f"{text}; the program ended before its calls could be counted"
    return f"{text}, {counted(first.note.calls, 'call')} each"


CHECK_OPTION = RunOption(
    click.option(
        "--check",
        "replays",
        cls=NumberOption,
        usual=USUAL,
        type=click.IntRange(FEWEST),
        help=f"Replay the program N times (default: {USUAL}), each time with different delays and a different hash "
        "seed, and compare exit code, output, and what each caller asks.",
    ),
    before=check_replays,
)
HELD_BACK_OPTION = RunOption(
    click.option("--held-back", "held_back", type=(int, Path), hidden=True),
    lambda plan: contextlib.nullcontext() if plan is None else held_back(Plan(*plan)),
)
