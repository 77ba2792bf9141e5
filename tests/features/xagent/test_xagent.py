"""XAgent's functions: chatcompletion_request, embedding_request, with a patched SDK."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable
from typing import Any
from unittest import mock

import openai
import pytest
from commands import ran
from openai.types.chat import ChatCompletion
from pytest_httpserver import HTTPServer
from servers import (
    OK,
    QUESTION,
    Answer,
    RawServer,
    ScriptedServer,
    completion,
    dripping,
    embeddings,
    refusal,
    refusing,
    stays_silent,
)

import llmcall
from llmcall import aio

Ask = Callable[..., dict[str, Any]]

Serve = Callable[..., ScriptedServer]

CUT = Answer(200, completion("Two", finish_reason="length"))

OVERFLOW = refusal(
    400, "This model's maximum context length is 8192 tokens.", code="context_length_exceeded"
)

FALLBACK = {"gpt-4": ("gpt-4-32k",)}

SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "price", "strict": True, "schema": {"type": "object"}},
}


def ask_async(**arguments: Any) -> dict[str, Any]:
    """Ask by the asynchronous twin."""
    return asyncio.run(aio.chatcompletion_request(**arguments))


@pytest.fixture(params=[llmcall.chatcompletion_request, ask_async], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Either of the two functions."""
    function: Ask = request.param
    return function


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


def test_the_response_is_the_sdks_model_dump(ask: Ask, serve: Serve) -> None:
    """It has None for what the API left out, whether messages or a prompt were given."""
    serve(OK, model="gpt-4")
    responses = [ask(messages=QUESTION), ask(prompt=QUESTION[0]["content"])]
    dumped = ChatCompletion.model_validate(completion()).model_dump()
    assert responses[0] == responses[1]
    assert dumped.items() <= responses[0].items()


def test_the_ancestors_function_sends_only_what_a_model_needs(ask: Ask, serve: Serve) -> None:
    """Its own arguments are not sent."""
    server = serve(OK, model="gpt-4")
    ask(messages=QUESTION, temperature=0.5, schema_error_retry=3, request_timeout=None)
    (seen,) = server.requests
    assert seen.body == {"model": "gpt-4", "messages": QUESTION, "temperature": 0.5}


def test_the_ancestors_function_shares_its_records_with_send_message(
    ask: Ask, serve: Serve
) -> None:
    """Each finds what the other recorded."""
    server = serve(OK, model="gpt-4")
    ask(messages=QUESTION, temperature=0.5)
    reply = llmcall.client().send_message(QUESTION, temperature=0.5)
    assert reply is not None
    assert reply.cached
    assert llmcall.client().send_message("Hello", max_tokens=5) is not None
    assert content(ask(prompt="Hello", max_tokens=5)) == "Two coins."
    assert len(server.requests) == 2


def test_a_caller_that_changes_a_response_changes_no_record(ask: Ask, serve: Serve) -> None:
    """The ancestor's callers do."""
    call = {"name": "sell", "arguments": "{}"}
    message = {"role": "assistant", "content": None, "function_call": call}
    choice = {"index": 0, "message": message, "finish_reason": "function_call"}
    serve(Answer(200, completion(choices=[choice])))
    functions = [{"name": "sell", "parameters": {"type": "object", "properties": {}}}]
    for _ in range(2):
        response = ask(messages=QUESTION, functions=functions, function_call={"name": "sell"})
        assert response["choices"][0]["message"]["function_call"] == call
        response["choices"][0]["message"]["function_call"]["arguments"] = "changed"


@pytest.mark.parametrize(
    "arguments", [{}, {"prompt": "a", "messages": QUESTION}, {"prompt": "a", "temprature": 1}]
)
def test_wrong_arguments_of_the_ancestors_function_are_refused(
    ask: Ask, arguments: dict[str, Any]
) -> None:
    """Both or neither of prompt and messages, or an unknown name, is a TypeError before any call."""
    with pytest.raises(TypeError):
        ask(**arguments)


cut_or_refused = pytest.mark.parametrize("answer", [CUT, OVERFLOW], ids=["cut", "refused"])


@cut_or_refused
def test_the_next_model_is_asked_if_the_context_is_too_long(
    ask: Ask, serve: Serve, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so."""
    server = serve(answer, OK, model="gpt-4", fallbacks=FALLBACK)
    with caplog.at_level(logging.WARNING, "llmcall"):
        assert content(ask(messages=QUESTION)) == "Two coins."
    assert [seen.body["model"] for seen in server.requests] == ["gpt-4", "gpt-4-32k"]
    assert "calling gpt-4-32k instead" in caplog.text


@cut_or_refused
@pytest.mark.parametrize(
    ("fallbacks", "wanted", "asked"),
    [(FALLBACK, False, 1), ({}, True, 1), (FALLBACK, True, 2)],
    ids=["not wanted", "no fallback", "no room in any"],
)
def test_a_context_that_is_too_long_is_the_sdks_error_without_a_fallback(
    ask: Ask, serve: Serve, answer: Answer, fallbacks: Any, wanted: bool, asked: int, caplog: Any
) -> None:
    """It is logged and raised; an answer that was cut is stored all the same."""
    server = serve(answer, model="gpt-4", fallbacks=fallbacks)
    with pytest.raises(openai.BadRequestError, match="maximum context length") as raised:
        ask(messages=QUESTION, max_lenght_fallback=wanted)
    assert raised.value.status_code == 400
    assert raised.value.code == "context_length_exceeded"
    assert len(server.requests) == asked
    assert "bad request" in caplog.text
    assert len(llmcall.client().cache) == (1 if answer is CUT else 0)


@pytest.mark.parametrize("mode", ["auto", "replay"])
def test_a_recorded_answer_that_was_cut_means_that_the_context_is_too_long(
    ask: Ask, serve: Serve, mode: str
) -> None:
    """``send_message`` recorded it; the model is not asked again."""
    server = serve(CUT, model="gpt-4")
    assert llmcall.client().send_message(QUESTION) is not None
    llmcall.configure(cache_mode=mode)
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        ask(messages=QUESTION)
    assert len(server.requests) == 1


@pytest.mark.parametrize("fields", [{}, {"response_format": SCHEMA}], ids=["text", "schema"])
def test_an_answer_that_only_max_tokens_cut_is_returned_and_recorded(
    ask: Ask, serve: Serve, fields: dict[str, Any]
) -> None:
    """No other model is asked."""
    server = serve(
        Answer(200, completion("Two", finish_reason="length")), model="gpt-4", fallbacks=FALLBACK
    )
    for _ in range(2):
        response = ask(messages=QUESTION, max_tokens=3, **fields)
        assert response["choices"][0]["finish_reason"] == "length"
        assert content(response) == "Two"
    assert len(server.requests) == 1


sdks_errors = pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)


@sdks_errors
def test_failures_are_the_sdks_own_errors(
    ask: Ask, serve: Serve, status: int, error: type[Exception], caplog: Any
) -> None:
    """They are raised after the retries that they deserve; only bad requests are logged."""
    server = serve(refusal(status, "so sorry"))
    with pytest.raises(error, match="so sorry"):
        ask(prompt="Hello")
    assert len(server.requests) == (2 if status in (429, 500) else 1)
    assert ("bad request" in caplog.text) is (status in (400, 404))


def test_the_sdks_errors_hold_no_key(ask: Ask, serve: Serve) -> None:
    """The key that a server repeats is masked in the SDK's error, which the caller gets."""
    key = "SESAME-open-1234567890-SESAME"
    serve(refusal(400, f"you sent {key}", code=key), api_key=key)
    with pytest.raises(openai.BadRequestError, match="you sent") as caught:
        ask(prompt="Hello")
    shown = [*traceback.format_exception(caught.value), *map(str, vars(caught.value).values())]
    assert key not in "".join(shown)


def test_an_answer_without_choices_is_an_error_of_llmcall(ask: Ask, serve: Serve) -> None:
    """The SDK lets it pass."""
    serve(Answer(200, {"object": "chat.completion"}))
    with pytest.raises(llmcall.ServiceError, match="without choices"):
        ask(prompt="Hello")


def test_embedding_request_gives_none_after_a_bad_request(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the server's words."""
    serve(refusal(400, "too long a text"))
    assert asyncio.run(aio.embedding_request("Hello")) is None
    assert "too long a text" in caplog.text


def test_embedding_request_raises_any_other_failure(serve: Serve) -> None:
    """The error is the SDK's."""
    serve(refusal(401, "no"))
    with pytest.raises(openai.AuthenticationError):
        asyncio.run(aio.embedding_request("Hello"))


def test_embedding_request_asks_the_endpoint_of_the_embedding_model_once(
    httpserver: HTTPServer,
) -> None:
    """It does not ask that of the chat model; then the answer is recorded."""
    server = ScriptedServer(httpserver, Answer(200, embeddings([0.5, 0.25])))
    with refusing() as address:
        endpoints = [
            llmcall.types.Endpoint("chat", models=("gpt-4o-mini",), base_url=address),
            llmcall.types.Endpoint("embed", models=("my-embedder",), base_url=server.base_url),
        ]
        llmcall.configure(endpoints=endpoints, embedding_model="my-embedder")
        assert [asyncio.run(aio.embedding_request("Hello")) for _ in range(2)] == [[0.5, 0.25]] * 2
    (seen,) = server.requests
    assert seen.path == "/v1/embeddings"
    assert seen.body["model"] == "my-embedder"


DRIPS = dripping(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b" ")


@pytest.mark.parametrize("behaviour", [stays_silent, DRIPS], ids=["silent", "drips"])
def test_request_timeout_bounds_an_attempt(ask: Ask, behaviour: Any) -> None:
    """The error is the SDK's APITimeoutError."""
    with RawServer(behaviour) as server, pytest.raises(openai.APITimeoutError):
        llmcall.configure(base_url=server.base_url, retry_max_attempts=1)
        ask(prompt="Hello", request_timeout=0.15)


HELLO = {
    "choices": [{"finish_reason": "stop", "index": 0, "message": {"content": "Hello, World!"}}]
}


def scripted(sdk: Any, answer: Any = HELLO) -> Any:
    """Give a patched class's completions an answer, and return the mock of ``create``."""
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
def test_the_tests_that_xagent_has_of_its_function_pass_as_they_are(
    model: str, function: Ask, name: str, kind: Any
) -> None:
    """There is no key, no server and no record.

    The asynchronous function looks for the asynchronous class; what its mock returns may be
    awaitable or not.
    """
    with mock.patch(f"openai.{name}") as sdk:
        sdk.return_value.chat.completions.create = kind()
        sdk.return_value.chat.completions.create.return_value.model_dump = kind(return_value=HELLO)
        assert function(model=model, prompt="Hello, world") == HELLO
    assert len(llmcall.client().cache) == 0


@pytest.mark.parametrize("kind", ["OpenAI", "AzureOpenAI"])
def test_a_patched_class_gets_key_address_and_timeout_and_its_create_the_request(kind: str) -> None:
    """They are those of the endpoint that has the model; one with an API version is Azure. An alias is the model that
    it stands for.
    """
    version = {"azure_api_version": "2024-10-21"} if kind == "AzureOpenAI" else {}
    address = "azure_endpoint" if version else "base_url"
    where = {address: "https://east.example.com"}
    names = ("gpt-4-1106-preview",)
    east = llmcall.types.Endpoint(
        "east", names, api_key="sk-key", organization="org", **where, **version
    )
    llmcall.configure(endpoints=[east], aliases={"gpt-4-turbo": "gpt-4-1106-preview"})
    with mock.patch(f"openai.{kind}") as sdk:
        create = scripted(sdk)
        found = llmcall.chatcompletion_request(
            model="gpt-4-turbo", prompt="Hello", temperature=0.5, request_timeout=7
        )
    assert found == HELLO
    where |= {"api_version": "2024-10-21"} if version else {}
    sdk.assert_called_once_with(api_key="sk-key", organization="org", timeout=7, **where)
    create.assert_called_once_with(
        model="gpt-4-1106-preview",
        messages=[{"role": "user", "content": "Hello"}],
        temperature=0.5,
    )


@pytest.fixture
def stored(httpserver: HTTPServer) -> tuple[ScriptedServer, dict[str, Any]]:
    """A server, and a response of its that is recorded."""
    server = ScriptedServer(httpserver, OK)
    llmcall.configure(base_url=server.base_url)
    return server, llmcall.chatcompletion_request(prompt="Hello")


@pytest.mark.parametrize("mode", ["auto", "replay", "refresh"])
def test_a_patched_answer_is_not_replaced_by_a_recorded_one(
    mode: str, stored: tuple[ScriptedServer, dict[str, Any]]
) -> None:
    """Each call reaches the patched SDK, even in replay."""
    llmcall.configure(cache_mode=mode)
    with mock.patch("openai.OpenAI") as sdk:
        create = scripted(sdk)
        for _ in range(2):
            assert llmcall.chatcompletion_request(prompt="Hello") == HELLO
        assert create.call_count == 2


def test_the_asynchronous_function_does_not_use_the_synchronous_class(
    stored: tuple[ScriptedServer, dict[str, Any]],
) -> None:
    """If only that is patched, it is answered from its records."""
    server, response = stored
    llmcall.configure(cache_mode="replay")
    with mock.patch("openai.OpenAI"):
        assert ask_async(prompt="Hello") == response
    assert len(server.requests) == 1


def test_what_a_patched_sdk_raises_is_raised() -> None:
    """It is the very same error."""
    response: Any = mock.MagicMock(status_code=400, headers={})
    error = openai.BadRequestError("maximum context length", response=response, body=None)
    with mock.patch("openai.OpenAI") as sdk, pytest.raises(openai.BadRequestError) as raised:
        sdk.return_value.chat.completions.create.side_effect = error
        llmcall.chatcompletion_request(prompt="Hello")
    assert raised.value is error


@pytest.mark.parametrize("double", [mock.Mock(), mock.Mock(status_code=400), mock.MagicMock()])
def test_an_overflow_that_a_patched_sdk_raises_is_read_by_its_message(double: Any) -> None:
    """It has no body, and its response may be a mock without a status."""
    llmcall.configure(fallbacks={"small": ("large",)})
    error = openai.BadRequestError("maximum context length exceeded", response=double, body=None)
    with mock.patch("openai.OpenAI") as sdk:
        create = scripted(sdk)
        create.side_effect = [error, mock.DEFAULT]
        response = llmcall.chatcompletion_request(model="small", prompt="Hello")
    assert response["choices"] == HELLO["choices"]
    assert [call.kwargs["model"] for call in create.call_args_list] == ["small", "large"]


@pytest.mark.parametrize("request_", [None, mock.Mock()])
def test_a_lost_connection_that_a_patched_sdk_raises_is_tried_again(request_: Any) -> None:
    """Its request may be a mock."""
    llmcall.configure(retry_waiting_time=0)
    error = openai.APIConnectionError(request=request_)
    with mock.patch("openai.OpenAI") as sdk:
        scripted(sdk).side_effect = [error, mock.DEFAULT]
        assert llmcall.chatcompletion_request(prompt="Hello") == HELLO


def test_an_answer_of_responses_has_the_shape_of_a_chat(serve: Serve, ask: Ask) -> None:
    """The model is asked by the API that is configured."""
    part = {"type": "output_text", "text": "Hi", "annotations": []}
    item = {"id": "m", "type": "message", "role": "assistant", "content": [part]}
    usage = {"input_tokens": 12, "output_tokens": 3, "total_tokens": 15}
    body = {"id": "r", "object": "response", "status": "completed", "model": "m", "usage": usage}
    serve(Answer(200, {**body, "output": [item]}), api="responses")
    answer = ask(prompt="Hello")
    assert answer["choices"][0]["message"]["content"] == "Hi"
    assert answer["usage"]["prompt_tokens"] == 12
    assert answer["object"] == "chat.completion"


def test_a_replay_needs_no_sdk() -> None:
    """Nor a key, or a server."""
    program = """
if sys.argv[1] == "record":
    llmcall.register_client("openai", ScriptedClient(["Hello!"]))
with llmcall.cassette("tape.jsonl"):
    print(llmcall.chatcompletion_request(prompt="Hello")["choices"][0]["message"]["content"])
"""
    assert ran(program, "record") == ran(program + 'assert "openai" not in sys.modules\n', "replay")
