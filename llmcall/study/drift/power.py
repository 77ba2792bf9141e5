"""The power of a comparison, and the shift that it finds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import variance

from .comparison import Recorded, error_within, variances_within
from .student import student_cdf, student_quantile

LEVEL = 0.05  # of a test, and one minus that of an interval
POWER = 0.8  # with which a shift is said to be found


def detectable(standard_error: float, units: int, level: float = LEVEL) -> float:
    """Return the shift that a test finds with a power of 0.8.

    :param units: how many units are resampled.
    """
    freedom = units - 1
    quantiles = student_quantile(1 - level / 2, freedom) + student_quantile(POWER, freedom)
    return standard_error * quantiles


def power(shift: float, standard_error: float, units: int, level: float = LEVEL) -> float:
    """Return the probability that a test finds a shift."""
    if not standard_error:
        return 1.0
    freedom = units - 1
    return student_cdf(shift / standard_error - student_quantile(1 - level / 2, freedom), freedom)


def planned_error(
    actor_requests: Sequence[tuple[str, str]], recorded: Recorded, *, share: float
) -> float | None:
    """Return the standard error that a check would have, from the variance of the recorded draws.

    If no request was drawn twice, the variance between all recorded answers takes the place of that
    within requests: the error is at most this.

    :param actor_requests: the actor and the request of each new answer.
    :param recorded: the recorded draws.
    :param share: the share of the new answers that will have a value.
    :returns: ``None`` if there are fewer than two recorded answers.
    """
    actor_requests = [
        (actor, request) for actor, request in actor_requests if recorded.get(request)
    ]
    variances = _variances({request: recorded[request] for _, request in actor_requests})
    if variances is None:
        return None
    return error_within(actor_requests, recorded, variances, share=share)


def _variances(recorded: Recorded) -> dict[str, float] | None:
    """Return the variance of each request's answers; a request with one draw gets the others'
    average.
    """
    values_by_request = {
        request: [draw.value for draw in draws] for request, draws in recorded.items()
    }
    variances = variances_within(
        {request: [values] for request, values in values_by_request.items()}
    )
    if variances is not None:
        return variances
    values = [value for values in values_by_request.values() for value in values]
    return dict.fromkeys(recorded, variance(values)) if len(values) > 1 else None
