"""``Arms.effect``: what a treatment does, with an interval over the repeats."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import pandas
import pytest
from scipy import stats

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
    assert list(frame.columns) == ["estimate", "low", "high", "level", "n", "missing"]
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
    assert list(frame.loc["a"]) == pytest.approx([1.5, 1.5 - half, 1.5 + half, 0.95, 2, 3])
    assert list(frame.loc["b", ["n", "missing"]]) == [0, 9]
    assert frame.loc["b", ["estimate", "low", "high"]].isna().all()


def test_an_effect_without_an_interval_says_why(caplog: pytest.LogCaptureFixture) -> None:
    """One repeat, and equal numbers, show nothing of how others would differ: ``low`` and ``high`` are
    missing.
    """
    frame = measured({"treated": [3], "control": [1]}).effect(float, "treated", "control")
    assert frame.loc["measure", "estimate"] == 2
    assert frame.loc["measure", ["low", "high"]].isna().all()
    assert caplog.messages == [
        "no interval for the effect on 'measure' (1 pair: 2 give one, 5 a useful one)"
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


def test_an_unknown_arm_is_an_error_that_lists_the_known_ones() -> None:
    runs = measured({"treated": [3], "control": [1]})
    with pytest.raises(KeyError, match=r"no arm 'cured'; the arms are treated, control"):
        runs.effect(float, "cured", "control")


# Tables


def drug() -> pandas.DataFrame:
    """Return a table of the sleep that ten persons gained by two drugs (Student 1908)."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    return pandas.DataFrame(
        {"drug": ["1"] * 10 + ["2"] * 10, "person": [*range(10)] * 2, "hours": first + second}
    )


SLEEP: dict[str, Any] = {"by": "drug", "treated": "2", "control": "1", "unit": "person"}


def test_units_in_both_arms_are_paired() -> None:
    """The interval is the one that R's ``t.test(paired = TRUE)`` prints."""
    frame = llmcall.effect(drug(), "hours", **SLEEP)
    assert list(frame.columns) == [
        *("estimate", "low", "high", "level", "n_treated", "n_control", "paired", "missing")
    ]
    found = frame.loc["hours"]
    assert list(found[:3]) == pytest.approx([1.58, 0.7001142, 2.4598858], abs=1e-7)
    assert list(found[3:]) == [0.95, 10, 10, True, 0]


def test_units_in_one_arm_each_are_compared_by_welchs_interval() -> None:
    """The one that R's ``t.test`` prints."""
    frame = drug()
    frame["person"] = range(20)
    found = llmcall.effect(frame, "hours", **SLEEP).loc["hours"]
    assert list(found[:3]) == pytest.approx([1.58, -0.2054832, 3.3654832], abs=1e-7)
    assert list(found[3:]) == [0.95, 10, 10, False, 0]


def test_the_answers_of_a_unit_count_by_their_mean() -> None:
    """So many answers of a person are no more persons."""
    once = drug()
    often = pandas.concat([once.assign(hours=once["hours"] + shift) for shift in (-1, 0, 1)])
    same = llmcall.effect(often, "hours", **SLEEP)
    pandas.testing.assert_frame_equal(same, llmcall.effect(once, "hours", **SLEEP))


def test_what_an_effect_leaves_out_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """A unit in one arm, a missing value, a text, a row of no arm; the others are compared in pairs. The plan
    from such a pilot says the same.
    """
    frame = drug().astype({"hours": object})
    frame.loc[0, "hours"] = None
    frame.loc[1, "hours"] = "none"
    frame = pandas.concat([frame.drop(index=12), frame.tail(1).assign(drug=None)])
    found = llmcall.effect(frame, "hours", **SLEEP).loc["hours"]
    rest = drug().query("person > 2")
    assert found["estimate"] == pytest.approx(
        llmcall.effect(rest, "hours", **SLEEP).loc["hours", "estimate"]
    )
    assert (found["n_treated"], found["n_control"], found["missing"]) == (7, 7, 3)
    llmcall.units_needed(frame, "hours", width=1, **SLEEP)
    said = (
        "the effect on 'hours' leaves out: 1 unit in one arm only; 1 missing value; 1 value not a "
        "finite number, such as 'none'; 1 row without 'drug'"
    )
    assert [message for message in caplog.messages if "leaves out" in message] == [said, said]


def test_each_missing_value_of_a_unit_counts() -> None:
    """A person with two of three answers missing counts by the third."""
    frame = pandas.concat([drug().assign(hours=hours) for hours in (None, math.nan, 1.0)])
    found = llmcall.effect(frame, "hours", **SLEEP).loc["hours"]
    assert (found["n_treated"], found["missing"]) == (10, 40)


def test_yes_and_no_of_different_units_have_an_interval_with_width() -> None:
    """As if each arm had one more yes and one more no: 9 of 10 against 1 of 12, Welch's."""
    frame = pandas.DataFrame(
        {
            "drug": ["2"] * 8 + ["1"] * 10,
            "person": range(18),
            "slept": [True] * 8 + [False] * 10,
        }
    )
    found = llmcall.effect(frame, "slept", **SLEEP).loc["slept"]
    first, second = 0.9 * 0.1 / 9, 1 / 12 * 11 / 12 / 11  # variances of the two means
    freedom = (first + second) ** 2 / (first**2 / 9 + second**2 / 11)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(first + second)
    center = 0.9 - 1 / 12
    assert (found["low"], found["high"]) == pytest.approx((center - half, min(center + half, 1)))
    assert found["estimate"] == 1


def differing(*differences: float) -> pandas.DataFrame:
    """Return a table of units that differ so between the drugs."""
    numbers = [*range(len(differences))] * 2
    drugs = ["2"] * len(differences) + ["1"] * len(differences)
    hours = [*differences, *[0.0] * len(differences)]
    return pandas.DataFrame({"drug": drugs, "person": numbers, "hours": hours})


def test_few_skewed_units_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """By scipy's skewness, 1.5 of one large value among five; of the plan from such a pilot, too."""
    frame = differing(0, 0.1, 0.2, 0.3, 9)
    llmcall.effect(frame, "hours", **SLEEP)
    llmcall.units_needed(frame, "hours", width=1, **SLEEP)
    said = (
        "the effect on 'hours' is over 5 differences that are skewed (skewness 1.5): intervals of so few "
        "contain the truth less often than they say. Get more units"
    )
    assert caplog.messages == [said, said]
    caplog.clear()
    apart = frame.assign(person=range(10), hours=[0, 0.1, 0.2, 0.3, 9, 1, 2, 3, 4, 5])
    llmcall.effect(apart, "hours", **SLEEP)
    assert [message.split(":")[0] for message in caplog.messages] == [
        "the effect on 'hours' is over 5 units that are skewed (skewness 1.5)"
    ]


def test_nothing_is_said_of_units_that_are_many_or_even_or_yes_and_no(
    caplog: pytest.LogCaptureFixture,
) -> None:
    llmcall.effect(differing(*[0.1 * unit for unit in range(9)], 9), "hours", **SLEEP)
    llmcall.effect(differing(1, 2, 3, 4, 5), "hours", **SLEEP)
    yes = differing(0, 0, 0, 0, 1)
    llmcall.effect(yes.assign(hours=yes["hours"].eq(1)), "hours", **SLEEP)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"unit": "name"}, "no column 'name'; the columns are 'drug', 'person', 'hours'"),
        ({"treated": "3"}, "no row has '3' in the column 'drug'; it has '1', '2'"),
        ({"treated": "1"}, "treated and control are both '1'"),
        ({"level": 95}, "level is 95; it must be between 0 and 1"),
    ],
)
def test_a_wrong_argument_of_an_effect_is_named(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        llmcall.effect(drug(), "hours", **{**SLEEP, **changed})


# Plans


@pytest.mark.parametrize("is_paired", [True, False])
def test_the_units_needed_give_an_interval_of_that_width(is_paired: bool) -> None:
    """By Student's formula for the pilot's spread: so many are enough, and one less is not."""
    pilot = drug().assign(cost=0.001)
    if not is_paired:
        pilot["person"] = range(20)
    needed = llmcall.units_needed(pilot, "hours", width=0.5, **SLEEP)
    hours = pilot.groupby("drug")["hours"]
    if is_paired:
        differences = hours.get_group("2").to_numpy() - hours.get_group("1").to_numpy()
        variance, arms = differences.var(ddof=1), 1
    else:
        variance, arms = hours.var().sum(), 2
    widths = [
        2 * stats.t.ppf(0.975, arms * (units - 1)) * math.sqrt(variance / units)
        for units in (needed.units // arms - 1, needed.units // arms)
    ]
    assert widths[0] > 0.5 >= widths[1]
    assert needed.cost == pytest.approx(needed.units * (0.002 if is_paired else 0.001))


def test_the_cost_of_the_units_needed_is_unknown_without_costs() -> None:
    needed = llmcall.units_needed(drug(), "hours", width=1, **SLEEP)
    assert needed.cost is None
    assert str(needed) == f"{needed.units} units, cost unknown"


def test_the_cost_of_the_units_needed_is_unknown_with_a_cost_that_is_a_text() -> None:
    assert llmcall.units_needed(drug().assign(cost="?"), "hours", width=1, **SLEEP).cost is None


def test_a_pilot_without_spread_is_an_error() -> None:
    """Equal numbers, a single person, and one person in an arm."""
    flat = drug().assign(hours=1.0)
    few = drug().assign(person=range(20)).iloc[:11]
    for pilot in (flat, drug().query("person == 1"), few):
        with pytest.raises(ValueError, match="the pilot shows no spread of 'hours'"):
            llmcall.units_needed(pilot, "hours", width=1, **SLEEP)


def test_a_width_that_no_number_of_units_gives_is_an_error() -> None:
    with pytest.raises(ValueError, match="1,000,000,000 units do not give the width 1e-09"):
        llmcall.units_needed(drug(), "hours", width=1e-9, **SLEEP)
