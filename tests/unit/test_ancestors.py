"""chatcompletion_request and embedding_request against servers, sync and async over the same cases."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import openai
import pytest
from pytest_httpserver import HTTPServer
from servers import OK, QUESTION, Answer, ScriptedServer, completion, embeddings, refusal, refusing

import llmcall
from llmcall import aio
from llmcall.legacy import dumped

Ask = Callable[..., dict[str, Any]]
Serve = Callable[..., ScriptedServer]

CUT = Answer(200, completion("Two", finish_reason="length"))
OVERFLOW = refusal(400, "This model's maximum context length is 8192 tokens.", code="context_length_exceeded")
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
        llmcall.configure(base_url=server.base_url, retry_waiting_time=0.0001, retry_max_attempts=2, **settings)
        return server

    return start


def content(response: dict[str, Any]) -> Any:
    """Return the text of a response."""
    return response["choices"][0]["message"]["content"]


def test_the_whole_response(ask: Ask, serve: Serve) -> None:
    """The response is the SDK's model_dump(), with None for what the API left out, and is recorded."""
    server = serve(OK, model="gpt-4")
    responses = [ask(messages=QUESTION, temperature=0.5), ask(prompt=QUESTION[0]["content"], temperature=0.5)]
    assert responses[0] == responses[1] == dumped(completion())
    (seen,) = server.requests
    assert seen.body == {"model": "gpt-4", "messages": QUESTION, "temperature": 0.5}


def test_the_shape_of_model_dump() -> None:
    """Every field that the installed SDK's model_dump() has is there, with the same value."""
    from openai.types.chat import ChatCompletion

    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    logprobs = {"content": [{"token": "a", "bytes": None, "logprob": -1.0, "top_logprobs": []}]}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    for response in (completion(), completion(choices=[{**choice, "logprobs": logprobs}]), completion(more=5)):
        given = ChatCompletion.model_validate(response).model_dump()
        assert given.items() <= dumped(response).items()


def test_the_same_records_as_send_message(ask: Ask, serve: Serve) -> None:
    """What send_message recorded is found, and what is recorded here, send_message finds."""
    server = serve(OK)
    assert llmcall.client().send_message("Hello", max_tokens=5) is not None
    assert content(ask(prompt="Hello", max_tokens=5)) == "Two coins."
    ask(prompt="Hello", temperature=0)
    reply = llmcall.client().send_message("Hello", temperature=0)
    assert reply is not None and reply.cached and len(server.requests) == 2


def test_cache(ask: Ask, serve: Serve) -> None:
    """cache=False goes past the records, and stores none."""
    server = serve(OK)
    for _ in range(2):
        ask(prompt="Hello", cache=False)
    assert len(server.requests) == 2 and len(llmcall.client().cache) == 0


def test_the_response_is_the_callers_own(ask: Ask, serve: Serve) -> None:
    """Who changes a response, as the ancestor's callers do, changes no record."""
    call = {"name": "sell", "arguments": "{}"}
    message = {"role": "assistant", "content": None, "function_call": call}
    serve(Answer(200, completion(choices=[{"index": 0, "message": message, "finish_reason": "function_call"}])))
    functions = [{"name": "sell", "parameters": {"type": "object", "properties": {}}}]
    for _ in range(2):
        response = ask(messages=QUESTION, functions=functions, function_call={"name": "sell"})
        assert response["choices"][0]["message"]["function_call"] == call
        response["choices"][0]["message"]["function_call"]["arguments"] = "changed"


def test_aliases(ask: Ask, serve: Serve) -> None:
    """An alias is replaced before the call, and shares its records with the model's own name."""
    server = serve(OK, aliases={"gpt-4-turbo": "gpt-4-1106-preview"})
    ask(model="gpt-4-turbo", prompt="Hello, world")
    ask(model="gpt-4-1106-preview", prompt="Hello, world")
    assert [seen.body["model"] for seen in server.requests] == ["gpt-4-1106-preview"]


def test_accepted_arguments(ask: Ask, serve: Serve) -> None:
    """What the ancestor's callers pass along and no model needs is not sent."""
    server = serve(OK)
    ask(prompt="Hello", schema_error_retry=3, request_timeout=None)
    assert server.requests[0].body.keys() == {"model", "messages"}


@pytest.mark.parametrize("arguments", [{}, {"prompt": "a", "messages": QUESTION}, {"prompt": "a", "temprature": 1}])
def test_wrong_arguments(ask: Ask, arguments: dict[str, Any]) -> None:
    """Both or neither of prompt and messages, or an unknown name, is a TypeError before any call."""
    with pytest.raises(TypeError):
        ask(**arguments)


@pytest.mark.parametrize("answer", [CUT, OVERFLOW], ids=["cut", "refused"])
def test_a_fallback(ask: Ask, serve: Serve, answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    """Where the context is too long the next model is asked, which is logged; a second run asks nobody."""
    server = serve(answer, OK, model="gpt-4", fallbacks=FALLBACK)
    with caplog.at_level(logging.WARNING, "llmcall"):
        assert content(ask(messages=QUESTION)) == "Two coins."
    assert [seen.body["model"] for seen in server.requests] == ["gpt-4", "gpt-4-32k"]
    assert "gpt-4-32k is asked instead" in caplog.text
    assert content(ask(messages=QUESTION)) == "Two coins." and len(server.requests) == 2


@pytest.mark.parametrize("answer", [CUT, OVERFLOW], ids=["cut", "refused"])
@pytest.mark.parametrize("fallbacks", [FALLBACK, {}], ids=["unwanted", "none"])
def test_without_fallback(ask: Ask, serve: Serve, answer: Answer, fallbacks: Any, caplog: Any) -> None:
    """Without one, or where it is not wanted, the SDK's BadRequestError is logged and raised; nothing is stored."""
    server = serve(answer, model="gpt-4", fallbacks=fallbacks)
    with pytest.raises(openai.BadRequestError, match="maximum context length") as raised:
        ask(messages=QUESTION, max_lenght_fallback=not fallbacks)
    assert raised.value.status_code == 400 and raised.value.code == "context_length_exceeded"
    assert len(server.requests) == 1 and "bad request" in caplog.text
    assert len(llmcall.client().cache) == 0


def test_the_last_fallback_fails(ask: Ask, serve: Serve) -> None:
    """Where the last model's context is too long as well, its error is raised."""
    server = serve(OVERFLOW, model="gpt-4", fallbacks=FALLBACK)
    with pytest.raises(openai.BadRequestError):
        ask(messages=QUESTION)
    assert len(server.requests) == 2


@pytest.mark.parametrize("mode", ["auto", "replay"])
def test_a_recorded_answer_that_was_cut(ask: Ask, serve: Serve, mode: str) -> None:
    """That the context is too long is known from what send_message recorded: the model is not asked again."""
    server = serve(CUT, model="gpt-4")
    assert llmcall.client().send_message(QUESTION) is not None
    llmcall.configure(cache_mode=mode)
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        ask(messages=QUESTION)
    assert len(server.requests) == 1


def test_a_fallback_from_a_recorded_answer_that_was_cut(ask: Ask, serve: Serve) -> None:
    """The next model is asked at once, and only the first time."""
    server = serve(CUT, OK, model="gpt-4")
    assert llmcall.client().send_message(QUESTION) is not None
    llmcall.configure(fallbacks=FALLBACK)
    for _ in range(2):
        assert content(ask(messages=QUESTION)) == "Two coins."
    assert [seen.body["model"] for seen in server.requests] == ["gpt-4", "gpt-4-32k"]


def test_an_answer_cut_by_its_callers_limit(ask: Ask, serve: Serve) -> None:
    """An answer that only max_tokens cut is returned, and recorded."""
    server = serve(Answer(200, completion("Two", finish_reason="length")), model="gpt-4", fallbacks=FALLBACK)
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
def test_the_sdks_errors(ask: Ask, serve: Serve, status: int, error: type[Exception], caplog: Any) -> None:
    """Failures are the SDK's own errors; bad requests are logged."""
    server = serve(refusal(status, "so sorry"))
    with pytest.raises(error, match="so sorry"):
        ask(prompt="Hello")
    assert len(server.requests) == (2 if status in (429, 500) else 1)
    assert ("bad request" in caplog.text) is (status in (400, 404, 422))


def test_no_server(ask: Ask) -> None:
    """Where nobody listens, it is the SDK's APIConnectionError."""
    with refusing() as address, pytest.raises(openai.APIConnectionError):
        llmcall.configure(base_url=address, retry_max_attempts=1)
        ask(prompt="Hello")


def test_what_the_sdk_would_not_notice(ask: Ask, serve: Serve) -> None:
    """An answer without choices, which the SDK lets pass, is an error of ours."""
    serve(Answer(200, {"object": "chat.completion"}))
    with pytest.raises(llmcall.ServiceError, match="without choices"):
        ask(prompt="Hello")


def test_no_key(ask: Ask) -> None:
    """Without a key the error names the variable."""
    with pytest.raises(llmcall.ConfigError, match="OPENAI_API_KEY"):
        ask(prompt="Hello")


def test_in_a_scope(ask: Ask, serve: Serve) -> None:
    """Inside a scope a repeated request is another draw, and a failed one gives its number back."""
    server = serve(refusal(400, "first"), OK)
    with llmcall.scope("trial"):
        with pytest.raises(openai.BadRequestError):
            ask(prompt="Hello")
        for _ in range(2):
            ask(prompt="Hello")
    samples = [record.sample for record in llmcall.client().cache.records()]
    assert samples == ["trial#0", "trial#1"] and len(server.requests) == 3


def test_a_client_of_ones_own(ask: Ask) -> None:
    """It is the configured client that answers, whichever it is."""
    from llmcall.testing import ScriptedClient

    llmcall.register_client("scripted", ScriptedClient(["Hello yourself."]))
    llmcall.force_api_type("scripted")
    assert content(ask(prompt="Hello")) == "Hello yourself."


def test_embedding_request(serve: Serve) -> None:
    """A text's embedding is asked for once, from the configured model."""
    server = serve(Answer(200, embeddings([0.5, 0.25])), embedding_model="my-embedder")
    assert [asyncio.run(aio.embedding_request("Hello")) for _ in range(2)] == [[0.5, 0.25]] * 2
    (seen,) = server.requests
    assert seen.path == "/v1/embeddings" and seen.body["model"] == "my-embedder"


def test_embedding_request_after_a_bad_request(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A bad request is logged and gives None; another failure raises."""
    serve(refusal(400, "too long a text"), refusal(401, "no"))
    assert asyncio.run(aio.embedding_request("Hello")) is None
    assert "too long a text" in caplog.text
    with pytest.raises(openai.AuthenticationError):
        asyncio.run(aio.embedding_request("Hello"))


def test_embedding_request_by_the_endpoint_that_lists_its_model(httpserver: HTTPServer) -> None:
    """The endpoint of the embedding model is asked, not that of the chat model."""
    server = ScriptedServer(httpserver, Answer(200, embeddings([1.0])))
    with refusing() as address:
        endpoints = [
            llmcall.Endpoint("chat", models=("gpt-4o-mini",), base_url=address),
            llmcall.Endpoint("embed", models=("text-embedding-3-small",), base_url=server.base_url),
        ]
        llmcall.configure(endpoints=endpoints)
        assert asyncio.run(aio.embedding_request("Hello")) == [1.0]
