"""Schemas of types and functions: one form for every pydantic 2, and the strict form of structured
output.

The expected schemas are literal, in canonical_schemas.json: this fails under any pydantic that
writes another form.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import json
import pathlib
import typing
from typing import Annotated, Any, Literal, NamedTuple, Optional, Union

import pytest
from pydantic import BaseModel, Field, RootModel
from typing_extensions import NotRequired, Required, TypedDict

import llmcall
from llmcall.testing import ScriptedClient


class Color(enum.Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Only(enum.Enum):
    A = "a"


class Rating(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Part(BaseModel):
    """A part."""

    count: int = Field(default=3, ge=0, le=10.0, description="how many")


class Whole(BaseModel):
    """A whole.

    Of parts.
    """

    title: str = Field(title="Name", description="its name", max_length=5)
    part: Part = Field(description="the part")
    other: Part = Part()
    parts: list[Part] = []
    color: Color = Color.RED
    only: Only
    one: Literal["x"]
    mixed: Literal["x", 1, None]
    maybe: Optional[int] = None  # noqa: UP045  as users write it
    either: int | str | Part
    weight: float = 1.0
    price: decimal.Decimal = decimal.Decimal("1.5")
    day: datetime.date


class Node(BaseModel):
    value: int
    children: list[Node] = []
    first: Optional[Node] = Field(None, description="the first child")  # noqa: UP045  as users write it


class Visit(TypedDict):
    """A visit."""

    day: str
    coins: NotRequired[Annotated[int, Field(description="how many")]]


@dataclasses.dataclass
class Buyer:
    """A buyer."""

    name: str
    goods: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Plain:
    a: int


class Pair(NamedTuple):
    left: int
    right: str = "x"


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Owner(BaseModel):
    pet: Union[Cat, Dog] = Field(discriminator="kind")  # noqa: UP007  pydantic 2.0 takes no other spelling here
    counts: dict[Color, int] = {}
    pair: Pair
    plain: Plain


class Outer:
    class Part(BaseModel):
        other: int


class Twins(BaseModel):
    mine: Part
    theirs: Outer.Part
    again: Part


class Numbers(RootModel[list[int]]):
    """Some numbers."""


def weather(
    city: str,
    days: int = 3,
    *,
    unit: Literal["c", "f"] = "c",
    near: Annotated[bool, Field(description="x")],
) -> str:
    """Tell the weather.

    In words.
    """
    raise NotImplementedError


def takes_all(
    a: int,
    b: dict,
    c: list,
    d: dict[str, int],
    e: tuple[int, str],
    f: Color,
    g: Only,
    h: Rating,
    i: Numbers,
) -> None:
    """Take what is no class of fields."""


def tool(function: Any) -> dict[str, Any]:
    """Return what is sent of a tool."""
    return ScriptedClient().build_request("x", tools=[function]).body["tools"][0]["function"]  # type: ignore[no-any-return]


def asked_for(output_type: Any) -> dict[str, Any] | None:
    """Return the schema that an LLMCall asks a model with structured output for."""
    client = ScriptedClient(
        [{"role": "assistant", "content": None, "refusal": "No."}], model="gpt-4o"
    )
    llmcall.LLMCall(
        user="x", output_type=output_type, output_retries=0, client=client, on_error="none"
    )()
    found = client.requests[0].body.get("response_format")
    assert found is None or found["json_schema"]["strict"] is True
    return found and found["json_schema"]["schema"]  # type: ignore[no-any-return]


def formatted(model: Any) -> dict[str, Any]:
    """Return what is sent of a class given as response_format."""
    return (
        ScriptedClient()
        .build_request("x", response_format=model)
        .body["response_format"]["json_schema"]
    )  # type: ignore[no-any-return]


FRUITS = {"pear", "fig", "apple", "plum", "date", "kiwi"}


class Taste(enum.Enum):
    SWEET, SOUR, BITTER, SALTY, SAVOURY = "sweet", "sour", "bitter", "salty", "savoury"


class Basket(BaseModel):
    fruits: set[str] = FRUITS
    tastes: set[Taste] = set(Taste)


def fill(fruits: set[str] = FRUITS, tastes: set[Taste] = set(Taste)) -> None:  # noqa: B006
    """Fill a basket."""


@pytest.mark.parametrize("given", [Basket, fill])
def test_a_set_as_default_is_sorted_in_a_schema(given: Any) -> None:
    """Its own order depends on the hash seed, so each process would have another key. Of an enum, which Python
    cannot compare, the names decide.
    """
    properties = tool(given)["parameters"]["properties"]
    assert properties["fruits"]["default"] == ["apple", "date", "fig", "kiwi", "pear", "plum"]
    assert properties["tastes"]["default"] == ["bitter", "salty", "savoury", "sour", "sweet"]


PINNED = json.loads(
    (pathlib.Path(__file__).parent / "canonical_schemas.json").read_text(encoding="utf-8")
)


def test_a_class_as_response_format_is_sent_strictly_or_by_its_canonical_schema() -> None:
    """Its schema is the one that an LLMCall asks for. If it has no strict form, the API is asked without ``strict``."""
    assert formatted(Visit) == {"name": "Visit", "strict": True, "schema": asked_for(Visit)}
    assert formatted(Owner) == {
        "name": "Owner",
        "strict": False,
        "schema": PINNED["Owner"]["parameters"],
    }


CLOSED = {"type": "object", "additionalProperties": False}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *(
            (kind, {"type": name})
            for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"))
        ),
        (Literal["a", 1], {"enum": ["a", 1], "type": ["integer", "string"]}),
        (Literal[True, None], {"enum": [True, None], "type": ["boolean", "null"]}),
        (Rating, {"enum": [1, 2], "type": "integer"}),
        (list[float], {"items": {"type": "number"}, "type": "array"}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        # unions that are equal for Python, but differ in order, share no schema
        (
            list[int | str],
            {"items": {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "type": "array"},
        ),
        (
            list[str | int],
            {"items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}, "type": "array"},
        ),
        (Numbers, {"description": "Some numbers.", "items": {"type": "integer"}, "type": "array"}),
        (datetime.date, {"format": "date", "type": "string"}),
        # text, open dicts, tuples and anything at all cannot be said strictly
        *(
            (kind, None)
            for kind in (
                str,
                dict,
                list,
                dict[str, int],
                tuple[int, str],
                list[dict],
                Owner,
                list[Any],
            )
        ),
    ],
    ids=lambda found: str(found)[:30],
)
def test_a_type_that_is_no_object_is_wrapped(kind: Any, value: dict[str, Any] | None) -> None:
    """The API takes an object only, so everything else is its one property, or has no strict form."""
    wrapped = {**CLOSED, "properties": {"value": value}, "required": ["value"]}
    assert asked_for(kind) == (wrapped if value else None)


def test_a_strict_object_requires_every_field() -> None:
    """A field that may be missing is required too."""
    properties = {
        "day": {"type": "string"},
        "coins": {"description": "how many", "type": "integer"},
    }
    assert asked_for(Visit) == {
        **CLOSED,
        "description": "A visit.",
        "properties": properties,
        "required": ["day", "coins"],
    }
    whole = asked_for(Whole) or {}
    assert whole["required"] == list(whole["properties"])


def test_a_strict_schema_may_refer_to_itself() -> None:
    """A recursive class stands among the definitions, alone and in a list."""
    node = {
        **CLOSED,
        "properties": {
            "value": {"type": "integer"},
            "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            "first": {
                "anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}],
                "description": "the first child",
            },
        },
        "required": ["value", "children", "first"],
    }
    assert asked_for(Node) == {**node, "$defs": {"Node": node}}
    assert (asked_for(list[Node]) or {})["$defs"] == {"Node": node}


def test_a_strict_schema_has_no_titles_lengths_and_defaults() -> None:
    """The API refuses them."""
    properties = (asked_for(Whole) or {})["properties"]
    assert properties["title"] == {"description": "its name", "type": "string"}
    assert properties["weight"] == {"type": "number"}


class Shop:
    """A class with a method."""

    def sell(self, what: str, *rest: int, **more: str) -> None:
        """Sell it."""


def test_a_tool_has_its_functions_name_docstring_and_parameters() -> None:
    """``self`` and parameters without names are left out."""
    what = {"properties": {"what": {"type": "string"}}, "required": ["what"], **CLOSED}
    assert tool(Shop().sell) == {"name": "sell", "description": "Sell it.", "parameters": what}


def test_a_tool_of_a_partial_function_is_described_by_the_function() -> None:
    """Without the argument that is settled."""

    def sell(shop: str, what: str) -> None:
        """Sell it."""

    what = {"properties": {"what": {"type": "string"}}, "required": ["what"], **CLOSED}
    settled = functools.partial(functools.partial(sell), "bakery")
    assert tool(settled) == {"name": "sell", "description": "Sell it.", "parameters": what}


def unresolved(a: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821  the point of the test
    pass


def test_a_tool_of_an_unknown_type_is_refused_by_name() -> None:
    """The error names the function, and the type that nobody knows."""
    for unknown, field in ((unresolved, "Missing"), (Nowhere, "Unknown")):
        with pytest.raises(
            TypeError,
            match=rf"{unknown.__name__} has no JSON schema: .*({field}|not fully defined)",
        ):
            tool(unknown)


class Trip(TypedDict, total=False):
    """A trip."""

    shop: str
    minutes: Annotated[int, Field(ge=1)]


class Day(Trip):
    trips: Required[list[Trip]]
    mood: Literal["good", "bad"]
    note: NotRequired[Optional[str]]  # noqa: UP045  as users write it


class Tree(TypedDict):
    leaf: int
    branches: list[Tree]


class Nowhere(TypedDict):
    field: Unknown  # type: ignore[name-defined]  # noqa: F821  the point of the test


def plan(
    a: Trip,
    b: dict[str, Day],
    c: Optional[Tree],  # noqa: UP045  as users write it
    d: Union[str, typing.List[Trip]] | int,  # noqa: UP006, UP007  as users write it
    e: list[Annotated[Tree, Field(description="which")]],
) -> None:
    """Take one of each."""


@pytest.mark.parametrize(
    "kind",
    [takes_all, Plain, Buyer, Visit, Node, Whole, Owner, Twins, weather, Trip, Day, Tree, plan],
)
def test_the_canonical_form_is_pinned(kind: Any) -> None:
    """The schema of a tool is this JSON to the byte, whatever the version of pydantic or Python, or
    the TypedDict.
    """
    assert json.dumps(tool(kind)) == json.dumps(PINNED[kind.__name__])


@pytest.mark.parametrize(
    ("kind", "answer"),
    [(Day, {"trips": [{"shop": "b"}], "mood": "good"}), (Tree, {"leaf": 1, "branches": []})],
)
def test_an_answer_that_does_not_fit_a_typed_dict_is_asked_for_again(
    kind: Any, answer: dict[str, Any]
) -> None:
    """The answer is the dict, checked."""
    client = ScriptedClient([{"minutes": 0, "leaf": "x"}, answer])
    assert llmcall.LLMCall(user="Plan.", output_type=kind, client=client)() == answer
    assert len(client.requests) == 2
