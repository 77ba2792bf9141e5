"""Answers with a ``response_format``: what does not fit it is asked again, and never stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

import llmcall
from llmcall.testing import ScriptedClient


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
    "properties": {"name": {"type": "string"}, "friends": {"type": "array", "items": {"$ref": "#/$defs/friend"}}},
    "required": ["name", "friends"],
    "additionalProperties": False,
    "$defs": {"friend": {"type": "string", "enum": ["Bob", "Eve"]}},
}
STRICT = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": SCHEMA}}
LOOSE = {"type": "json_schema", "json_schema": {"name": "person", "strict": False, "schema": SCHEMA}}
GOOD = {"name": "Lisa", "friends": ["Bob"]}


def client_of(answers: Any, path: Path, **overrides: Any) -> ScriptedClient:
    """Return a client that stores, and raises what fails."""
    return ScriptedClient(answers, cache_mode="auto", cache_path=path, on_error="raise", **overrides)


@pytest.mark.parametrize(
    ("bad", "good", "response_format"),
    [
        ('{"name": "Lisa"}', '{"name": "Lisa", "age": 3}', Person),
        ('{"name": "Lisa", "age": -1}', '{"name": "Lisa", "age": 3}', Person),
        ("I would rather not.", '{"name": "Lisa", "age": 3}', Person),
        ('{"name": "Lisa", "friends": ["Mallory"]}', json.dumps(GOOD), STRICT),
        (f"```json\n{json.dumps(GOOD)}\n```", json.dumps(GOOD), STRICT),
        ('{"name": "Lisa", "frie', json.dumps(GOOD), STRICT),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_does_not_fit_is_asked_again(
    bad: str, good: str, response_format: Any, streamed: bool, tmp_path: Path
) -> None:
    """Only the answer that fits is stored; another run reads it."""
    if streamed:  # what a reader has seen cannot be taken back, so there the call fails, and the next one asks
        streaming = client_of([bad, good], tmp_path)
        with pytest.raises(llmcall.ServiceError, match="does not fit its response_format"):
            list(streaming.stream_message("Who?", response_format=response_format))
        assert streaming.send_message("Who?", response_format=response_format).content == good
    else:
        client = client_of([bad, good], tmp_path)
        assert client.send_message("Who?", response_format=response_format).content == good
        assert len(client.requests) == 2
    again = client_of([], tmp_path)
    assert again.send_message("Who?", response_format=response_format).content == good
    assert [record.response["choices"][0]["message"]["content"] for record in again.cache.records()] == [good]


@pytest.mark.parametrize(
    ("bad", "response_format", "said"),
    [
        ('{"name": "Lisa"}', Person, "it is not a Person: age: Field required"),
        ('{"name": "Lisa", "friends": ["Bob", "Mallory"]}', STRICT, r"\$\.friends\[1\]: 'Mallory' is not one of"),
        ('{"name": "Lisa", "friends": [], "age": 3}', STRICT, r"\$: Additional properties are not allowed"),
        ("none", STRICT, "it is no JSON"),
    ],
)
def test_what_never_fits_says_where(bad: str, response_format: Any, said: str, tmp_path: Path) -> None:
    """After the attempts the call fails with the place, and nothing is stored."""
    client = client_of(lambda _: bad, tmp_path, retry_max_attempts=3)
    with pytest.raises(llmcall.ServiceError, match=said) as failed:
        client.send_message("Who?", response_format=response_format)
    assert failed.value.attempts == len(client.requests) == 3
    assert len(client.cache) == 0


def test_a_schema_that_is_not_strict_refuses_nothing(tmp_path: Path) -> None:
    """The server was told that it may answer otherwise."""
    client = client_of(["{}"], tmp_path)
    assert client.send_message("Who?", response_format=LOOSE).content == "{}"
    assert client.send_message("Who?", response_format=LOOSE).cached


def test_refusals_and_unusable_schemas_pass(tmp_path: Path) -> None:
    """A refusal fits any schema; a schema that nobody here can read refuses nothing, and nothing is fetched for it."""
    refusal = {"role": "assistant", "content": None, "refusal": "No."}
    client = client_of([refusal, "{}"], tmp_path)
    assert client.send_message("Who?", response_format=STRICT).refusal == "No."
    elsewhere = {"$ref": "http://127.0.0.1:9/schema.json"}
    strict = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": elsewhere}}
    assert client.send_message("Who?", response_format=strict).content == "{}"


@pytest.mark.parametrize("parts", [[{"type": "thinking", "thinking": []}, {"type": "text", "text": "yes"}]])
def test_an_answer_in_parts_is_their_text(parts: Any, tmp_path: Path) -> None:
    """Text parts are one text: in a reply, in a stream that replays it, and where it is read as a type."""
    client = client_of([{"role": "assistant", "content": parts}], tmp_path)
    assert client.send_message("Is it?").content == "yes"
    assert "".join(client.stream_message("Is it?")) == "yes"
    assert client.send_message("Is it?").raw["choices"][0]["message"]["content"] == parts
    assert llmcall.LLMCall(user="Is it?", output_type=bool, client=ScriptedClient([client.send_message("Is it?")]))()
    typed = ScriptedClient([{"role": "assistant", "content": parts}])
    assert llmcall.LLMCall(user="Is it?", output_type=bool, client=typed)() is True


@pytest.mark.parametrize("parts", [[3], [{"text": "yes"}], [{"type": "text", "text": None}]])
def test_parts_that_are_none_are_malformed(parts: Any, tmp_path: Path) -> None:
    """They are refused when they come, not when they are read."""
    client = client_of(lambda _: {"role": "assistant", "content": parts}, tmp_path, retry_max_attempts=2)
    with pytest.raises(llmcall.ServiceError, match="malformed"):
        client.send_message("Is it?")


def test_parts_without_text_are_empty(tmp_path: Path) -> None:
    """Thoughts alone are no answer."""
    client = client_of(lambda _: {"role": "assistant", "content": [{"type": "thinking", "thinking": []}]}, tmp_path)
    with pytest.raises(llmcall.EmptyAnswerError):
        client.send_message("Is it?")


def test_a_typed_call_reads_its_answers_itself(tmp_path: Path) -> None:
    """What does not fit is recorded, and asked again with the reason; a replay repeats both."""
    answers = ['{"name": "Lisa"}', '{"name": "Lisa", "age": 3}']
    client = client_of(answers, tmp_path, model="gpt-4o")
    call = llmcall.LLMCall(user="Who?", output_type=Person, client=client)
    assert call() == Person(name="Lisa", age=3)
    assert "age: Field required" in client.requests[1].messages[-1]["content"]
    replaying = client_of([], tmp_path, model="gpt-4o")
    assert llmcall.LLMCall(user="Who?", output_type=Person, client=replaying)() == Person(name="Lisa", age=3)
    assert len(replaying.cache) == 2


def test_a_schema_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a class is asked for, pydantic makes its schema once; nobody's copy changes another's."""
    made: list[Any] = []
    make = Person.__get_pydantic_json_schema__
    monkeypatch.setattr(Person, "__get_pydantic_json_schema__", lambda *given: made.append(1) or make(*given))
    client = client_of(lambda _: '{"name": "Lisa", "age": 3}', tmp_path)
    for number in range(3):
        request = client.build_request(str(number), response_format=Person)
        schema = request.body["response_format"]["json_schema"]["schema"]
        assert schema["properties"].keys() == {"name", "age"}
        schema["properties"].clear()
    assert len(made) <= 1
