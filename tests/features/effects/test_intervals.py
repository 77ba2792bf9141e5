"""The intervals of mean differences, by the exact distributions and by simulation."""

from __future__ import annotations

import math
from importlib import import_module

import pytest

from llmcall.features.effects.effects import paired_interval

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


SIMULATION = import_module("benchmarks.effects")


@pytest.mark.ci
def test_half_of_the_studies_that_a_pilot_planned_have_their_width() -> None:
    """Of 100, after a pilot of 20 units."""
    assert 0.35 < SIMULATION.planned_widths(SIMULATION.NUMBERS[0], 20, 100).reached < 0.65
