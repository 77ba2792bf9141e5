"""Tables whose rows vary: crossed with model parameters, texts and variables."""

from __future__ import annotations

import itertools
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy
import pytest
from clients import numbered

import llmcall
from llmcall.testing import ScriptedClient

ROWS = [{"name": "Ann"}, {"name": "Ben"}]
PLAIN = "{{ name }}, {{ tone }}: bread?"
FORMAL = "Dear {{ name }}, {{ tone }}: would you like bread?"
VARY = {
    "model": ["gpt-4o", "gpt-4o-mini"],
    "temperature": [0.5, 1],
    "user": {"plain": PLAIN, "formal": FORMAL},
    "tone": {"kind": "kindly", "curt": "curtly"},
}
ANSWERED = ["value", "cache_key"]


def call_of(client: llmcall.LLMClient, **params: Any) -> llmcall.LLMCall:
    """Return a call with one variable more than the rows have."""
    return llmcall.LLMCall(client=client, **{"user": PLAIN, "temperature": 1, **params})


@pytest.mark.newest_only
@pytest.mark.parametrize("options", [{}, {"scope": "s"}, {"scope": "s", "repeats": 2}])
def test_a_varied_table_equals_single_tables_cell_by_cell(options: dict[str, Any]) -> None:
    """Each combination has the draws that it has alone, in a scope and outside."""
    client = numbered()
    table = call_of(client).table(ROWS, vary=VARY, **options)
    asked = client.usage.calls
    for model, temperature, text, tone in itertools.product(*VARY.values()):
        alone = call_of(client, model=model, temperature=temperature, user=VARY["user"][text])
        single = alone.table([{**row, "tone": VARY["tone"][tone]} for row in ROWS], **options)
        labels = {"model": model, "temperature": temperature, "user": text, "tone": tone}
        cell = table
        for axis, label in labels.items():
            cell = cell[cell[axis] == label]
        assert cell[ANSWERED].values.tolist() == single[ANSWERED].values.tolist()
    assert client.usage.calls == asked


def test_the_columns_hold_the_labels_after_the_rows() -> None:
    """Then come those of the answer; the cells stand one after the other."""
    table = call_of(numbered()).table(ROWS, vary=VARY)
    assert list(table.columns[:6]) == ["name", *VARY, "repeat"]
    assert table["name"].tolist() == ["Ann", "Ben"] * 16
    assert table["user"].tolist()[:4] == ["plain"] * 4
    assert table["tone"].tolist()[2] == "curt"


@pytest.mark.parametrize("vary", [VARY, {"tone": ["kindly"]}, None])
@pytest.mark.feature("effects")
@pytest.mark.feature("plans")
def test_the_plan_of_a_table_says_how_to_plan_its_rows(vary: Any) -> None:
    rows = ROWS if vary else [{"name": "Ann", "tone": "kindly"}]
    assert "llmcall.units_needed" in str(call_of(numbered()).table(rows, vary=vary, dry_run=True))


def test_a_second_survey_in_a_scope_draws_anew() -> None:
    """Also where its cells have other labels, and the same requests."""
    text = "{{ name }}: bread?"
    call = call_of(numbered(), user=text)
    with llmcall.scope("s"):
        first, second = (
            call.table(ROWS, vary={"user": {label: text}}, key="name") for label in ("one", "other")
        )
    assert set(first["value"]).isdisjoint(second["value"])


def test_a_level_that_is_added_asks_only_for_itself() -> None:
    client = numbered()
    call = call_of(client, user="{{ name }}: bread?")
    call.table(ROWS, vary={"model": ["gpt-4o"]}, scope="s", key="name")
    call.table(ROWS, vary={"model": ["gpt-4o-mini", "gpt-4o"]}, scope="s", key="name")
    assert client.usage.calls == 4


def test_a_varied_table_is_replayed() -> None:
    """By a cassette alone, with the same table."""
    with llmcall.cassette("vary.jsonl"):
        first = call_of(numbered()).table(ROWS, vary=VARY, scope="s", workers=8)
    with llmcall.cassette("vary.jsonl", mode="none"):
        again = call_of(numbered()).table(ROWS, vary=VARY, scope="s", workers=3)
    assert again[ANSWERED].values.tolist() == first[ANSWERED].values.tolist()


TWO_CELLS = {"user": VARY["user"], "tone": ["kind"]}


def test_rows_of_a_cell_that_fails_have_the_error() -> None:
    """If ``on_error`` is ``return``; the others have their answers."""

    def answer(messages: Any) -> str:
        if "Dear" in messages[-1]["content"]:
            raise RuntimeError("no")
        return "yes"

    failing_cell = call_of(ScriptedClient(answer, cache_mode="auto"))
    table = failing_cell.table(ROWS, vary=TWO_CELLS, on_error="return", scope="s")
    assert table["error"].notna().tolist() == [False, False, True, True]


def test_the_arguments_of_a_function_of_a_model_vary() -> None:
    """They are variables."""

    @llmcall.llm(client=numbered(), temperature=1)
    def buys(name: str, price: int) -> str:
        """{{ name }}, bread for {{ price }}?"""
        raise NotImplementedError

    table = buys.table(ROWS, vary={"price": [1, 2]}, scope="s", key="name")
    assert table["price"].tolist() == [1, 1, 2, 2]
    assert len({*table["cache_key"]}) == 4


def test_numpys_numbers_and_truth_values_are_options_as_pythons_are() -> None:
    """Of a table, its axes, a call and a budget."""
    client = numbered()
    asked = call_of(client, max_tokens=numpy.int64(9), output_retries=numpy.int64(0))
    with llmcall.budget(usd=numpy.float32(2), calls=numpy.int64(8)) as budget:
        levels = {"tone": [*numpy.array([False, True])], "seed": [*numpy.arange(2)]}
        options = {"scope": "s", "repeats": numpy.int64(2), "workers": numpy.int64(2)}
        table = asked.table(ROWS[:1], vary=levels, **options)
    assert table["tone"].tolist() == [False] * 4 + [True] * 4
    assert table["seed"].tolist() == [0, 0, 1, 1] * 2
    assert (budget.usd, budget.spent.calls) == (2.0, 8)
    plain = {"vary": {"tone": [False, True], "seed": [0, 1]}, "repeats": 2, "scope": "s"}
    asked_before = client.usage.calls
    again = call_of(client, max_tokens=9).table(ROWS[:1], **plain)
    assert again["cache_key"].tolist() == table["cache_key"].tolist()
    assert client.usage.calls == asked_before


@pytest.mark.feature("executors")
def test_cells_travel_to_other_processes() -> None:
    call = llmcall.LLMCall(user="{{ name }}: bread?", temperature=1)
    vary = {"temperature": [0.5, 1]}
    here = call_of(numbered(), user="{{ name }}: bread?").table(ROWS, vary=vary, scope="s")
    with ProcessPoolExecutor(1) as pool, llmcall.configured(cache_mode="replay"):
        there = call.table(ROWS, vary=vary, scope="s", executor=pool)
    assert there[ANSWERED].values.tolist() == here[ANSWERED].values.tolist()
