"""What a map would do and cost, without a call."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from dice import CALL, CALLS, Dice, ask, calls, greet

import llmcall
from llmcall import LLMCall, Plan, map, scope
from llmcall.testing import ScriptedClient

ROWS = [{"name": "Lisa"}, {"name": "Bart"}, {"name": "Lisa"}]
PRICES = {"prices": {"gpt-4o-mini": (1.0, 10.0)}}


@pytest.mark.parametrize(
    ("options", "hits", "misses"),
    [({}, 1, 2), ({"repeats": 2}, 2, 4), ({"scope": "survey"}, 0, 3), ({"scope": "survey", "repeats": 2}, 0, 6)],
)
@pytest.mark.parametrize("call", [CALL, greet])
def test_a_plan_is_what_happens(call: Any, options: dict[str, Any], hits: int, misses: int) -> None:
    """Hits and misses are those of the map that follows; afterwards all are hits. Nothing is called or counted."""
    before = llmcall.usage()
    plan = call.map(ROWS, dry_run=True, **options)
    assert (plan.hits, plan.misses) == (hits, misses)
    assert (llmcall.usage(), calls()) == (before, 0)
    call.map(ROWS, **options)
    assert calls() == misses
    again = map(call, ROWS, dry_run=True, **options)
    assert (again.hits, again.misses, again.input_tokens) == (hits + misses, 0, 0)


def test_a_part_is_recorded() -> None:
    """A row more, or a repeat more, is what is missing."""
    CALL.map(ROWS[:2], scope="survey")
    assert CALL.map([{"name": "Maggie"}, *ROWS[:2]], scope="survey", dry_run=True)[:2] == (2, 1)
    assert CALL.map(ROWS[:2], repeats=3, scope="survey", dry_run=True)[:2] == (2, 4)


def test_it_moves_no_draw() -> None:
    """A plan takes no draw: planned twice it says the same, and what follows is the first."""
    with scope("trial"):
        first = CALL.map(ROWS, dry_run=True)
        assert CALL.map(ROWS, dry_run=True)[:4] == first[:4] == (0, 3, first.input_tokens, first.cost)
        CALL.map(ROWS)
        assert CALL.map(ROWS, dry_run=True)[:2] == (0, 3)
    assert CALL.map(ROWS, scope="trial", dry_run=True)[:2] == (3, 0)


def test_tokens_and_cost() -> None:
    """Prompts are counted as they are sent; the cost lies between an empty answer and the longest allowed."""
    client = Dice(**PRICES)
    call = LLMCall(user="Hello, {{ name }}!", client=client, max_tokens=100)
    tokens = sum(client.count_tokens(f"Hello, {name}!") for name in ("Lisa", "Bart"))
    framed = sum(client.count_tokens([{"role": "user", "content": f"Hello, {name}!"}]) for name in ("Lisa", "Bart"))
    plan = call.map(ROWS, dry_run=True)
    assert tokens < plan.input_tokens == framed
    assert plan.cost == pytest.approx((framed / 1e6, framed / 1e6 + 2 * 100 * 10 / 1e6))


def test_whose_prices() -> None:
    """A plan says whose prices its cost is made of, of those that it would pay."""
    call = LLMCall(user="Hello, {{ name }}!", client=Dice(**PRICES), max_tokens=100)
    plan = call.map(ROWS, dry_run=True)
    assert plan.priced_by == ("[Prices]",)
    assert str(plan).endswith(" (priced by [Prices])")
    call.map(ROWS)
    assert call.map(ROWS, dry_run=True).priced_by == ()


def test_the_day_of_packaged_prices() -> None:
    """The prices of the package are shown with its version and the day whose prices they are."""
    pytest.importorskip("genai_prices")
    plan = LLMCall(user="Hello", client=Dice(), max_tokens=100).map([{}], dry_run=True)
    assert re.search(r"cost \$[\d.]+ to \$[\d.]+ \(priced by genai-prices [\d.]+ for \d{4}-\d\d-\d\d\)$", str(plan))


def test_the_model_s_largest_answer() -> None:
    """Without max_tokens, the longest answer is the model's; several are paid each."""
    client = Dice(**PRICES, models={"gpt-4o-mini": {"max_output_tokens": 500}})
    for n in (1, 3):
        plan = LLMCall(user="Hello", client=client, n=n).map([{}], dry_run=True)
        assert plan.cost is not None
        assert plan.cost[1] - plan.cost[0] == pytest.approx(n * 500 * 10 / 1e6)


def test_an_unknown_price() -> None:
    """One unknown price makes the cost unknown; where nothing is missing, nothing is to pay."""
    call = LLMCall(user="Hello, {{ name }}!", client=Dice(model="my-model"))
    plan = call.map(ROWS, dry_run=True)
    assert (plan.misses, plan.cost) == (2, None)
    call.map(ROWS)
    assert call.map(ROWS, dry_run=True) == Plan(3, 0, 0, (0.0, 0.0))


def test_a_plan_reads_well() -> None:
    """Its text says all of it; it is a frozen value."""
    assert str(Plan(1200, 3, 4567, (0.001, 2))) == (
        "1,200 recorded, 3 to ask, 4,567 input tokens, cost $0.0010 to $2.0000"
    )
    assert str(Plan(0, 1, 5, (0, 0.1), ("[Prices]", "a list of 2026"))).endswith(
        " cost $0.0000 to $0.1000 (priced by [Prices], a list of 2026)"
    )
    assert str(Plan(0, 1, 5, None)) == "0 recorded, 1 to ask, 5 input tokens, cost ? (a price is unknown)"
    with pytest.raises(AttributeError):
        Plan(0, 1, 5, None).hits = 3  # type: ignore[misc]


def test_corrections_are_followed() -> None:
    """A recorded answer that does not fit is no hit unless its correction is recorded too."""
    answers = iter(["many", "7"])
    client = ScriptedClient(lambda messages: next(answers), cache_mode="auto", cache_path="corrections")
    call = LLMCall(user="How many?", output_type=int, output_retries=1, client=client, model="gpt-3.5-turbo")
    call.call()
    assert call.map([{}], dry_run=True)[:2] == (1, 0)
    client.cache.delete(where=lambda record: len(record.request["messages"]) > 1)
    plan = call.map([{}], dry_run=True)
    assert (plan.hits, plan.misses) == (0, 1)
    assert plan.input_tokens > client.count_tokens("How many?") + client.count_tokens("many")


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
def test_modes(settings: dict[str, Any], params: dict[str, Any], recorded: int) -> None:
    """What the mode does not read is no hit; equal rows share a call where the answer is kept."""
    CALL.map(ROWS)
    call = LLMCall(user="item {{ name }}", client=Dice(**settings), **params)
    assert call.map(ROWS, dry_run=True)[:2] == (recorded, 3 - recorded)


def test_a_cassette_answers() -> None:
    """A cassette's records are hits, those it gained a moment ago too; planning leaves no trace on it."""
    off = Dice(cache_mode="off")
    call = LLMCall(user="item {{ name }}", client=off)
    with llmcall.cassette("plan.jsonl") as cassette:
        assert call.map(ROWS, dry_run=True)[:2] == (1, 2)
        call.map(ROWS[:1])
        assert call.map(ROWS, dry_run=True)[:2] == (2, 1)
        assert (cassette.recorded, cassette.replayed) == (1, 0)
    with llmcall.cassette("plan.jsonl", mode="none") as cassette:
        assert call.map(ROWS, dry_run=True)[:2] == (2, 1)
        assert len(cassette.unused()) == 1
    assert Path("plan.jsonl").read_text(encoding="utf-8").count("item Lisa") >= 1


def test_a_cassette_that_is_written_anew_reads_no_cache() -> None:
    """Under rewrite all is asked again, whatever the cache holds."""
    CALL.map(ROWS)
    with llmcall.cassette("plan.jsonl", mode="rewrite"):
        assert CALL.map(ROWS, dry_run=True)[:2] == (1, 2)


@pytest.mark.parametrize("function", [ask, len, lambda item: item, CALL.run])
def test_a_plain_function(function: Any) -> None:
    """What a plain function would ask, only running it tells."""
    with pytest.raises(TypeError, match="dry_run needs an LLMCall or an @llm function"):
        map(function, [1], dry_run=True)
    assert not CALLS.exists()


def test_a_row_that_cannot_be_asked() -> None:
    """A row that lacks a variable fails in the plan as it would in the map."""
    with pytest.raises(llmcall.TemplateError, match="name"):
        CALL.map([{}], dry_run=True)
