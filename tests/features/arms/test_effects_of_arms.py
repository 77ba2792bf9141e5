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


MISSING = ["missing_treated", "missing_control"]


def test_an_effect_is_the_mean_difference_within_repeats() -> None:
    """A row for each name of the measure; the interval is the same each time and holds the truth."""
    chance = random.Random(1)
    worlds = [chance.gauss(0, 10) for _ in range(40)]
    runs = measured(
        {"treated": [world + chance.gauss(1, 0.5) for world in worlds], "control": worlds}
    )
    frame = runs.effect(lambda world: {"world": world, "twice": 2 * world}, "treated", "control")
    assert list(frame.index) == ["world", "twice"]
    assert list(frame.columns) == ["estimate", "low", "high", "level", "n", *MISSING]
    world, twice = frame.loc["world"], frame.loc["twice"]
    differences = [runs["treated", repeat] - runs["control", repeat] for repeat in range(40)]
    assert world["estimate"] == pytest.approx(statistics.mean(differences))
    assert 0.6 < world["low"] < 1 < world["high"] < 1.4
    assert twice["low"] == pytest.approx(2 * world["low"])
    assert (world["n"], *world[MISSING]) == (40, 0, 0)
    again = runs.effect(lambda world: {"world": world}, "treated", "control")
    assert list(again.loc["world"]) == list(world)
    other_way = runs.effect(lambda world: world, "control", "treated")
    assert other_way.loc["measure", "estimate"] == pytest.approx(-world["estimate"])


def test_an_effect_counts_the_missing_values() -> None:
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
    assert list(frame.loc["a"]) == pytest.approx([1.5, 1.5 - half, 1.5 + half, 0.95, 2, 2, 1])
    assert list(frame.loc["b", ["n", *MISSING]]) == [0, 4, 5]
    assert frame.loc["b", ["estimate", "low", "high"]].isna().all()


def test_an_effect_without_an_interval_says_why(caplog: pytest.LogCaptureFixture) -> None:
    """One repeat, and equal numbers, show nothing of how others would differ: ``low`` and ``high`` are
    missing.
    """
    frame = measured({"treated": [3], "control": [1]}).effect(float, "treated", "control")
    assert frame.loc["measure", "estimate"] == 2
    assert frame.loc["measure", ["low", "high"]].isna().all()
    assert caplog.messages == [
        "no interval for the effect on 'measure' (1 pair; an interval needs 2, a useful one 5)"
    ]
    caplog.clear()
    runs = measured({"treated": [0.1 + 0.2, 0.7, 4], "control": [0.3, 0.7, 4]})
    frame = runs.effect(lambda value: {"a": value, "b": value}, "treated", "control")
    assert list(frame["estimate"]) == [0, 0]  # and no -1.4e-17
    assert frame[["low", "high"]].isna().all(axis=None)
    assert caplog.messages == [
        "no interval for the effect on 'a', 'b' (all differences are equal, so they show no spread; "
        "more units may show one)"
    ]


def test_an_effect_on_yes_and_no_has_an_interval_with_width() -> None:
    """Student's with the two more pairs of Bonett and Price (2012): with no change in 10 repeats, (1 - 1) / 12
    plus and minus 2.201 times the root of (2 / 11) / 12.
    """
    runs = measured({"treated": [True] * 10, "control": [True] * 10})
    found = runs.effect(lambda value: value, "treated", "control").loc["measure"]
    assert found["estimate"] == 0
    assert (found["low"], found["high"]) == pytest.approx((-0.27092, 0.27092), abs=1e-5)
    runs = measured(
        {"treated": [True, True, True, False, True], "control": [False, True, False, False, False]}
    )
    found = runs.effect(lambda value: value, "treated", "control").loc["measure"]
    # (4 - 1) / 7 plus and minus 2.447 times the root of (5 - 7 * (3 / 7) ** 2) / 6 / 7, at most 1
    assert (found["low"], found["high"]) == pytest.approx((-0.29909, 1.00000), abs=1e-5)


def test_a_number_that_is_0_or_1_in_every_repeat_is_no_yes_or_no() -> None:
    """Yes and no is a type. The differences are 1, 0, 1, 0, 1: Student's interval of these."""
    runs = measured({"treated": [1, 1, 1, 0, 1], "control": [0, 1, 0, 0, 0]})
    found = runs.effect(lambda value: value, "treated", "control").loc["measure"]
    half = 2.776445 * math.sqrt(0.3 / 5)  # Student's 97.5 % quantile for four degrees of freedom
    assert (found["low"], found["high"]) == pytest.approx((0.6 - half, 0.6 + half), abs=1e-5)
