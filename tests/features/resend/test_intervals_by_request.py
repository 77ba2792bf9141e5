"""The intervals of a shift by request, by simulation."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy
import pytest

pytestmark = pytest.mark.newest_only
SIMULATION = import_module("benchmarks.resend")


@pytest.mark.ci
@pytest.mark.parametrize(
    "survey", [SIMULATION.SURVEYS[1], SIMULATION.SURVEYS[2]], ids=lambda survey: survey.name
)
def test_effects_by_request_hold_the_shift_of_a_resent_sample(survey: Any) -> None:
    """In 93 to 97 % of 200 studies of 20 requests, with two standard errors of the simulation."""
    found = SIMULATION.resend_coverage(survey, 20, 200)
    assert 0.93 - 0.036 <= found.holds <= 0.97 + 0.024
    assert found.missing == 0


@pytest.mark.ci
def test_effects_by_request_hold_the_shift_of_a_share_of_yes() -> None:
    """In at least 92 % of 200 studies of 20 requests, with two standard errors of the simulation."""
    found = SIMULATION.resend_coverage(SIMULATION.YES_SURVEYS[2], 20, 200)
    assert found.holds >= 0.92 - 0.038
    assert (found.missing, found.narrowest > 0) == (0, True)


@pytest.mark.ci
def test_the_simulation_records_all_requests_of_its_actors() -> None:
    """Every second request shifts by 1, so the mean shift of all is a half."""

    def means(chance: Any, shape: tuple[int, int]) -> tuple[Any, Any]:
        then = numpy.zeros(shape)
        return then, then + (numpy.arange(shape[0]) % 2)[:, None]

    def draw(chance: Any, means: Any) -> Any:
        return chance.normal(means, 0.01)

    survey = SIMULATION.Survey("half", means, draw, actors=(1,) * 20)
    assert SIMULATION.resend_coverage(survey, 20, 10).holds == 1


@pytest.mark.ci
@pytest.mark.parametrize(
    "survey",
    [*SIMULATION.SURVEYS, *SIMULATION.YES_SURVEYS, *SIMULATION.RARE],
    ids=lambda survey: survey.name,
)
def test_the_simulated_answers_shift_by_the_shift_that_is_called_true(survey: Any) -> None:
    """Within four standard errors."""
    chance = numpy.random.default_rng(1)
    then, now = survey.means(chance, (sum(survey.actors), 500))
    shifts = survey.draw(chance, now) * 1.0 - survey.draw(chance, then)
    errors = shifts - (now - then)
    assert abs(errors.mean()) < 4 * errors.std() / errors.size**0.5
