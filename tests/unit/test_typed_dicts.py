"""``typing.TypedDict``, as the tutorials import it, is an output type like any other on every Python."""

from __future__ import annotations

import typing
from typing import Annotated, Any, Literal, Optional, Union

import pytest
import typing_extensions
from pydantic import Field
from typing_extensions import NotRequired, Required

import llmcall
from llmcall.requests.schemas import model_schema, readable, response_format, tool_of
from llmcall.testing import ScriptedClient


class Visit(typing.TypedDict, total=False):
    """A visit."""

    shop: str
    minutes: Annotated[int, Field(ge=1)]


class Day(Visit):
    visits: Required[list[Visit]]
    mood: Literal["good", "bad"]
    note: NotRequired[Optional[str]]  # noqa: UP045  as users write it


class Tree(typing.TypedDict):
    leaf: int
    branches: list[Tree]


class Nowhere(typing.TypedDict):
    field: Unknown  # type: ignore[name-defined]  # noqa: F821


class _Extended:
    """Hold the same types as pydantic reads them on every Python."""

    class Visit(typing_extensions.TypedDict, total=False):
        """A visit."""

        shop: str
        minutes: Annotated[int, Field(ge=1)]

    class Day(Visit):
        visits: Required[list[_Extended.Visit]]
        mood: Literal["good", "bad"]
        note: NotRequired[Optional[str]]  # noqa: UP045

    class Tree(typing_extensions.TypedDict):
        leaf: int
        branches: list[_Extended.Tree]


@pytest.mark.parametrize("name", ["Visit", "Day", "Tree"])
@pytest.mark.parametrize(
    "around",
    [
        lambda inner: inner,
        lambda inner: list[inner],
        lambda inner: dict[str, inner],
        lambda inner: Optional[inner],  # noqa: UP045
        lambda inner: inner | int,
        lambda inner: Union[str, typing.List[inner]],  # noqa: UP006, UP007
        lambda inner: Annotated[inner, Field(description="which")],
    ],
    ids=["itself", "list", "dict", "optional", "union", "typing's own", "annotated"],
)
def test_the_schema_is_that_of_its_twin(name: str, around: Any) -> None:
    """Fields, what is required, docstrings and recursion are as with typing_extensions, alone and inside a type."""
    own, twin = globals()[name], getattr(_Extended, name)
    assert model_schema(around(own)) == model_schema(around(twin))
    assert response_format(around(own)) == response_format(around(twin))


def test_a_parameter_of_a_tool() -> None:
    """A function with such a parameter is a tool."""

    def plan(visits: list[Visit], title: str = "") -> None:
        """Plan a day."""

    def twin(visits: list[_Extended.Visit], title: str = "") -> None:
        """Plan a day."""

    assert tool_of(plan)["function"]["parameters"] == tool_of(twin)["function"]["parameters"]


@pytest.mark.parametrize(
    ("output_type", "answer"),
    [
        (Visit, {"shop": "a", "minutes": 3}),
        (Day, {"visits": [{"shop": "b"}], "mood": "good"}),
        (Tree, {"leaf": 1, "branches": [{"leaf": 2, "branches": []}]}),
    ],
)
def test_an_answer_is_read_as_one(output_type: Any, answer: dict[str, Any]) -> None:
    """It is an output type: the answer is the dict, checked, and asked for again where it does not fit."""
    client = ScriptedClient([{"minutes": 0, "leaf": "x"}, answer])
    call = llmcall.LLMCall(user="Plan.", output_type=output_type, client=client)
    assert call() == answer
    assert len(client.requests) == 2


def test_a_field_of_an_unknown_type() -> None:
    """A name that nobody knows is named."""
    with pytest.raises(TypeError, match=r"Nowhere has no JSON schema: .*(Unknown|not fully defined)"):
        model_schema(Nowhere)


@pytest.mark.parametrize("kind", [int, list[int], int | None, Literal["a"], _Extended.Day, dict[str, Any]])
def test_other_types_are_left_alone(kind: Any) -> None:
    """What has no such type in it is the very same."""
    assert readable(kind) is kind
