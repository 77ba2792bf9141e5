"""Many processes of many threads, of two versions of Python, on one cache: nothing locked, lost or
mixed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from commands import NEEDS_OTHER_PYTHON, NEEDS_POSIX, OTHER_PYTHON
from test_crashes import stored
from workers import Nursery, Worker, seeded

pytestmark = NEEDS_POSIX

SLOW = pytest.mark.slow


def check_together(workers: list[Worker], folder: Path) -> int:
    """Check that all processes got the same answers, which are stored; return how often they asked."""
    agreed: dict[str, str] = {}
    calls = 0
    for worker in workers:
        for line in worker.done():
            assert isinstance(line, list), line
            if line[0] == "calls":
                calls += line[1]
            else:
                assert agreed.setdefault(line[0], line[1]) == line[1], f"two answers to {line[0]}"
    assert agreed and agreed.items() <= stored(folder).items()
    return calls


@pytest.mark.ci
@pytest.mark.parametrize(
    ("processes", "threads", "seconds"), [(3, 4, 0.4), pytest.param(8, 16, 15.0, marks=SLOW)]
)
def test_processes_of_many_threads_get_the_same_answers_from_one_cache(
    processes: int, threads: int, seconds: float, tmp_path: Path
) -> None:
    """They read, write, refresh, delete and fork."""
    seed = seeded().randrange(2**31)
    with Nursery(tmp_path) as nursery:
        workers = [
            nursery.start(
                "contend", tmp_path / "cache", f"p{number}", seconds, threads, seed + 1000 * number
            )
            for number in range(processes)
        ]
        assert check_together(workers, tmp_path / "cache") > processes * threads


@NEEDS_OTHER_PYTHON
@pytest.mark.parametrize(("threads", "seconds"), [(2, 1.0), pytest.param(8, 5.0, marks=SLOW)])
def test_processes_of_two_versions_of_python_get_the_same_answers_from_one_cache(
    threads: int, seconds: float, tmp_path: Path
) -> None:
    """They use it at the same time."""
    seed = seeded().randrange(2**31)
    with Nursery(tmp_path) as one, Nursery(tmp_path, OTHER_PYTHON) as another:
        assert (
            one.start("version").done()
            == [list(sys.version_info[:2])]
            != another.start("version").done()
        )
        workers = [
            nursery.start(
                "contend", tmp_path / "cache", f"p{number}", seconds, threads, seed + 1000 * number
            )
            for number, nursery in enumerate((one, another, one, another))
        ]
        check_together(workers, tmp_path / "cache")
