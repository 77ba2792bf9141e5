"""The output types of LLMCall: asked for by schema where the model has structured output, else in words."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import Any, Literal, Optional

import pydantic
import pytest
from typing_extensions import TypedDict

import llmcall
from llmcall import LLMCall
from llmcall.testing import ScriptedClient

STRUCTURED = "gpt-4o-mini"
UNSTRUCTURED = "gpt-3.5-turbo"


class Mood(enum.Enum):
    """Name a mood."""

    HAPPY = "happy"
    SAD = "sad"


class Offer(pydantic.BaseModel):
    """Be a pydantic model."""

    item: str
    price: float = pydantic.Field(gt=0)


@dataclass
class Deal:
    """Be a dataclass."""

    item: str
    coins: int


class Row(TypedDict):
    """Be a TypedDict."""

    item: str
    sold: bool


# The type, an answer in the model's words, an answer by the schema, and the value of both.
TYPES: dict[str, tuple[Any, str, Any, Any]] = {
    "str": (str, "Two coins.", None, "Two coins."),
    "bool": (bool, "Yes, because it is cheap.", {"value": True}, True),
    "int": (int, "About 1,200 coins", {"value": 1200}, 1200),
    "float": (float, "2.5 coins", {"value": 2.5}, 2.5),
    "literal": (Literal["buy", "sell"], "**Buy**", {"value": "buy"}, "buy"),
    "enum": (Mood, "HAPPY", {"value": "happy"}, Mood.HAPPY),
    "strings": (list[str], '["a", "b",]', {"value": ["a", "b"]}, ["a", "b"]),
    "list of numbers": (list[int], "[1, 2]", {"value": [1, 2]}, [1, 2]),
    "list of models": (list[Offer], '[{"item": "a", "price": 2}]', None, [Offer(item="a", price=2)]),
    "dict": (dict, "{'a': 1}", None, {"a": 1}),
    "typed dict of numbers": (dict[str, int], '{"a": 1}', None, {"a": 1}),
    "optional": (Optional[int], "null", {"value": None}, None),  # noqa: UP045 - this spelling too
    "model": (Offer, 'Gladly: {"item": "a", "price": 2}', {"item": "a", "price": 2}, Offer(item="a", price=2)),
    "dataclass": (Deal, '```json\n{"item": "a", "coins": 2}\n```', {"item": "a", "coins": 2}, Deal("a", 2)),
    "TypedDict": (Row, '{"item": "a", "sold": true}', {"item": "a", "sold": True}, {"item": "a", "sold": True}),
}


def asked(client: ScriptedClient) -> tuple[str, Any]:
    """Return the user message and the response_format of the last request."""
    body = client.requests[-1].body
    return body["messages"][-1]["content"], body.get("response_format")


@pytest.mark.parametrize("name", TYPES)
def test_in_words(name: str) -> None:
    """A model without structured output is told in the prompt what to answer, and is read leniently."""
    output_type, answer, _, value = TYPES[name]
    client = ScriptedClient([answer], model=UNSTRUCTURED)
    assert LLMCall(user="What now?", output_type=output_type, client=client).call() == value
    prompt, sent = asked(client)
    assert sent is None
    assert (prompt == "What now?") is (output_type is str)
    assert prompt.startswith("What now?")


@pytest.mark.parametrize("name", TYPES)
def test_by_schema(name: str) -> None:
    """A model with structured output gets the schema and the bare prompt; where there is no schema, words."""
    output_type, answer, structured, value = TYPES[name]
    client = ScriptedClient([answer if structured is None else json.dumps(structured)], model=STRUCTURED)
    found = LLMCall(user="What now?", output_type=output_type, client=client).call()
    assert found == value and type(found) is type(value)
    prompt, sent = asked(client)
    if structured is not None:
        assert prompt == "What now?"
        assert sent["type"] == "json_schema" and sent["json_schema"]["strict"] is True
        assert sent["json_schema"]["schema"]["properties"].keys() == structured.keys()


def test_a_structured_answer_that_breaks_a_constraint_is_asked_again() -> None:
    """What a strict schema cannot say is checked in the answer, and the correction names it."""
    client = ScriptedClient(['{"item": "a", "price": -1}', '{"item": "a", "price": 1}'], model=STRUCTURED)
    assert LLMCall(user="Sell!", output_type=Offer, client=client).call() == Offer(item="a", price=1)
    correction, sent = asked(client)
    assert "price" in correction and "greater than 0" in correction
    assert sent is not None


def test_a_structured_answer_that_ignores_the_schema() -> None:
    """A server that ignores the schema is read leniently all the same."""
    client = ScriptedClient(["Yes, of course."], model=STRUCTURED)
    assert LLMCall(user="Buy?", output_type=bool, client=client).call() is True


def test_the_model_of_the_call_decides() -> None:
    """Whether there is a schema depends on the model among the parameters, after aliases."""
    client = ScriptedClient(["Yes.", '{"value": true}'], model=STRUCTURED)
    with llmcall.configured(aliases={"old": UNSTRUCTURED}):
        LLMCall(user="Buy?", output_type=bool, client=client, model="old").call()
        assert asked(client)[1] is None
        LLMCall(user="Buy?", output_type=bool, client=client).call()
        assert asked(client)[1] is not None


def test_capabilities_can_be_configured() -> None:
    """[Model …] STRUCTURED_OUTPUT says that a server's model understands schemas."""
    client = ScriptedClient(['{"value": 3}'], model="my-model", models={"my-*": {"structured_output": "yes"}})
    assert LLMCall(user="How many?", output_type=int, client=client).call() == 3
    assert asked(client)[1] is not None


def test_a_response_format_of_the_callers_own() -> None:
    """A response_format among the parameters is sent as it is, and the type is described and read leniently."""
    client = ScriptedClient(['{"a": 1}'], model=STRUCTURED)
    wanted = {"type": "json_object"}
    assert LLMCall(user="As JSON?", output_type=dict, client=client, response_format=wanted).call() == {"a": 1}
    prompt, sent = asked(client)
    assert sent == wanted and "JSON object" in prompt


def test_the_description_without_a_user_message() -> None:
    """Where there is a system message alone, it tells what to answer."""
    client = ScriptedClient(["3"], model=UNSTRUCTURED)
    assert LLMCall(system="Count.", output_type=int, client=client).call() == 3
    assert asked(client)[0] == "Count.\n\nAnswer with only a whole number."


def test_a_type_that_cannot_be_read() -> None:
    """A type without a reading is a TypeError that names it."""
    client = ScriptedClient(["3"], model=UNSTRUCTURED)
    with pytest.raises(TypeError, match="object"):
        LLMCall(user="What?", output_type=object(), client=client).call()
