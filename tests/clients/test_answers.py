"""Answers: anything else is an error of the tree, asked again where that may help, and not stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from clients import Responding, client_for
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, field_validator
from pytest_httpserver import HTTPServer
from servers import QUESTION, TOOL_CALL, Answer, ScriptedServer, completion

import llmcall
from llmcall import APIError, ConfigError, ContentFilterError, EmptyAnswerError, ServiceError
from llmcall.testing import ScriptedClient

REASONED = {
    "prompt_tokens": 12,
    "completion_tokens": 64,
    "completion_tokens_details": {"reasoning_tokens": 64},
}


# OpenRouter's guide "Image generation": the content is empty beside it.
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def message(**fields: Any) -> dict[str, Any]:
    """Return a completion whose message has these fields and no text."""
    response = completion(None)
    response["choices"][0]["message"].update(fields)
    return response


def two(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return a completion with two choices."""
    return {**first, "choices": first["choices"] + second["choices"]}


# DeepSeek's documentation; vLLM's and SGLang's sources; Z.ai's documentation; Cohere's SDK; reports of
# Gemini's compatible API.
BROKEN_ENDINGS = (
    "insufficient_system_resource",
    "abort",
    "cancelled",
    "timeout",
    "network_error",
    "ERROR_LIMIT",
    "function_call_filter: MALFORMED_FUNCTION_CALL",
    "a word of tomorrow",
)
FILTERED_ENDINGS = (
    "content_filter: SAFETY",
    "content_filter: PROHIBITED_CONTENT",
    "content-filter",
    "guardrail_intervened",
    "sensitive",
    "SAFETY",
)
# The words of the SDKs of OpenAI, Anthropic, Google, Mistral and Cohere, and of litellm's table.
ENDINGS = (
    *("stop", "length", "tool_calls", "function_call"),
    *("end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"),
    *("model_context_window_exceeded", "STOP", "MAX_TOKENS", "model_length", "eos", "eos_token"),
    *("COMPLETE", "STOP_SEQUENCE", "TOOL_CALL", "", None),
)


@pytest.mark.parametrize(
    "response",
    [
        completion("No", finish_reason="length"),
        message(tool_calls=[TOOL_CALL]),
        message(refusal="I cannot help with that."),
        message(audio={"id": "a", "data": "UklGRg=="}),
        message(images=[PICTURE], content=""),
        completion([PICTURE]),  # vLLM-Omni
        {
            "status": "completed",
            "output": [{"type": "image_generation_call", "result": "iVBORw0KGgo="}],
        },
        message(function_call={"name": "price", "arguments": "{}"}),
        {"choices": [{"message": {"content": "bare"}}]},
        completion(usage=None),
        completion(usage="12 tokens"),
        completion(usage={"prompt_tokens": "12", "completion_tokens_details": 3}),
        two(completion(None), completion("one of two")),
        *(completion("Two coins.", finish_reason=reason) for reason in ENDINGS),
    ],
)
def test_text_a_tool_call_a_refusal_audio_or_an_image_is_an_answer(
    response: dict[str, Any],
) -> None:
    """It is stored, whatever else the response holds or lacks."""
    client = Responding(response)
    assert client.send_message("Hello", on_error="raise").raw == response
    assert client.send_message("Hello", on_error="raise").cached


def test_answers_at_their_token_limit_are_logged_once_for_each_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The line names max_tokens, and ``finish_reason`` says so; it is an answer like any other."""
    client = Responding(completion("A long st", finish_reason="length"))
    for text in ("One", "Two"):
        reply = client.send_message(text, max_tokens=7, on_error="raise")
        assert (reply.content, reply.finish_reason) == ("A long st", "length")
    [line] = (line for line in caplog.messages if "cut off at max_tokens" in line)
    assert "max_tokens" in line


# Ollama and OpenRouter; DeepSeek; Mistral; the Responses API of Ollama and vLLM.
THOUGHTS: dict[str, Any] = {
    "reasoning": message(content="", reasoning="Bread or apples? Bread."),
    "reasoning_content": message(content="", reasoning_content="Bread or apples? Bread."),
    "thinking": completion(
        [{"type": "thinking", "thinking": [{"type": "text", "text": "Bread."}]}]
    ),
}


NOT_ANSWERS: list[tuple[Any, type[APIError], str]] = [
    ({"choices": None}, ServiceError, "without choices"),
    ({"choices": {"0": {}}}, ServiceError, "without choices"),
    ({"choices": [{"text": "an old completion"}]}, ServiceError, "choice without a message"),
    ({"choices": [{"message": None}]}, ServiceError, "choice without a message"),
    ({"choices": [{"message": {"content": 5}}]}, ServiceError, "neither text nor a list"),
    (message(tool_calls=[3]), ServiceError, "a tool call that is not an object"),
    (message(tool_calls={"id": "c1"}), ServiceError, "tool_calls that are not a list"),
    (message(refusal={"text": "No."}), ServiceError, "a refusal that is not a string"),
    (completion("Half an", finish_reason="error"), ServiceError, "broke off"),
    *(
        (
            completion("Half an", finish_reason=reason),
            ServiceError,
            f"broke off (finish_reason {reason})",
        )
        for reason in BROKEN_ENDINGS
    ),
    *(
        (
            completion("Half an", finish_reason=reason),
            ContentFilterError,
            f"(finish_reason {reason})",
        )
        for reason in FILTERED_ENDINGS
    ),
    *(
        (
            completion("Half an", finish_reason=reason),
            ServiceError,
            "its finish_reason is not a string",
        )
        for reason in (0, 7, True, [], {"type": "stop"})
    ),
    (completion("", finish_reason="content_filter"), ContentFilterError, "filtered"),
    (
        two(completion(), completion("", finish_reason="content_filter")),
        ContentFilterError,
        "filtered",
    ),
    *(
        (completion([part]), ServiceError, "neither text nor a list")
        for part in (3, {"text": "yes"}, {"type": "text", "text": None})
    ),
    (
        completion([{"type": "thinking", "thinking": []}]),
        EmptyAnswerError,
        "neither text nor a tool call",
    ),
    (completion(""), EmptyAnswerError, "neither text nor a tool call"),
    *(
        (body, EmptyAnswerError, f"all its text is in {place!r} (finish_reason stop)")
        for place, body in THOUGHTS.items()
    ),
    (message(tool_calls=[]), EmptyAnswerError, "neither text nor a tool call"),
    (completion("", finish_reason="length"), EmptyAnswerError, "used up before any text"),
    (
        completion("", finish_reason="length", usage=REASONED),
        EmptyAnswerError,
        "64 of them on reasoning",
    ),
]


@pytest.mark.parametrize(("body", "kind", "words"), NOT_ANSWERS)
def test_an_empty_or_malformed_answer_is_an_error_of_its_own_class(
    httpserver: HTTPServer, body: Any, kind: type[APIError], words: str
) -> None:
    """It has the status, the request and the endpoint; nothing is stored. Only a malformed one is asked again: a
    filtered or empty one would come again.
    """
    server = ScriptedServer(httpserver, Answer(200, body, {"x-request-id": "req-1"}))
    with client_for(server.base_url) as client:
        error = client.send_message(QUESTION, on_error="return")
    assert type(error) is kind
    assert words in str(error)
    assert (error.status_code, error.request_id, error.endpoint) == (200, "req-1", "127.0.0.1")
    assert error.attempts == len(server.requests) == (3 if kind is ServiceError else 1)
    assert len(client.cache) == 0


@pytest.mark.parametrize(
    ("body", "remedy"),
    [
        (completion("", finish_reason="length"), "Raise max_tokens. "),
        (THOUGHTS["reasoning"], "Lower reasoning_effort, or switch the model's thinking off. "),
        (
            {
                "status": "completed",
                "output": [{"type": "reasoning", "summary": [{"text": "Bread."}]}],
            },
            "Lower reasoning_effort, or switch the model's thinking off. ",
        ),
        (completion(""), "Send it again, or change the prompt. "),
    ],
)
def test_more_tokens_are_advised_only_where_the_limit_ended_an_empty_answer(
    body: Any, remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log line of the failed call has the advice."""
    assert Responding(body).send_message("Hello") is None
    assert remedy in caplog.text
    assert caplog.text.count("max_tokens") == remedy.count("max_tokens")


DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(
        ["stop", "length", "content_filter", "error", "assistant", "\ud800", "Two coins."]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "type", "text", "usage", "error", "code", "role"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)
PLACES: list[tuple[Any, ...]] = [
    (),
    ("choices",),
    ("choices", 0),
    ("choices", 0, "message"),
    ("choices", 0, "message", "content"),
    ("usage",),
    ("choices", 0, "message", "tool_calls"),
    ("choices", 0, "finish_reason"),
    ("choices", 0, "index"),
    ("model",),
    ("usage", "prompt_tokens"),
    ("usage", "completion_tokens_details"),
    ("choices", 0, "message", "role"),
    ("id",),
    ("choices", 0, "message", "refusal"),
    ("choices", 0, "logprobs"),
    ("created",),
    ("error",),
    ("service_tier",),
]


def put(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return data with another value at a path."""
    if not path:
        return value
    copied = dict(data) if isinstance(data, dict) else list(data)
    copied[path[0]] = put(
        data[path[0]] if path[0] in data or isinstance(data, list) else {}, path[1:], value
    )
    return copied


@given(st.sampled_from(PLACES), DATA)
def test_any_answer_is_a_reply_or_an_error(path: tuple[Any, ...], value: Any) -> None:
    """A reply is stored and given again, whatever the response holds."""
    client = Responding(put(completion(), path, value), cache_path="any", on_error="raise")
    client.cache.clear()
    is_dict = bool(path) or isinstance(value, dict)
    refusals: type[Exception] = APIError if is_dict else ConfigError
    try:
        found = client.send_message("Hello")
    except refusals:
        return
    again = client.send_message("Hello")
    assert again.cached
    assert repr(again) == repr(found)
    assert len(list(client.cache.records())) == 1


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int

    @field_validator("age")
    @classmethod
    def is_born(cls, age: int) -> int:
        """Refuse what no schema says."""
        if age < 0:
            raise ValueError("nobody is that young")
        return age


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "friends": {"type": "array", "items": {"$ref": "#/$defs/friend"}},
    },
    "required": ["name", "friends"],
    "additionalProperties": False,
    "$defs": {"friend": {"type": "string", "enum": ["Bob", "Eve"]}},
}
STRICT = {
    "type": "json_schema",
    "json_schema": {"name": "person", "strict": True, "schema": SCHEMA},
}
JSON_MODE = {"type": "json_object"}
GOOD = '{"name": "Lisa", "friends": ["Bob"]}'
LISA = '{"name": "Lisa", "age": 3}'


def client_of(answers: Any, path: Path, **overrides: Any) -> ScriptedClient:
    """Return a client that stores, and raises what fails."""
    return ScriptedClient(
        answers, **{"cache_mode": "auto", "cache_path": path, "on_error": "raise", **overrides}
    )


MISFITS = [
    ('{"name": "Lisa"}', LISA, Person, "age: Field required"),
    ('{"name": "Lisa", "age": -1}', LISA, Person, "nobody is that young"),
    ("I would rather not.", LISA, Person, "exactly one JSON object"),
    (
        '{"name": "Lisa", "friends": ["Bob", "Mallory"]}',
        GOOD,
        STRICT,
        r"\$\.friends\[1\]: 'Mallory' is not one of",
    ),
    (
        '{"name": "Lisa", "friends": [], "age": 3}',
        GOOD,
        STRICT,
        r"\$: Additional properties are not allowed",
    ),
    (f"```json\n{GOOD}\n```", GOOD, STRICT, "it is not JSON"),
    ('{"name": "Lisa", "frie', GOOD, STRICT, "it is not JSON"),
    ("I would rather not.", GOOD, JSON_MODE, "it is not JSON"),
    ('{"name": "Lisa", "frie', f"```json\n{GOOD}\n```", JSON_MODE, "it is not JSON"),
]
misfits = pytest.mark.parametrize(("bad", "good", "response_format", "reason"), MISFITS)


def stored_texts(client: ScriptedClient) -> list[str]:
    """Return the answers that a client's cache holds."""
    records = client.cache.records()
    return [record.response["choices"][0]["message"]["content"] for record in records]


@misfits
def test_an_answer_that_does_not_fit_its_response_format_is_asked_again(
    bad: str, good: str, response_format: Any, reason: str, tmp_path: Path
) -> None:
    """Only the answer that fits is stored, and replayed, though the model would no longer keep to it."""
    client = client_of([bad, good], tmp_path)
    assert client.send_message("Who?", response_format=response_format).content == good
    assert len(client.requests) == 2
    assert stored_texts(client) == [good]
    again = client_of(lambda _: bad, tmp_path)
    assert again.send_message("Who?", response_format=response_format).content == good
    assert again.requests == []


@misfits
def test_a_stream_that_does_not_fit_its_response_format_fails(
    bad: str, good: str, response_format: Any, reason: str, tmp_path: Path
) -> None:
    """A reader's pieces cannot be taken back; the next call asks."""
    client = client_of([bad, good], tmp_path)
    with pytest.raises(ServiceError, match=reason):
        list(client.stream_message("Who?", response_format=response_format))
    assert client.send_message("Who?", response_format=response_format).content == good
    assert len(client.requests) == 2
    assert stored_texts(client) == [good]


@misfits
def test_an_answer_that_never_fits_its_response_format_is_an_error_that_says_where(
    bad: str, good: str, response_format: Any, reason: str, tmp_path: Path
) -> None:
    """It comes after the attempts, and nothing is stored."""
    client = client_of(lambda _: bad, tmp_path, retry_max_attempts=3)
    with pytest.raises(ServiceError, match=reason) as failed:
        client.send_message("Who?", response_format=response_format)
    assert failed.value.attempts == len(client.requests) == 3
    assert stored_texts(client) == []


@pytest.mark.parametrize(
    "response_format", [JSON_MODE, STRICT, Person], ids=["JSON mode", "schema", "class"]
)
@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"finish_reason": "length", "message": {"content": '{"name": "Li'}}, '{"name": "Li'),
        (
            {
                "finish_reason": "tool_calls",
                "message": {"content": "Let me look.", "tool_calls": [TOOL_CALL]},
            },
            "Let me look.",
        ),
    ],
    ids=["cut", "tool call"],
)
def test_a_response_format_takes_what_max_tokens_cut_and_words_beside_a_tool_call(
    choice: dict[str, Any], words: str, response_format: Any, tmp_path: Path
) -> None:
    """No format holds for either; ``finish_reason`` says so, in a replay, too."""
    client = client_of(lambda _: {"choices": [{"index": 0, **choice}]}, tmp_path)
    for _ in range(2):
        reply = client.send_message("Who?", response_format=response_format, max_tokens=5)
        assert (reply.content, reply.finish_reason) == (words, choice["finish_reason"])
    assert len(client.requests) == 1


UNREADABLE = {"name": "x", "strict": True, "schema": {"$ref": "http://127.0.0.1:9/schema.json"}}


@pytest.mark.parametrize(
    "described",
    [
        {"name": "x", "strict": False, "schema": SCHEMA},
        UNREADABLE,
        {**UNREADABLE, "schema": None},
    ],
    ids=["not strict", "a schema elsewhere", "no schema"],
)
def test_a_schema_that_is_not_strict_or_cannot_be_read_refuses_nothing(
    described: dict[str, Any], tmp_path: Path
) -> None:
    """The server may know it."""
    client = client_of(["{}"], tmp_path)
    response_format = {"type": "json_schema", "json_schema": described}
    assert client.send_message("Who?", response_format=response_format).content == "{}"


@pytest.mark.parametrize("mode", ["auto", "replay"])
@pytest.mark.parametrize("response_format", [Person, STRICT])
def test_a_recorded_answer_that_does_not_fit_is_a_miss(
    mode: str, response_format: Any, tmp_path: Path
) -> None:
    """The error says why, and what to do."""
    arguments = {"response_format": response_format}
    client = client_of([], tmp_path, cache_mode=mode)
    bad = {"role": "assistant", "content": '{"name": 3}'}
    response = {"choices": [{"index": 0, "finish_reason": "stop", "message": bad}]}
    client.cache.put(client.build_request("Who?", **arguments), response)
    with pytest.raises(llmcall.CacheMissError, match="does not fit its response_format") as missed:
        client.send_message("Who?", **arguments)
    assert "cache_mode='refresh'" in str(missed.value)
    assert client.requests == []


PARTS = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "yes"}]


def test_an_answer_in_parts_is_their_text(tmp_path: Path) -> None:
    """The raw answer has the parts; thinking is no part of a value."""
    client = client_of([{"role": "assistant", "content": PARTS}] * 2, tmp_path)
    reply = client.send_message("Is it?")
    assert reply.content == "yes"
    assert reply.raw["choices"][0]["message"]["content"] == PARTS
    assert llmcall.LLMCall(user="Is it?", output_type=bool, client=client)() is True
