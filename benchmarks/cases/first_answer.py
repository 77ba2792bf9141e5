"""From starting Python to the first replayed answer, by scripts as a user would write them
(``first_answers``).
"""

from __future__ import annotations

import resource
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from .. import workload
from ..bench import Bench
from ..contestants import PLAIN_DISKCACHE, Entry
from ..environments import EnvironmentMissingError
from ..figures import Figures, Group
from ..processes import ContestantFailedError, clean_environment
from ..stub import base_url, calls_received

SCRIPTS = Path(__file__).resolve().parents[1] / "first_answers"
PEAK_MEMORY = SCRIPTS.with_name("peak_memory.py")
SCRIPT_SECONDS = 300.0


def run(bench: Bench) -> list[Group]:
    """Measure the time of a fresh interpreter, and the peak of its memory."""
    bench.say("from starting Python to the first replayed answer")
    with tempfile.TemporaryDirectory() as folder:
        scripts, skipped = _recorded(bench, Path(folder))
        before = calls_received(bench.address)
        seconds, processor = _rounds(2 * bench.sizes.rounds, scripts, Script.seconds)
        (peaks,) = _rounds(3, scripts, Script.peak)
        if calls_received(bench.address) != before:
            raise RuntimeError("an answer was no replay")
    floor = PLAIN_DISKCACHE.title
    return [
        Group("from starting Python to the first replayed answer", "s", seconds, floor, skipped),
        Group("processor time of that", "s", processor, floor, skipped),
        Group("peak memory of that", "B", peaks, floor, skipped),
    ]


class Script:
    """A contestant's script with the folder that it records in.

    :param entry: whose.
    :param python: the interpreter of its environment.
    :param folder: its own.
    :param address: the stub server's.
    """

    def __init__(self, entry: Entry, python: str, folder: Path, address: str) -> None:
        self.title = entry.title
        self._python = python
        self._home = folder
        self._arguments = [
            str(SCRIPTS / f"{entry.module}.py"),
            str(folder / "recorded"),
            base_url(address),
        ]
        self._arguments += [message["content"] for message in workload.messages(0)]
        folder.mkdir()

    def seconds(self) -> tuple[float, float]:
        """Return the time from starting the interpreter to its end, and the processor's time for
        it.
        """
        processor, begin = _children_seconds(), perf_counter()
        self._run()
        return perf_counter() - begin, _children_seconds() - processor

    def peak(self) -> tuple[float]:
        """Return the peak of its memory in bytes."""
        return (float(self._run(str(PEAK_MEMORY)).splitlines()[-1]),)

    def _run(self, *through: str) -> str:
        command = [self._python, "-I", *through, *self._arguments]
        done = subprocess.run(
            command,
            cwd=self._home,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=SCRIPT_SECONDS,
            check=False,
        )
        expected = workload.answer_to(workload.question(0))
        if done.returncode or expected not in done.stdout.splitlines():
            raise ContestantFailedError(
                (done.stderr.strip() or done.stdout or "it printed nothing").splitlines()[-1]
            )
        return done.stdout


def _recorded(bench: Bench, folder: Path) -> tuple[list[Script], tuple[tuple[str, str], ...]]:
    """Run every script twice, to record its answer and to replay it; return those that did, and
    why the others did not.
    """
    scripts, skipped = [], []
    for entry in bench.entries:
        if not entry.caches:
            continue
        try:
            python = bench.environments.python(entry.environment)
            script = Script(entry, python, folder / entry.module, bench.address)
            script.seconds(), script.peak()
            scripts.append(script)
        except (EnvironmentMissingError, ContestantFailedError) as error:
            skipped.append((entry.title, str(error)))
            bench.say(f"  {entry.title}: skipped, {error}")
    return scripts, tuple(skipped)


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _rounds(
    rounds: int, scripts: list[Script], measure: Callable[[Script], tuple[float, ...]]
) -> list[tuple[Figures, ...]]:
    """Run the scripts in turns; return the figures of each thing that a turn measures."""
    turns = [[measure(script) for script in scripts] for _ in range(rounds)]
    by_script = [list(zip(*turn, strict=True)) for turn in zip(*turns, strict=True)]
    measurements = zip(*by_script, strict=True)
    return [
        tuple(map(Figures, (script.title for script in scripts), values)) for values in measurements
    ]
