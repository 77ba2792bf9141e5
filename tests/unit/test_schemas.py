"""Schemas of types and functions: one form for every pydantic 2, and the strict form of structured output.

The expected values are literal, so that this file fails under any pydantic that writes another form.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import enum
import functools
import json
import pathlib
from typing import Annotated, Any, Literal, NamedTuple, Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel
from typing_extensions import NotRequired, TypedDict

from llmcall.requests.schemas import (
    canonical,
    format_of,
    is_wrapped,
    model_schema,
    response_format,
    schema,
    strict,
    tool_of,
)


def named(value: object) -> str:
    """Return a test's name for a value: the same in every process, as a function's address is not."""
    return getattr(value, "__name__", str(value))


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
    first: Optional[Node] = Field(None, description="the first child")  # noqa: UP045


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
    city: str, days: int = 3, *, unit: Literal["c", "f"] = "c", near: Annotated[bool, Field(description="x")]
) -> str:
    """Tell the weather.

    In words.
    """
    return f"{city} {days} {unit} {near}"


PINNED = json.loads((pathlib.Path(__file__).parent / "canonical_schemas.json").read_text(encoding="utf-8"))
KINDS = [
    int,
    dict,
    list,
    dict[str, int],
    tuple[int, str],
    Color,
    Only,
    Rating,
    Numbers,
    Plain,
    Buyer,
    Visit,
    Node,
    Whole,
]
KINDS += [Owner, Twins, weather]


@pytest.mark.parametrize(("kind", "name"), list(zip(KINDS, PINNED, strict=True)), ids=lambda found: str(found)[:20])
def test_canonical_form_is_pinned(kind: Any, name: str) -> None:
    """The canonical schema is this JSON to the byte, whatever the version of pydantic or Python."""
    assert json.dumps(model_schema(kind)) == json.dumps(PINNED[name])


CLOSED = {"type": "object", "additionalProperties": False}
STRICT = [
    (bool, {"type": "boolean"}),
    (int, {"type": "integer"}),
    (float, {"type": "number"}),
    (Literal["a", 1], {"enum": ["a", 1], "type": ["integer", "string"]}),
    (Literal[True, None], {"enum": [True, None], "type": ["boolean", "null"]}),
    (Rating, {"enum": ["LOW", "HIGH"], "type": "string"}),
    (list[float], {"items": {"type": "number"}, "type": "array"}),
    (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
    (Numbers, {"description": "Some numbers.", "items": {"type": "integer"}, "type": "array"}),
    (datetime.date, {"format": "date", "type": "string"}),
]


@pytest.mark.parametrize(("kind", "value"), STRICT, ids=lambda found: str(found)[:30])
def test_what_is_no_object_is_wrapped(kind: Any, value: dict[str, Any]) -> None:
    """The API takes an object only, so everything else is its one property."""
    assert schema(kind) == {**CLOSED, "properties": {"value": value}, "required": ["value"]}
    assert is_wrapped(kind)


@pytest.mark.parametrize("kind", [Whole, Node, Visit, dict, str], ids=str)
def test_objects_are_not_wrapped(kind: Any) -> None:
    """What is an object, or asks for nothing, goes as it is."""
    assert not is_wrapped(kind)


def test_strict_objects_require_everything() -> None:
    """Objects are closed and require all their properties, those with a default too."""
    properties = {"day": {"type": "string"}, "coins": {"description": "how many", "type": "integer"}}
    expected = {**CLOSED, "description": "A visit.", "properties": properties, "required": ["day", "coins"]}
    assert schema(Visit) == expected


def test_strict_references_stand_alone() -> None:
    """A reference with a description gets its definition in place; a recursive root is no reference."""
    assert schema(Node) == {
        "type": "object",
        "properties": {
            "value": {"type": "integer"},
            "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            "first": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}], "description": "the first child"},
        },
        "required": ["value", "children", "first"],
        "additionalProperties": False,
        "$defs": {"Node": {name: item for name, item in (schema(Node) or {}).items() if name != "$defs"}},
    }
    part = (schema(Whole) or {})["properties"]["part"]
    assert part["description"] == "the part"
    assert part["properties"] == {"count": {"type": "integer", "minimum": 0, "maximum": 10, "description": "how many"}}


def everywhere(node: Any) -> list[dict[str, Any]]:
    """List all dicts in plain data."""
    inside = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return ([node] if isinstance(node, dict) else []) + [found for item in inside for found in everywhere(item)]


@pytest.mark.parametrize("kind", [Whole, Node, Twins, list[Whole], Node | None], ids=str)
def test_strict_form_keeps_the_rules(kind: Any) -> None:
    """Closed objects that require everything, no default, no reference with siblings, at the root an object."""
    found = schema(kind)
    assert found is not None
    assert found["type"] == "object"
    for node in everywhere(found):
        if node.get("type") == "object":
            assert node["required"] == list(node["properties"])
            assert node["additionalProperties"] is False
        assert "$ref" not in node or list(node) == ["$ref"]
        assert not {"default", "maxLength", "oneOf", "discriminator"} & node.keys()


@pytest.mark.parametrize(
    "kind", [str, dict, list, dict[str, int], tuple[int, str], list[dict], Owner, list[Any]], ids=str
)
def test_open_types_have_no_strict_form(kind: Any) -> None:
    """Text, open dicts, tuples and anything at all cannot be said strictly."""
    assert schema(kind) is None
    assert response_format(kind) is None


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"type": "array", "items": {"type": "string"}}, "no object"),
        ({"type": "object"}, "open dict"),
        ({"type": "object", "properties": {"a": {}}}, "the schema.a allows any value"),
        ({"type": "object", "properties": {"a": {"allOf": [{}, {}]}}}, "the schema.a uses allOf"),
        ({"type": "object", "properties": {"a": {"type": "array", "items": True}}}, r"the schema.a\[\] is True"),
    ],
)
def test_strict_says_what_it_cannot_say(found: dict[str, Any], reason: str) -> None:
    """The error names the place in the schema."""
    with pytest.raises(ValueError, match=reason):
        strict(found)


def test_strict_leaves_its_argument_alone() -> None:
    """Neither form changes the schema that it is given."""
    given_schema = model_schema(Whole)
    before = copy.deepcopy(given_schema)
    strict(given_schema)
    canonical(given_schema)
    assert given_schema == before


@pytest.mark.parametrize("kind", [Whole, Node, Owner, Twins, Buyer, weather], ids=lambda kind: kind.__name__)
def test_canonical_form_is_its_own(kind: Any) -> None:
    """Bringing a canonical schema to the canonical form changes nothing."""
    assert json.dumps(canonical(model_schema(kind))) == json.dumps(model_schema(kind))


def test_unions_keep_their_order() -> None:
    """Two unions that are equal for Python but differ in order do not share a schema."""
    for first, second in ((int, str), (str, int)):
        kinds = {"int": "integer", "str": "string"}
        expected = [{"type": kinds[first.__name__]}, {"type": kinds[second.__name__]}]
        assert model_schema(list[first | second])["items"]["anyOf"] == expected


def test_response_format_names_the_class() -> None:
    """The format bears the class's name, or a general one where there is no class."""
    assert response_format(Visit) == {
        "type": "json_schema",
        "json_schema": {"name": "Visit", "strict": True, "schema": schema(Visit)},
    }
    assert (response_format(list[int]) or {})["json_schema"]["name"] == "answer"


def test_format_of_falls_back_from_strict() -> None:
    """A class that cannot be said strictly is asked for by its canonical schema."""
    assert format_of(Visit) == response_format(Visit)
    assert format_of(Owner)["json_schema"] == {"name": "Owner", "strict": False, "schema": model_schema(Owner)}


@pytest.mark.parametrize("given_format", ["json_object", 3, int, list[int], weather], ids=named)
def test_format_of_refuses_what_is_no_class_of_fields(given_format: Any) -> None:
    """The caller's mistake is a TypeError that says what is taken."""
    with pytest.raises(TypeError, match="a pydantic model, a dataclass or a TypedDict"):
        format_of(given_format)


class Shop:
    """Hold a method."""

    def sell(self, what: str, *rest: int, **more: str) -> None:
        """Sell it."""


UNSAYABLE = object()


def bare_tool(a, b=UNSAYABLE):  # type: ignore[no-untyped-def]
    return a, b


def test_tools_are_described_by_their_functions() -> None:
    """A tool has the function's name, docstring and parameters that can be named."""
    assert tool_of(weather) == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tell the weather.\n\nIn words.",
            "parameters": model_schema(weather),
        },
    }
    what = {
        "additionalProperties": False,
        "properties": {"what": {"type": "string"}},
        "required": ["what"],
        "type": "object",
    }
    assert tool_of(Shop().sell)["function"] == {"name": "sell", "description": "Sell it.", "parameters": what}
    assert tool_of(bare_tool)["function"] == {
        "name": "bare_tool",
        "parameters": {
            "additionalProperties": False,
            "properties": {"a": {}, "b": {}},
            "required": ["a"],
            "type": "object",
        },
    }


def test_classes_are_tools_too() -> None:
    """A class is a tool whose parameters are its fields, a recursive one without a reference at the root."""
    visit = tool_of(Visit)["function"]
    assert (visit["name"], visit["description"], visit["parameters"]["required"]) == ("Visit", "A visit.", ["day"])
    assert tool_of(Node)["function"]["parameters"]["type"] == "object"


def test_partial_functions_have_a_schema() -> None:
    """What a partial fixes by keyword has a default."""
    found = model_schema(functools.partial(weather, "Bonn", near=True))
    assert found["properties"]["near"] == {"default": True, "description": "x", "type": "boolean"}
    assert "city" not in found["properties"]


def positional(a: int, /) -> int:
    return a


def unresolved(a: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821  the point of the test
    pass


@pytest.mark.parametrize(
    ("function", "reason"),
    [(positional, "a is positional-only"), (unresolved, "'Missing' is not defined")],
    ids=named,
)
def test_functions_without_schema_are_type_errors(function: Any, reason: str) -> None:
    """What a model could not call is refused with the function's and the parameter's name."""
    with pytest.raises(TypeError, match=f"{function.__name__} has no JSON schema: .*{reason}"):
        tool_of(function)


@given(st.recursive(st.sampled_from([int, str, bool, float]), lambda inner: st.builds(lambda item: list[item], inner)))
def test_simple_types_have_pydantics_schema(kind: Any) -> None:
    """What is written without pydantic is what pydantic writes."""
    properties = (schema(list[kind]) or {})["properties"]
    assert properties["value"] == model_schema(list[kind])
