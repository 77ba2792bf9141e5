"""Transports of one's own: which are taken, and how a wrong one is refused."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import werkzeug
from clients import http
from contracts import check_transport
from pytest_httpserver import HTTPServer
from servers import chunks_of, completion, event

import llmcall
from llmcall import ConfigError, LLMClient, OpenAIClient, ServiceError
from llmcall.core import threads
from llmcall.programs.requests import request_to_record
from llmcall.programs.transport import ProgramTransport
from llmcall.support.system import running_loop
from llmcall.types import AsyncTransport, Request, Transport

OFF: Any = {"model": "m", "cache_mode": "off", "on_error": "raise", "retry_max_attempts": 1}


class Letter:
    """Something that cannot send."""

    def post(self) -> None:
        """Do something else."""


class Unfinished(Transport):
    """A transport whose ``send`` is missing."""


def letter(client: LLMClient, endpoint: Any) -> Letter:
    """Make a client's transport."""
    return Letter()


@pytest.mark.parametrize("base", [LLMClient, OpenAIClient])
def test_a_transport_without_send_is_refused_by_its_class_and_the_method(
    base: type[LLMClient],
) -> None:
    made = type("Posting", (base,), {"make_transport": letter})(**OFF)
    for client in (LLMClient(transport=Letter(), **OFF), made):  # type: ignore[arg-type]
        name = type(client).__name__
        with pytest.raises(
            ConfigError, match=rf"{name}.*Letter has no method send\(request, timeout"
        ):
            client.send_message("Hello")


def test_a_subclass_of_transport_without_send_cannot_be_made() -> None:
    with pytest.raises(TypeError, match=r"Unfinished .*send"):
        Unfinished()  # type: ignore[abstract]


async def late(self: Any, request: Any, timeout: float | None) -> Any:
    """Return an answer, as a coroutine."""
    return completion()


def with_field(value: object) -> Any:
    """Return a method that answers with a field of its own."""
    return lambda *_: {**completion(), "extra": value}


async def nothing_later(*_: object) -> AsyncIterator[Any]:
    """Yield an answer, and nothing."""
    for chunk in chunks_of("Yes."):
        yield chunk
    yield None


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "send is no function": ({"send": "Hello"}, "Wrong has no method send(request, timeout)"),
    "send returns text": ({"send": lambda *_: "Hello"}, "Wrong.send returned 'Hello', not a dict"),
    "send is a coroutine": ({"send": late}, "Wrong.send returned <coroutine"),
    "asend is none": ({"asend": lambda *_: completion()}, "Wrong.asend returned {"),
    "an object in an answer": ({"send": with_field(object())}, "Wrong.send(…).extra is an object"),
    "a set in an answer": ({"send": with_field({1})}, "Wrong.send(…).extra is a set"),
    "a number as a field": (
        {"send": lambda *_: {**completion(), 1: 2}},
        "Wrong.send(…) has the key 1",
    ),
    "stream returns a number": (
        {"stream": lambda *_: 3},
        "Wrong.stream returned 3, not an iterator",
    ),
    "stream yields text": (
        {"stream": lambda *_: ["Yes."]},
        "the stream of Wrong yielded 'Yes.', not",
    ),
    "stream yields nothing": (
        {"stream": lambda *_: [*chunks_of("Yes."), None]},
        "the stream of Wrong yielded None, not",
    ),
    "astream yields nothing": (
        {"astream": nothing_later},
        "the stream of Wrong yielded None, not",
    ),
    "an object in a stream": (
        {"stream": lambda *_: [{**chunk, "extra": object()} for chunk in chunks_of("Yes.")]},
        "the stream of Wrong.extra is an object",
    ),
    "astream returns a list": (
        {"astream": lambda *_: []},
        "Wrong.astream returned [], not an async",
    ),
}


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("name", WRONG)
def test_a_transport_of_the_wrong_type_is_refused_once_by_its_class_and_the_method(
    name: str,
) -> None:
    methods, words = WRONG[name]

    class Wrong:
        def send(self, request: Any, timeout: float | None) -> Any:
            return completion()

    for method, value in methods.items():
        setattr(Wrong, method, value)
    client = LLMClient(transport=Wrong(), **{**OFF, "retry_max_attempts": 3})
    asked = {
        "stream": lambda: list(client.stream_message("Hello")),
        "asend": lambda: asyncio.run(client.asend_message("Hello")),  # type: ignore[arg-type]
        "astream": lambda: asyncio.run(whole(client)),
    }
    [method] = methods
    with llmcall.track() as usage, pytest.raises(ConfigError, match=re.escape(words)):
        asked.get(method, lambda: client.send_message("Hello"))()
    assert not usage.retries


MALFORMED: dict[str, tuple[dict[str, Any], str, str]] = {
    "send": ({"send": lambda *_: {"text": "Hello"}}, "send_message", "Check Wrong.send"),
    "asend": (
        {"asend": lambda *_: asyncio.sleep(0, {"text": "Hello"})},
        "asend_message",
        "Check Wrong.asend",
    ),
    "stream of something else": (
        {"stream": lambda *_: iter([{"choices": "Hello"}])},
        "stream_message",
        "Check the stream of Wrong",
    ),
    "stream without an end": (
        {"stream": lambda *_: iter(chunks_of("Two ", "coins.")[:2])},
        "stream_message",
        "Check the stream of Wrong",
    ),
    "unknown end": (
        {"send": lambda *_: completion(finish_reason="done")},
        "send_message",
        "Check Wrong.send",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_answer_of_ones_own_transport_names_its_class_and_method(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    methods, way, words = MALFORMED[name]
    own = type("Wrong", (), {"send": lambda *_: completion(), **methods})()
    client = LLMClient(transport=own, **{**OFF, "on_error": "none"})
    asked: Any = getattr(client, way)("Hello")
    if way == "asend_message":
        asyncio.run(asked)
    if way == "stream_message":
        list(asked)
    assert words in caplog.text
    assert "doctor" not in caplog.text


def with_retryable(error: llmcall.APIError, is_retryable: bool) -> llmcall.APIError:
    """Return an error that says itself whether it may be tried again."""
    error.retryable = is_retryable
    return error


RAISED: dict[str, tuple[Exception, int]] = {
    "429": (llmcall.RateLimitError("busy", status_code=429, retry_after=0.0), 2),
    "500": (ServiceError("down", status_code=500), 2),
    "late": (llmcall.RequestTimeoutError("no answer"), 2),
    "400": (llmcall.InvalidRequestError("wrong", status_code=400), 1),
    "401": (llmcall.AuthenticationError("no key", status_code=401), 1),
    "too long": (llmcall.ContextLengthError("too long", status_code=400), 1),
    "no quota": (llmcall.QuotaExceededError("no quota", status_code=429), 1),
    "filtered": (llmcall.ContentFilterError("filtered"), 1),
    "400 that may be tried again": (with_retryable(llmcall.InvalidRequestError("odd"), True), 2),
    "500 that may not be": (with_retryable(ServiceError("broken"), False), 1),
    "another exception": (ValueError("a fault"), 1),
}


@pytest.mark.parametrize("name", RAISED)
def test_the_error_that_a_transport_raises_decides_whether_it_is_tried_again(name: str) -> None:
    error, sends = RAISED[name]
    failures = [error]

    class Failing(LLMClient):
        sent = 0

        def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
            self.sent += 1
            if failures:
                raise failures.pop()
            return completion()

    client = Failing(model="m", cache_mode="off", on_error="none", retry_waiting_time=0)
    if isinstance(error, llmcall.APIError):
        assert (client.send_message("Hello") is None) == (sends == 1)
    else:
        with pytest.raises(ValueError, match="a fault"):
            client.send_message("Hello")
    assert client.sent == sends


@pytest.mark.parametrize("ask", ["send_message", "asend_message"])
def test_a_transport_whose_answers_are_used_up_fails_its_call(ask: str) -> None:
    """Its ``next`` raises StopIteration, which no future of asyncio takes: the call would never end."""

    class UsedUp(LLMClient):
        def send(self, request: Request, timeout: float | None) -> Any:
            return next(iter(()))

    call = getattr(UsedUp(**OFF), ask)
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        if ask == "send_message":
            call("Hello")
        else:
            asyncio.run(asyncio.wait_for(call("Hello"), 5))


async def whole(client: LLMClient) -> list[str]:
    """Return the pieces of a stream."""
    return [piece async for piece in client.astream_message("Hello")]


# The contract


def answer(request: werkzeug.Request) -> werkzeug.Response:
    """Answer as OpenAI's API does, whole or streamed."""
    if request.get_json().get("stream"):
        pieces = b"".join(map(event, [*chunks_of("Two ", "coins."), b"[DONE]"]))
        return werkzeug.Response(pieces, content_type="text/event-stream")
    return werkzeug.Response(json.dumps(completion()), content_type="application/json")


def test_the_sdks_transport_keeps_the_contract(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/chat/completions").respond_with_handler(answer)
    with OpenAIClient(base_url=httpserver.url_for("/v1"), api_key="k") as client:
        [endpoint] = client.endpoints("m")
        check_transport(lambda: client.make_transport(endpoint))


@pytest.mark.parametrize("kind", ["chat", "http"])
def test_a_programs_transport_keeps_the_contract(kind: str) -> None:
    below = http.MockTransport(lambda request: http.Response(200, json=completion()))
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    own = http.Request("POST", "https://api.openai.com/v1/chat/completions", json=body)

    def send(request: Any) -> Any:
        return (below.handle_request if running_loop() is None else below.handle_async_request)(
            request
        )

    to_record = threads.run(request_to_record(own, (), is_models_host=True))
    assert to_record is not None
    asked = Request(kind, "m", {**body, "path": "/v1/chat/completions"}, body, {}, None, "0" * 64)
    check_transport(lambda: ProgramTransport(http, to_record, send), asked)


class Plain:
    """An object of its own class, with what is asked by coroutines and by functions."""

    def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
        """Return an answer."""
        return completion()

    def stream(self, request: Any, timeout: float | None) -> Iterator[dict[str, Any]]:
        """Yield an answer."""
        yield from chunks_of("Two ", "coins.")

    async def asend(self, request: Any, timeout: float | None) -> dict[str, Any]:
        """Return an answer."""
        return completion()

    async def astream(self, request: Any, timeout: float | None) -> AsyncIterator[dict[str, Any]]:
        """Yield an answer."""
        for chunk in chunks_of("Two ", "coins."):
            yield chunk


class Derived(Plain, AsyncTransport):  # type: ignore[misc]
    """The same as a subclass."""


class Streaming(OpenAIClient):
    """A client whose streams are its own."""

    stream = Plain.stream


@pytest.mark.parametrize("make", [Plain, Derived])
def test_a_transport_of_ones_own_keeps_the_contract(make: Any) -> None:
    check_transport(make)


def test_a_client_with_streams_of_its_own_keeps_the_contract(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/chat/completions").respond_with_handler(answer)
    with Streaming(base_url=httpserver.url_for("/v1"), api_key="k") as client:
        check_transport(lambda: client.shared_transport(client.endpoints("m")[0]))
