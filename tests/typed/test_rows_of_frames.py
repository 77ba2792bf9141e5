"""Frames as rows: answers stand under the index of the rows that they answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal
from typing import Any

import numpy
import pandas
import pytest

import llmcall
from llmcall import LLMCall
from llmcall.testing import ScriptedClient

NAMES = ["Ann", "Ben", "Cleo", "Dan"]
AGES = [30, 9, 40, 50]
INDEXES = {
    "filtered": pandas.Index([0, 2, 3]),
    "duplicates": pandas.Index([7, 7, 7]),
    "named": pandas.Index(["a", "b", "c"], name="value"),
    "dates": pandas.to_datetime(["2026-01-01", "2026-01-03", "2026-01-02"]),
    "decimals": pandas.Index([1.5, 2.5, 0.0]),
    "missing": pandas.Index([None, "b", None]),
    "levels": pandas.MultiIndex.from_tuples([("x", 1), ("x", 1), ("y", 2)], names=["rep", None]),
}


class Echo(ScriptedClient):
    """Answers with the name that it is asked about, in other processes too."""

    def __init__(self) -> None:
        super().__init__(lambda messages: messages[0]["content"])

    def __reduce__(self) -> Any:
        return Echo, ()


CALL = llmcall.LLMCall(user="{{ name }}", client=Echo())


@pytest.fixture(params=INDEXES)
def adults(request: pytest.FixtureRequest) -> Any:
    """Rows that were filtered from more, with an index of some kind."""
    people = pandas.DataFrame({"name": NAMES, "age": AGES})
    return people[people["age"] > 17].set_axis(INDEXES[request.param])


def test_a_table_keeps_the_index_of_its_frame(adults: Any) -> None:
    before = adults.copy()
    table = CALL.table(adults)
    pandas.testing.assert_index_equal(table.index, adults.index)
    assert table["value"].tolist() == table["name"].tolist() == adults["name"].tolist()
    pandas.testing.assert_frame_equal(adults, before)


def test_answers_are_assigned_to_the_rows_that_they_answer() -> None:
    """pandas aligns by the index; so the adults among the people get their own answers."""
    people = pandas.DataFrame({"name": NAMES, "age": AGES})
    adults = people[people["age"] > 17].copy()
    adults["table"] = CALL.table(adults)["value"]
    adults["map"] = CALL.map(adults)
    adults["function"] = llmcall.map(lambda row: row["name"], adults)
    for column in ("table", "map", "function"):
        assert adults[column].tolist() == adults["name"].tolist()


def test_repeats_and_vary_repeat_the_index(adults: Any) -> None:
    index = adults.index.repeat(2)
    table = CALL.table(adults, repeats=2)
    varied = CALL.table(adults, vary={"temperature": [0, 1]}, repeats=2)
    pandas.testing.assert_index_equal(table.index, index)
    pandas.testing.assert_index_equal(varied.index, index.append(index))
    assert table["value"].tolist() == table["name"].tolist()
    assert varied["value"].tolist() == varied["name"].tolist()
    assert varied["temperature"].tolist() == [0] * 6 + [1] * 6


def test_rows_that_fail_keep_their_index(adults: Any) -> None:
    client = ScriptedClient(
        lambda messages: (
            llmcall.AuthenticationError("no") if "Cleo" in messages[0]["content"] else "yes"
        )
    )
    call = llmcall.LLMCall(user="{{ name }}", client=client)
    for on_error in ("none", "return"):
        table = call.table(adults, on_error=on_error, workers=1)
        pandas.testing.assert_index_equal(table.index, adults.index)
        assert table["error"].isna().tolist() == [True, False, True]


@pytest.mark.feature("executors")
def test_a_table_of_other_processes_keeps_the_index(adults: Any) -> None:
    with ProcessPoolExecutor(1) as pool:
        table = CALL.table(adults, executor=pool)
    pandas.testing.assert_index_equal(table.index, adults.index)
    assert table["value"].tolist() == adults["name"].tolist()


@pytest.mark.parametrize("vary", [None, {"temperature": [0]}])
def test_lists_of_rows_are_numbered(vary: Any) -> None:
    rows = [{"name": name} for name in NAMES]
    assert CALL.table(rows, vary=vary).index.tolist() == [0, 1, 2, 3]
    assert CALL.table(rows, vary=vary, repeats=2).index.tolist() == list(range(8))


def test_a_cell_of_32_bits_is_sent_as_pandas_prints_it() -> None:
    prices = numpy.array([0.1, 3.3333333, 1e-05], dtype="float32")
    asked = LLMCall(user="{{ price }}", client=Echo())
    assert asked.map(pandas.DataFrame({"price": prices})) == ["0.1", "3.3333333", "1e-05"]


def test_a_frame_without_rows_gives_an_empty_table() -> None:
    none = pandas.DataFrame({"name": []}, index=pandas.Index([], name="id", dtype=object))
    pandas.testing.assert_index_equal(CALL.table(none).index, none.index)


# Cells that hold nothing

WAGES = {
    "NaN": [100.0, float("nan"), 300.0, float("nan")],
    "None": pandas.Series(["100", None, "300", None], dtype=object),
    "NA": pandas.array([100, None, 300, None], dtype="Int64"),
    "NaT": pandas.to_datetime(["2026-01-01", None, "2026-01-03", None]),
}
USING = [
    "You earn {{ wage }}.",
    "{% set pay = wage|string %}{{ name }} earns {{ 'about ' ~ pay }}.",
    "{% for word in ['a'] %}{{ [word, wage]|join(' ') }}{% endfor %}",
    "{% macro told(sum) %}{{ sum }}{% endmacro %}{{ told(wage) }}",
    "{{ [wage] }}",
    "{{ wage | int }} coins",
    "{{ wage | float | round(1) }} coins",
    "{% if wage %}You are paid.{% endif %}",
]
TESTING = {
    "{% if paid %}You earn {{ wage }}.{% else %}Hello.{% endif %}": "Hello.",
    "You earn {{ wage | default('nothing') }}.": "You earn nothing.",
    "{{ wage if wage is defined else 'no wage' }}": "no wage",
    "{{ name }}": "Ben",
    "{{ wage is undefined }}, {{ name }}": "True, Ben",
}


@pytest.fixture
def earners() -> Callable[[str], Any]:
    """Four people, two of whom have no wage, of some kind of emptiness."""
    return lambda kind: pandas.DataFrame(
        {"name": NAMES, "wage": WAGES[kind], "unused": [None] * 4, "paid": [True, False] * 2}
    ).set_axis(["a", "b", "c", "d"])


@pytest.mark.parametrize("kind", WAGES)
@pytest.mark.parametrize("text", USING)
def test_a_cell_that_holds_nothing_is_an_undefined_variable(
    text: str, kind: str, earners: Any
) -> None:
    """However the template uses it; the error names the column and the row. The others are asked about."""
    found = LLMCall(user=text, client=Echo()).map(earners(kind), on_error="return")
    assert [type(answer) for answer in found[::2]] == [str, str]
    for error, row in zip(found[1::2], "bd", strict=True):
        assert isinstance(error, llmcall.TemplateError)
        assert f"the column 'wage' holds nothing in row '{row}'" in str(error)


@pytest.mark.parametrize("kind", WAGES)
@pytest.mark.parametrize("text", TESTING)
def test_a_template_may_test_a_cell_or_give_a_default(text: str, kind: str, earners: Any) -> None:
    """And a cell that it does not use, or not reach, does not matter; in a row dict, too."""
    for rows in (earners(kind), earners(kind).to_dict("records")):
        assert LLMCall(user=text, client=Echo()).map(rows)[1] == TESTING[text]


def test_each_way_to_ask_about_a_frame_refuses_its_missing_cells(earners: Any) -> None:
    """A plan, too: before anything is paid."""
    frame = earners("NaN")
    call = LLMCall(user="{{ wage }}", client=Echo())
    varied = {"user": {"plain": "{{ name }}", "wage": "{{ wage }}"}, "temperature": [0, 1]}
    history = [{"role": "user", "content": "I earn {{ wage }}."}]
    for ask in (
        lambda: call.map(frame, dry_run=True),
        lambda: list(llmcall.imap(call, frame)),
        lambda: call.table(frame, repeats=2),
        lambda: call.table(frame, vary=varied),
        lambda: LLMCall(user="{{ name }}", history=history, client=Echo()).map(frame),
    ):
        with pytest.raises(llmcall.TemplateError, match=r"'wage' holds nothing in row '[bd]'"):
            ask()


def test_a_function_gets_undefined_cells_of_a_frame(earners: Any) -> None:
    """Those of ``@llm`` that its template tests."""

    @llmcall.llm(client=Echo())
    def told(name: str, wage: float) -> str:
        """{{ name }}{% if wage is defined %} earns {{ wage }}{% endif %}"""
        raise NotImplementedError

    assert told.map(earners("NaN"))[:2] == ["Ann earns 100.0", "Ben"]


@pytest.mark.parametrize("text", USING)
@pytest.mark.parametrize("kind", WAGES)
def test_a_row_dict_that_holds_nothing_is_found_before_the_first_call(
    text: str, kind: str, earners: Any
) -> None:
    """As of a frame: the error names the column and the row."""
    client = Echo()
    rows = earners(kind).to_dict("records")
    with pytest.raises(llmcall.TemplateError, match=r"'wage' holds nothing in row 1 \("):
        LLMCall(user=text, client=client).map(rows)
    assert not client.requests


@pytest.mark.parametrize(
    "nothing", [Decimal("NaN"), numpy.datetime64("NaT", "s"), numpy.timedelta64("NaT", "s")]
)
def test_a_row_dict_with_a_decimal_or_a_date_that_is_none_is_found_before_the_first_call(
    nothing: object,
) -> None:
    """They are not equal to themselves, as NaN is not."""
    client = Echo()
    with pytest.raises(llmcall.TemplateError, match=r"'wage' holds nothing in row 1 \("):
        LLMCall(user="{{ wage }}", client=client).map([{"wage": 1}, {"wage": nothing}])
    assert not client.requests


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([{"role": "user", "content": "half \ud800"}], "has a lone surrogate at index 5"),
        ([{"role": "user"}], r"messages\[0\] has no content"),
        ([{"role": "persona", "content": "Hi"}], r"messages\[0\].role is 'persona'"),
    ],
)
def test_a_row_whose_messages_cannot_be_sent_is_found_before_the_first_call(
    history: Any, message: str
) -> None:
    """Whatever the template says of them."""
    client = Echo()
    with pytest.raises(ValueError, match=rf"{message}.*\(item 2\)"):
        LLMCall(user="Go on.", history="so_far", client=client).map(
            [{"so_far": []}, {"so_far": history}]
        )
    assert not client.requests
