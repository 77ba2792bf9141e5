"""The shift of a value: an estimate, and its 95 % interval by resampling actors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..intervals import interval

if TYPE_CHECKING:
    import pandas

ROUNDING = 1e-12  # of a value: a smaller difference comes from the arithmetic


class Shift(NamedTuple):
    """The difference of a value, or of a share of answers, between before and now.

    :param estimate: the mean shift: each new answer minus the mean of the recorded answers to the
        same request, averaged within actors, then over actors.
    :param low: the lower end of its 95 % interval; minus infinity if there is nothing to resample.
    :param high: the upper end.
    :param before: the mean of the recorded answers, weighted as the new ones.
    :param now: the mean of the new answers.
    :param answers: how many new answers it is of.
    """

    estimate: float
    low: float
    high: float
    before: float
    now: float
    answers: int


def resampled_unit(new: pandas.DataFrame) -> str:
    """Return what is resampled: the actors of new answers, or the requests of a single actor."""
    return "actor" if new["actor"].nunique() > 1 else "request"


def estimate_shift(answers: pandas.DataFrame, value: str) -> Shift | None:
    """Return the shift of a value; ``None`` if no new answer can be compared.

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
    # What each answer adds to the estimate: a recorded one through the mean of its request, which
    # may be another actor's, too.
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
