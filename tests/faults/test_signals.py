"""Ctrl-C at random instants: no lock stays held, no draw is lost, no answer that was in hand is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import HERE, SECONDS, pause, seeded
from storms import Storm

from llmcall import ResponseCache

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal"),
]

TIMES = 10
PRESSES = 4
LONGEST = 0.4  # seconds before the signal
LONGEST_RUN = 600  # seconds


def pressed(name: str, seconds: float, folder: Path, **environment: str) -> tuple[list[str], str]:
    """Start a program, interrupt it after some seconds, and return what it printed and complained of."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "faulthandler", str(HERE / "pressed.py"), name],
        cwd=folder, env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        first = process.stdout.readline()
        if first != "ready\n":
            raise AssertionError(process.communicate()[1])
        pause(seconds)
        for _ in range(PRESSES):
            process.send_signal(signal.SIGINT)
            try:
                printed, complaints = process.communicate(timeout=SECONDS / PRESSES)
            except subprocess.TimeoutExpired:
                continue  # Python drops what is raised in a finalizer, as people know who press twice
            return printed.splitlines(), complaints
        process.send_signal(signal.SIGABRT)  # tells where each thread hangs
        raise AssertionError(process.communicate()[1])


def stored(folder: Path) -> set[str]:
    """Return the items of which the answers are in the cache."""
    cache = ResponseCache(folder / ".llmcall" / "cache")
    assert cache.verify() == []
    return {record.request["messages"][-1]["content"] for record in cache.records()}


@pytest.mark.parametrize("name", ["call", "stream", "map", "async"])
def test_ctrl_c(name: str, tmp_path: Path) -> None:
    """The process that was interrupted goes on calling from all threads; every answer it had in hand is stored."""
    dice = seeded()
    told = ["warm up"]  # of which each has the answer before it says that it is ready
    for _ in range(TIMES):
        lines, complaints = pressed(name, dice.random() * LONGEST, tmp_path)
        assert lines and lines[-1] == "well", complaints
        told += lines[:-1]
    assert set(told) <= stored(tmp_path)


@pytest.mark.parametrize("name", ["call", "stream", "map", "async"])
def test_ctrl_c_on_the_network(name: str, tmp_path: Path) -> None:
    """The same, while connections are opened, written to and read."""
    dice = seeded()
    told = ["warm up"]  # of which each has the answer before it says that it is ready
    with Storm(dice.randrange(2**32), share=0.0) as storm:
        for _ in range(TIMES // 2):
            lines, complaints = pressed(name, dice.random() * LONGEST, tmp_path, SERVER=storm.base_url)
            assert lines and lines[-1] == "well", complaints
            told += lines[:-1]
        assert storm.all_left()
    assert set(told) <= stored(tmp_path)


def interrupted(program: str, folder: Path) -> int:
    """Run a program that interrupts itself again and again; return how often it did."""
    seed = seeded().randrange(2**32)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "faulthandler", str(HERE / program), str(seed)],
        cwd=folder, capture_output=True, text=True, timeout=LONGEST_RUN, check=False,
    )  # fmt: skip
    count, _, word = done.stdout.strip().partition(" ")
    assert (done.returncode, word) == (0, "interrupted"), done.stderr
    return int(count)


def test_no_follower_waits_for_an_interrupted_leader(tmp_path: Path) -> None:
    """Whoever shares a call gets the answer, at whichever instant Ctrl-C ended the one who made it."""
    assert interrupted("followed.py", tmp_path) > 0


def test_no_wait_leaves_a_lock_behind(tmp_path: Path) -> None:
    """At whichever instant Ctrl-C ends a wait, nobody who ends it otherwise waits, and no other error comes of it."""
    assert interrupted("waited.py", tmp_path) > 0


def test_no_place_stays_taken_by_an_interrupted_call(tmp_path: Path) -> None:
    """Where calls queue for an endpoint, the others go on, at whichever instant Ctrl-C ended one of them."""
    assert interrupted("queued.py", tmp_path) > 0
