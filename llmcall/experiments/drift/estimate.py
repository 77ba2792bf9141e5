"""The estimated shift of a value, with a 95 % interval by resampling actors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..intervals import interval

if TYPE_CHECKING:
    import pandas

ROUNDING = 1e-12  # relative to a value; smaller differences come from floating point


class Shift(NamedTuple):
    """The difference of a value, or of a share of answers, between before and now.

    :param estimate: the mean shift: each new answer minus the mean of the recorded answers to the
        same request, averaged within actors, then over actors.
    :param low: the lower end of its 95 % interval; minus infinity for a single unit.
    :param high: the upper end.
    :param before: the mean of the recorded answers, weighted like the new ones.
    :param now: the mean of the new answers.
    :param answers: the number of new answers.
    """

    estimate: float
    low: float
    high: float
    before: float
    now: float
    answers: int


def resampled_unit(new: pandas.DataFrame) -> str:
    """Return the unit of resampling: the actors of new answers, or a single actor's requests."""
    return "actor" if new["actor"].nunique() > 1 else "request"


def estimate_shift(answers: pandas.DataFrame, value: str) -> Shift | None:
    """Return the shift of a value, or ``None`` if no new answer can be compared.

    :param answers: a row for each answer, with the columns ``is_new``, ``actor``, ``request`` and
        the value's.
    :param value: the column of the value; empty where an answer has none.
    """
    answers = answers.dropna(subset=[value])
    recorded = answers[~answers["is_new"]]
    new = answers[answers["is_new"] & answers["request"].isin(recorded["request"])]
    if new.empty:
        return None
    weights = 1 / new.groupby("actor")["actor"].transform("size") / new["actor"].nunique()
    means = recorded.groupby("request")[value].mean()
    before = new["request"].map(means)
    differences = new[value] - before
    differences[differences.abs() <= ROUNDING * before.abs()] = 0.0
    estimate = float((weights * differences).sum())
    # Each answer's influence on the estimate; a recorded one acts through its request's mean, and
    # several actors may have asked that request.
    request_weights = weights.groupby(new["request"]).sum()
    recorded = recorded[recorded["request"].isin(new["request"])]
    shares = recorded["request"].map(request_weights) / recorded["request"].map(
        recorded["request"].value_counts()
    )
    influences = answers[value] * 0.0
    influences[new.index] = weights * (differences - estimate)
    influences[recorded.index] = shares * (recorded["request"].map(means) - recorded[value])
    unit = resampled_unit(new)
    low, high = interval(influences.groupby(answers[unit]).sum(), new[unit].nunique())
    return Shift(
        estimate,
        estimate + low,
        estimate + high,
        float((weights * before).sum()),
        float((weights * new[value]).sum()),
        len(new),
    )
