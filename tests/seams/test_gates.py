"""Gates: the contract that each keeps, and how one's own is used and refused."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from clients import http
from pytest_httpserver import HTTPServer
from servers import NumberedServer

import llmcall
from llmcall import ConfigError
from llmcall.contracts import rules
from llmcall.core.membrane import CheckedGate
from llmcall.core.prepare import prepare_chat
from llmcall.support.waits import may_block
from llmcall.testing import ScriptedClient, check_gate
from llmcall.types import Endpoint, Gate

LIMITS: dict[str, dict[str, Any]] = {
    "without limits": {},
    "one at a time": {"limits_max_concurrent_calls": 1},
    "requests per minute": {"limits_requests_per_minute": 100_000},
    "tokens per minute": {"limits_tokens_per_minute": 10_000_000},
    "adaptive": {"limits_max_concurrent_calls": "auto"},
}


def gates_of(client: llmcall.LLMClient) -> Callable[[], Gate]:
    """Return what makes a gate for a send of a client."""

    def make() -> Gate:
        call = prepare_chat(client, "Hello", {"max_tokens": 5})
        return client.gate(call, client.request_to_send(call))

    return make


@pytest.mark.parametrize("budget", [False, True], ids=["", "in a budget"])
@pytest.mark.parametrize("name", LIMITS)
def test_a_gate_keeps_the_contract(name: str, budget: bool) -> None:
    blocks = llmcall.budget(calls=1000, tokens=10_000_000) if budget else contextlib.nullcontext()
    with blocks:
        check_gate(gates_of(ScriptedClient(["Yes."], **LIMITS[name])))


def test_a_named_budget_keeps_the_contract() -> None:
    with llmcall.budget(calls=1000, name="all"):
        check_gate(gates_of(ScriptedClient(["Yes."])))


def test_the_check_of_a_gate_keeps_the_contract() -> None:
    client = ScriptedClient(["Yes."], limits_max_concurrent_calls=1)

    def make() -> Gate:
        call = prepare_chat(client, "Hello", {"max_tokens": 5})
        return CheckedGate(client.gate(call, client.request_to_send(call)), call.deadline)

    check_gate(make)


def test_an_open_gate_keeps_the_contract() -> None:
    check_gate(Gate)


class OneAtATime(Gate):
    """Lets one in at a time."""

    free = threading.Semaphore(1)

    async def acquire(self) -> Endpoint:
        """Wait until nobody else is in."""
        while not OneAtATime.free.acquire(blocking=False):
            await self.wait(0.001)
        self.is_in = True
        return await super().acquire()

    async def __aexit__(self, *error: Any) -> None:
        """Let the next one in."""
        if getattr(self, "is_in", False):
            OneAtATime.free.release()
        await super().__aexit__(*error)


def test_a_gate_of_ones_own_keeps_the_contract() -> None:
    check_gate(OneAtATime)
    below = gates_of(ScriptedClient(["Yes."], limits_max_concurrent_calls=1))
    check_gate(lambda: OneAtATime(below()))


class Kept(OneAtATime):
    """Lets nobody else in, ever."""

    free = threading.Semaphore(1)

    async def acquire(self) -> Endpoint:
        """Wait until nobody else is in."""
        while not Kept.free.acquire(blocking=False):
            await self.wait(0.001)
        return await Gate.acquire(self)

    async def __aexit__(self, *error: Any) -> None:
        """Keep it."""


class KeptInLoop(Kept):
    """Lets nobody else in, ever, where the code may not block."""

    async def acquire(self) -> Endpoint:
        """Wait until nobody else is in."""
        return await (Gate if may_block() else Kept).acquire(self)


async def swallow(self: Gate, *error: Any) -> bool:
    """End the block without its error."""
    await Gate.__aexit__(self, *error)
    return True


async def no_endpoint(self: Gate) -> str:
    """Return something else."""
    return "here"


BREACHES: dict[str, tuple[Any, str]] = {
    "swallows errors": (
        type("Deaf", (Gate,), {"__aexit__": swallow}),
        "Deaf: it swallows the error",
    ),
    "no endpoint": (
        type("Lost", (Gate,), {"acquire": no_endpoint}),
        "Lost: acquire returned 'here'",
    ),
    "no usage": (
        type("Blind", (Gate,), {"reckon": lambda *_, **__: None}),
        "Blind: reckon returned None",
    ),
    "never left": (Kept, "Kept: it lets nobody in"),
    "never left in an event loop": (KeptInLoop, "KeptInLoop: it lets nobody in"),
    "leaves nothing below": (
        type("Open", (Gate,), {"__aexit__": Kept.__aexit__}),
        "Open: it lets nobody in",
    ),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A check that waits half a second."""
    monkeypatch.setattr(rules, "LONGEST", 0.5)
    yield


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", BREACHES)
def test_a_gate_that_breaks_the_contract_is_found(name: str) -> None:
    gate, words = BREACHES[name]
    below = gates_of(ScriptedClient(["Yes."], limits_max_concurrent_calls=1))
    make = (lambda: gate(below())) if name == "leaves nothing below" else gate
    with pytest.raises(AssertionError, match=words):
        check_gate(make)


def own_client(gate: Any, **settings: Any) -> ScriptedClient:
    """Return a client whose sends pass a gate."""

    class Own(ScriptedClient):
        def gate(self, call: Any, request: Any) -> Gate:
            return gate(super().gate(call, request))

    return Own(lambda messages: "Yes.", on_error="raise", **settings)


@pytest.mark.parametrize("fails", [False, True])
def test_every_send_of_a_client_passes_its_gate_and_leaves_it(fails: bool) -> None:
    steps: list[str] = []

    class Noting(Gate):
        async def acquire(self) -> Endpoint:
            steps.append("acquire")
            return await super().acquire()

        async def __aexit__(self, *error: Any) -> None:
            steps.append("left")
            await super().__aexit__(*error)

    client = own_client(Noting, retry_max_attempts=2)
    if fails:
        client.transport = ScriptedClient([llmcall.ServiceError("down"), "Yes."])
    assert client.send_message("Hello") is not None
    assert steps == ["acquire", "left"] * (1 + fails)


WRONG: dict[str, tuple[Any, str]] = {
    "is none": (lambda below: "open", "Own.gate returned 'open', not a Gate"),
    "no endpoint": (BREACHES["no endpoint"][0], "Lost.acquire returned 'here', not an Endpoint"),
    "nothing below": (
        lambda below: type("Alone", (Gate,), {})(),
        "Alone.acquire returned no endpoint: make it with the client's own gate below it, as Alone(super().gate",
    ),
    "no coroutine": (
        type("Hasty", (Gate,), {"acquire": lambda self: Endpoint("here", ())}),
        "the gate Hasty.acquire raised TypeError",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_gate_of_the_wrong_type_is_named_before_anything_is_sent(name: str) -> None:
    gate, words = WRONG[name]
    client = own_client(gate)
    with pytest.raises(llmcall.LLMCallError, match=re.escape(words)):
        client.send_message("Hello")
    assert not client.requests


def test_an_answer_is_kept_though_a_gate_does_not_say_what_it_used() -> None:
    client = own_client(BREACHES["no usage"][0], cache_mode="auto")
    with pytest.raises(ConfigError, match=r"Blind\.reckon returned None, not Used"):
        client.send_message("Hello")
    reply = client.send_message("Hello")
    assert reply is not None and (reply.content, reply.cached) == ("Yes.", True)


@pytest.mark.parametrize("method", ["settle", "answer_began", "__aexit__"])
def test_an_answer_is_kept_though_its_gate_raises(method: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("a fault")

    client = own_client(type("Faulty", (Gate,), {method: fail}), cache_mode="auto")
    words = rf"the gate Faulty\.{method} raised KeyError: 'a fault'"
    if method == "answer_began":  # the answer is not whole yet
        with pytest.raises(llmcall.LLMCallError, match=words):
            list(client.stream_message("Hello"))
        return
    with llmcall.cassette("tape.jsonl") as tape, pytest.raises(llmcall.LLMCallError, match=words):
        client.send_message("Hello")
    assert (tape.recorded, len(client.cache)) == (1, 1)


def test_a_send_fails_though_its_gate_swallows_the_error() -> None:
    client = own_client(BREACHES["swallows errors"][0])
    client.transport = ScriptedClient([llmcall.InvalidRequestError("no"), "Yes."])
    with pytest.raises(llmcall.InvalidRequestError):
        client.send_message("Hello")


@pytest.mark.parametrize("way", ["send_message", "asend_message"])
def test_the_deadline_of_a_call_ends_a_wait_at_its_gate(way: str) -> None:
    class Closed(Gate):
        async def acquire(self) -> Endpoint:
            while True:
                await self.wait(0.001)

    client = own_client(Closed, deadline=0.05)
    with pytest.raises(llmcall.RequestTimeoutError, match="waited at the gate Closed"):
        asked = getattr(client, way)("Hello")
        asyncio.run(asked)


def test_what_a_gate_sends_is_recorded_nowhere(httpserver: HTTPServer) -> None:
    server = NumberedServer(httpserver)

    class Asking(Gate):
        async def acquire(self) -> Endpoint:
            body = {"model": "m", "messages": [{"role": "user", "content": "May I?"}]}
            with http.Client() as asking:
                asking.post(f"{server.address}/chat/completions", json=body).raise_for_status()
            return await super().acquire()

    with llmcall.cassette("tape.jsonl") as tape:
        own_client(Asking).send_message("Hello")
    assert server.asked == ["May I?"]
    questions = [record.request["messages"][0]["content"] for record in tape.all_records()]
    assert questions == ["Hello"]
