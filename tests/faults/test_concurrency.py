"""Many processes of many threads, of two versions of Python, on one cache: nothing locked, lost or mixed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import OTHER_PYTHON, Nursery, Worker, seeded
from test_crashes import stored

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

SLOW = pytest.mark.slow


def told(worker: Worker) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the answers that a process got to what nobody deletes, and its numbers; it met no trouble."""
    written = worker.done()
    assert all(isinstance(line, list) for line in written), [line for line in written if isinstance(line, dict)]
    numbers = {line[0]: line[1:] for line in written if not line[0].startswith("kept")}
    answers: dict[str, str] = {}
    for question, said in (line for line in written if line[0].startswith("kept")):
        assert answers.setdefault(question, said) == said
    assert numbers["child"][1] == []
    return answers, numbers


def check_together(workers: list[Worker], folder: Path) -> int:
    """Check that all processes got the same answers, and that these are stored; return the number of calls."""
    agreed: dict[str, str] = {}
    calls = 0
    for worker in workers:
        answers, numbers = told(worker)
        for question, said in answers.items():
            assert agreed.setdefault(question, said) == said, f"two answers to {question}"
        calls += numbers["calls"][0] + numbers["child"][0]
    found = stored(folder)
    assert agreed.items() <= found.items()
    assert {question for question in found if question.startswith("kept")} >= agreed.keys()
    assert agreed
    return calls


@pytest.mark.parametrize(("processes", "threads", "seconds"), [(3, 4, 1.0), pytest.param(8, 16, 60.0, marks=SLOW)])
def test_processes_and_threads(processes: int, threads: int, seconds: float, tmp_path: Path) -> None:
    """Eight processes of sixteen threads read, write, refresh, delete and fork for a minute."""
    seed = seeded().randrange(2**31)
    with Nursery(tmp_path) as nursery:
        workers = [
            nursery.start("contend", tmp_path / "cache", f"p{number}", seconds, threads, seed + 1000 * number)
            for number in range(processes)
        ]
        calls = check_together(workers, tmp_path / "cache")
    assert calls > processes * threads


@pytest.mark.parametrize(("threads", "seconds"), [(2, 1.0), pytest.param(8, 10.0, marks=SLOW)])
def test_another_python_at_the_same_time(threads: int, seconds: float, tmp_path: Path) -> None:
    """Processes of two versions of Python share a cache."""
    if not OTHER_PYTHON:
        pytest.skip("LLMCALL_OTHER_PYTHON names no other Python with llmcall's dependencies")
    seed = seeded().randrange(2**31)
    with Nursery(tmp_path) as one, Nursery(tmp_path, OTHER_PYTHON) as another:
        assert one.start("version").done() == [list(sys.version_info[:2])] != another.start("version").done()
        workers = [
            nursery.start("contend", tmp_path / "cache", f"p{number}", seconds, threads, seed + 1000 * number)
            for number, nursery in enumerate((one, another, one, another))
        ]
        check_together(workers, tmp_path / "cache")
