"""The intervals of effects between arms, by simulation."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

pytestmark = pytest.mark.newest_only

SIMULATION = import_module("benchmarks.arms")
OUTCOMES = import_module("benchmarks.effects")


@pytest.mark.ci
@pytest.mark.parametrize("outcome", OUTCOMES.NUMBERS, ids=lambda outcome: outcome.name)
def test_effects_on_numbers_hold_the_truth_in_93_to_97_percent_of_studies(outcome: Any) -> None:
    """Of 300 studies of three repeats, with two standard errors of the simulation."""
    found = SIMULATION.effect_coverage(outcome, 3, 300)
    assert 0.93 - 0.029 <= found.holds <= 0.97 + 0.02
    assert found.narrowest > 0


@pytest.mark.ci
@pytest.mark.parametrize(
    "outcome",
    [OUTCOMES.YES_AND_NO[number] for number in (0, 2, 6, 8)],
    ids=lambda outcome: outcome.name,
)
def test_effects_on_yes_and_no_hold_the_truth_in_92_percent_of_studies(outcome: Any) -> None:
    """Of 200 studies of five repeats, with two standard errors of the simulation; of studies in which
    nobody changed, too.
    """
    found = SIMULATION.effect_coverage(outcome, 5, 200)
    assert found.holds >= 0.92 - 0.038
    assert (found.missing, found.narrowest > 0) == (0, True)
