"""Frames as rows: answers stand under the index of the rows that they answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import llmcall
from llmcall import LLMCall
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
    shares = CHOICE.shares(adults, method="draws", repeats=2)
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
    assert CHOICE.shares(rows, method="draws", repeats=2).index.tolist() == [0, 1, 2, 3]


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
PRINTING = [
    "You earn {{ wage }}.",
    "You earn {{ wage if wage is defined else 'no wage' }}.",
    "{% set pay = wage|string %}{{ name }} earns {{ 'about ' ~ wage }}.",
    "{% for word in ['a'] %}{{ [word, wage]|join(' ') }}{% endfor %}",
    "{% macro told(sum) %}{{ sum }}{% endmacro %}{{ told(wage) }}",
]
TESTING = [
    "{% if paid %}You earn {{ wage }}.{% else %}Hello.{% endif %}",
    "{{ wage if paid else name }}",
    "Hi{% if not paid or wage is undefined %}, {{ name }}{% endif %}.",
    "{{ name }}",
    "{{ wage is undefined }}, {{ name }}",
]


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was said of empty cells."""
    said = [record.getMessage() for record in caplog.records]
    return [line for line in said if "empty cells" in line]


@pytest.fixture
def earners() -> Callable[[str], Any]:
    """Four people, two of whom have no wage, of some kind of emptiness."""
    return lambda kind: pandas.DataFrame(
        {"name": NAMES, "wage": WAGES[kind], "unused": [None] * 4, "paid": [True, False] * 2}
    )


@pytest.mark.parametrize("kind", WAGES)
@pytest.mark.parametrize("text", PRINTING)
def test_empty_cells_that_are_printed_are_named_once_with_count_and_column(
    text: str, kind: str, earners: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """However the template prints them; the prompts show them."""
    frame, client = earners(kind), Echo()
    LLMCall(user=text, client=client).map(frame)
    shown = {"NaN": "nan", "None": "None", "NA": "<NA>", "NaT": "NaT"}[kind]
    prompts = [request.messages[0]["content"] for request in client.requests]
    assert sum(shown in prompt for prompt in prompts) == 2
    [line] = warned(caplog)
    assert f"'wage' in 2 of 4 rows (as {shown});" in line
    assert "unused" not in line


@pytest.mark.parametrize("kind", ["NaN", "None", "NA"])
@pytest.mark.parametrize(
    ("text", "shown"),
    [("{{ wage | int }} coins", "0"), ("{{ wage | float | round(1) }} coins", "0.0")],
)
def test_empty_cells_that_a_filter_makes_zero_are_named_with_it(
    text: str, shown: str, kind: str, earners: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Jinja2's int and float give 0 for what is no number, but float for NaN, which is one."""
    frame, client = earners(kind), Echo()
    LLMCall(user=text, client=client).map(frame)
    prompts = [request.messages[0]["content"] for request in client.requests]
    if "float" in text and kind == "NaN":
        shown = "nan"
    assert prompts.count(f"{shown} coins") == 2
    [line] = warned(caplog)
    assert f"'wage' in 2 of 4 rows (as {shown});" in line


@pytest.mark.parametrize("kind", WAGES)
@pytest.mark.parametrize("text", TESTING)
def test_empty_cells_that_are_only_tested_or_not_used_are_not_named(
    text: str, kind: str, earners: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is asked about them."""
    LLMCall(user=text, client=Echo()).map(earners(kind))
    assert not warned(caplog)


def test_each_way_to_ask_about_a_frame_names_its_empty_cells_once(
    earners: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A plan, too: before anything is paid."""
    frame = earners("NaN")
    call = LLMCall(user="{{ wage }}", client=Echo())
    varied = {"user": {"plain": "{{ name }}", "wage": "{{ wage }}"}, "temperature": [0, 1]}
    question = llmcall.choice("{{ wage }}?", ["tea", "milk"], client=ScriptedClient(first))
    for ask in (
        lambda: call.map(frame, dry_run=True),
        lambda: list(llmcall.imap(call, frame)),
        lambda: call.table(frame, repeats=2),
        lambda: call.table(frame, vary=varied),
        lambda: question.shares(frame, method="draws", repeats=2),
    ):
        caplog.clear()
        ask()
        [line] = warned(caplog)
        assert "'wage' in 2 of 4 rows" in line


def test_several_columns_with_empty_cells_are_named_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    frame = pandas.DataFrame({"a": [None, 1.0], "b": pandas.Series(["x", None], dtype=object)})
    LLMCall(system="{{ b }}", user="{{ a }}", client=Echo()).map(frame)
    [line] = warned(caplog)
    assert "'b' in 1 of 2 rows (as None)" in line
    assert "'a' in 1 of 2 rows (as nan)" in line


def test_an_empty_cell_in_an_included_template_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "asked.md").write_text("Hi. {% include 'pay' %}")
    (tmp_path / "pay.md").write_text("You earn {{ wage }}.")
    frame = pandas.DataFrame({"wage": [None, 2.0]})
    LLMCall(None, "asked", template_path=tmp_path, client=Echo()).map(frame)
    assert "'wage' in 1 of 2 rows" in warned(caplog)[0]


def test_a_row_with_an_empty_cell_that_cannot_be_rendered_fails_as_on_error_says() -> None:
    frame = pandas.DataFrame({"wage": [None, 2.0]})
    call = LLMCall(user="{{ wage }} {{ other }}", client=Echo())
    errors = call.map(frame, on_error="return")
    assert [type(error) for error in errors] == [llmcall.TemplateError] * 2


def test_rows_that_are_dicts_are_taken_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody wrote None."""
    LLMCall(user="{{ wage }}", client=Echo()).map([{"wage": None}])
    assert not warned(caplog)
