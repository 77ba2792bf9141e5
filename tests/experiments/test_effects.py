"""``Arms.effect``: what a treatment does, with an interval over the repeats."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import pytest

import llmcall
from llmcall.testing import ScriptedClient

pytestmark = pytest.mark.newest_only


def measured(values: dict[str, list[Any]], **options: Any) -> llmcall.types.Arms:
    """Run arms that return values, one for each repeat; an exception is raised."""
    left = {name: iter(column) for name, column in values.items()}

    def play(name: str) -> Any:
        value = next(left[name])
        if isinstance(value, Exception):
            raise value
        return value

    arms, repeats = {name: {"name": name} for name in values}, len(values["treated"])
    with llmcall.configured(cache_mode="auto"):
        return llmcall.arms(play, arms, scope="r", repeats=repeats, workers=1, **options)


def test_an_effect_is_the_mean_difference_within_repeats() -> None:
    """A row for each name of the measure; the interval is the same each time and holds the truth."""
    chance = random.Random(1)
    worlds = [chance.gauss(0, 10) for _ in range(40)]
    runs = measured(
        {"treated": [world + chance.gauss(1, 0.5) for world in worlds], "control": worlds}
    )
    frame = runs.effect(lambda world: {"world": world, "twice": 2 * world}, "treated", "control")
    assert list(frame.index) == ["world", "twice"]
    assert list(frame.columns) == ["estimate", "low", "high", "n", "missing"]
    world, twice = frame.loc["world"], frame.loc["twice"]
    differences = [runs["treated", repeat] - runs["control", repeat] for repeat in range(40)]
    assert world["estimate"] == pytest.approx(statistics.mean(differences))
    assert 0.6 < world["low"] < 1 < world["high"] < 1.4
    assert twice["low"] == pytest.approx(2 * world["low"])
    assert (world["n"], world["missing"]) == (40, 0)
    again = runs.effect(lambda world: {"world": world}, "treated", "control")
    assert list(again.loc["world"]) == list(world)
    other_way = runs.effect(lambda world: world, "control", "treated")
    assert other_way.loc["measure", "estimate"] == pytest.approx(-world["estimate"])


def test_an_effect_counts_the_repeats_with_a_missing_value() -> None:
    """An arm that failed, ``None``, NaN, or a name that one dict lacks."""
    runs = measured(
        {
            "treated": [{"a": 3}, {"a": None}, ValueError("no"), {"a": 5}, {"a": True, "b": 1}],
            "control": [{"a": 1}, {"a": 1}, {"a": 1}, {"a": float("nan")}, {"a": False}],
        },
        on_error="none",
    )
    frame = runs.effect(lambda world: world, "treated", "control")
    half = 12.706205 * math.sqrt(0.5 / 2)  # Student's 97.5 % quantile for one degree of freedom
    assert list(frame.loc["a"]) == pytest.approx([1.5, 1.5 - half, 1.5 + half, 2, 3])
    assert list(frame.loc["b", ["n", "missing"]]) == [0, 5]
    assert frame.loc["b", ["estimate", "low", "high"]].isna().all()


def test_an_effect_without_an_interval_says_why(caplog: pytest.LogCaptureFixture) -> None:
    """One repeat, and equal numbers, show nothing of how others would differ: ``low`` and ``high`` are
    missing.
    """
    frame = measured({"treated": [3], "control": [1]}).effect(float, "treated", "control")
    assert frame.loc["measure", "estimate"] == 2
    assert frame.loc["measure", ["low", "high"]].isna().all()
    assert caplog.messages == [
        "no interval for the effect on 'measure' (1 repeat with both values: 2 give one, 5 a useful one)"
    ]
    caplog.clear()
    runs = measured({"treated": [0.1 + 0.2, 0.7, 4], "control": [0.3, 0.7, 4]})
    frame = runs.effect(lambda value: {"a": value, "b": value}, "treated", "control")
    assert list(frame["estimate"]) == [0, 0]  # and no -1.4e-17
    assert frame[["low", "high"]].isna().all(axis=None)
    assert caplog.messages == [
        "no interval for the effect on 'a', 'b' (all 3 differences are equal, so they show no spread; "
        "more repeats may give one)"
    ]


def test_an_effect_on_yes_and_no_has_an_interval_with_width() -> None:
    """Student's with the two more pairs of Bonett and Price (2012): with no change in 10 repeats, (1 - 1) / 12
    plus and minus 2.201 times the root of (2 / 11) / 12.
    """
    runs = measured({"treated": [True] * 10, "control": [True] * 10})
    found = runs.effect(lambda value: value, "treated", "control").loc["measure"]
    assert found["estimate"] == 0
    assert (found["low"], found["high"]) == pytest.approx((-0.27092, 0.27092), abs=1e-5)
    runs = measured({"treated": [1, 1, 1, 0, 1], "control": [0, 1, 0, 0, 0]})
    found = runs.effect(lambda value: value, "treated", "control").loc["measure"]
    # (4 - 1) / 7 plus and minus 2.447 times the root of (5 - 7 * (3 / 7) ** 2) / 6 / 7, at most 1
    assert (found["low"], found["high"]) == pytest.approx((-0.29909, 1.00000), abs=1e-5)


def test_an_effect_on_what_cannot_vary_has_an_interval_without_width() -> None:
    """Both arms got the same answers to the same calls."""
    client = ScriptedClient(["3", "5"], cache_mode="auto")

    def play(name: str) -> int:
        return int(client.send_message("Rate the bread.", temperature=1).content)

    with llmcall.configured(cache_mode="auto"):
        arms = {"treated": {"name": "a"}, "control": {"name": "b"}}
        runs = llmcall.arms(play, arms, scope="r", repeats=2)
    assert list(runs.effect(float, "treated", "control").loc["measure"]) == [0, 0, 0, 2, 0]


@pytest.mark.parametrize("asks", [True, False])
def test_an_effect_on_what_a_recorded_function_gives_can_vary(asks: bool) -> None:
    """Each arm records its own result, so equal answers of the model do not fix the difference; nor
    does a result that arms share, if no model answered.
    """
    client = ScriptedClient(lambda messages: "3", cache_mode="auto")

    @llmcall.recorded(shared=not asks)
    def harvest() -> int:
        return 0

    def play() -> int:
        if asks:
            client.send_message("Rate the bread.", temperature=1)
        return 3 + harvest()

    with llmcall.configured(cache_mode="auto"):
        runs = llmcall.arms(play, {"treated": {}, "control": {}}, scope="r", repeats=3)
    found = runs.effect(float, "treated", "control").loc["measure"]
    assert found["estimate"] == 0
    assert found[["low", "high"]].isna().all()


def test_an_effect_of_what_is_no_number_is_an_error() -> None:
    """It names the column and the value; an unknown arm lists the known ones."""
    runs = measured({"treated": [3], "control": [1]})
    with pytest.raises(TypeError, match=r"measure returned 'yes' for 'answer'"):
        runs.effect(lambda world: {"answer": "yes"}, "treated", "control")
    with pytest.raises(TypeError, match=r"measure returned inf for 'measure'"):
        runs.effect(lambda world: math.inf, "treated", "control")
    with pytest.raises(KeyError, match=r"no arm 'cured'; the arms are treated, control"):
        runs.effect(float, "cured", "control")
