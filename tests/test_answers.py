"""What counts as an answer: anything else is an error of the tree, asked again where that may help,
and not stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, field_validator
from pytest_httpserver import HTTPServer
from servers import QUESTION, TOOL_CALL, Answer, Responding, ScriptedServer, client_for, completion

import llmcall
from llmcall import APIError, ContentFilterError, EmptyAnswerError, ServiceError
from llmcall.testing import ScriptedClient

REASONED = {
    "prompt_tokens": 12,
    "completion_tokens": 64,
    "completion_tokens_details": {"reasoning_tokens": 64},
}


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
        completion("No", finish_reason="length"),
        message(tool_calls=[TOOL_CALL]),
        message(refusal="I cannot help with that."),
        message(audio={"id": "a", "data": "UklGRg=="}),
        message(function_call={"name": "price", "arguments": "{}"}),
        {"choices": [{"message": {"content": "bare"}}]},
        completion(usage=None),
        completion(usage="12 tokens"),
        completion(usage={"prompt_tokens": "12", "completion_tokens_details": 3}),
        two(completion(None), completion("one of two")),
    ],
)
def test_what_is_an_answer(response: dict[str, Any]) -> None:
    """Text, a tool call, a refusal or audio is an answer, whatever else a response holds, or does
    not.
    """
    client = Responding(response)
    assert client.send_message("Hello", on_error="raise").raw == response
    assert client.send_message("Hello", on_error="raise").cached


def test_an_answer_at_its_token_limit(caplog: pytest.LogCaptureFixture) -> None:
    """It is complete, and ``finish_reason`` says so; the log does once for each model."""
    client = Responding(completion("A long st", finish_reason="length"))
    for text in ("One", "Two"):
        assert client.send_message(text, max_tokens=7, on_error="raise").finish_reason == "length"
    assert [
        "max_tokens" in line for line in caplog.messages if "ended at its token limit" in line
    ] == [True]


NOT_ANSWERS: list[tuple[Any, type[APIError], str]] = [
    ({"choices": None}, ServiceError, "without choices"),
    ({"choices": {"0": {}}}, ServiceError, "without choices"),
    ({"choices": [{"text": "an old completion"}]}, ServiceError, "choice without a message"),
    ({"choices": [{"message": None}]}, ServiceError, "choice without a message"),
    ({"choices": [{"message": {"content": 5}}]}, ServiceError, "not text"),
    (completion("Half an", finish_reason="error"), ServiceError, "broke off"),
    (completion("", finish_reason="content_filter"), ContentFilterError, "filtered"),
    (
        two(completion(), completion("", finish_reason="content_filter")),
        ContentFilterError,
        "filtered",
    ),
    *(
        (completion([part]), ServiceError, "not text")
        for part in (3, {"text": "yes"}, {"type": "text", "text": None})
    ),
    (
        completion([{"type": "thinking", "thinking": []}]),
        EmptyAnswerError,
        "neither text nor a tool call",
    ),
    (completion(""), EmptyAnswerError, "neither text nor a tool call"),
    (message(tool_calls=[]), EmptyAnswerError, "neither text nor a tool call"),
    (completion("", finish_reason="length"), EmptyAnswerError, "raise max_tokens"),
    (
        completion("", finish_reason="length", usage=REASONED),
        EmptyAnswerError,
        "64 of them on reasoning",
    ),
]


@pytest.mark.parametrize(("body", "kind", "words"), NOT_ANSWERS)
def test_what_is_no_answer(
    httpserver: HTTPServer, body: Any, kind: type[APIError], words: str
) -> None:
    """A server that answers so gets the class and words for it; what is malformed is tried again;
    none is stored.
    """
    server = ScriptedServer(httpserver, Answer(200, body, {"x-request-id": "req-1"}))
    with client_for(server.base_url) as client:
        error = client.send_message(QUESTION, on_error="return")
    assert type(error) is kind
    assert words in str(error)
    assert (error.status_code, error.request_id, error.endpoint) == (200, "req-1", "127.0.0.1")
    assert error.attempts == len(server.requests) == (3 if kind is ServiceError else 1)
    assert len(client.cache) == 0


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


def put(data: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return data with another value in a place."""
    if not place:
        return value
    copied = dict(data) if isinstance(data, dict) else list(data)
    copied[place[0]] = put(
        data[place[0]] if place[0] in data or isinstance(data, list) else {}, place[1:], value
    )
    return copied


@given(st.sampled_from(PLACES), DATA)
def test_any_answer_is_a_reply_or_an_error(place: tuple[Any, ...], value: Any) -> None:
    """Whatever a response holds, it gives a reply, which is stored and given again, or an error of
    the tree.
    """
    client = Responding(put(completion(), place, value), cache_path="any", on_error="raise")
    client.cache.clear()
    try:
        found = client.send_message("Hello")
    except APIError:
        return
    again = client.send_message("Hello")
    assert again.cached and repr(again) == repr(found) and client.cache.verify() == []


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
GOOD = '{"name": "Lisa", "friends": ["Bob"]}'
LISA = '{"name": "Lisa", "age": 3}'


def client_of(answers: Any, path: Path, **overrides: Any) -> ScriptedClient:
    """Return a client that stores, and raises what fails."""
    return ScriptedClient(
        answers, **{"cache_mode": "auto", "cache_path": path, "on_error": "raise", **overrides}
    )


@pytest.mark.parametrize(
    ("bad", "good", "response_format", "said"),
    [
        ('{"name": "Lisa"}', LISA, Person, "age: Field required"),
        ('{"name": "Lisa", "age": -1}', LISA, Person, "nobody is that young"),
        ("I would rather not.", LISA, Person, "no JSON object"),
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
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_does_not_fit_its_response_format(
    bad: str, good: str, response_format: Any, said: str, streamed: bool, tmp_path: Path
) -> None:
    """It is asked again, and only the answer that fits is stored; after the attempts the error says
    where.
    """
    client = client_of([bad, good], tmp_path)
    # what a reader has seen cannot be taken back, so there the call fails, and the next one asks
    if streamed:
        with pytest.raises(ServiceError, match=said):
            list(client.stream_message("Who?", response_format=response_format))
    assert client.send_message("Who?", response_format=response_format).content == good
    assert len(client.requests) == 2
    again = client_of(lambda _: bad, tmp_path, retry_max_attempts=3)
    assert again.send_message("Who?", response_format=response_format).content == good
    with pytest.raises(ServiceError, match=said) as failed:
        again.send_message("Who else?", response_format=response_format)
    assert failed.value.attempts == len(again.requests) == 3
    assert [
        record.response["choices"][0]["message"]["content"] for record in again.cache.records()
    ] == [good]


@pytest.mark.parametrize("response_format", [Person, STRICT])
def test_a_refusal_halfway_fits_any_schema(response_format: Any, tmp_path: Path) -> None:
    """A model that refuses after the first words of its answer is not asked again."""
    refusal = {"role": "assistant", "content": '{"name": "Li', "refusal": "No."}
    client = client_of([refusal], tmp_path)
    for _ in range(2):
        reply = client.send_message("Who?", response_format=response_format)
        assert (reply.refusal, reply.parsed) == ("No.", None)
    assert len(client.requests) == len(client.cache) == 1


def test_what_fits_any_schema(tmp_path: Path) -> None:
    """A refusal does; a schema that is not strict, or that nobody here can read, refuses nothing."""
    refusal = {"role": "assistant", "content": None, "refusal": "No."}
    client = client_of([refusal, "{}", "{}", "{}"], tmp_path)
    assert client.send_message("Who?", response_format=STRICT).refusal == "No."
    elsewhere = {"name": "x", "strict": True, "schema": {"$ref": "http://127.0.0.1:9/schema.json"}}
    for described in (
        {"name": "x", "strict": False, "schema": SCHEMA},
        elsewhere,
        {**elsewhere, "schema": None},
    ):
        response_format = {"type": "json_schema", "json_schema": described}
        assert client.send_message("Who?", response_format=response_format).content == "{}"


def test_a_recorded_answer_that_does_not_fit_is_none_to_a_call_that_says_so(tmp_path: Path) -> None:
    """What a typed call recorded is asked anew, once, and stands beside it: each goes on being
    given its own.
    """
    client = client_of(
        ['{"name": "Lisa"}', LISA, '{"name": "Bob"}', '{"name": "Lisa", "age": 4}'], tmp_path
    )
    call = llmcall.LLMCall(user="Who?", output_type=Person, client=client, model="gpt-4o")
    assert call() == Person(name="Lisa", age=3)
    for cached in (False, True):
        reply = client.send_message("Who?", model="gpt-4o", response_format=Person)
        assert (reply.parsed, reply.cached) == (Person(name="Lisa", age=4), cached)
        assert (
            "".join(client.stream_message("Who?", model="gpt-4o", response_format=Person))
            == reply.content
        )
    assert (call(), len(client.requests)) == (Person(name="Lisa", age=3), 4)


@pytest.mark.parametrize("response_format", [Person, STRICT])
def test_a_recorded_answer_that_no_longer_fits(response_format: Any, tmp_path: Path) -> None:
    """However it came into the cache, it answers no such call; where nothing may be asked, the
    error says so.
    """
    good = LISA if response_format is Person else GOOD
    client = client_of([good], tmp_path)
    request = client.build_request("Who?", response_format=response_format)
    bad = {"role": "assistant", "content": '{"name": 3}'}
    client.cache.put(request, {"choices": [{"index": 0, "finish_reason": "stop", "message": bad}]})
    replaying = client_of([], tmp_path, cache_mode="replay")
    with pytest.raises(
        llmcall.CacheMissError, match=r"not\s+fit\s+this\s+call's\s+response_format"
    ) as missed:
        replaying.send_message("Who?", response_format=response_format)
    assert "cache_mode='auto'" in str(missed.value)
    assert client.send_message("Who?", response_format=response_format).content == good
    assert replaying.send_message("Who?", response_format=response_format).content == good


def test_a_cassette_replays_both_an_answer_that_does_not_fit_and_the_one_beside_it(
    tmp_path: Path,
) -> None:
    """Recording again gives the same bytes; ``new`` adds what fits where the cassette holds only
    what does not.
    """
    path, other = tmp_path / "tape.jsonl", tmp_path / "part.jsonl"

    def play(client: ScriptedClient) -> list[Any]:
        typed = llmcall.LLMCall(user="Who?", output_type=Person, client=client, model="gpt-4o")()
        return [typed, client.send_message("Who?", model="gpt-4o", response_format=Person).parsed]

    answers = ['{"name": "Lisa"}', LISA, '{"name": "Lisa", "age": 4}']
    for name in (path, tmp_path / "again.jsonl"):
        client = client_of(answers, tmp_path / name.stem)
        with llmcall.cassette(name, mode="rewrite"):
            assert play(client) == [Person(name="Lisa", age=3), Person(name="Lisa", age=4)]
        with llmcall.cassette(name, mode="none"):
            assert play(client) == [Person(name="Lisa", age=3), Person(name="Lisa", age=4)]
        assert (len(client.requests), name.read_bytes()) == (3, path.read_bytes())
    other.write_text(
        "".join(line + "\n" for line in path.read_text().splitlines() if "#.anew" not in line)
    )
    client = client_of(answers[2:], tmp_path / "part")
    with (
        llmcall.cassette(other, mode="none"),
        pytest.raises(llmcall.CacheMissError, match="mode='new'"),
    ):
        play(client)
    with llmcall.cassette(other, mode="new"):
        assert play(client)[1] == Person(name="Lisa", age=4)
    assert other.read_bytes() == path.read_bytes()


def test_an_answer_in_parts_is_their_text(tmp_path: Path) -> None:
    """Text parts are one text: in a reply, in a stream that replays it, and where it is read as a
    type.
    """
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "yes"}]
    client = client_of([{"role": "assistant", "content": parts}] * 2, tmp_path)
    assert (
        "".join(client.stream_message("Was it?")) == client.send_message("Was it?").content == "yes"
    )
    assert client.send_message("Is it?").content == "yes"
    assert "".join(client.stream_message("Is it?")) == "yes"
    assert client.send_message("Is it?").raw["choices"][0]["message"]["content"] == parts
    typed = ScriptedClient([{"role": "assistant", "content": parts}])
    assert llmcall.LLMCall(user="Is it?", output_type=bool, client=typed)() is True
