"""Decisions of a call, read off its effects: whom it sends to, how long it waits, and when it ends."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeVar

import pytest
from driver import Driver
from servers import completion

import llmcall
import llmcall.testing
from llmcall import LLMClient
from llmcall.core.answer import reply_to
from llmcall.core.effects import Effect, Look, Procedure, Send, Wait
from llmcall.core.prepare import prepare_chat
from llmcall.traffic.limits import forget
from llmcall.types import Endpoint

T = TypeVar("T")


class To(llmcall.types.Transport):
    """A transport to one endpoint.

    :param script: by endpoint and model, what happens in turn: an error, or ``None`` for an answer.
    """

    renewable = True

    def __init__(self, name: str, script: dict[str, list[Exception | None]]) -> None:
        self.name = name
        self._script = script

    def send(self, request: Any, timeout: float | None) -> Any:
        """Raise the next error, or answer."""
        turns = self._script.get(self.name) or self._script.get(request.model) or [None]
        error = turns.pop(0)
        if error is not None:
            raise error
        return completion("Hello")


class Scripted(LLMClient):
    """A client with endpoints named ``a``, ``b`` …."""

    def __init__(self, names: str, script: dict[str, list[Any]], **settings: Any) -> None:
        self._names = names
        self._script = script
        super().__init__(**{"model": "m", "cache_mode": "off", "on_error": "raise", **settings})

    def endpoints(self, model: str) -> list[Endpoint]:
        """Return the endpoints."""
        return [Endpoint(name, (model,)) for name in self._names]

    def make_transport(self, endpoint: Endpoint) -> Any:
        """Return a transport that follows the script."""
        return To(endpoint.name, self._script)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    forget()
    yield
    forget()


def words(effects: list[Effect[Any]]) -> list[str]:
    """Return what a call sends and waits for; a wait with its whole seconds."""
    found = []
    for effect in effects:
        if isinstance(effect, Send):
            assert isinstance(effect.transport, To)
            found.append(f"{effect.transport.name}:{effect.request.model}")
        elif isinstance(effect, Wait):
            found.append("wait" if effect.seconds is None else f"{effect.seconds:.0f} s")
    return found


def busy(seconds: float | None = None) -> llmcall.RateLimitError:
    """Return the error of a 429."""
    return llmcall.RateLimitError("slow", status_code=429, retry_after=seconds)


REFUSED = {"status_code": 401}
DOWN = llmcall.ServiceError("down", status_code=503)
LATE = llmcall.RequestTimeoutError("late")
NO_QUOTA = llmcall.QuotaExceededError("no quota", status_code=429)
TOO_LONG = llmcall.ContextLengthError("too long", status_code=400)


@pytest.mark.parametrize(
    ("names", "script", "settings", "expected"),
    [
        ("a", {}, {}, ["a:m"]),
        ("a", {"a": [DOWN, DOWN, None]}, {"retry_waiting_time": 8}, ["a:m", "8 s", "a:m", "16 s", "a:m"]),
        ("a", {"a": [DOWN] * 9}, {"retry_waiting_time": 8, "retry_max_attempts": 2}, ["a:m", "8 s", "a:m"]),
        # a 429 goes to the other endpoint at once
        ("ab", {"a": [busy(30), None]}, {}, ["a:m", "b:m"]),
        # a refused key may be replaced, here and at the next endpoint
        ("a", {"a": [llmcall.AuthenticationError("no", **REFUSED), None]}, {}, ["a:m", "a:m"]),
        ("a", {"a": [llmcall.AuthenticationError("no", **REFUSED)] * 9}, {}, ["a:m", "a:m"]),
        ("ab", {"a": [llmcall.AuthenticationError("no", **REFUSED)]}, {}, ["a:m", "b:m"]),
        # an account without quota is left; the only one stays, and fails its calls at once
        ("ab", {"a": [NO_QUOTA]}, {}, ["a:m", "b:m"]),
        ("a", {"a": [NO_QUOTA] * 9}, {}, ["a:m"]),
        # what was sent and not answered in time is sent once more
        ("a", {"a": [LATE] * 9}, {"retry_waiting_time": 8}, ["a:m", "8 s", "a:m"]),
        # a wait past the deadline is not begun
        ("a", {"a": [DOWN, None]}, {"retry_waiting_time": 8, "deadline": 5}, ["a:m"]),
        # a fallback, if the context is too long
        ("a", {"m": [TOO_LONG, None], "n": [None]}, {"fallbacks": {"m": ["n"]}}, ["a:m", "a:n"]),
    ],
)  # fmt: skip
def test_a_call_sends_and_waits_by_the_rules(
    names: str, script: dict[str, list[Any]], settings: dict[str, Any], expected: list[str]
) -> None:
    """Jitter adds a quarter at most to a wait, and takes nothing from it."""
    driver = Driver()
    call = prepare_chat(Scripted(names, script, **settings), "Hello", {})
    with contextlib.suppress(llmcall.APIError):
        driver.run(reply_to(call))
    found = words(driver.effects)
    assert len(found) == len(expected), (found, expected)
    for word, expected_word in zip(found, expected, strict=True):
        if not expected_word.endswith(" s"):
            assert word == expected_word, found
            continue
        low = float(expected_word.removesuffix(" s"))
        assert low <= float(word.removesuffix(" s")) <= low * 1.25 + 0.5, found


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ([busy(), busy(), None], [0.05, 0.1]),  # five times as long, then twice that
        ([busy(0.2), busy(0.01), None], [0.2, 0.02]),  # as the server says, if that is longer
    ],
)
def test_a_call_waits_longer_after_a_429(
    script: list[Exception | None], expected: list[float]
) -> None:
    """A server that counts requests by the minute may name no time."""
    driver = Waiting()
    call = prepare_chat(Scripted("a", {"a": script}, retry_waiting_time=0.01), "Hello", {})
    driver.run(reply_to(call))
    waits = [effect.seconds for effect in driver.effects if isinstance(effect, Wait)]
    assert waits == [pytest.approx(seconds * 1.125, rel=0.125) for seconds in expected]


def test_a_call_waits_until_another_returns_what_it_reserved_of_a_budget() -> None:
    """It is sent as soon as that one has failed."""
    first, second = (
        reply_to(prepare_chat(Scripted("a", {}, retry_max_attempts=1), text, {})) for text in "12"
    )
    with llmcall.budget(calls=1):
        context = copy_context()
        context.run(until, first, Send)
        effect = until(second, Wait)
        with pytest.raises(llmcall.APIError):
            context.run(first.throw, llmcall.InvalidRequestError("no", status_code=400))
        assert effect.future is not None
        assert effect.future.done()
        driver = Driver()
        assert driver.run(second)["content"] == "Hello"
        assert words(driver.effects) == ["a:m"]


def test_a_call_looks_again_before_it_sends(tmp_path: Path) -> None:
    """An identical call may have been answered since it looked."""
    client = Scripted("a", {}, cache_mode="auto", cache_path=str(tmp_path))
    first, second = (reply_to(prepare_chat(client, "Hello", {})) for _ in range(2))
    look = second.send(None)
    assert isinstance(look, Look)
    assert Driver().execute(look) is None
    Driver().run(first)
    driver = Driver()
    assert driver.run(second).cached
    assert words(driver.effects) == []


def test_a_call_waits_for_an_identical_one_no_longer_than_its_deadline(tmp_path: Path) -> None:
    """It is sent itself if the other one ends without an answer."""
    client = Scripted("a", {}, cache_mode="auto", cache_path=str(tmp_path))
    first, second = (
        reply_to(prepare_chat(client, "Hello", {"deadline": seconds})) for seconds in (None, 900)
    )
    thread = threading.Thread(target=until, args=(first, Send))
    thread.start()
    thread.join()
    effect = until(second, Wait)
    assert effect.seconds == pytest.approx(900, rel=0.1)
    first.close()
    driver = Driver()
    assert driver.run(second)["content"] == "Hello"
    assert words(driver.effects) == ["a:m"]


def until(procedure: Procedure[Any], kind: type[T]) -> T:
    """Run a procedure to its first effect of a kind, which is not executed."""
    effect = procedure.send(None)
    while not isinstance(effect, kind):
        effect = procedure.send(Driver().execute(effect))
    return effect


def test_a_call_waits_until_the_first_of_its_resting_endpoints_has_rested() -> None:
    """A 429 names the seconds of each rest."""
    script: dict[str, list[Exception | None]] = {"a": [busy(60), None], "b": [busy(0.05), None]}
    driver = Waiting()
    call = prepare_chat(Scripted("ab", script, retry_waiting_time=0), "Hello", {})
    assert driver.run(reply_to(call))["content"] == "Hello"
    sends = [word for word in words(driver.effects) if ":" in word]
    assert sends == ["a:m", "b:m", "b:m"]
    waits = [effect for effect in driver.effects if isinstance(effect, Wait)]
    assert 0.04 < sum(effect.seconds or 0 for effect in waits) < 1


class Waiting(Driver):
    """A driver that waits as long as it is told."""

    def execute(self, effect: Effect[Any]) -> Any:
        """Return the result of an effect."""
        if isinstance(effect, Wait):
            time.sleep(effect.seconds or 0)
        return super().execute(effect)


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [([200_000, 200_000, 100_000], [1, 2]), ([100_000] * 4, [3, 1]), ([400_000, 1], [1, 1])],
)
def test_texts_to_embed_are_batched_by_their_size(sizes: list[int], batches: list[int]) -> None:
    """A request has at most 300,000 bytes, or one text."""
    texts = [f"{number}".zfill(size) for number, size in enumerate(sizes)]
    answers = [[[1.0]] * count for count in batches]
    client: Any = llmcall.testing.ScriptedClient(answers, on_error="raise")
    client.get_embedding(texts)
    assert [len(request.body["input"]) for request in client.requests] == batches
