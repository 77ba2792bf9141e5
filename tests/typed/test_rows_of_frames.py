"""Frames as rows: answers stand under the index of the rows that they answer."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

import llmcall
from llmcall.testing import ScriptedClient

pandas = pytest.importorskip("pandas")

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


def first(messages: list[Any]) -> str:
    """Answer with the option that stands first for most, and with none for Cleo."""
    return "none of them" if "Cleo" in messages[0]["content"] else "A"


CALL = llmcall.LLMCall(user="{{ name }}", client=Echo())
CHOICE = llmcall.choice("{{ name }}?", ["tea", "milk"], client=ScriptedClient(first))


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


def test_repeats_repeat_the_index(adults: Any) -> None:
    table = CALL.table(adults, repeats=2)
    pandas.testing.assert_index_equal(table.index, adults.index.repeat(2))
    assert table["value"].tolist() == table["name"].tolist()


def test_vary_repeats_the_index(adults: Any) -> None:
    table = CALL.table(adults, vary={"temperature": [0, 1]}, repeats=2)
    index = adults.index.repeat(2)
    pandas.testing.assert_index_equal(table.index, index.append(index))
    assert table["value"].tolist() == table["name"].tolist()
    assert table["temperature"].tolist() == [0] * 6 + [1] * 6


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


def test_a_table_of_other_processes_keeps_the_index(adults: Any) -> None:
    with ProcessPoolExecutor(1) as pool:
        table = CALL.table(adults, executor=pool)
    pandas.testing.assert_index_equal(table.index, adults.index)
    assert table["value"].tolist() == adults["name"].tolist()


def test_a_table_of_a_choice_keeps_the_index(adults: Any) -> None:
    table = CHOICE.table(adults)
    pandas.testing.assert_index_equal(table.index, adults.index)
    assert table["value"].isna().tolist() == [False, True, False]


def test_shares_keep_the_index_of_their_frame(adults: Any) -> None:
    before = adults.copy()
    shares = CHOICE.shares(adults, logprobs=False, repeats=2)
    pandas.testing.assert_index_equal(shares.index, adults.index)
    assert shares["p_other"].tolist() == [0, 1, 0]
    pandas.testing.assert_frame_equal(adults, before)


def test_shares_look_at_the_first_row_whatever_its_index(adults: Any) -> None:
    """The first row's log probabilities, if they are recorded, go before draws."""
    shares = CHOICE.shares(adults, repeats=2)
    pandas.testing.assert_index_equal(shares.index, adults.index)
    assert shares.attrs["method"] == "draws"


@pytest.mark.parametrize("vary", [None, {"temperature": [0]}])
def test_lists_of_rows_are_numbered(vary: Any) -> None:
    rows = [{"name": name} for name in NAMES]
    assert CALL.table(rows, vary=vary).index.tolist() == [0, 1, 2, 3]
    assert CALL.table(rows, vary=vary, repeats=2).index.tolist() == list(range(8))
    assert CHOICE.shares(rows, logprobs=False, repeats=2).index.tolist() == [0, 1, 2, 3]


def test_a_frame_without_rows_gives_an_empty_table() -> None:
    none = pandas.DataFrame({"name": []}, index=pandas.Index([], name="id", dtype=object))
    pandas.testing.assert_index_equal(CALL.table(none).index, none.index)
