"""Asking a model: the reply, what is stored, retries, failures, longer contexts, and identical
calls at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pydantic
import pytest
from clients import Responding, client_for
from pytest_httpserver import HTTPServer
from servers import OK, QUESTION, Answer, ScriptedServer, completion, refusal

import llmcall
from llmcall import (
    APIError,
    ContextLengthError,
    InvalidRequestError,
    RateLimitError,
    RequestTimeoutError,
    ServiceError,
)
from llmcall.core.effects import Wait
from llmcall.testing import ScriptedClient


def unsupported(name: str) -> Answer:
    """Return the refusal of a parameter as OpenAI gives it."""
    return refusal(
        400, f"Unsupported parameter: '{name}'", param=name, code="unsupported_parameter"
    )


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Return what was logged to llmcall."""
    return [
        (entry.levelno, entry.getMessage()) for entry in caplog.records if entry.name == "llmcall"
    ]


# A parameter that the model refuses, and then its older name, are dropped one after the other.
REFUSING = [unsupported("temperature"), unsupported("max_tokens"), OK]
REFUSED = {"temperature": 0.5, "max_tokens": 50, "model": "my-model", "on_error": "raise"}


def test_an_unsupported_parameter_is_dropped(
    httpserver: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The call is made without it, or under its new name, which is a retry; a later call drops it too, without a
    word.
    """
    server = ScriptedServer(httpserver, *REFUSING, unsupported("temperature"), OK)
    with client_for(server.base_url) as client:
        client.send_message(QUESTION, **REFUSED)
        sent = server.requests[2].body
        assert sent == {"model": "my-model", "messages": QUESTION, "max_completion_tokens": 50}
        assert client.usage.calls + client.usage.retries == len(server.requests) == 3
        client.send_message("And pears?", **REFUSED)
    assert len([line for _, line in lines(caplog) if "temperature" in line]) == 1


def test_an_unsupported_parameter_of_an_extra_body_is_dropped(httpserver: HTTPServer) -> None:
    """The rest of the extra body is sent."""
    server = ScriptedServer(httpserver, unsupported("top_k"), OK)
    extra_body = {"top_k": 40, "min_p": 0.1}
    with client_for(server.base_url, model="m") as client:
        client.send_message(QUESTION, extra_body=extra_body, on_error="raise")
    assert server.requests[1].body == {"model": "m", "messages": QUESTION, "min_p": 0.1}
    assert extra_body == {"top_k": 40, "min_p": 0.1}


class Offer(pydantic.BaseModel):
    """A price."""

    price: int


TINYTROUPE = {"response_format": Offer, "echo": True, "enable_pydantic_model_return": True}


def test_enable_pydantic_model_return_gives_the_object() -> None:
    """Live and from the cache, in an event loop too."""
    client = ScriptedClient(lambda messages: '{"price": 3}', cache_mode="auto")
    found = [client.send_message("How much?", **TINYTROUPE) for _ in range(2)]
    assert found == [Offer(price=3)] * 2
    assert asyncio.run(client.asend_message("How much?", **TINYTROUPE)) == Offer(price=3)
    assert len(client.requests) == 1


def test_an_object_that_the_token_limit_cut_is_a_failure_as_on_error_says(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Live and from the cache, in an event loop too; what was paid for is not asked again."""
    cut = {**completion('{"pri', finish_reason="length"), "model": "m"}
    client = Responding(cut, model="m", cache_mode="auto")
    for _ in range(2):
        assert client.send_message("How much?", **TINYTROUPE) is None
        assert "does not fit its response_format" in caplog.text
        assert isinstance(
            client.send_message("How much?", on_error="return", **TINYTROUPE), ServiceError
        )
        with pytest.raises(ServiceError, match="does not fit its response_format"):
            client.send_message("How much?", on_error="raise", **TINYTROUPE)
    assert asyncio.run(client.asend_message("How much?", **TINYTROUPE)) is None
    assert client.usage.calls == 1


# Retries


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, in seconds; none of that time passes."""
    seconds: list[float] = []

    def wait(future: Future[None], longest: float) -> Wait:
        seconds.append(longest)
        return Wait(None, 0)

    monkeypatch.setattr("llmcall.core.answer.Wait", wait)  # a clock that does not pass
    return seconds


def test_waits_grow_up_to_a_limit(slept: list[float]) -> None:
    """One second, two, four, each with at most a quarter more, as the call says, against the settings. The error
    says after how many attempts it came and from which endpoint; usage counts the retries.
    """
    settings = {"waiting_time": 3600, "max_attempts": 1, "exponential_backoff_factor": 1}
    settings = {f"retry_{name}": value for name, value in settings.items()}
    client = ScriptedClient([ServiceError("busy")] * 6, retry_max_waiting_time=4, **settings)
    error: Any = client.send_message(
        "Hello", on_error="return", waiting_time=1, max_attempts=6, exponential_backoff_factor=2
    )
    for base, seconds in zip((1, 2, 4, 4, 4), slept, strict=True):
        assert base <= seconds <= base * 1.25
    assert (error.attempts, error.endpoint) == (6, "scripted")
    assert (client.usage.errors, client.usage.retries) == (1, 5)


def test_waits_after_a_limit_that_names_none_outlast_its_minute(
    slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """5, 10, 20 and 40 s, each with at most a quarter more."""
    monkeypatch.setattr("llmcall.core.failover.REST_SECONDS", 0.0)  # ends within each wait
    settings = {"retry_waiting_time": 1, "retry_max_attempts": 5}
    client = ScriptedClient([RateLimitError("slow", status_code=429)] * 5, **settings)
    client.send_message("Hello", on_error="return")
    for base, seconds in zip((5, 10, 20, 40), slept, strict=True):
        assert base <= seconds <= base * 1.25


def test_the_longer_of_retry_after_and_the_backoff_is_waited(slept: list[float]) -> None:
    """The server's wait if that is longer, else that of the settings."""
    script = [
        ServiceError("busy", retry_after=30.0),
        ServiceError("busy", retry_after=0.5),
        "Two coins.",
    ]
    client = ScriptedClient(script, retry_waiting_time=1, retry_exponential_backoff_factor=2)
    client.send_message("Hello", on_error="raise")
    long, short = slept
    assert long == 30.0
    assert 2.0 <= short <= 2.5


@pytest.mark.parametrize(
    "error", [RateLimitError("slow", status_code=429, retry_after=3600.0), ServiceError("busy")]
)
def test_a_wait_past_the_deadline_is_not_begun(error: APIError, slept: list[float]) -> None:
    """The call fails at once."""
    client = ScriptedClient([error, "late"], retry_waiting_time=3600)
    assert client.send_message("Hello", deadline=60, on_error="return") is error
    assert (error.attempts, slept, len(client.requests)) == (1, [], 1)


@pytest.mark.parametrize(
    ("arguments", "timeout"),
    [
        ({"timeout": 5}, 5),
        ({"timeout": 5, "deadline": 1000}, 5),
        ({"timeout": 5000, "deadline": 1000}, pytest.approx(1000, abs=60)),
    ],
)
def test_an_attempt_has_its_timeout_or_what_the_deadline_leaves(
    arguments: dict[str, Any], timeout: Any
) -> None:
    seen: list[Any] = []

    class Timed(ScriptedClient):
        def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
            seen.append(timeout)
            return super().send(request, timeout)

    Timed(["a"]).send_message("Hello", **arguments)
    assert seen == [timeout]


# A context that is too long is asked of a model with a larger window

SMALL, MIDDLE, LARGE = "gpt-4", "gpt-4-32k", "gpt-4-turbo"
CHAIN = {SMALL: (MIDDLE, LARGE)}
WINDOWS = {SMALL: 100, MIDDLE: 1000, LARGE: 10000}
LONG = "apples and pears " * 100  # some 300 tokens


class Servers(ScriptedClient):
    """Models by their windows, in characters: ``refusing`` refuses, ``cutting`` cuts the answer."""

    def __init__(self, behaviour: str = "refusing", **settings: Any) -> None:
        self.behaviour = behaviour
        defaults = {"model": SMALL, "fallbacks": CHAIN, "cache_mode": "auto"}
        super().__init__(lambda messages: "fits", **{**defaults, **settings})

    def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
        """Answer, refuse or cut, as the model of the request does."""
        response = super().send(request, timeout)
        fits = len(request.messages[-1]["content"]) <= WINDOWS[request.model]
        if not fits and self.behaviour == "refusing":
            raise ContextLengthError(f"{request.model}: too long", prompt_tokens=len(LONG))
        choice = {"finish_reason": "stop" if fits else "length"}
        return {**response, "choices": [{**response["choices"][0], **choice}]}

    def asked_models(self) -> list[str]:
        """Return the models that were asked, in order, and forget them."""
        models = [request.model for request in self.requests]
        self.requests.clear()
        return models


def asked_of(client: Servers, text: str = LONG, *, way: str = "sync", **arguments: Any) -> Any:
    """Ask in one of three ways, and raise what fails."""
    if way == "async":
        return asyncio.run(client.asend_message(text, on_error="raise", **arguments))
    if way == "sync":
        return client.send_message(text, on_error="raise", **arguments)
    with client.stream_message(text, on_error="raise", **arguments) as stream:
        assert "".join(stream) == "fits"
    return stream.reply


# A stream that began goes nowhere, so one that is cut has no other model.
LONGER_MODELS = pytest.mark.parametrize(
    ("behaviour", "way"),
    [
        ("refusing", "sync"),
        ("refusing", "async"),
        ("refusing", "stream"),
        ("cutting", "sync"),
        ("cutting", "async"),
    ],
)


@LONGER_MODELS
def test_the_next_model_is_asked_until_the_prompt_fits(
    behaviour: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One after the other, each a retry and a line of the log; a short prompt stays with the first. The answer is
    found for the first by the same client, and by one that replays.
    """
    client = Servers(behaviour)
    reply = asked_of(client, way=way)
    assert reply.content == "fits"
    assert client.asked_models() == [SMALL, MIDDLE, LARGE]
    assert (client.usage.calls, client.usage.retries) == (1, 2)
    steps = [line for _, line in lines(caplog)]
    assert [line.partition(":")[0] for line in steps] == [SMALL, MIDDLE]
    assert [line.rpartition(";")[2] for line in steps] == [
        f" calling {model} instead" for model in (MIDDLE, LARGE)
    ]
    assert asked_of(client, "short", way=way).content == "fits"
    assert client.asked_models() == [SMALL]
    for servers in (client, Servers(cache_mode="replay")):
        found = asked_of(servers, way=way)
        assert found.cached
        assert (found, found.cache_key) == (reply, reply.cache_key)
        assert servers.asked_models() == []


def test_a_stream_that_is_cut_asks_no_other_model() -> None:
    """Its reader has a part of the answer already."""
    client = Servers("cutting")
    assert asked_of(client, way="stream").finish_reason == "length"
    assert client.asked_models() == [SMALL]


def test_the_answer_of_a_fallback_is_stored_under_the_key_of_the_call_that_asked() -> None:
    """One record, which says who answered, in the reply and in the record."""
    client = Servers()
    reply = asked_of(client)
    (record,) = client.cache.records()
    assert record.cache_key == reply.cache_key == client.build_request(LONG).cache_key
    assert (record.model, record.served, reply.model) == (SMALL, LARGE, LARGE)
    assert not client.send_message(LONG, model=LARGE, on_error="raise").cached


@pytest.mark.parametrize("models", [("gpt-6-luna", LARGE), (LARGE, "gpt-6-luna")])
@pytest.mark.parametrize("effort", [None, "high"])
def test_a_fallback_is_asked_as_if_it_had_been_named(
    models: tuple[str, str], effort: str | None
) -> None:
    """With its own effort where the call names none."""
    first, second = models
    bodies = []

    class Servant(llmcall.LLMClient):
        def send(self, request: Any, timeout: float | None) -> Any:
            bodies.append(dict(request.body))
            if request.model == first:
                raise llmcall.ContextLengthError("too long")
            message = {"role": "assistant", "content": "fits"}
            return {"choices": [{"message": message, "finish_reason": "stop"}]}

    client = Servant(model=first, fallbacks={first: (second,)}, on_error="raise")
    reply = client.send_message("Hello", reasoning_effort=effort)
    default = "none" if second == "gpt-6-luna" else None
    assert bodies[-1].get("reasoning_effort") == (effort or default)
    assert reply.model == second


@pytest.mark.parametrize(
    ("arguments", "larger"),
    [({"max_tokens": 1}, ()), ({"max_completion_tokens": 1}, ()), ({}, (MIDDLE,))],
)
def test_a_cut_answer_is_recorded_if_the_caller_limits_it_or_no_larger_model_is_left(
    arguments: dict[str, int], larger: tuple[str, ...]
) -> None:
    """The caller's own limit asks no other model, and the answer of the largest is the best that there is."""
    client = Servers("cutting", fallbacks={SMALL: (MIDDLE,)})
    assert [asked_of(client, **arguments).finish_reason for _ in range(2)] == ["length"] * 2
    assert client.asked_models() == [SMALL, *larger]


# Identical calls at once


class Gate:
    """A function of the messages that answers once it is let, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.asked, self.open = threading.Event(), threading.Event()

    def __call__(self, messages: Any) -> Any:
        self.calls += 1
        self.asked.set()
        assert self.open.wait(30)
        return "the answer"


@pytest.mark.parametrize("deadline", [None, 3600])
@pytest.mark.parametrize("method", ["asend_message", "aget_embedding"])
@pytest.mark.parametrize(
    "error", [InvalidRequestError("no", status_code=400), RequestTimeoutError("late")]
)
def test_equal_calls_of_tasks_share_an_error(
    error: APIError, method: str, deadline: float | None
) -> None:
    """Each caller gets an exception of its own, and the next call asks again.

    A deadline that has not passed changes nothing.
    """
    all_ask, answers = threading.Event(), iter([error, [1.0]])
    settings: Any = {"cache_mode": "auto", "retry_max_attempts": 1, "on_error": "raise"}
    client = ScriptedClient(lambda _: all_ask.wait(30) and next(answers), **settings)

    async def main() -> list[Any]:
        asked = [
            asyncio.ensure_future(getattr(client, method)("Hello", deadline=deadline))
            for _ in range(8)
        ]
        asyncio.get_running_loop().call_soon(all_ask.set)
        return await asyncio.gather(*asked, return_exceptions=True)

    errors = asyncio.run(main())
    assert {(type(e), str(e), e.status_code) for e in errors} == {
        (type(error), str(error), error.status_code)
    }
    assert len({id(error) for error in errors}) == 8
    assert len(client.requests) == 1
    assert asyncio.run(getattr(client, method)("Hello"))
    assert len(client.requests) == 2


def test_a_deadline_is_not_shared() -> None:
    """If the first caller's time is too short for another attempt, the next caller asks."""
    gate = Gate()

    class Late(ScriptedClient):
        def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
            if not gate.calls:
                gate(request)
                raise RequestTimeoutError("late")
            return super().send(request, timeout)

    client = Late(
        ["the answer"], cache_mode="auto", retry_waiting_time=3600, retry_max_waiting_time=3600
    )

    async def main() -> list[Any]:
        leader = asyncio.create_task(
            client.asend_message("Hello", deadline=1800, on_error="return")
        )
        await asyncio.to_thread(gate.asked.wait, 30)
        follower = asyncio.create_task(client.asend_message("Hello", on_error="return"))
        await asyncio.sleep(0)
        gate.open.set()
        return await asyncio.gather(leader, follower)

    error, reply = asyncio.run(main())
    assert type(error) is RequestTimeoutError
    assert reply.content == "the answer"


def gated_client(gate: Gate) -> ScriptedClient:
    """Return a client that answers the question "slow" once the gate is open, and others at once."""
    return ScriptedClient(
        lambda messages: gate(messages) if messages[-1]["content"] == "slow" else "quick",
        cache_mode="auto",
    )


def test_a_thread_and_tasks_share_one_call() -> None:
    """All get its answer; one of the replies is marked as the one that made the call."""
    gate = Gate()
    client = gated_client(gate)

    async def main() -> Any:
        tasks = [
            asyncio.create_task(client.asend_message("slow", on_error="raise")) for _ in range(100)
        ]
        await asyncio.to_thread(gate.asked.wait, 30)
        thread = asyncio.get_running_loop().run_in_executor(None, client.send_message, "slow")
        gate.open.set()
        return await asyncio.gather(*tasks), await thread

    replies, of_thread = asyncio.run(main())
    assert {reply.content for reply in [*replies, of_thread]} == {"the answer"}
    assert sorted(reply.cached for reply in replies) == [False] + [True] * 99
    assert gate.calls == 1


@pytest.mark.parametrize("number", [0, 1], ids=["leader", "follower"])
def test_callers_that_share_an_answer_have_copies_of_it(number: int) -> None:
    """A caller that changes what it got, at once, changes nothing that another one gets."""
    gate = Gate()
    client = ScriptedClient(gate, cache_mode="auto")

    async def ask(changes: bool = False) -> Any:
        reply = await client.asend_message("Hello", on_error="raise")
        message = reply.raw["choices"][0]["message"]
        content = message["content"]
        if changes:
            message["content"] = reply["content"] = "changed"
        return content, reply.cached

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(ask(changes=index == number)) for index in range(3)]
        await asyncio.to_thread(gate.asked.wait, 30)
        gate.open.set()
        return [*await asyncio.gather(*tasks), await ask()]

    assert asyncio.run(main()) == [("the answer", False)] + [("the answer", True)] * 3


@pytest.mark.parametrize("tape", [None, "tape.jsonl"], ids=["", "under a cassette"])
@pytest.mark.parametrize("arguments", [{"cache": False}, {}])
def test_equal_calls_without_the_cache_share_no_answer(
    arguments: dict[str, Any], tape: str | None
) -> None:
    """Neither with ``cache=False`` nor in the mode ``off`` does a call wait for another."""
    barrier = threading.Barrier(3, timeout=30)
    client = ScriptedClient(
        lambda messages: str(barrier.wait() >= 0), cache_mode="auto" if arguments else "off"
    )
    with (
        llmcall.cassette(tape) if tape else contextlib.nullcontext(),
        ThreadPoolExecutor(3) as executor,
    ):
        replies = list(executor.map(lambda _: client.send_message("Hello", **arguments), range(3)))
    assert [reply.cached for reply in replies] == [False] * 3  # type: ignore[union-attr]
    assert len(client.requests) == 3


def test_an_equal_call_inside_a_call_sends_its_own_request() -> None:
    """A transport that asks the very same question does not wait for itself, and the outer answer
    is stored.
    """
    depth: list[int] = []

    def answer(messages: Any) -> Any:
        depth.append(1)
        return "inner" if len(depth) == 2 else client.send_message("Hello")["content"] + " in outer"  # type: ignore[index]

    client = ScriptedClient(answer, cache_mode="auto")
    for _ in range(2):
        assert client.send_message("Hello")["content"] == "inner in outer"  # type: ignore[index]
    assert len(depth) == 2
