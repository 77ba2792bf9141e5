"""Rows of DataFrames, and tables of answers."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from dice import CALL, Dice, calls, greet

import llmcall
from llmcall import LLMCall, map
from llmcall.errors import ConfigError, OutputError
from llmcall.parallel.items import ANSWER_COLUMNS, is_frame, length_of
from llmcall.testing import ScriptedClient

PEOPLE: list[dict[str, Any]] = [{"name": "Lisa", "age": 8}, {"name": "Bart", "age": 10}]


def test_no_pandas_without_a_frame() -> None:
    """Rows of dicts are asked about without pandas."""
    program = """
import sys
from llmcall import LLMCall
from llmcall.testing import ScriptedClient
call = LLMCall(user="{{ name }}", client=ScriptedClient(["yes"]))
print(call.map([{"name": "Lisa"}]), "pandas" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "['yes'] False\n"


def test_a_table_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pandas a table is refused before any call, naming the remedy."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pip install pandas"):
        CALL.table(PEOPLE)
    assert calls() == 0


@pytest.mark.parametrize("thing", [[], {}, "rows", 3, None, object()])
def test_what_is_no_frame(thing: Any) -> None:
    """Only a DataFrame is one."""
    assert not is_frame(thing)


def test_lengths() -> None:
    """How many items there are is known of what has a length."""
    assert (length_of([1, 2]), length_of(iter([1, 2])), length_of(range(5))) == (2, None, 5)


@pytest.fixture
def pandas() -> Any:
    """Give pandas, where it is installed."""
    return pytest.importorskip("pandas")


def test_rows_of_a_frame(pandas: Any) -> None:
    """A DataFrame's rows are the items, in its order, whatever its index; the values are a column for it."""
    frame = pandas.DataFrame(PEOPLE, index=[7, 7])
    answers = CALL.map(frame, scope="survey")
    assert CALL.map(PEOPLE, scope="survey") == answers
    frame["answer"] = answers
    assert [answer.rpartition(" ")[0] for answer in frame["answer"]] == ["item Lisa", "item Bart"]
    assert calls() == 2


def test_sorting_a_frame_makes_no_new_call(pandas: Any) -> None:
    """Nor does another column, or a number that a missing one beside it made a fraction."""
    frame = pandas.DataFrame(PEOPLE)
    first = greet.map(frame, scope="survey")
    wider = pandas.DataFrame([{"name": "Maggie", "age": None}, *PEOPLE]).assign(score=1.5).sort_values("name")
    again = greet.map(wider, scope="survey")
    assert (again[:2], calls()) == (first[::-1], 3)
    assert map(lambda row: row["age"] == row["age"], wider, scope="survey") == [True, True, False]


def test_values_are_python_s_own(pandas: Any) -> None:
    """A row holds Python's numbers and texts, not NumPy's: templates and digests are those of dicts."""
    frame = pandas.DataFrame({"n": [1], "x": [1.5], "t": ["a"], "b": [True]})
    (row,) = map(dict, frame)
    assert [type(value) for value in row.values()] == [int, float, str, bool]


def test_a_key_may_be_a_column(pandas: Any) -> None:
    """A DataFrame's column names the scopes."""
    frame = pandas.DataFrame(PEOPLE)
    assert map(lambda row: llmcall.replay.scopes.path(), frame, key="age", scope="s") == ["s/8", "s/10"]


def test_a_column_without_a_name(pandas: Any) -> None:
    """A template's variables have names: a column of another kind is refused."""
    with pytest.raises(TypeError, match="a row has the column 0; a column's name must be a text"):
        CALL.map(pandas.DataFrame([["Lisa"]]))


@pytest.mark.parametrize("kind", ["dicts", "frame", "generator"])
def test_a_table(pandas: Any, kind: str) -> None:
    """A row for each item and repeat: its columns, then repeat, value, error, cached, cost and cache_key."""
    client = Dice(prices={"gpt-4o-mini": (1000.0, 1000.0)})
    call = LLMCall(user="{{ name }}", client=client)
    given = {"dicts": PEOPLE, "frame": pandas.DataFrame(PEOPLE), "generator": iter(PEOPLE)}[kind]
    table = call.table(given, repeats=2)
    assert list(table.columns) == ["name", "age", *ANSWER_COLUMNS]
    assert list(table.index) == [0, 1, 2, 3]
    assert list(zip(table["name"], table["age"], table["repeat"], strict=True)) == [
        ("Lisa", 8, 0), ("Lisa", 8, 1), ("Bart", 10, 0), ("Bart", 10, 1),
    ]  # fmt: skip
    assert len(set(table["value"])) == len(set(table["cache_key"])) == 4
    assert table["cost"].tolist() == pytest.approx([0.008] * 4)
    assert not table["cached"].any()
    assert table["error"].isna().all()
    assert call.table(PEOPLE)["cached"].all()
    assert call.table(PEOPLE)["value"].tolist() == table["value"].tolist()[::2]


def test_the_same_table_every_time(pandas: Any) -> None:
    """A second run gives the same table, hits apart."""
    first = CALL.table(PEOPLE, scope="survey", repeats=2)
    again = CALL.table(PEOPLE, scope="survey", repeats=2)
    pandas.testing.assert_frame_equal(first.drop(columns="cached"), again.drop(columns="cached"))


@pytest.mark.parametrize("on_error", ["return", "none"])
def test_failures_stand_in_the_table(pandas: Any, on_error: str) -> None:
    """One failed row loses no other: its value is missing, its error is there."""
    table = CALL.table([{"name": "Lisa"}, {"name": "fail"}, {}], on_error=on_error)
    assert table["value"].isna().tolist() == [False, True, True]
    assert [type(error) for error in table["error"]][1:] == [llmcall.InvalidRequestError, llmcall.TemplateError]
    assert table["error"][0] is None
    assert table["cache_key"].isna().tolist() == [False, True, True]


def test_failures_of_the_call_s_own(pandas: Any) -> None:
    """Where the call itself returns errors, they are in the table too, with the answer that did not fit."""
    client = ScriptedClient(["seven", "8"])
    call = LLMCall(user="{{ name }}?", output_type=int, output_retries=0, client=client, on_error="return")
    table = call.table(PEOPLE, workers=1)
    assert isinstance(table["error"][0], OutputError)
    assert table["value"][1] == 8
    assert table["cache_key"].notna().all()


def test_a_failure_is_raised(pandas: Any) -> None:
    """By default a failed row stops the survey: a table with silent gaps is worse."""
    with pytest.raises(llmcall.InvalidRequestError) as caught:
        CALL.table([{"name": "Lisa"}, {"name": "fail"}], workers=1)
    assert caught.value.results[0].value.startswith("item Lisa")  # type: ignore[attr-defined]


def test_corrections_are_paid(pandas: Any) -> None:
    """The cost of a value is that of all calls that it took; it is cached when none was made."""
    client = ScriptedClient(
        ["many", "7"], cache_mode="auto", cache_path="c", prices={"gpt-4o-mini": (0.0, 0.0)}, model="gpt-4o-mini"
    )
    call = LLMCall(user="How many?", output_type=int, client=client)
    table = call.table([{}])
    assert (table["value"][0], bool(table["cached"][0])) == (7, False)
    assert len(client.requests) == 2
    assert bool(call.table([{}])["cached"][0])


def test_types_stay(pandas: Any) -> None:
    """Columns keep their types; values get one where they have one in common."""
    client = ScriptedClient(lambda messages: "yes")
    frame = pandas.DataFrame(PEOPLE).astype({"age": "int16"})
    table = LLMCall(user="{{ name }}?", output_type=bool, client=client).table(frame)
    assert (str(table["age"].dtype), str(table["value"].dtype), str(table["cached"].dtype)) == ("int16", "bool", "bool")


@pytest.mark.parametrize("rows", [[], iter([])])
def test_an_empty_table(pandas: Any, rows: Any) -> None:
    """No rows give an empty table with the answers' columns."""
    table = CALL.table(rows, repeats=2)
    assert (list(table.columns), len(table)) == (list(ANSWER_COLUMNS), 0)


@pytest.mark.parametrize("name", ANSWER_COLUMNS)
def test_a_column_of_an_answer_s_name(pandas: Any, name: str) -> None:
    """A row's column that the answers need is refused before any call."""
    with pytest.raises(ValueError, match=f"the rows have a column '{name}'"):
        CALL.table([{"name": "Lisa", name: 1}])
    assert calls() == 0


def test_a_plan_of_a_table(pandas: Any) -> None:
    """A dry run of a table is that of its map."""
    assert CALL.table(PEOPLE, dry_run=True) == CALL.map(PEOPLE, dry_run=True)


def test_a_nested_index(pandas: Any) -> None:
    """A DataFrame's own index, repeated or nested, is no part of the table."""
    frame = pandas.DataFrame(PEOPLE).set_index(pandas.MultiIndex.from_tuples([(1, 2), (1, 2)]))
    assert CALL.table(frame)["name"].tolist() == ["Lisa", "Bart"]
    assert CALL.table(frame.reset_index(drop=True).iloc[::-1], repeats=2)["age"].tolist() == [10, 10, 8, 8]
