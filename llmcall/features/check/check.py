"""The check of a recording: replays in processes of their own, and what they have in common."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

import click

from ...cli.options import NUMBERED
from ...cli.output import echo
from ...config import resolve as config
from ...errors import CacheError
from ...review.outputs import first_difference
from ...stores.records.reader import header_in
from ...support.display import counted
from .held_back import Note, Plan

USUAL = 3  # replays
FEWEST = 2  # whose output can be compared
KILLED_BY_INTERRUPT = 128 + signal.SIGINT
LONGEST_END = 5  # seconds for a program to end after Ctrl-C
LOOK_AGAIN = 0.1  # seconds until it is looked whether a program that reads nothing more has ended
CHUNK = 2**16
ERROR_LINES = 3  # of standard error, shown for another exit code
REPLAYING = (None, "none", "replay")


class Replay(NamedTuple):
    """The result of a replay.

    :param seed: of its times and its hash seed.
    :param code: its exit code.
    :param output: its standard output.
    :param errors: the last lines of its standard error.
    :param note: what it asked; ``None`` if it came to no end of its own.
    """

    seed: int
    code: int
    output: bytes
    errors: list[str]
    note: Note | None


class Input:
    """This process's standard input, which each replay gets from its beginning."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._has_ended = False
        self._changed = threading.Condition()
        self._reader: threading.Thread | None = None

    @property
    def is_given(self) -> bool:
        """Return whether it is a file or a pipe: at a terminal, nobody would see what a replay asks."""
        try:
            mode = os.fstat(0).st_mode
        except OSError:
            return False
        return stat.S_ISREG(mode) or stat.S_ISFIFO(mode)

    def feed(self, process: subprocess.Popen[bytes]) -> None:
        """Write it to a process until that or the input ends."""
        if self._reader is None:
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
        threading.Thread(target=self._write, args=(process, process.stdin), daemon=True).start()

    def _read(self) -> None:
        while chunk := os.read(0, CHUNK):
            with self._changed:
                self._data += chunk
                self._changed.notify_all()
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def _write(self, process: subprocess.Popen[bytes], to: IO[bytes]) -> None:
        place = 0
        try:
            while process.poll() is None:
                with self._changed:
                    if not self._has_ended and len(self._data) == place:
                        self._changed.wait(LOOK_AGAIN)
                    data, has_ended = bytes(self._data[place:]), self._has_ended
                to.write(data)
                to.flush()
                place += len(data)
                if has_ended:
                    break
            to.close()
        except OSError:  # it reads no more
            pass


def check_replays(replays: int) -> NoReturn:
    """Run the program of the current command again and again from its recording; compare, and end the command.

    :param replays: how often.
    """
    context = click.get_current_context()
    given, program = context.meta[NUMBERED]
    mode = context.params["mode"]
    if mode not in REPLAYING:
        raise click.UsageError(f"--check replays, and --mode {mode} records: leave one of them out")
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
        standard_input = Input()
        for seed in range(1, replays + 1):
            plan = Plan(seed, Path(folder) / f"{seed}.json")
            command = [*_llmcall(own=context.obj), "run", *options]
            command += ["--mode", "none", "--held-back", plan.text(), *program]
            try:
                done.append(_replay(command, plan, standard_input))
            except KeyboardInterrupt:
                begun = f"interrupted in replay {seed} of {replays}"
                echo(f"{begun}; {_summary(done)}" if done else begun)
                context.exit(KILLED_BY_INTERRUPT)
            if problem := _problem(done):
                echo(f"replay {seed} of {replays} (seed {seed}): {problem[0]}")
                for line in problem[1:]:
                    echo(line)
                context.exit(1)
    echo(_summary(done))
    context.exit(0)


def _llmcall(*, own: bool) -> list[str]:
    """Return the command with which this one was started.

    :param own: ``True`` if it has a process of its own.
    """
    if not own:
        return [sys.executable, "-m", "llmcall"]
    return [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]]


def _replay(command: Sequence[str], plan: Plan, standard_input: Input) -> Replay:
    """Run a program once more.

    :raises KeyboardInterrupt: once the program has ended.
    """
    output, errors = (plan.note.with_suffix(suffix) for suffix in (".out", ".err"))
    with output.open("wb") as output_file, errors.open("wb") as error_file:
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONHASHSEED": str(plan.seed)},
            stdin=subprocess.PIPE if standard_input.is_given else subprocess.DEVNULL,
            stdout=output_file,
            stderr=error_file,
        )
        try:
            if process.stdin is not None:
                standard_input.feed(process)
            code = process.wait()
        except KeyboardInterrupt:
            _end(process)
            raise
    lines = errors.read_bytes().decode(errors="backslashreplace").splitlines()[-ERROR_LINES:]
    return Replay(plan.seed, code, output.read_bytes(), lines, Note.read(plan.note))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program. A terminal's Ctrl-C has reached it already; any other interrupt has not."""
    try:
        process.wait(LOOK_AGAIN)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(LONGEST_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _problem(done: Sequence[Replay]) -> list[str]:
    """Return, line by line, what is wrong with the last replay; empty if nothing is."""
    first, last = done[0], done[-1]
    note = last.note
    if note is not None and note.missed:
        return [f"a call has no recorded answer. {note.missed}", *_hints(note)]
    if note is not None and note.moved:
        return [
            f"{counted(note.moved, 'call')} may have another caller's answer",
            *(f"  {words}" for words in note.others[:1]),
            "It looks like workers that take jobs from a queue.",
            "Name the actors with --actor, or open a scope for each job.",
        ]
    if last.code != first.code:
        ends = [(it.seed, [f"exit code {it.code}", *it.errors]) for it in (first, last)]
        lines = [f"  replay {seed}: {line}" for seed, end in ends for line in end]
        return ["the exit code differs:", *lines]
    difference = first_difference(
        first.output,
        last.output,
        has_seed=note is not None and note.has_seed,
        is_alone=note is not None and not note.has_several_callers,
    )
    if difference is not None:
        return difference.lines(f"replay {first.seed}", f"replay {last.seed}")
    if note is None or first.note is None or note.used == first.note.used:
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
    same = "the same output" if len(done) > 1 else "nothing to compare it with"
    if first.code:
        same += f" and exit code {first.code}"
    text = f"{counted(len(done), 'replay')}: {same}"
    if first.note is None:
        return f"{text}; the program ended before its calls could be counted"
    text += f", {counted(first.note.calls, 'call')} each"
    return f"{text}; {counted(first.note.unused, 'record')} not used" if first.note.unused else text
