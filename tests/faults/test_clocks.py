"""A clock that is set back, forward or jumps about: no answer, order, limit, deadline or budget
depends on it.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmcall
from llmcall import ResponseCache
from llmcall.testing import ScriptedClient

YEAR = 365 * 86400.0
NOW = time.time()
TROUBLE = [
    llmcall.ServiceError("busy", status_code=503),
    llmcall.RateLimitError("slow", status_code=429),
]
CLOCKS: dict[
    str, Callable[[int], float]
] = {  # seconds since the epoch, by how often the clock was looked at
    "an hour back at each look": lambda looks: NOW - 3600 * looks,
    "thirty years back": lambda looks: NOW - 30 * YEAR,
    "at the beginning of time": lambda looks: 0.0,
    "before it": lambda looks: -5 * YEAR,
    "a century ahead": lambda looks: NOW + 100 * YEAR,
    "jumping about": lambda looks: NOW + random.Random(looks).uniform(-50, 50) * YEAR,
}


@pytest.fixture(params=list(CLOCKS))
def clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that sets the clock, which is right before."""
    looks = itertools.count()
    return lambda: monkeypatch.setattr(time, "time", lambda: CLOCKS[request.param](next(looks)))


def client_at(folder: Path, **settings: Any) -> ScriptedClient:
    """Return a client that counts its answers."""
    numbers = itertools.count()
    merged = {"cache_mode": "auto", "cache_path": folder, "on_error": "raise", **settings}
    return ScriptedClient(lambda messages: f"{next(numbers)}: {messages[-1]['content']}", **merged)


@pytest.fixture
def around_the_change(
    clock: Callable[[], None], tmp_path: Path
) -> tuple[ScriptedClient, list[str]]:
    """A client that has asked before and after the clock was set, and its answers."""
    client = client_at(tmp_path / "cache")
    answers = [client.send_message(f"before {number}")["content"] for number in range(3)]
    clock()
    answers += [client.send_message(f"after {number}")["content"] for number in range(3)]
    return client, answers


AroundTheChange = tuple[ScriptedClient, list[str]]


def test_records_come_in_the_order_of_storing_if_the_clock_is_set(
    around_the_change: AroundTheChange, tmp_path: Path
) -> None:
    """None is damaged."""
    client, answers = around_the_change
    client.cache.close()
    with ResponseCache(tmp_path / "cache") as cache:
        assert [record.answer for record in cache.records()] == answers


def test_no_call_is_late_or_waits_if_the_clock_is_set(clock: Callable[[], None]) -> None:
    """Limits, deadlines and retries are kept by a clock that nobody sets."""
    failures = iter(TROUBLE)

    def answer(messages: list[Any]) -> Any:
        return next(failures, "answered")

    client = ScriptedClient(
        answer,
        on_error="raise",
        limits_requests_per_minute=1000,
        limits_max_concurrent_calls=2,
        retry_waiting_time=0.001,
    )
    assert client.send_message("before", deadline=60)["content"] == "answered"
    failures = iter(TROUBLE)
    clock()
    replies = llmcall.map(
        lambda number: client.send_message(str(number), deadline=60)["content"],
        range(20),
        workers=4,
    )
    assert replies == ["answered"] * 20
