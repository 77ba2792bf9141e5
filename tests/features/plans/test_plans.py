"""Plans of maps: what is recorded, and what the rest costs."""

from __future__ import annotations

from typing import Any

import pytest
from clients import Responding
from map_functions import CALL, CALLS, Dice, ask, calls, greet
from servers import completion

import llmcall
from llmcall import LLMCall, map, scope
from llmcall.types import Plan

ROWS = [{"name": "Lisa"}, {"name": "Bart"}, {"name": "Lisa"}]


@pytest.mark.parametrize(
    ("call", "options", "hits", "misses"),
    [
        (CALL, {}, 1, 2),
        (greet, {"repeats": 2}, 2, 4),
        (CALL, {"scope": "survey"}, 0, 3),
        (greet, {"scope": "survey", "repeats": 2}, 0, 6),
    ],
)
def test_the_hits_and_misses_of_a_plan_are_those_of_the_map_that_follows(
    call: Any, options: dict[str, Any], hits: int, misses: int
) -> None:
    """It calls and counts nothing; its hits and misses are those of the map that follows, and
    afterwards all are hits.
    """
    before = llmcall.usage()
    plan = call.map(ROWS, dry_run=True, **options)
    assert (plan.hits, plan.misses) == (hits, misses)
    assert (llmcall.usage(), calls()) == (before, 0)
    call.map(ROWS, **options)
    assert calls() == misses
    later = map(call, ROWS, dry_run=True, **options)
    assert (later.hits, later.misses, later.input_tokens) == (hits + misses, 0, 0)


def test_a_plan_takes_no_draw() -> None:
    """Planned twice it says the same, and the map that follows draws as if there had been no plan."""
    with scope("trial"):
        first = CALL.map(ROWS, dry_run=True)
        assert first[:2] == (0, 3)
        assert CALL.map(ROWS, dry_run=True)[:4] == first[:4]
        CALL.map(ROWS)
    assert CALL.map(ROWS, scope="trial", dry_run=True)[:2] == (3, 0)


def test_the_cost_of_a_plan_lies_between_empty_answers_and_the_longest() -> None:
    """The longest are those that ``max_tokens`` allows. Before any answer, nobody knows how long they are."""
    client = Dice(prices={"gpt-6-luna": (1.0, 10.0)})
    plan = LLMCall(user="Hello, {{ name }}!", client=client, max_tokens=100).map(ROWS, dry_run=True)
    prompts = [[{"role": "user", "content": f"Hello, {name}!"}] for name in ("Lisa", "Bart")]
    empty = sum(client.count_tokens(prompt) for prompt in prompts) / 1e6
    assert plan.cost == pytest.approx((empty, empty + 2 * 100 * 10 / 1e6))
    assert plan.expected_cost is None


@pytest.mark.parametrize(
    "params",
    [{"model": "my-model"}, {"tools": [{"type": "web_search"}]}, {"web_search_options": {}}],
    ids=["price", "tools", "options"],
)
def test_one_unknown_price_makes_the_cost_of_a_plan_unknown(params: dict[str, Any]) -> None:
    """One of the missing calls has no price, or nobody knows how many searches there will be."""
    call = LLMCall(user="Hello, {{ name }}!", client=Dice(), **{"model": "gpt-6-luna", **params})
    plan = call.map(ROWS, dry_run=True)
    assert (plan.misses, plan.cost) == (2, None)


def spending(text: str, output_tokens: int) -> dict[str, Any]:
    """Return an answer for which the server reports 10 prompt tokens and so many of its own."""
    return completion(text, usage={"prompt_tokens": 10, "completion_tokens": output_tokens})


PRICED = {"prices": {"gpt-6-luna": (1.0, 10.0)}, "model": "gpt-6-luna"}


@pytest.mark.parametrize("user", ["Hello, {{ name }}!", "{{ name }}, hello!"])
def test_a_plan_expects_what_a_pilot_cost(user: str) -> None:
    """The answers are expected to be as long as those of the rows that are recorded."""
    client = Responding(spending("Hi!", 3), spending("Go away!", 6), **PRICED)
    call = LLMCall(user=user, client=client, max_tokens=100)
    pilot = [{"name": "Marge"}, {"name": "Homer"}]
    call.map(pilot, scope="study")
    length = (3 + 6) / 2
    for _ in range(2):
        plan = call.map([*pilot, *ROWS], scope="study", dry_run=True)
        assert plan.cost is not None
        assert plan.expected_cost == pytest.approx(plan.cost[0] + 3 * length * 10 / 1e6)
    assert " expected (priced by " in str(plan)


def test_a_plan_expects_corrections() -> None:
    """The cost of answers that did not fit is part of the expected cost of a draw."""
    client = Responding(spending("many", 4), spending("7", 2), spending("8", 2), **PRICED)
    call = LLMCall(user="{{ name }}?", output_type=int, client=client)
    call.map(ROWS[:2])
    plan = call.map([*ROWS[:2], {"name": "Homer"}], dry_run=True)
    correction = 10 * 1 / 1e6 + 2 * 10 / 1e6
    expected = plan.cost[0] + (4 + 2) / 2 * 10 / 1e6 + correction / 2
    assert plan.expected_cost == pytest.approx(expected)


def test_the_range_of_a_plans_cost_covers_what_it_expects() -> None:
    """A server may report more tokens than the limit that a budget reserves."""
    client = Responding(spending("Hi!", 300), **PRICED)
    call = LLMCall(user="Hello, {{ name }}!", client=client, max_tokens=100)
    call.map(ROWS[:1])
    plan = call.map(ROWS, dry_run=True)
    assert plan.cost is not None and plan.expected_cost is not None
    assert plan.expected_cost > 300 * 10 / 1e6
    assert plan.cost[0] <= plan.expected_cost <= plan.cost[1]


def test_a_plan_expects_by_what_a_cassette_holds() -> None:
    """The pilot may be on the open cassette alone."""
    client = Responding(spending("Hi!", 3), cache_mode="off", **PRICED)
    call = LLMCall(user="Hello, {{ name }}!", client=client)
    with llmcall.cassette("pilot.jsonl", mode="new"):
        call.map(ROWS, scope="study")
    with llmcall.cassette("pilot.jsonl", mode="new"):
        plan = call.map([*ROWS, {"name": "Homer"}], scope="study", dry_run=True)
    assert plan.cost is not None
    assert plan.expected_cost == pytest.approx(plan.cost[0] + 3 * 10 / 1e6)


def test_a_plan_expects_by_its_own_hits_alone() -> None:
    """Answers to other rows or in other scopes say nothing of it."""
    client = Responding(spending("Hi!", 3), spending("Go away!", 6), **PRICED)
    call = LLMCall(user="Hello, {{ name }}!", client=client)
    rows = [{"name": "Ann"}, {"name": "Ben"}, {"name": "Cleo"}]
    call.map(rows[:1], scope="study")
    call.map(rows, scope="pilot")
    assert call.map(rows[1:], scope="study", dry_run=True).expected_cost is None
    plan = call.map(rows[:2], scope="study", dry_run=True)
    assert plan.cost is not None
    assert plan.expected_cost == pytest.approx(plan.cost[0] + 3 * 10 / 1e6)


@pytest.mark.parametrize(
    ("settings", "params", "recorded"),
    [
        ({}, {}, 3),
        ({"cache_mode": "off"}, {}, 0),
        ({"cache_mode": "replay"}, {}, 3),
        ({"cache_mode": "refresh"}, {}, 1),
        ({}, {"cache": False}, 0),
    ],
)
def test_a_plan_counts_hits_as_the_mode_reads_them(
    settings: dict[str, Any], params: dict[str, Any], recorded: int
) -> None:
    """Records that a mode does not read are no hits; equal rows share a call if the answer is kept."""
    CALL.map(ROWS)
    call = LLMCall(user="item {{ name }}", client=Dice(**settings), **params)
    assert call.map(ROWS, dry_run=True)[:2] == (recorded, 3 - recorded)


def test_a_cassettes_records_are_hits_of_a_plan() -> None:
    """Those that it gained a moment ago too, and when it is replayed; what a replay refuses is not recorded."""
    uncached = LLMCall(user="item {{ name }}", client=Dice(cache_mode="off"))
    with llmcall.cassette("plan.jsonl"):
        assert uncached.map(ROWS, dry_run=True)[:2] == (1, 2)
        uncached.map(ROWS[:1])
        assert uncached.map(ROWS, dry_run=True)[:2] == (2, 1)
    with llmcall.cassette("plan.jsonl", mode="none"):
        plan = uncached.map(ROWS, dry_run=True)
        assert plan[:2] == (2, 1)
        assert str(plan).startswith("2 recorded, 1 not recorded, ")


@pytest.mark.parametrize("function", [ask, len, lambda item: item, CALL.run])
def test_a_plain_function_has_no_plan(function: Any) -> None:
    """Nobody knows what it asks before it runs."""
    with pytest.raises(TypeError, match="dry_run needs an LLMCall or an @llm function"):
        map(function, [1], dry_run=True)
    assert not CALLS.exists()


def test_plans_can_be_added() -> None:
    """The sum of plans has the sums of their counts and costs."""
    one = Plan(1, 2, 30, (0.5, 1.0), ("b",), 0.75)
    other = Plan(4, 0, 0, (0.0, 0.0), ("a",), 0.0)
    assert one + other == sum([one, other]) == Plan(5, 2, 30, (0.5, 1.0), ("a", "b"), 0.75)
