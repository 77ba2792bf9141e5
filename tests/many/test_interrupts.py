"""Ctrl-C in a map: nothing new begins, it leaves soon, and what finished stays."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from commands import (
    LONGEST,
    NEEDS_POSIX,
    no_ctrl_c_is_lost,
    press_ctrl_c,
    start,
    wait_for_maps,
)

import llmcall
from llmcall import imap, map, scope
from llmcall.testing import ScriptedClient

pytestmark = NEEDS_POSIX

Step = Callable[[], Any]
gone_on = threading.Event()  # once a test has left its map


def answers() -> str:
    """Answer at once."""
    return "Two coins."


def stays_silent() -> str:
    """Answer nothing until the test has gone on."""
    gone_on.wait(60)
    return "Too late."


def interrupts_and(then: Step) -> Step:
    """Press Ctrl-C when a request has come, and go on as another step."""

    def step() -> Any:
        press_ctrl_c()
        return then()

    return step


def client_of(*steps: Step, **settings: Any) -> ScriptedClient:
    """Return a client of a server that takes these steps, the last one again and again."""

    def answer(messages: Any) -> Any:
        return steps[min(len(client.requests), len(steps)) - 1]()

    client = ScriptedClient(answer, cache_mode="auto", on_error="raise", **settings)
    return client


def asking(client: ScriptedClient) -> Callable[[Any], Any]:
    """Return a function of items that asks a client."""
    return lambda item: client.send_message(f"item {item}").content


@pytest.fixture(autouse=True)
def around_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lose no Ctrl-C, and wait only briefly for what may still end then.

    The threads that a test left behind end soon after it.
    """
    monkeypatch.setattr("llmcall.many.map_run.GRACE", 0.1)
    gone_on.clear()
    with no_ctrl_c_is_lost():
        yield
    gone_on.set()
    wait_for_maps()


class Stopped:
    """A map of five items that was stopped in its second call, to which nobody answers."""

    def __init__(self) -> None:
        self.client = client_of(answers, interrupts_and(stays_silent))
        self.stored = threading.Event()
        with pytest.raises(KeyboardInterrupt) as caught:
            map(self.work, range(5), workers=1)
        self.error: Any = caught.value

    def work(self, item: int) -> Any:
        """Ask about an item."""
        try:
            return asking(self.client)(item)
        finally:
            if item:
                self.stored.set()


def test_a_stopped_map_begins_no_other_call_and_says_how_far_it_came(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Results stand in their items' places; the frames below the map's concern nobody."""
    stopped = Stopped()
    assert len(stopped.client.requests) == 2
    assert stopped.error.results == ["Two coins.", None, None, None, None]
    assert capsys.readouterr().err == "stopped: 1 of 5 done; run it again to continue\n"
    names = [frame.name for frame in traceback.extract_tb(stopped.error.__traceback__)]
    assert names == ["__init__", "map"]


def test_the_answer_of_a_call_that_ctrl_c_left_behind_is_stored() -> None:
    """It goes on in its thread; the results that were raised stay as they were."""
    stopped = Stopped()
    gone_on.set()
    assert stopped.stored.wait(30)
    assert map(stopped.work, [0, 1]) == ["Two coins.", "Too late."]
    assert len(stopped.client.requests) == 2
    assert stopped.error.results[1] is None


def test_ctrl_c_in_a_map_does_not_wait_for_a_retry(caplog: pytest.LogCaptureFixture) -> None:
    """A call that would be tried again in an hour ends at once, and the log does not ask to read
    its answer to the end.
    """
    refuses = interrupts_and(lambda: llmcall.ServiceError("no", status_code=503))
    client = client_of(refuses, retry_waiting_time=3600, retry_max_waiting_time=3600)
    with pytest.raises(KeyboardInterrupt), llmcall.cassette("retried.jsonl"):
        map(asking(client), range(3), workers=1)
    assert len(client.requests) == 1
    assert "whole answer" not in caplog.text


def test_ctrl_c_in_a_map_ends_a_call_that_waits_for_an_identical_one() -> None:
    """It does not ask in its place."""
    client = client_of(interrupts_and(stays_silent), answers)
    with pytest.raises(KeyboardInterrupt):
        map(asking(client), ["same", "same"], workers=2)
    assert len(client.requests) == 1


@pytest.mark.parametrize("way", ["slow items", "slow consumer"])
def test_ctrl_c_stops_a_map_inside_an_item_too(way: str) -> None:
    """Its items may take long, or what is done with their results."""
    begun: list[int] = []
    not_pressed = threading.Semaphore(1)

    def work(item: int) -> None:
        begun.append(item)
        if item == 70 and not_pressed.acquire(blocking=False):  # after the first results
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01 if way == "slow items" else 0)

    def inside(_: int) -> None:
        for _ in (
            imap(work, range(300_000)) if way == "slow consumer" else map(work, range(300_000))
        ):
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        map(inside, [1, 2])
    wait_for_maps()
    assert 70 in begun  # others may have been taken, and not begun yet
    assert len(begun) < 300_000


def test_ctrl_c_in_a_map_gives_draws_back() -> None:
    """No number is lost."""
    client = client_of(interrupts_and(stays_silent), lambda: "Three.", cache_path="draws")
    with scope("trial"):
        with pytest.raises(KeyboardInterrupt):
            map(asking(client), ["a"], key=str)
        assert map(lambda item: client.build_request(f"item {item}").sample, ["a"], key=str) == [
            "trial/a#0"
        ]


A_SURVEY = """
def answer(messages):
    if len(client.requests) > 2:
        print("silent", flush=True)
        threading.Event().wait()
    return "yes"

client = ScriptedClient(answer)
llmcall.map(client.send_message, [f"item {number}" for number in range(400)], workers=1)
"""


@pytest.mark.slow
def test_a_program_ends_after_ctrl_c_in_a_map() -> None:
    """Ctrl-C comes from outside, while a call waits for a server that is silent."""
    with start(A_SURVEY) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "silent\n"
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=LONGEST)
    assert "stopped: 2 of 400 done; run it again to continue" in complaints
    assert complaints.rstrip().endswith("KeyboardInterrupt")


class InterruptedAt:
    """Press Ctrl-C at a line of the code of maps, counted from when all items are done.

    :param done: the items that are done.
    :param files: the ends of the names of files whose lines count, too.
    """

    def __init__(self, line: int, done: list[str], count: int, *files: str) -> None:
        self._lines_left = line
        self._done = done
        self._count = count
        self._files = files
        self.is_pressed = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        """Trace a frame."""
        name = frame.f_code.co_filename
        if os.path.join("llmcall", "many") not in name and not name.endswith(self._files):
            return None
        if event == "line" and len(self._done) == self._count:
            self._lines_left -= 1
            if not self._lines_left:
                self.is_pressed = True
                raise KeyboardInterrupt
        return self


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_ctrl_c_in_the_moment_in_which_a_map_closes_loses_nothing(step: int) -> None:
    """Whichever line runs, the results are there and the draws are given back."""
    client = client_of(answers)
    for line in itertools.count(1, step):
        done: list[str] = []

        def ask(item: str, done: list[str] = done) -> Any:
            answer = asking(client)(item)
            done.append(item)
            return answer

        interrupted = InterruptedAt(line, done, 3)
        with scope(f"trial-{line}"):
            sys.settrace(interrupted)
            try:
                found = map(ask, "abc", key=str, workers=2)
            except KeyboardInterrupt as error:
                found = error.results  # type: ignore[attr-defined]
            finally:
                sys.settrace(None)
            assert found == ["Two coins."] * 3
            with scope("a"):
                next_draw = client.build_request("item a").sample
        number = 0 if interrupted.is_pressed else 1
        assert next_draw == f"trial-{line}/a#{number}"
        if not interrupted.is_pressed:
            break
    assert line > 10
