"""A program of five actors who ask the same, recorded and replayed by each library that records programs."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..bench import Bench
from ..figures import Group
from ..recorders import RECORDERS
from ..recorders.program import Answers, answers_file
from ..stub import base_url
from ..workload import API_KEY

SECONDS = 120
TITLES = {
    "named": "of 5 actors, named where the library can, those who get their own answer again in the opposite order",
    "threads": "of 5 threads that ask twice each, unnamed, those that get their own answers again",
    "children": "of 5 child processes of the program, those that get their own answer again",
}


class ProgramFailedError(Exception):
    """Raised when the program fails under a recorder."""


def run(bench: Bench) -> list[Group]:
    """Count whose answers are their own again. The server gives each call another one."""
    bench = bench.of(RECORDERS, "recorders")
    return [
        bench.measure(
            "recorders", "own_answers", title=title, unit="", reference="", rounds=3, job=job
        )
        for job, title in TITLES.items()
    ]


def own_answers(subject: Any, folder: str, address: str, job: str) -> Iterator[float | None]:
    """Record the program and replay it; yield how many actors get answers that no other actor has, and get the same
    in the replay. The server still answers then: who asks it gets a new answer.
    """
    yield None
    for number in itertools.count():
        fresh = Path(folder, job, str(number))
        fresh.mkdir(parents=True)
        arguments = [subject.__file__, job, str(fresh), base_url(address)]
        record = getattr(subject, "RECORD", (sys.executable,))
        _run([*record, *arguments], fresh)
        recorded = _answers(fresh, replays=False)
        with suppress(ProgramFailedError):  # then nobody got an answer again
            _run([*getattr(subject, "REPLAY", (*record, *arguments))], fresh)
        replayed = _answers(fresh, replays=True)
        times = Counter(itertools.chain.from_iterable(recorded.values()))
        yield float(
            sum(
                replayed.get(actor) == answers and all(times[answer] == 1 for answer in answers)
                for actor, answers in recorded.items()
            )
        )


def _run(command: list[str], folder: Path) -> None:
    """Run a command in a folder.

    :raises ProgramFailedError: with the last line that it printed, if it fails.
    """
    completed = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "OPENAI_API_KEY": API_KEY},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if completed.returncode:
        raise ProgramFailedError((completed.stderr.splitlines() or ["no message"])[-1])


def _answers(folder: Path, *, replays: bool) -> Answers:
    """Return the answers of a run; none if it ended before it wrote them."""
    file = answers_file(str(folder), replays=replays)
    answers: Answers = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return answers
