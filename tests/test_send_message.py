"""Asking a model: the reply, what is stored, retries, failures, longer contexts, and identical
calls at once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pydantic
import pytest
from pytest_httpserver import HTTPServer
from servers import OK, QUESTION, Answer, ScriptedServer, client_for, refusal

import llmcall
from llmcall import (
    APIError,
    CacheMissError,
    ContextLengthError,
    InvalidRequestError,
    RateLimitError,
    RequestTimeoutError,
    ServiceError,
)
from llmcall.engine.effects import Wait  # a clock that does not pass
from llmcall.testing import ScriptedClient


def unsupported(name: str) -> Answer:
    """Return the refusal of a parameter as OpenAI gives it."""
    return refusal(
        400, f"Unsupported parameter: '{name}'", param=name, code="unsupported_parameter"
    )


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Return what was logged to llmcall."""
    return [(each.levelno, each.getMessage()) for each in caplog.records if each.name == "llmcall"]


def test_an_unsupported_parameter(httpserver: HTTPServer, caplog: pytest.LogCaptureFixture) -> None:
    """What a model does not support is dropped, said once, and the record is that of the request as
    asked.
    """
    answers = [
        unsupported("temperature"),
        unsupported("max_tokens"),
        OK,
        unsupported("temperature"),
        OK,
    ]
    server = ScriptedServer(httpserver, *answers)
    arguments = {"temperature": 0.5, "max_tokens": 50, "model": "my-model", "on_error": "raise"}
    with client_for(server.base_url) as client:
        reply = client.send_message(QUESTION, **arguments)
        assert reply.cache_key == client.build_request(QUESTION, **arguments).cache_key
        assert client.send_message(QUESTION, **arguments).cached
        assert len(server.requests) == 3
        client.send_message("And pears?", **arguments)
        record = next(client.cache.records())
    sent = server.requests[2].body
    assert sent == {"model": "my-model", "messages": QUESTION, "max_completion_tokens": 50}
    assert (record.request["temperature"], record.request["max_tokens"]) == (0.5, 50)
    assert len([line for _, line in lines(caplog) if "temperature" in line]) == 1


def test_servers_that_ignore_parameters(caplog: pytest.LogCaptureFixture) -> None:
    """Fewer answers than ``n``, or other ``dimensions``, than were asked for are said once."""
    client = ScriptedClient(
        lambda asked: "one" if isinstance(asked[0], dict) else [[1.0, 2.0, 3.0]]
    )
    for _ in range(2):
        client.send_message("Hello", n=3)
        client.get_embedding("Hello", dimensions=2)
    assert (
        len([text for text in caplog.messages if "ignores n" in text and "1 of the 3" in text]) == 1
    )
    assert (
        len(
            [
                text
                for text in caplog.messages
                if "ignores dimensions" in text and "3 dimensions" in text
            ]
        )
        == 1
    )


class Offer(pydantic.BaseModel):
    """A price."""

    price: int


def test_the_arguments_of_tinytroupe() -> None:
    """``echo`` is not sent, and ``enable_pydantic_model_return`` gives the object, live and from
    the cache.
    """
    client = ScriptedClient(lambda messages: '{"price": 3}', cache_mode="auto")
    arguments = {"response_format": Offer, "echo": True, "enable_pydantic_model_return": True}
    assert [client.send_message("How much?", **arguments) for _ in range(2)] == [Offer(price=3)] * 2
    assert "echo" not in client.requests[0].body and len(client.requests) == 1
    assert asyncio.run(client.asend_message("How much?", **arguments)) == Offer(price=3)
    assert client.send_message("How much?", response_format=Offer).parsed == Offer(price=3)  # type: ignore[union-attr]


# Retries


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let no time pass between attempts, and keep how much would have."""
    seconds: list[float] = []
    monkeypatch.setattr(Wait, "perform", lambda wait: seconds.append(wait.seconds))
    return seconds


def test_waits_grow(slept: list[float]) -> None:
    """Between attempts it waits one second, two, four, each with at most a quarter more, and never
    over the limit.

    What the call says of it goes before the settings.
    """
    settings = {
        "retry_waiting_time": 3600,
        "retry_max_attempts": 1,
        "retry_exponential_backoff_factor": 1,
    }
    client = ScriptedClient([ServiceError("busy")] * 6, retry_max_waiting_time=4, **settings)
    given: dict[str, Any] = {"waiting_time": 1, "max_attempts": 6, "exponential_backoff_factor": 2}
    error = client.send_message("Hello", on_error="return", **given)
    assert all(
        base <= seconds <= base * 1.25 for base, seconds in zip((1, 2, 4, 4, 4), slept, strict=True)
    )
    assert (error.attempts, error.endpoint) == (6, "scripted")
    assert (client.usage.errors, client.usage.retries) == (1, 5)


def test_the_longer_wait_wins(slept: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """The server's wait is waited where it is longer, ours where that is; the first is told, the
    others counted.
    """
    script = [
        ServiceError("busy", retry_after=30.0),
        ServiceError("busy", retry_after=0.5),
        "Two coins.",
    ]
    client = ScriptedClient(script, retry_waiting_time=1, retry_exponential_backoff_factor=2)
    client.send_message("Hello", on_error="raise")
    assert slept[0] == 30.0 and 2.0 <= slept[1] <= 2.5
    ((level, line),) = lines(caplog)
    assert level == logging.WARNING and "trying again in 30.00 s (llmcall.usage() counts" in line
    assert client.usage.retries == 2


def test_each_kind_of_failure_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure for another reason is told in full; a third one of a kind is told again when a
    minute has passed.
    """
    reasons = (
        "busy: 9 asked",
        "busy: 1,712 asked",
        "overheated",
        "busy: 2.5k asked",
        "busy: 0 asked",
    )
    client = ScriptedClient([ServiceError(why) for why in reasons], retry_max_attempts=1)
    for number in range(4):
        client.send_message(str(number))
    monkeypatch.setattr("llmcall.notices.COUNTED_FOR", 0)  # a minute passes
    client.send_message("much later")
    told = [line.partition(" at scripted")[2] for _, line in lines(caplog)]
    assert [line.partition(". Try")[0] for line in told] == [
        " failed: busy: 9 asked",
        "): 2 such failures within a minute; the next line comes after 4",
        " failed: overheated",
        " failed: busy: 0 asked",
    ]


@pytest.mark.parametrize(
    "error", [RateLimitError("slow", status_code=429, retry_after=3600.0), ServiceError("busy")]
)
def test_a_wait_past_the_deadline(error: APIError, slept: list[float]) -> None:
    """A wait that would pass the deadline is not begun."""
    client = ScriptedClient([error, "late"], retry_waiting_time=3600)
    assert client.send_message("Hello", deadline=60, on_error="return") is error
    assert (error.attempts, slept, len(client.requests)) == (1, [], 1)


def test_an_attempt_gets_what_time_is_left() -> None:
    """An attempt has its timeout, or what the call's deadline leaves."""
    seen: list[Any] = []

    class Timed(ScriptedClient):
        def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
            seen.append(timeout)
            return super().send(request, timeout)

    client = Timed(["a", "b", "c"])
    for arguments in (
        {"timeout": 5},
        {"timeout": 5, "deadline": 1000},
        {"timeout": 5000, "deadline": 1000},
    ):
        client.send_message("Hello", **arguments)
    assert seen == [5, 5, pytest.approx(1000, abs=60)]


@pytest.mark.parametrize("name", ["messages", "model", "top_k", None, 5])
def test_what_cannot_be_dropped(name: Any) -> None:
    """A refusal of what was not sent, or of what the request is made of, is raised as it is."""
    error = InvalidRequestError("Unsupported parameter", status_code=400)
    error.code, error.param = "unsupported_parameter", name
    assert ScriptedClient([error]).send_message("Hello", on_error="return") is error


# A context that is too long is asked of a model with a larger window

SMALL, MIDDLE, LARGE = "gpt-4", "gpt-4-32k", "gpt-4-turbo"
CHAIN = {SMALL: (MIDDLE, LARGE)}
WINDOWS = {SMALL: 100, MIDDLE: 1000, LARGE: 10000}
LONG = "apples and pears " * 100  # some 300 tokens


class Servers(ScriptedClient):
    """Be models by their windows, in characters: ``refusing`` refuses, ``cutting`` cuts the answer."""

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


@pytest.fixture(autouse=True)
def only_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count no prompt exactly, whatever vocabularies this machine has."""
    monkeypatch.setattr("llmcall.models.tokens.counter", lambda encoding: None)


def asked_of(client: Servers, text: str = LONG, *, way: str = "sync", **arguments: Any) -> Any:
    """Ask in one of three ways, and raise what fails."""
    if way == "async":
        return asyncio.run(client.asend_message(text, on_error="raise", **arguments))
    if way == "sync":
        return client.send_message(text, on_error="raise", **arguments)
    with client.stream_message(text, on_error="raise", **arguments) as stream:
        assert "".join(stream) == "fits"
    return stream.reply


@pytest.mark.parametrize("way", ["sync", "async", "stream"])
@pytest.mark.parametrize("behaviour", ["refusing", "cutting"])
def test_the_next_model_is_asked(
    way: str, behaviour: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One model after the other is asked until the prompt fits, each step logged; a stream that
    began goes nowhere.
    """
    client = Servers(behaviour)
    reply = asked_of(client, way=way)
    if way == "stream" and behaviour == "cutting":
        assert reply.finish_reason == "length" and client.asked_models() == [SMALL]
        return
    assert reply.content == "fits" and client.asked_models() == [SMALL, MIDDLE, LARGE]
    steps = [line for _, line in lines(caplog)]
    assert [line.partition(":")[0] for line in steps] == [SMALL, MIDDLE]
    assert [line.rpartition(";")[2] for line in steps] == [
        f" asking {model} instead" for model in (MIDDLE, LARGE)
    ]
    assert asked_of(client, "short", way=way).content == "fits" and client.asked_models() == [SMALL]
    replaying = Servers(cache_mode="replay")
    again = [asked_of(client, way=way), asked_of(replaying, way=way)]
    assert client.asked_models() == replaying.asked_models() == []
    assert all(
        each.cached and each == reply and each.cache_key == reply.cache_key for each in again
    )


def test_the_records_of_a_fallback() -> None:
    """The answer is stored under its model, and the first request's record points to it; both
    count.
    """
    client = Servers()
    reply = asked_of(client)
    records = {record.request["model"]: record for record in client.cache.records()}
    assert records.keys() == {SMALL, LARGE} and len(client.cache) == 2
    assert (
        records[SMALL].response == {"fallback": reply.cache_key}
        and records[LARGE].cache_key == reply.cache_key
    )
    assert client.cache.verify() == []
    assert client.send_message(LONG, model=LARGE).cached  # type: ignore[union-attr]
    client.cache.export("answers.jsonl")
    other = Servers(cache_mode="replay", cache_path="other")
    assert other.cache.load("answers.jsonl") == 2 and asked_of(other) == reply


def test_a_pointer_to_nothing_is_a_miss() -> None:
    """Where the answer was deleted the call is made again, and in the mode replay it is a miss."""
    client = Servers()
    reply = asked_of(client)
    client.asked_models()
    assert client.cache.delete(where=lambda record: record.cache_key == reply.cache_key) == 1
    with pytest.raises(CacheMissError):
        Servers(cache_mode="replay").send_message(LONG)
    assert asked_of(client) == reply and client.asked_models() == [SMALL, MIDDLE, LARGE]
    assert asked_of(client).cached


def test_fallbacks_may_be_aliases() -> None:
    """An alias in the list means its model; each draw of a scope takes the same way."""
    client = Servers(fallbacks={SMALL: ("big",)}, aliases={"big": LARGE})
    with llmcall.scope("trial"):
        assert [asked_of(client).sample for _ in range(2)] == ["trial#0", "trial#1"]
    assert client.asked_models() == [SMALL, LARGE] * 2 and len(client.cache) == 4


def test_an_answer_that_the_next_model_gave_before() -> None:
    """What the next model has answered already it is not asked again."""
    client = Servers()
    asked_of(client, model=LARGE)
    assert asked_of(client).content == "fits" and client.asked_models() == [LARGE, SMALL, MIDDLE]


@pytest.mark.parametrize("arguments", [{"max_tokens": 1}, {"max_completion_tokens": 1}, {}])
def test_a_cut_answer(arguments: dict[str, int]) -> None:
    """What the caller's own limit cut is returned as it is; where no larger model is left, a cut
    answer is recorded.
    """
    client = Servers("cutting", fallbacks=CHAIN if arguments else {SMALL: (MIDDLE,)})
    assert [asked_of(client, **arguments).finish_reason for _ in range(2)] == ["length"] * 2
    assert client.asked_models() == ([SMALL] if arguments else [SMALL, MIDDLE])


def test_refresh_takes_the_way_anew() -> None:
    """In the mode refresh the way is taken anew once, and read from then on; where nothing is
    stored, no pointer is.
    """
    asked_of(Servers())
    client = Servers(cache_mode="refresh", fallbacks={SMALL: (LARGE,)})
    assert not asked_of(client).cached and client.asked_models() == [SMALL, LARGE]
    assert asked_of(client).cached and client.asked_models() == []
    for mode, arguments in (("off", {}), ("auto", {"cache": False})):
        other = Servers(cache_mode=mode, cache_path="other")
        asked_of(other, **arguments)
        assert len(other.cache) == 0


# Identical calls at once


class Gate:
    """Be a function of the messages that answers once it is let, and counts its calls."""

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
def test_tasks_share_an_error(error: APIError, method: str, deadline: float | None) -> None:
    """The API's error is that of every caller, each with an exception of its own; the next one asks
    anew.

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
    assert len({id(each) for each in errors}) == 8 and len(client.requests) == 1
    assert asyncio.run(getattr(client, method)("Hello")) and len(client.requests) == 2


def test_a_deadline_is_not_shared() -> None:
    """Where the leader's own time is too short for another attempt, another caller takes over and
    asks.
    """
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
    assert type(error) is RequestTimeoutError and reply.content == "the answer"


def test_a_thread_and_tasks_share_one_call() -> None:
    """They get what came, whatever another one does with its reply at once; another question goes
    past them.
    """
    gate = Gate()
    client = ScriptedClient(
        lambda messages: gate(messages) if messages[-1]["content"] == "slow" else "quick",
        cache_mode="auto",
    )

    async def ask() -> Any:
        reply = await client.asend_message("slow", on_error="raise")
        content = reply.raw["choices"][0]["message"]["content"]
        reply.raw["choices"][0]["message"]["content"] = "changed"
        return content, reply.cached

    async def main() -> Any:
        tasks = [asyncio.create_task(ask()) for _ in range(100)]
        await asyncio.to_thread(gate.asked.wait, 30)
        thread = asyncio.get_running_loop().run_in_executor(None, client.send_message, "slow")
        assert (await client.asend_message("quick"))["content"] == "quick"  # type: ignore[index]
        gate.open.set()
        return await asyncio.gather(*tasks), await thread

    found, of_thread = asyncio.run(main())
    assert sorted(found) == [("the answer", False)] + [("the answer", True)] * 99
    assert (of_thread["content"], gate.calls) == ("the answer", 1)


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
        tasks = [asyncio.create_task(ask(changes=each == number)) for each in range(3)]
        await asyncio.to_thread(gate.asked.wait, 30)
        gate.open.set()
        return [*await asyncio.gather(*tasks), await ask()]

    assert asyncio.run(main()) == [("the answer", False)] + [("the answer", True)] * 3


@pytest.mark.parametrize("arguments", [{"cache": False}, {}])
def test_past_the_cache_each_call_goes_alone(arguments: dict[str, Any]) -> None:
    """Neither cache=False nor the mode off leads or follows."""
    barrier = threading.Barrier(3, timeout=30)
    client = ScriptedClient(
        lambda messages: str(barrier.wait() >= 0), cache_mode="auto" if arguments else "off"
    )
    with ThreadPoolExecutor(3) as executor:
        replies = list(executor.map(lambda _: client.send_message("Hello", **arguments), range(3)))
    assert [reply.cached for reply in replies] == [False] * 3  # type: ignore[union-attr]


def test_a_call_inside_the_same_call_goes_alone() -> None:
    """A transport that asks the very same question does not wait for itself, and the inner answer
    is stored.
    """
    depth: list[int] = []

    def answer(messages: Any) -> Any:
        depth.append(1)
        return "inner" if len(depth) == 2 else client.send_message("Hello")["content"] + " in outer"  # type: ignore[index]

    client = ScriptedClient(answer, cache_mode="auto")
    for _ in range(2):
        assert client.send_message("Hello")["content"] == "inner"  # type: ignore[index]
    assert len(depth) == 2
