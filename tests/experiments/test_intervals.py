"""The intervals of mean differences, by the exact distributions and by simulation."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import pytest

from llmcall.experiments.intervals import paired_interval

pytestmark = pytest.mark.newest_only


@pytest.mark.parametrize("total", [5, 6, 7, 8, 10, 13, 16, 21])
def test_the_interval_of_paired_shares_holds_the_truth_in_92_percent_of_studies(total: int) -> None:
    """By the trinomial distribution, for each two shares from .05 to .5, whether the units say yes together,
    independently or against each other.
    """
    outcomes = [(one, two) for one in range(total + 1) for two in range(total + 1 - one)]
    intervals = {
        (one, two): paired_interval(
            [1] * one + [-1] * two + [0] * (total - one - two), 0.95, is_share=True
        )
        for one, two in outcomes
    }
    steps = range(1, 11)
    for first, second in ((one / 20, two / 20) for one in steps for two in steps):
        for both in (0.0, first * second, min(first, second)):
            only_first, only_second = first - both, second - both
            neither_only = max(1 - only_first - only_second, 0.0)
            holds = sum(
                math.comb(total, one)
                * math.comb(total - one, two)
                * only_first**one
                * only_second**two
                * neither_only ** (total - one - two)
                for (one, two), (low, high) in intervals.items()
                if low - 1e-9 <= first - second <= high + 1e-9
            )
            assert holds >= 0.92


SIMULATION = import_module("benchmarks.coverage")


@pytest.mark.ci
@pytest.mark.parametrize("outcome", SIMULATION.NUMBERS, ids=lambda outcome: outcome.name)
def test_effects_on_numbers_hold_the_truth_in_93_to_97_percent_of_studies(outcome: Any) -> None:
    """Of 300 studies of three repeats, with two standard errors of the simulation."""
    found = SIMULATION.effect_coverage(outcome, 3, 300)
    assert 0.93 - 0.029 <= found.holds <= 0.97 + 0.02
    assert found.narrowest > 0


@pytest.mark.ci
@pytest.mark.parametrize(
    "outcome",
    [SIMULATION.YES_AND_NO[number] for number in (0, 2, 6, 8)],
    ids=lambda outcome: outcome.name,
)
def test_effects_on_yes_and_no_hold_the_truth_in_92_percent_of_studies(outcome: Any) -> None:
    """Of 200 studies of five repeats, with two standard errors of the simulation; of studies in which
    nobody changed, too.
    """
    found = SIMULATION.effect_coverage(outcome, 5, 200)
    assert found.holds >= 0.92 - 0.038
    assert (found.missing, found.narrowest > 0) == (0, True)


@pytest.mark.ci
def test_half_of_the_studies_that_a_pilot_planned_have_their_width() -> None:
    """Of 100, after a pilot of 20 units."""
    assert 0.35 < SIMULATION.planned_widths(SIMULATION.NUMBERS[0], 20, 100).reached < 0.65
