"""``MAX_CONCURRENT_CALLS = auto``: how the number of calls at a time grows and is halved, and who hears
of it.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from importlib import import_module
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from servers import OK, ScriptedServer, refusal

import llmcall
from llmcall import OpenAIClient
from llmcall.errors import RateLimitError, RequestTimeoutError, ServiceError
from llmcall.testing import ScriptedClient
from llmcall.types import Endpoint

pytestmark = pytest.mark.newest_only

AUTO = {"limits_max_concurrent_calls": "auto", "on_error": "return", "retry_max_attempts": 1}
BUSY = RateLimitError("slow down")


class HeldCalls:
    """Calls of 300 threads, each of which is answered when the test says so."""

    def __init__(self) -> None:
        self._is_over = False
        self._lock = threading.Condition()
        self._begun: list[Future[Any]] = []
        self._numbers = itertools.count()
        self.client = ScriptedClient(self._answer, **AUTO)
        self._threads = ThreadPoolExecutor(300)

    def _answer(self, messages: Any) -> Any:
        outcome: Future[Any] = Future()
        with self._lock:
            self._begun.append(outcome)
            if self._is_over:
                outcome.set_result("yes")
            self._lock.notify_all()
        return outcome.result(60)

    def make(self, count: int) -> None:
        """Make so many calls more."""
        for number in itertools.islice(self._numbers, count):
            self._threads.submit(self.client.send_message, f"call {number}")

    def wait_for(self, count: int) -> None:
        """Wait until so many have begun in all."""
        with self._lock:
            assert self._lock.wait_for(lambda: len(self._begun) >= count, 30)
            assert len(self._begun) == count

    def end(self, numbers: range, outcome: Any = "yes") -> None:
        """Answer the calls of these numbers, in the order in which they began."""
        for number in numbers:
            self._begun[number].set_result(outcome)

    def close(self) -> None:
        """Answer the calls that are left."""
        with self._lock:
            self._is_over = True
            for outcome in self._begun:
                if not outcome.done():
                    outcome.set_result("yes")
        self._threads.shutdown(cancel_futures=True)


@pytest.fixture
def held() -> Iterator[HeldCalls]:
    """Calls that are answered when the test says so."""
    with closing(HeldCalls()) as calls:
        yield calls


def found() -> list[int]:
    """Return how many calls each endpoint takes at a time."""
    return [row.most for row in llmcall.usage().under_way]


def wait_until(calls: int, most: int) -> None:
    """Wait until so many calls run and so many may."""
    ends_at = monotonic() + 30
    while (now := llmcall.usage().under_way) != (("scripted", calls, most),):
        assert monotonic() < ends_at, now
        sleep(0.001)


# How the number is found


def test_auto_adds_a_call_after_as_many_good_answers_as_run(held: HeldCalls) -> None:
    """16 at first; 17 after 16 answers, 18 after 17 more."""
    held.make(60)
    held.wait_for(16)
    held.end(range(15))
    held.wait_for(31)
    assert found() == [16]
    held.end(range(15, 16))
    held.wait_for(33)
    assert found() == [17]
    held.end(range(16, 33))
    held.wait_for(51)
    assert found() == [18]


def test_auto_halves_once_for_the_calls_under_way(held: HeldCalls) -> None:
    """Of 16 three are refused: 8 may run. A call that began later halves it again."""
    held.make(60)
    held.wait_for(16)
    held.end(range(3), BUSY)
    wait_until(13, 8)
    held.end(range(3, 9))
    wait_until(8, 8)
    held.end(range(9, 16))  # calls that began before say nothing of the new number
    held.wait_for(24)
    held.end(range(16, 17))
    held.wait_for(25)
    held.end(range(17, 18), BUSY)
    wait_until(7, 4)


def test_auto_never_halves_below_one() -> None:
    """However often the server refuses."""
    client = ScriptedClient([BUSY] * 6 + ["yes"], **AUTO)
    assert [(client.send_message("Hello"), found())[1] for _ in range(6)] == [
        [8],
        [4],
        [2],
        [1],
        [1],
        [1],
    ]
    assert client.send_message("Hello").content == "yes"  # type: ignore[union-attr]


@pytest.mark.ci
def test_auto_never_grows_above_256(held: HeldCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many good answers come."""
    monkeypatch.setattr("llmcall.features.adaptive_limits.slots.FIRST", 255)
    held.make(1_100)
    ended = 0
    for most in (255, 256, 256):
        held.wait_for(ended + most)
        held.end(range(ended, ended + most))
        ended += most
    held.wait_for(ended + 256)
    assert found() == [256]


def test_auto_does_not_grow_a_number_of_calls_that_was_not_reached() -> None:
    """100 calls one after the other say nothing of more than one at a time."""
    client = ScriptedClient(lambda messages: "yes", **AUTO)
    for number in range(100):
        client.send_message(f"call {number}")
    assert found() == [16]


@pytest.mark.parametrize("failure", [ServiceError("busy"), RequestTimeoutError("late")], ids=repr)
def test_auto_changes_nothing_at_failures_other_than_a_429(
    held: HeldCalls, failure: Exception
) -> None:
    """They are no good answers either."""
    held.make(60)
    held.wait_for(16)
    held.end(range(16), failure)
    held.wait_for(32)
    assert found() == [16]
    held.end(range(16, 31))
    held.wait_for(47)
    assert found() == [16]


def test_auto_finds_a_number_of_calls_for_each_endpoint(httpserver: HTTPServer) -> None:
    """One that refuses is halved; the other one is not."""
    busy = ScriptedServer(httpserver, refusal(429, "slow down"))
    with HTTPServer() as other:
        free = ScriptedServer(other, OK)
        endpoints = [
            Endpoint(name, ("gpt-4o",), api_key="k", base_url=server.base_url)
            for name, server in (("busy", busy), ("free", free))
        ]
        client = OpenAIClient(model="gpt-4o", endpoints=endpoints, cache_mode="off", **AUTO)
        for number in range(3):
            assert client.send_message(f"call {number}").endpoint == "free"
        client.close()
    assert llmcall.usage().under_way == (("busy", 0, 8), ("free", 0, 16))


def test_a_429_with_a_retry_after_makes_the_endpoint_rest(httpserver: HTTPServer) -> None:
    """Also where the number is halved."""
    server = ScriptedServer(httpserver, refusal(429, "slow down", headers={"retry-after": "300"}))
    with OpenAIClient(base_url=server.base_url, api_key="k", cache_mode="off", **AUTO) as client:
        client.send_message("Hello")
        late = client.send_message("Hello", deadline=1)
    assert "past the deadline" in str(late)
    assert len(server.requests) == 1


# What counts


def test_auto_releases_the_slot_of_a_cancelled_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one begins; it is no good answer."""
    monkeypatch.setattr("llmcall.features.adaptive_limits.slots.FIRST", 1)
    begun = threading.Event()
    going = threading.Event()

    def answer(messages: Any) -> str:
        begun.set()
        assert going.wait(30)
        return "yes"

    client = ScriptedClient(answer, **AUTO)

    async def main() -> Any:
        first = asyncio.create_task(client.asend_message("first"))
        await asyncio.to_thread(begun.wait, 30)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert found() == [1]
        going.set()
        return await client.asend_message("second", deadline=30)

    assert asyncio.run(main()).content == "yes"


def test_a_map_has_workers_for_the_largest_number() -> None:
    """256 of them meet."""
    at_once = threading.Barrier(256)
    with llmcall.configured(limits_max_concurrent_calls="auto"):
        llmcall.map(lambda item: at_once.wait(30), range(256))


@pytest.mark.parametrize("way", ["method", "typed"])
def test_a_map_has_workers_for_what_its_client_finds(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Also where the client alone is told to find it."""
    monkeypatch.setattr("llmcall.features.adaptive_limits.slots.FIRST", 40)
    at_once = threading.Barrier(40)

    def answer(messages: Any) -> str:
        at_once.wait(30)
        return "yes"

    client = ScriptedClient(answer, limits_max_concurrent_calls="auto", on_error="raise")
    if way == "method":
        llmcall.map(client.send_message, [f"call {number}" for number in range(40)])
    else:
        asking = llmcall.LLMCall(user="Call {{ number }}", client=client)
        asking.map([{"number": number} for number in range(40)])


# Who hears of it


@pytest.mark.parametrize("spelled", ["auto", "AUTO"])
def test_auto_may_be_written_in_config_ini(spelled: str) -> None:
    """In upper or lower case."""
    Path("config.ini").write_text(f"[Limits]\nMAX_CONCURRENT_CALLS = {spelled}\n")
    llmcall.reset()
    assert llmcall.settings().limits_max_concurrent_calls == "auto"


def test_usage_says_how_many_calls_run_and_may(held: HeldCalls) -> None:
    """As a text, as HTML, and as rows; another usage than the process's has none."""
    held.make(20)
    held.wait_for(16)
    line = "scripted takes up to 16 calls at a time; 16 running now"
    assert line in str(llmcall.usage()).splitlines()
    assert f"<p>{line}</p>" in llmcall.usage()._repr_html_()
    assert llmcall.usage().under_way == (("scripted", 16, 16),)
    assert held.client.usage.under_way == ()


def test_without_auto_usage_says_nothing_of_calls_at_a_time() -> None:
    """A fixed number is the user's own."""
    ScriptedClient(["yes"], limits_max_concurrent_calls=4).send_message("Hello")
    assert llmcall.usage().under_way == ()


# That it finds it


@pytest.mark.slow
def test_auto_finds_how_many_calls_a_server_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server refuses more than 40 at once: after 2,000 calls at least 36 may run. Fewer than 3 %
    of the requests are refused.
    """
    monkeypatch.syspath_prepend(Path(__file__).parents[3])
    stub = import_module("benchmarks.stub")
    numbers_found = []

    def ask(number: int) -> None:
        client.send_message(f"call {number}")
        if number % 40 == 0:
            numbers_found.extend(found())

    with (
        stub.stub_server() as address,
        llmcall.configured(limits_max_concurrent_calls="auto"),
        OpenAIClient(
            base_url=stub.base_url(address, 250, at_once=40), cache_mode="off", on_error="raise"
        ) as client,
    ):
        llmcall.map(ask, range(4_000))
        assert 0 < stub.calls_refused(address) < 0.03 * 4_000
    assert min(numbers_found[50:]) >= 36
