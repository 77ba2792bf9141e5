"""What is taken as rows, and what is refused before anything is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

import llmcall
from llmcall.testing import ScriptedClient


class Columns:
    """A frame of another library, which iterates over its columns."""

    columns = ("name",)

    def __iter__(self) -> Iterator[Any]:
        return iter([["Ann", "Ben"]])

    def to_pandas(self) -> Any:
        raise NotImplementedError


NO_ROWS: dict[str, tuple[Callable[[], Any], str]] = {
    "a dict": (lambda: {"name": "Ann"}, r"rows is dict; .*write \[row\] for one row"),
    "an empty dict": (dict, "rows is dict"),
    "columns": (lambda: {"name": ["Ann", "Ben"]}, r"pandas.DataFrame\(columns\)"),
    "a text": (lambda: "Ann", "rows is str; .*into a list"),
    "an empty text": (str, "rows is str"),
    "bytes": (lambda: b"Ann", "rows is bytes"),
    "None": (lambda: None, r"rows is NoneType; .*\(it has no rows\)"),
    "a number": (lambda: 3, "rows is int"),
    "another library's frame": (Columns, r"rows is Columns; .*rows.to_pandas\(\)"),
}


@pytest.fixture
def client() -> ScriptedClient:
    return ScriptedClient(lambda messages: "A")


@pytest.fixture(params=["LLMCall", "@llm"])
def call(request: pytest.FixtureRequest, client: ScriptedClient) -> Any:
    """All that takes rows."""
    if request.param == "LLMCall":
        return llmcall.LLMCall(user="{{ name }}, do you like bread?", client=client)

    @llmcall.llm(client=client)
    def like(name: str) -> str:
        """{{ name }}, do you like bread?"""
        raise NotImplementedError

    return like


def ways(call: Any) -> Iterable[Callable[[Any], Any]]:
    """Return all ways to ask about rows."""
    yield call.map
    yield call.table
    yield lambda rows: call.map(rows, dry_run=True)
    yield lambda rows: call.table(rows, vary={"temperature": [0, 1]})
    yield lambda rows: llmcall.map(call, rows)
    yield lambda rows: llmcall.imap(call, rows)


@pytest.mark.parametrize("rows", NO_ROWS)
def test_what_is_no_list_of_rows_is_refused_before_anything_is_asked(
    rows: str, call: Any, client: ScriptedClient
) -> None:
    """The error says what to write."""
    make, message = NO_ROWS[rows]
    for ask in ways(call):
        with pytest.raises(TypeError, match=message):
            ask(make())
    assert not client.requests


def test_a_list_with_something_that_is_no_row_is_refused_before_anything_is_asked(
    client: ScriptedClient,
) -> None:
    """The row before it costs nothing."""
    for ask in ways(llmcall.LLMCall(user="{{ name }}, do you like bread?", client=client)):
        with pytest.raises(TypeError, match="a row is NoneType; it must be a dict"):
            list(ask([{"name": "Ann"}, None]))
    assert not client.requests


def test_rows_are_any_iterable_of_dicts(call: Any) -> None:
    """A generator that nobody has read, a tuple, the values of a dict, an iterator."""
    row = {"name": "Ann"}
    for rows in ((row for _ in range(2)), (row, row), {1: row, 2: row}.values(), iter([row] * 2)):
        assert len(call.map(rows)) == 2
    assert call.map([]) == call.map(()) == []


def test_a_function_over_a_text_or_a_dict_iterates_as_python_does() -> None:
    """Only the rows of a call have columns."""
    assert llmcall.map(str.upper, "ann") == ["A", "N", "N"]
    assert llmcall.map(str.upper, {"ann": 1}) == ["ANN"]
    assert dict(llmcall.imap(str.upper, "a")) == {0: "A"}


@pytest.mark.parametrize(
    ("last", "options", "error"),
    [
        ({"id": "a/b", "name": "Ann"}, {"key": "id"}, ValueError),
        ({"id": "", "name": "Ann"}, {"key": "id"}, ValueError),
        ({"id": "c"}, {"key": "id"}, llmcall.TemplateError),
        ({"id": "c", "name": None}, {"key": "id"}, llmcall.TemplateError),
        ({"id": "c", "name": object()}, {"key": "id"}, llmcall.TemplateError),
    ],
)
def test_a_wrong_last_row_is_found_before_the_first_call(
    last: dict[str, Any], options: Any, error: type[Exception]
) -> None:
    """A name with ``/``, an empty cell, an object without a text: nothing is paid."""
    client = ScriptedClient(lambda messages: "Yes")
    call = llmcall.LLMCall(user="{{ name }}?", client=client)
    rows = [*({"id": str(number), "name": "Ann"} for number in range(5)), last]
    for ask in (call.map, lambda rows, **options: list(llmcall.imap(call, rows, **options))):
        with llmcall.scope("survey"), pytest.raises(error):
            ask(rows, workers=1, **options)
    assert not client.requests


def test_the_name_of_a_last_item_of_a_function_is_checked_before_the_first() -> None:
    seen: list[str] = []
    with llmcall.scope("survey"), pytest.raises(ValueError, match="item 3 is 'a/b'"):
        llmcall.map(seen.append, ["a", "b", "a/b"], key=str, workers=1)
    assert not seen
