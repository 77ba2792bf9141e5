"""The ancestors' functions: chatcompletion_request, embedding_request, with a patched SDK, streams
of any address.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import traceback
from collections.abc import Callable
from contextlib import aclosing
from typing import Any
from unittest import mock

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion
from pytest_httpserver import HTTPServer
from servers import (
    OK,
    QUESTION,
    Answer,
    RawServer,
    ScriptedServer,
    completion,
    embeddings,
    http,
    refusal,
    refusing,
    sends,
    stays_silent,
)
from streaming import HEAD, TWO_COINS, Paused, chunk, event, streams

import llmcall
from llmcall import aio

Ask = Callable[..., dict[str, Any]]

Serve = Callable[..., ScriptedServer]

CUT = Answer(200, completion("Two", finish_reason="length"))

OVERFLOW = refusal(
    400, "This model's maximum context length is 8192 tokens.", code="context_length_exceeded"
)

FALLBACK = {"gpt-4": ("gpt-4-32k",)}


def ask_async(**arguments: Any) -> dict[str, Any]:
    """Ask by the asynchronous twin."""
    return asyncio.run(aio.chatcompletion_request(**arguments))


@pytest.fixture(params=[llmcall.chatcompletion_request, ask_async], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Give either of the two functions."""
    given: Ask = request.param
    return given


@pytest.fixture
def serve(httpserver: HTTPServer) -> Serve:
    """Start a server with a script, and configure it, with little patience."""

    def start(*answers: Answer, **settings: Any) -> ScriptedServer:
        server = ScriptedServer(httpserver, *answers)
        llmcall.configure(
            base_url=server.base_url, retry_waiting_time=0.0001, retry_max_attempts=2, **settings
        )
        return server

    return start


def content(response: dict[str, Any]) -> Any:
    """Return the text of a response."""
    return response["choices"][0]["message"]["content"]


def test_the_whole_response(ask: Ask, serve: Serve) -> None:
    """The response is the SDK's model_dump(), with None for what the API left out; what no model
    needs is not sent.
    """
    server = serve(OK, model="gpt-4")
    given: dict[str, Any] = {"temperature": 0.5, "schema_error_retry": 3, "request_timeout": None}
    responses = [ask(messages=QUESTION, **given), ask(prompt=QUESTION[0]["content"], **given)]
    dumped = ChatCompletion.model_validate(completion()).model_dump()
    assert responses[0] == responses[1] and dumped.items() <= responses[0].items()
    (seen,) = server.requests
    assert seen.body == {"model": "gpt-4", "messages": QUESTION, "temperature": 0.5}
    # which finds what is recorded here
    reply = llmcall.client().send_message(QUESTION, temperature=0.5)
    assert (
        reply is not None
        and reply.cached
        and llmcall.client().send_message("Hello", max_tokens=5) is not None
    )
    assert content(ask(prompt="Hello", max_tokens=5)) == "Two coins." and len(server.requests) == 2


def test_the_response_is_the_callers_own(ask: Ask, serve: Serve) -> None:
    """Who changes a response, as the ancestor's callers do, changes no record."""
    call = {"name": "sell", "arguments": "{}"}
    message = {"role": "assistant", "content": None, "function_call": call}
    serve(
        Answer(
            200,
            completion(
                choices=[{"index": 0, "message": message, "finish_reason": "function_call"}]
            ),
        )
    )
    functions = [{"name": "sell", "parameters": {"type": "object", "properties": {}}}]
    for _ in range(2):
        response = ask(messages=QUESTION, functions=functions, function_call={"name": "sell"})
        assert response["choices"][0]["message"]["function_call"] == call
        response["choices"][0]["message"]["function_call"]["arguments"] = "changed"


@pytest.mark.parametrize(
    "arguments", [{}, {"prompt": "a", "messages": QUESTION}, {"prompt": "a", "temprature": 1}]
)
def test_wrong_arguments(ask: Ask, arguments: dict[str, Any]) -> None:
    """Both or neither of prompt and messages, or an unknown name, is a TypeError before any call."""
    with pytest.raises(TypeError):
        ask(**arguments)


@pytest.mark.parametrize("answer", [CUT, OVERFLOW], ids=["cut", "refused"])
def test_a_fallback(
    ask: Ask, serve: Serve, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the context is too long the next model is asked, which is logged; a second run asks
    nobody.
    """
    server = serve(answer, OK, model="gpt-4", fallbacks=FALLBACK)
    with caplog.at_level(logging.WARNING, "llmcall"):
        assert content(ask(messages=QUESTION)) == "Two coins."
    assert [seen.body["model"] for seen in server.requests] == ["gpt-4", "gpt-4-32k"]
    assert "asking gpt-4-32k instead" in caplog.text
    assert content(ask(messages=QUESTION)) == "Two coins." and len(server.requests) == 2


@pytest.mark.parametrize("answer", [CUT, OVERFLOW], ids=["cut", "refused"])
@pytest.mark.parametrize(
    ("fallbacks", "wanted", "asked"), [(FALLBACK, False, 1), ({}, True, 1), (FALLBACK, True, 2)]
)
def test_without_room(
    ask: Ask, serve: Serve, answer: Answer, fallbacks: Any, wanted: bool, asked: int, caplog: Any
) -> None:
    """Without a fallback that is wanted and has room, the SDK's BadRequestError is logged and
    raised.
    """
    server = serve(answer, model="gpt-4", fallbacks=fallbacks)
    with pytest.raises(openai.BadRequestError, match="maximum context length") as raised:
        ask(messages=QUESTION, max_lenght_fallback=wanted)
    assert raised.value.status_code == 400 and raised.value.code == "context_length_exceeded"
    assert len(server.requests) == asked and "bad request" in caplog.text
    assert len(llmcall.client().cache) == 0


@pytest.mark.parametrize("mode", ["auto", "replay"])
def test_a_recorded_answer_that_was_cut(ask: Ask, serve: Serve, mode: str) -> None:
    """That the context is too long is known from what send_message recorded: the model is not asked
    again.
    """
    server = serve(CUT, model="gpt-4")
    assert llmcall.client().send_message(QUESTION) is not None
    llmcall.configure(cache_mode=mode)
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        ask(messages=QUESTION)
    assert len(server.requests) == 1


def test_an_answer_cut_by_its_callers_limit(ask: Ask, serve: Serve) -> None:
    """An answer that only max_tokens cut is returned, and recorded."""
    server = serve(
        Answer(200, completion("Two", finish_reason="length")), model="gpt-4", fallbacks=FALLBACK
    )
    for _ in range(2):
        response = ask(messages=QUESTION, max_tokens=3)
        assert response["choices"][0]["finish_reason"] == "length" and content(response) == "Two"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
def test_the_sdks_errors(
    ask: Ask, serve: Serve, status: int, error: type[Exception], caplog: Any
) -> None:
    """Failures are the SDK's own errors; bad requests are logged."""
    server = serve(refusal(status, "so sorry"))
    with pytest.raises(error, match="so sorry"):
        ask(prompt="Hello")
    assert len(server.requests) == (2 if status in (429, 500) else 1)
    assert ("bad request" in caplog.text) is (status in (400, 404, 422))


def test_the_sdks_errors_hold_no_key(ask: Ask, serve: Serve) -> None:
    """What a server repeats of the key is masked in the SDK's error, which the caller gets."""
    key = "SESAME-open-1234567890-SESAME"
    serve(refusal(400, f"you sent {key}", code=key), api_key=key)
    with pytest.raises(openai.BadRequestError, match="you sent") as caught:
        ask(prompt="Hello")
    shown = [*traceback.format_exception(caught.value), *map(str, vars(caught.value).values())]
    assert key not in "".join(shown)


def test_what_the_sdk_would_not_notice(ask: Ask, serve: Serve) -> None:
    """An answer without choices, which the SDK lets pass, is an error of ours."""
    serve(Answer(200, {"object": "chat.completion"}))
    with pytest.raises(llmcall.ServiceError, match="without choices"):
        ask(prompt="Hello")


def test_embedding_request_after_a_bad_request(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A bad request is logged and gives None; another failure raises."""
    serve(refusal(400, "too long a text"), refusal(401, "no"))
    assert asyncio.run(aio.embedding_request("Hello")) is None
    assert "too long a text" in caplog.text
    with pytest.raises(openai.AuthenticationError):
        asyncio.run(aio.embedding_request("Hello"))


def test_embedding_request(httpserver: HTTPServer) -> None:
    """A text's embedding is asked for once, of the endpoint of the embedding model, not of that of
    the chat model.
    """
    server = ScriptedServer(httpserver, Answer(200, embeddings([0.5, 0.25])))
    with refusing() as address:
        endpoints = [
            llmcall.Endpoint("chat", models=("gpt-4o-mini",), base_url=address),
            llmcall.Endpoint("embed", models=("my-embedder",), base_url=server.base_url),
        ]
        llmcall.configure(endpoints=endpoints, embedding_model="my-embedder")
        assert [asyncio.run(aio.embedding_request("Hello")) for _ in range(2)] == [[0.5, 0.25]] * 2
    (seen,) = server.requests
    assert seen.path == "/v1/embeddings" and seen.body["model"] == "my-embedder"


def test_request_timeout(ask: Ask) -> None:
    """request_timeout bounds an attempt; what remains is the SDK's APITimeoutError."""
    with RawServer(stays_silent) as server, pytest.raises(openai.APITimeoutError):
        llmcall.configure(base_url=server.base_url, retry_max_attempts=1)
        ask(prompt="Hello", request_timeout=0.05)


HELLO = {
    "choices": [{"finish_reason": "stop", "index": 0, "message": {"content": "Hello, World!"}}]
}


def scripted(sdk: Any, answer: Any = HELLO) -> Any:
    """Let a patched class's completions be this, and return the mock of ``create``."""
    create = sdk.return_value.chat.completions.create
    create.return_value.model_dump.return_value = answer
    return create


@pytest.mark.parametrize(
    ("function", "name", "kind"),
    [
        (llmcall.chatcompletion_request, "OpenAI", mock.MagicMock),
        (ask_async, "AsyncOpenAI", mock.MagicMock),
        (ask_async, "AsyncOpenAI", mock.AsyncMock),
    ],
)
@pytest.mark.parametrize("model", ["gpt-4-turbo", "gpt-4-1106-preview"])
def test_the_ancestors_tests(model: str, function: Ask, name: str, kind: Any) -> None:
    """The tests that XAgent has of its function pass as they are: no key, no server, no record.

    The asynchronous function looks for the asynchronous class; what its mock returns may be
    awaitable or not.
    """
    with mock.patch(f"openai.{name}") as sdk:
        sdk.return_value.chat.completions.create = kind()
        sdk.return_value.chat.completions.create.return_value.model_dump = kind(return_value=HELLO)
        assert function(model=model, prompt="Hello, world") == HELLO
    assert len(llmcall.client().cache) == 0


@pytest.mark.parametrize(
    ("kind", "address"), [("OpenAI", "base_url"), ("AzureOpenAI", "azure_endpoint")]
)
def test_what_the_sdk_gets(kind: str, address: str) -> None:
    """The class gets key, address and timeout, and create the request; an endpoint with an API
    version is Azure.
    """
    gets, version = {address: "https://east.example.com"}, "2024-10-21" if "Azure" in kind else None
    names = ("gpt-4-1106-preview",)
    east = llmcall.Endpoint(
        "east", names, api_key="sk-key", organization="org", azure_api_version=version, **gets
    )
    llmcall.configure(endpoints=[east], aliases={"gpt-4-turbo": "gpt-4-1106-preview"})
    with mock.patch(f"openai.{kind}") as sdk:
        create = scripted(sdk)
        found = llmcall.chatcompletion_request(
            model="gpt-4-turbo", prompt="Hello", temperature=0.5, request_timeout=7
        )
    assert found == HELLO
    gets |= {"api_version": version} if version else {}
    sdk.assert_called_once_with(api_key="sk-key", organization="org", timeout=7, **gets)
    create.assert_called_once_with(
        model=names[0], messages=[{"role": "user", "content": "Hello"}], temperature=0.5
    )


def test_records_take_no_part(httpserver: HTTPServer) -> None:
    """A stored answer does not replace a patched one, nor the other way round; the mode replay is
    no hindrance.
    """
    server = ScriptedServer(httpserver, OK)
    llmcall.configure(base_url=server.base_url)
    stored = llmcall.chatcompletion_request(prompt="Hello")
    for mode in ("auto", "replay", "refresh"):
        llmcall.configure(cache_mode=mode)
        with mock.patch("openai.OpenAI") as sdk:
            create = scripted(sdk)
            for _ in range(2):
                assert llmcall.chatcompletion_request(prompt="Hello") == HELLO
            assert create.call_count == 2
    llmcall.configure(cache_mode="replay")
    assert llmcall.chatcompletion_request(prompt="Hello") == stored
    with mock.patch("openai.OpenAI"):  # which the asynchronous function does not use
        assert ask_async(prompt="Hello") == stored and len(server.requests) == 1


def test_a_patched_failure() -> None:
    """What a patched SDK raises is raised, after the retries that it deserves."""
    response: Any = mock.MagicMock(status_code=400, headers={})
    error = openai.BadRequestError("maximum context length", response=response, body=None)
    with mock.patch("openai.OpenAI") as sdk, pytest.raises(openai.BadRequestError) as raised:
        sdk.return_value.chat.completions.create.side_effect = error
        llmcall.chatcompletion_request(prompt="Hello")
    assert raised.value is error


# Streams of any address

BODY = {"model": "m", "messages": QUESTION, "stream": True}


def text_events(*texts: str) -> bytes:
    """Return the events of some pieces of text."""
    return b"".join(event(chunk(text)) for text in texts)


def pieces_from(behaviour: Any, **options: Any) -> list[str]:
    """Return the pieces that a server's answer comes in."""

    async def read() -> list[str]:
        url = f"{server.base_url}/chat/completions"
        return [piece async for piece in aio.chat_completion_stream(url, BODY, **options)]

    with RawServer(behaviour) as server:
        return asyncio.run(read())


@pytest.mark.parametrize(
    ("body", "pieces"),
    [
        (text_events("Hel", "lo") + b"data: [DONE]\n\n" + text_events("never"), ["Hel", "lo"]),
        (event({"choices": [], "usage": {"total_tokens": 3}}) + text_events("a"), ["a"]),
        (event({"error_code": 1, "text": "no memory"}) + event(b"[DONE]"), ["no memory"]),
        (b"<html>\nbusy\n" + text_events("a")[:-2], ["<html>", "busy", "a"]),
        (b"", []),
    ],
)
def test_the_pieces_of_a_stream(body: bytes, pieces: list[str]) -> None:
    """Each text comes as a piece; other fields are passed over, other lines are yielded as they
    are.
    """
    assert pieces_from(sends(HEAD + body)) == pieces
    packed = HEAD.replace(b"Connection", b"Content-Encoding: gzip\r\nConnection") + gzip.compress(
        body
    )
    assert pieces_from(sends(packed)) == pieces


@pytest.mark.parametrize("given", ["own", "client"])
def test_what_is_posted(given: str) -> None:
    """The body goes out as JSON with the given headers; the whole text comes back, and a given
    client stays open.
    """
    headers = {"Authorization": "Bearer secret"}

    async def ask(base_url: str) -> str:
        if given == "own":
            return await aio.chat_completion(f"{base_url}/chat/completions", BODY, headers=headers)
        async with httpx.AsyncClient(base_url=base_url) as client:
            text = await aio.chat_completion("/chat/completions", BODY, client, headers, 60, None)
            assert not client.is_closed
            return text

    with RawServer(streams(*TWO_COINS)) as server:
        assert asyncio.run(ask(server.base_url)) == "Two coins."
    (seen,) = server.requests
    assert (seen.path, seen.body, seen.headers["authorization"]) == (
        "/v1/chat/completions",
        BODY,
        "Bearer secret",
    )


@pytest.mark.parametrize("asynchronous", [True, False])
def test_the_caller_comes_first(asynchronous: bool) -> None:
    """The caller has finished with a piece before it is yielded, and what it raises goes to the
    reader.
    """
    order: list[str] = []

    async def caller(text: str) -> None:
        await asyncio.sleep(0)
        order.append(text)

    async def read(base_url: str) -> None:
        given = caller if asynchronous else order.append
        async for piece in aio.chat_completion_stream(f"{base_url}/x", BODY, caller=given):  # type: ignore[arg-type]
            order.append(f"yielded {piece}")

    with RawServer(sends(HEAD + text_events("a", "b"))) as server:
        asyncio.run(read(server.base_url))
    assert order == ["a", "yielded a", "b", "yielded b"]
    with pytest.raises(KeyError, match="a"):
        pieces_from(sends(HEAD + text_events("a")), caller={}.pop)


def test_a_stream_that_is_left() -> None:
    """The first piece comes before the last is sent; leaving then closes the connection."""
    server = Paused(*TWO_COINS, after=2)

    async def read(base_url: str) -> None:
        async with aclosing(aio.chat_completion_stream(f"{base_url}/x", BODY)) as pieces:
            assert await anext(pieces) == "Two"
        assert await asyncio.to_thread(server.left.wait, 60)

    with RawServer(server) as raw:
        asyncio.run(read(raw.base_url))


def test_a_refused_stream(caplog: pytest.LogCaptureFixture) -> None:
    """Another status than 200 is logged with its body, not with the credentials in it, and raised."""
    body = "über: key sk-12345678 (Bearer sk-12345678) is wrong".encode() + b"\xff"
    with pytest.raises(httpx.RequestError, match="status 401") as raised:
        pieces_from(
            sends(http(body, status="401 X")), headers={"Authorization": "Bearer sk-12345678"}
        )
    assert raised.value.request.method == "POST"
    logged = [record.getMessage() for record in caplog.records if record.name == "llmcall"]
    assert logged == ["Request failed with status 401. Error: über: key *** (***) is wrong\ufffd"]


BROKEN: dict[str, tuple[Any, list[str]]] = {
    "cut": (
        sends(HEAD.replace(b"Connection", b"Content-Length: 999\r\nConnection") + text_events("a")),
        ["a"],
    ),
    "malformed": (sends(HEAD + text_events("a") + b"data: {half\n\n"), ["a"]),
    "an error": (sends(HEAD + text_events("a") + event({"error": {"message": "too busy"}})), ["a"]),
    "silent": (stays_silent, []),
    "created": (sends(http(b"", status="201 Created")), []),
    "moved": (sends(http(b"", status="307 Temporary Redirect")), []),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_stream_that_breaks(name: str) -> None:
    """Whoever reads a stream catches httpx's errors alone, after the pieces that came."""
    behaviour, expected = BROKEN[name]
    pieces: list[str] = []
    with pytest.raises(httpx.RequestError) as raised:
        pieces_from(behaviour, caller=pieces.append, timeout=0.1 if name == "silent" else 60)
    assert (pieces, raised.value.request.method) == (expected, "POST")
    with refusing() as address, pytest.raises(httpx.ConnectError):
        asyncio.run(aio.chat_completion(address, BODY))
