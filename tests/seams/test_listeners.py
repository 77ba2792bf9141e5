"""Listeners: the contract that each keeps, what a user's hears, and what becomes of its errors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from clients import Responding
from contracts import check_listener
from servers import completion

import llmcall
from llmcall import LLMCallError
from llmcall.testing import ScriptedClient
from llmcall.types import CallInfo, Listener, Received


class Notes(Listener):
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def asks(self, call: CallInfo) -> None:
        """Note a call."""
        self.heard.append(("asks", call.name, call.scope))

    def answered(self, call: CallInfo, record: Any) -> None:
        """Note an answer."""
        self.heard.append(("answered", call.sample, record.is_hit))

    def used(self, call: CallInfo, amounts: Any) -> None:
        """Note a use."""
        self.heard.append(("used", amounts.get("calls"), amounts.get("cached_calls")))

    def failed(self, call: CallInfo, error: BaseException) -> None:
        """Note an error."""
        self.heard.append(("failed", type(error).__name__))

    def opened(self, path: str) -> None:
        """Note a path."""
        self.heard.append(("opened", path))

    def closed(self, path: str) -> None:
        """Note a path."""
        self.heard.append(("closed", path))


@pytest.mark.parametrize("make", [Notes, Listener])
def test_a_listener_keeps_the_contract(make: Any) -> None:
    check_listener(make)


# Functions that check a listener which exists in one environment alone: there it is taken out, heard by itself, and
# put back.


@pytest.mark.parametrize("method", ["asks", "answered", "used", "failed", "opened", "closed"])
def test_a_listener_that_raises_fails_by_its_class_and_the_method(method: str) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a fault")

    with pytest.raises(
        LLMCallError, match=rf"the listener Faulty\.{method} raised ValueError: a fault"
    ):
        check_listener(type("Faulty", (Listener,), {method: fail}))


def test_what_a_listener_changes_of_what_it_hears_reaches_nobody() -> None:
    class Clearing(Listener):
        def answered(self, call: CallInfo, record: Any) -> None:
            record.response.clear()

        def used(self, call: CallInfo, amounts: Any) -> None:
            amounts.clear()

    check_listener(Clearing)


@pytest.fixture
def notes() -> Iterator[Notes]:
    """A listener that hears."""
    with Notes() as listener:
        yield listener


def test_a_listener_hears_of_calls_and_cassettes_in_its_block_alone(notes: Notes) -> None:
    client = ScriptedClient(lambda messages: "Yes.", cache_mode="auto")
    with llmcall.cassette("tape.jsonl"), llmcall.scope("Ann"):
        client.send_message("Hello", model="m")
    with llmcall.cassette("tape.jsonl"), llmcall.scope("Ann"):
        client.send_message("Hello", model="m")
    notes.stop()
    client.send_message("Other")
    assert notes.heard == [
        ("opened", "tape.jsonl"),
        ("asks", "m", "Ann"),
        ("used", 1, None),
        ("answered", "Ann#0", False),
        ("closed", "tape.jsonl"),
        ("opened", "tape.jsonl"),
        ("answered", "Ann#0", True),
        ("closed", "tape.jsonl"),
    ]


def test_a_listener_that_is_open_in_two_blocks_hears_both_once() -> None:
    client, notes = ScriptedClient(lambda messages: "Yes."), Notes()

    def heard() -> list[str]:
        notes.heard.clear()
        client.send_message("Hello")
        return [event for event, *_ in notes.heard]

    once = ["asks", "used", "answered"]
    with notes:
        with notes:
            assert heard() == once
        assert heard() == once
    assert heard() == []


def test_what_a_listener_hears_of_a_call_holds_no_client_cassette_or_transport(
    notes: Notes,
) -> None:
    class Looking(Listener):
        def answered(self, call: CallInfo, record: Any) -> None:
            seen.append(call)

    seen: list[CallInfo] = []
    with Looking():
        ScriptedClient(["Yes."]).send_message("Hello", model="m")
    [call] = seen
    assert {type(value) for value in call} <= {str, bool, type(None)}
    assert (call.kind, call.name, call.scope, call.sample, call.is_program) == (
        "chat",
        "m",
        "",
        None,
        False,
    )
    with pytest.raises(AttributeError):
        call.name = "other"  # type: ignore[misc]


def test_a_listener_hears_how_an_answer_was_received_and_of_a_recorded_one_nothing() -> None:
    class Looking(Listener):
        def answered(self, call: CallInfo, record: Any) -> None:
            seen.append(record.received)

    class Slow(Responding):
        def send(self, request: Any, timeout: float | None) -> Any:
            time.sleep(0.1)
            return super().send(request, timeout)

    seen: list[Any] = []
    answer = completion("Yes.", usage={"prompt_tokens": 10, "completion_tokens": 1})
    client = Slow(answer, cache_mode="auto", model="m", prices={"m": (1e6, 0)})  # a dollar a token
    with Looking():
        client.send_message("Hello")
        client.send_message("Hello")
    received, recorded = seen
    assert isinstance(received, Received) and recorded is None
    assert 0.1 <= received.latency < 30
    assert (received.endpoint, received.cost) == ("responding", 10.0)


def test_an_answer_is_kept_though_a_listener_raises() -> None:
    class Faulty(Listener):
        def answered(self, call: CallInfo, record: Any) -> None:
            raise KeyError("a fault")

    client = ScriptedClient(["Yes."], cache_mode="auto", on_error="none")
    with Faulty(), pytest.raises(LLMCallError, match=r"Faulty\.answered raised KeyError"):
        client.send_message("Hello")
    reply = client.send_message("Hello")
    assert reply is not None and (reply.content, reply.cached) == ("Yes.", True)


def test_a_cassette_is_written_though_a_listener_raises_at_its_end() -> None:
    class Faulty(Listener):
        def closed(self, path: str) -> None:
            raise KeyError("a fault")

    client = ScriptedClient(["Yes."])
    with Faulty(), pytest.raises(LLMCallError, match=r"Faulty\.closed raised KeyError"):  # noqa: SIM117
        with llmcall.cassette("tape.jsonl"):
            client.send_message("Hello")
    [record] = llmcall.cassette("tape.jsonl").all_records()
    assert record.request["messages"][0]["content"] == "Hello"


def test_a_listener_may_refuse_a_call() -> None:
    class Closed(Listener):
        def asks(self, call: CallInfo) -> None:
            raise llmcall.CacheMissError(f"{call.name} is not asked")

    client = ScriptedClient(["Yes."])
    with Closed(), pytest.raises(llmcall.CacheMissError, match="m is not asked"):
        client.send_message("Hello", model="m")
    assert not client.requests


def test_a_listener_may_ask_a_model_itself() -> None:
    """It does not hear of its own call, which would have no end."""
    client = ScriptedClient(lambda messages: messages[-1]["content"])

    class Asking(Listener):
        heard: list[str | None] = []  # noqa: RUF012 - of one test

        def asks(self, call: CallInfo) -> None:
            self.heard.append(client.send_message("Before?", on_error="raise").content)

        def answered(self, call: CallInfo, record: Any) -> None:
            self.heard.append(client.send_message("After?", on_error="raise").content)

    with Asking() as listener:
        client.send_message("Bread?")
    assert listener.heard == ["Before?", "After?"]


def test_a_listener_hears_of_a_call_whose_scope_is_unclear() -> None:
    client, notes = ScriptedClient(["Yes."]), Notes()
    with notes, llmcall.scope("Ann"), ThreadPoolExecutor(1) as pool:
        error = pool.submit(client.send_message, "Hello").exception()
    assert isinstance(error, llmcall.ScopeError)
    assert notes.heard == [("failed", "ScopeError")]
