"""``Arms.effect``: what a treatment does, with an interval over the repeats."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import pytest

import llmcall

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
            "treated": [{"a": 2}, {"a": None}, ValueError("no"), {"a": 5}, {"a": True, "b": 1}],
            "control": [{"a": 1}, {"a": 1}, {"a": 1}, {"a": float("nan")}, {"a": False}],
        },
        on_error="none",
    )
    frame = runs.effect(lambda world: world, "treated", "control")
    assert list(frame.loc["a"]) == [1, 1, 1, 2, 3]
    assert list(frame.loc["b", ["n", "missing"]]) == [0, 5]
    assert frame.loc["b", ["estimate", "low", "high"]].isna().all()


def test_one_repeat_has_an_effect_without_an_interval() -> None:
    """It says nothing of others."""
    frame = measured({"treated": [3], "control": [1]}).effect(float, "treated", "control")
    assert list(frame.loc["measure"]) == [2, -math.inf, math.inf, 1, 0]


def test_an_effect_of_what_is_no_number_is_an_error() -> None:
    """It names the column and the value; an unknown arm lists the known ones."""
    runs = measured({"treated": [3], "control": [1]})
    with pytest.raises(TypeError, match=r"measure returned 'yes' for 'answer'"):
        runs.effect(lambda world: {"answer": "yes"}, "treated", "control")
    with pytest.raises(KeyError, match=r"no arm 'cured'; the arms are treated, control"):
        runs.effect(float, "cured", "control")
