"""Ctrl-C in a map: nothing new begins, it leaves soon, and what finished stays."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_futures
from typing import Any

import pytest
from programs import start

import llmcall
from llmcall import imap, map, scope
from llmcall.testing import ScriptedClient

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="there is no signal to send to oneself"
)

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
        os.kill(os.getpid(), signal.SIGINT)
        return then()

    return step


def client_of(*steps: Step, **settings: Any) -> ScriptedClient:
    """Return a client of a server that takes these steps, the last one again and again."""

    def answer(messages: Any) -> Any:
        return steps[min(len(client.requests), len(steps)) - 1]()

    client = ScriptedClient(answer, cache_mode="auto", on_error="raise", **settings)
    return client


def asks(item: int) -> Any:
    """Ask a client of its own."""
    return (
        ScriptedClient(lambda _: str(item), cache_mode="off")
        .send_message("Hello", on_error="raise")
        .content
    )


def asking(client: ScriptedClient) -> Callable[[Any], Any]:
    """Return a function of items that asks a client."""
    return lambda item: client.send_message(f"item {item}").content


@pytest.fixture(autouse=True)
def around_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, whoever started the tests, and hardly wait for what may
    still end then.

    The threads that a test left behind end soon after it.
    """
    monkeypatch.setattr("llmcall.parallel.run.GRACE", 0.1)
    gone_on.clear()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
    gone_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith("llmcall map"):
            thread.join(30)
            assert not thread.is_alive()


def test_a_call_that_waits_is_left_behind(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that never answers is not waited for; the exception has what was done before, and
    one line tells.

    What was left behind goes on in its thread: its answer is in the cache as soon as it comes.
    """
    client, stored = client_of(answers, interrupts_and(stays_silent)), threading.Event()

    def work(item: int) -> Any:
        try:
            return asking(client)(item)
        finally:
            stored.set() if item else None

    with pytest.raises(KeyboardInterrupt) as caught:
        map(work, range(5), workers=1)
    assert len(client.requests) == 2
    assert caught.value.results == ["Two coins.", None, None, None, None]  # type: ignore[attr-defined]
    assert capsys.readouterr().err == "stopped: 1 of 5 done; run it again to continue\n"
    gone_on.set()
    assert stored.wait(30)
    assert map(work, [0, 1]) == ["Two coins.", "Too late."] and len(client.requests) == 2
    assert caught.value.results[1] is None  # type: ignore[attr-defined]


def test_a_retry_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """A call that would be tried again in an hour ends at once, and nobody is told to read its
    answer to the end.
    """
    refuses = interrupts_and(lambda: llmcall.ServiceError("no", status_code=503))
    client = client_of(refuses, retry_waiting_time=3600, retry_max_waiting_time=3600)
    with pytest.raises(KeyboardInterrupt), llmcall.cassette("retried.jsonl"):
        map(asking(client), range(3), workers=1)
    assert len(client.requests) == 1
    assert "whole answer" not in caplog.text


def test_who_waits_for_another_s_answer_ends_too() -> None:
    """Identical requests in flight: the follower neither waits on nor takes over."""
    client = client_of(interrupts_and(stays_silent), answers)
    with pytest.raises(KeyboardInterrupt):
        map(asking(client), ["same", "same"], workers=2)
    assert len(client.requests) == 1


@pytest.mark.parametrize("way", ["slow items", "slow consumer"])
def test_the_maps_inside_end_too(way: str) -> None:
    """A map in an item's code begins nothing more, whether its items take long or what is done with
    their results.
    """
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        time.sleep(0.01 if way == "slow items" else 0)

    def inside(_: int) -> None:
        for _ in (
            imap(work, range(300_000)) if way == "slow consumer" else map(work, range(300_000))
        ):
            time.sleep(0.01)

    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        map(inside, [1, 2])
    counts = [gone_on.wait(0.2) or len(begun) for _ in range(2)]
    assert counts[0] == counts[1] > 0


@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_pool_forgets_the_map_that_was_interrupted() -> None:
    """A worker that is forked in an item's code has nothing to do with that item's map."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        then = interrupts_and(lambda: gone_on.wait(0.3) or map(asks, [1], executor=pool))
        with pytest.raises(KeyboardInterrupt):
            map(lambda _: then(), [1])
        gone_on.wait(0.6)
        assert map(asks, [1, 2], executor=pool) == ["1", "2"]


def test_a_call_that_ends_in_time_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server answers just after Ctrl-C is paid, and so it is among the results and in the
    cache.
    """
    monkeypatch.setattr("llmcall.parallel.run.GRACE", 30.0)
    client = client_of(interrupts_and(answers))
    with pytest.raises(KeyboardInterrupt) as caught:
        map(asking(client), range(3), workers=1)
    assert caught.value.results == ["Two coins.", None, None]  # type: ignore[attr-defined]
    assert map(asking(client), [0]) == ["Two coins."]
    assert len(client.requests) == 1


def test_draws_are_given_back() -> None:
    """The draw of a call that was cut is the next one's."""
    client = client_of(interrupts_and(stays_silent), lambda: "Three.", cache_path="draws")
    with scope("trial"):
        with pytest.raises(KeyboardInterrupt):
            map(asking(client), ["a"], key=str)
        assert map(lambda item: client.build_request(f"item {item}").sample, ["a"], key=str) == [
            "trial/a#0"
        ]


class InterruptedExecutor(ThreadPoolExecutor):
    """Press Ctrl-C while a task is handed over that has run already."""

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        future = super().submit(*args, **kwargs)
        wait_for_futures([future])
        raise KeyboardInterrupt


def test_the_draw_of_a_task_is_given_back_that_was_just_handed_over() -> None:
    """Ctrl-C between an executor's taking a task and its saying so: the draw is the next one's."""
    client = client_of(answers)
    with scope("trial"), InterruptedExecutor(1) as executor:
        with pytest.raises(KeyboardInterrupt):
            map(asking(client), ["a"], key=str, executor=executor)
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
def test_a_program_that_is_interrupted_ends() -> None:
    """Ctrl-C from outside: within seconds the process is gone, though a call waits for a server
    that is silent.
    """
    with start(A_SURVEY) as process:
        assert process.stdout is not None and process.stdout.readline() == "silent\n"
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    assert "stopped: 2 of 400 done; run it again to continue" in complaints
    assert complaints.rstrip().endswith("KeyboardInterrupt")
