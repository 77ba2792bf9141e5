"""``llmcall.effect``: what a treatment does, from a table, and ``llmcall.units_needed``."""

from __future__ import annotations

import math
from typing import Any

import pandas
import pytest
from scipy import stats

import llmcall

pytestmark = pytest.mark.newest_only


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
        *("estimate", "low", "high", "level", "n_treated", "n_control", "paired"),
        *("missing_treated", "missing_control"),
    ]
    found = frame.loc["hours"]
    assert list(found[:3]) == pytest.approx([1.58, 0.7001142, 2.4598858], abs=1e-7)
    assert list(found[3:]) == [0.95, 10, 10, True, 0, 0]


def test_units_in_one_arm_each_are_compared_by_welchs_interval() -> None:
    """The one that R's ``t.test`` prints."""
    frame = drug()
    frame["person"] = range(20)
    found = llmcall.effect(frame, "hours", **SLEEP).loc["hours"]
    assert list(found[:3]) == pytest.approx([1.58, -0.2054832, 3.3654832], abs=1e-7)
    assert list(found[3:]) == [0.95, 10, 10, False, 0, 0]


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
    assert (found["n_treated"], found["n_control"]) == (7, 7)
    assert (found["missing_treated"], found["missing_control"]) == (1, 2)
    llmcall.units_needed(frame, "hours", width=1, **SLEEP)
    said = "the effect on 'hours' leaves out missing units and values: 1 in '2' and 2 in '1'"
    assert [message for message in caplog.messages if "leaves out" in message] == [said, said]


def test_each_missing_value_of_a_unit_counts() -> None:
    """A person with two of three answers missing counts by the third."""
    frame = pandas.concat([drug().assign(hours=hours) for hours in (None, math.nan, 1.0)])
    found = llmcall.effect(frame, "hours", **SLEEP).loc["hours"]
    assert (found["n_treated"], found["missing_treated"], found["missing_control"]) == (10, 20, 20)


@pytest.mark.parametrize(
    ("texts", "remedy"),
    [
        (["yes", "no"], "frame['hours'] = frame['hours'].map({'yes': True, 'no': False})"),
        (["1.5", "2"], "frame['hours'] = pandas.to_numeric(frame['hours'])"),
    ],
)
def test_a_column_of_texts_is_an_error_with_the_remedy(texts: list[str], remedy: str) -> None:
    """Of the plan from such a pilot, too."""
    frame = drug().assign(hours=texts * 10)
    for function, options in ((llmcall.effect, {}), (llmcall.units_needed, {"width": 1})):
        with pytest.raises(TypeError) as caught:
            function(frame, "hours", **SLEEP, **options)
        assert str(caught.value).endswith(f"Make them numbers or booleans first: {remedy}")


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
        "the effect on 'hours' is over 5 differences that are skewed (skewness 1.5): intervals from so few "
        "contain the truth less often than they state. Get more units"
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
        ({"level": 95}, "level is 95; it must be between 0 and 1"),
    ],
)
def test_a_wrong_argument_of_an_effect_is_named(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        llmcall.effect(drug(), "hours", **{**SLEEP, **changed})


def test_an_unknown_argument_of_an_effect_is_named() -> None:
    with pytest.raises(
        TypeError, match=r"effect\(\) has no argument 'levle'. Did you mean 'level'\?"
    ):
        llmcall.effect(drug(), "hours", levle=0.9, **SLEEP)


# Plans


@pytest.mark.parametrize("is_paired", [True, False])
def test_the_units_needed_give_an_interval_of_that_width(is_paired: bool) -> None:
    """By Student's formula for the pilot's spread: so many are enough, and one less is not."""
    pilot = drug()
    pilot["cost"] = pilot["drug"].map({"2": 0.03, "1": 0.001})
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
    assert needed.cost == pytest.approx(needed.units * (0.031 if is_paired else 0.0155))
    half = f" (half in each arm: {needed.units // 2})"
    assert str(needed).startswith(f"{needed.units} units{'' if is_paired else half}, about $")


def test_each_arm_costs_what_its_own_units_cost() -> None:
    """Two treated persons and eight others in the pilot: the plan has as many of each."""
    pilot = drug().assign(person=range(20)).iloc[8:]
    pilot["cost"] = pilot["drug"].map({"1": 0.03, "2": 0.001})
    needed = llmcall.units_needed(pilot, "hours", width=1, **SLEEP)
    assert needed.cost == pytest.approx(needed.units / 2 * 0.031)


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
    with pytest.raises(ValueError, match="1,000,000,000 units do not reach the width 1e-09"):
        llmcall.units_needed(drug(), "hours", width=1e-9, **SLEEP)
