"""What counts as an answer, and what each thing that does not is called."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from pytest_httpserver import HTTPServer
from servers import QUESTION, Answer, ScriptedServer, client_for, completion, embeddings

from llmcall import APIError, ContentFilterError, EmptyAnswerError, Reply, ServiceError
from llmcall.responses.validate import check_chat, check_embeddings, cut_by_context
from llmcall.types import Record, Response, TokenUsage

CHAT_NAMES = ["choices", "message", "content", "role", "tool_calls", "refusal", "finish_reason", "error", "usage"]
USAGE_NAMES = ["prompt_tokens", "completion_tokens", "completion_tokens_details", "prompt_tokens_details"]
NAMES = st.sampled_from(CHAT_NAMES + USAGE_NAMES)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "x", "content_filter", "length", "error"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)
CHOICES = st.lists(st.fixed_dictionaries({"message": st.dictionaries(NAMES, JSON)}, optional={"finish_reason": JSON}))
RESPONSES = JSON | st.fixed_dictionaries({"choices": CHOICES}, optional={"usage": JSON, "error": JSON})
TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "price", "arguments": "{}"}}
REASONED = {"prompt_tokens": 12, "completion_tokens": 64, "completion_tokens_details": {"reasoning_tokens": 64}}


def message(**fields: Any) -> dict[str, Any]:
    """Return a completion whose message has these fields and no text."""
    response = completion(None)
    response["choices"][0]["message"].update(fields)
    return response


def two(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return a completion with two choices."""
    return {**first, "choices": first["choices"] + second["choices"]}


@pytest.mark.parametrize(
    "response",
    [
        completion(),
        completion("No", finish_reason="length"),
        completion("", finish_reason="stop") | {"choices": completion()["choices"]},
        message(tool_calls=[TOOL_CALL]),
        message(refusal="I cannot help with that."),
        message(audio={"id": "a", "data": "UklGRg=="}),
        message(function_call={"name": "price", "arguments": "{}"}),
        {"choices": [{"message": {"content": "bare"}}]},
        completion(usage=None),
        two(completion(None), completion("one of two")),
    ],
)
def test_answers(response: dict[str, Any]) -> None:
    """Text, a tool call, a refusal or audio is an answer, with or without what else a response may hold."""
    check_chat(response)


NOT_ANSWERS: list[tuple[Any, type[APIError], str]] = [
    ([], ServiceError, "malformed"),
    ([completion()], ServiceError, "malformed"),
    ({}, ServiceError, "without choices"),
    ({"object": "chat.completion"}, ServiceError, "without choices"),
    ({"choices": None}, ServiceError, "without choices"),
    ({"choices": []}, ServiceError, "without choices"),
    ({"choices": {"0": {}}}, ServiceError, "without choices"),
    ({"choices": ["text"]}, ServiceError, "choice without a message"),
    ({"choices": [{"text": "an old completion"}]}, ServiceError, "choice without a message"),
    ({"choices": [{"message": None}]}, ServiceError, "choice without a message"),
    ({"choices": [{"message": {"content": 5}}]}, ServiceError, "no text"),
    (completion(usage="12 tokens"), ServiceError, "usage"),
    (completion(usage={"prompt_tokens": "12"}), ServiceError, "usage"),
    (completion(usage={"completion_tokens_details": 3}), ServiceError, "usage"),
    (completion("Half an", finish_reason="error"), ServiceError, "broke off"),
    (completion("", finish_reason="content_filter"), ContentFilterError, "filtered"),
    (completion("Half an", finish_reason="content_filter"), ContentFilterError, "filtered"),
    (two(completion(), completion("", finish_reason="content_filter")), ContentFilterError, "filtered"),
    (completion(None), EmptyAnswerError, "neither text nor a tool call"),
    (completion(""), EmptyAnswerError, "neither text nor a tool call"),
    (message(tool_calls=[]), EmptyAnswerError, "neither text nor a tool call"),
    (completion("", finish_reason="length"), EmptyAnswerError, "raise max_tokens"),
    (completion("", finish_reason="length", usage=REASONED), EmptyAnswerError, "64 of them on reasoning"),
]


@pytest.mark.parametrize(("body", "kind", "words"), NOT_ANSWERS)
def test_what_is_no_answer(httpserver: HTTPServer, body: Any, kind: type[APIError], words: str) -> None:
    """A server that answers so gets the class and words for it; what is malformed is tried again; none is stored."""
    server = ScriptedServer(httpserver, Answer(200, body, {"x-request-id": "req-1"}))
    with client_for(server.base_url) as client:
        error = client.send_message(QUESTION, on_error="return")
    assert type(error) is kind
    assert words in str(error)
    assert (error.status_code, error.request_id, error.endpoint) == (200, "req-1", "127.0.0.1")
    assert error.attempts == len(server.requests) == (3 if kind is ServiceError else 1)
    assert len(client.cache) == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": []},
        {"data": "x"},
        {"data": [{"index": 0}]},
        embeddings([1.0], [2.0]),
        embeddings([]),
        embeddings(["a", "b"]),
        embeddings([1e300]),
        embeddings("not base64"),
        embeddings("AAA="),
        embeddings(5),
        embeddings([float("nan")]),
    ],
)
def test_what_is_no_embedding(httpserver: HTTPServer, body: Any) -> None:
    """An embeddings response without one vector of numbers for each text is malformed, and nothing is stored."""
    server = ScriptedServer(httpserver, Answer(200, body))
    with client_for(server.base_url) as client:
        error = client.get_embedding("apples", on_error="return")
    assert type(error) is ServiceError
    assert "malformed" in str(error)
    assert len(client.cache) == 0


def test_what_is_known_without_http() -> None:
    """A response that no HTTP brought has no status and no identifier."""
    with pytest.raises(ServiceError) as caught:
        check_chat({})
    assert (caught.value.status_code, caught.value.request_id) == (None, None)
    with pytest.raises(ServiceError) as caught:
        check_embeddings(Response({}, "req-2"), 1)
    assert (caught.value.status_code, caught.value.request_id) == (200, "req-2")


@pytest.mark.parametrize(
    ("reason", "written", "max_tokens", "cut"),
    [
        ("stop", 5, None, False),
        ("stop", 5, 5, False),
        ("length", 5, 5, False),
        ("length", 5, 9, True),
        ("length", 5, None, True),
        ("length", None, 9, False),
    ],
)
def test_a_limit_that_is_not_the_callers(reason: str, written: int | None, max_tokens: int | None, cut: bool) -> None:
    """An answer that ends below the caller's own limit, or without one, ended where the context did."""
    response = completion(finish_reason=reason, usage={"completion_tokens": written})
    assert cut_by_context(response, max_tokens) is cut


@settings(max_examples=50)
@given(RESPONSES)
def test_any_response_is_an_answer_or_an_error(response: Any) -> None:
    """Whatever JSON a server sends, it is refused as an error of the tree, or it is a reply that can be used."""
    try:
        check_chat(response)
    except APIError:
        return
    reply = Reply.of(Record("0" * 64, "chat", None, {}, response))
    assert reply.content or reply.tool_calls or reply.refusal or "choices" in response
    assert isinstance(reply.usage, TokenUsage)
    json.dumps(reply)
