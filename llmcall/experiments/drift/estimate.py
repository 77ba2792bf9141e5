"""The estimated shift of a value in a recording, with its 95 % interval.

The shift is that of the requests recorded, so what varies are the draws of each request, and which
requests were asked again. Both are read as in two-stage sampling (Cochran, "Sampling Techniques",
1977, section 10.4): the part of the requests that was asked again decides how much each counts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from ..intervals import (
    Interval,
    Variance,
    decimals_of,
    interval_of_variances,
    pseudo_draws,
)

if TYPE_CHECKING:
    import pandas

IMPOSSIBLE = "no number of calls gives one: the request was recorded once, which shows no spread"


class Shift(NamedTuple):
    """The difference of a value, or of a share of answers, between before and now.

    :param estimate: the mean shift of the requests recorded: each new answer minus the mean of the
        recorded answers to the same request, averaged within actors, then over actors.
    :param low: the lower end of its 95 % interval; NaN if there is none.
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


class Estimate(NamedTuple):
    """A shift, and where its interval comes from.

    :param basis: ``"draws"`` or ``"requests"``, whose spread was read; empty without an interval.
    :param reason: in words, why there is no interval; empty if there is one.
    """

    shift: Shift
    basis: str
    reason: str


def estimate_shift(answers: pandas.DataFrame, value: str, asked_share: float) -> Estimate | None:
    """Estimate the shift of a value; ``None`` if no new answer can be compared.

    :param answers: a row for each answer, with the columns ``is_new``, ``actor``, ``request`` and
        the value's.
    :param value: the column of the value; empty where an answer has none.
    :param asked_share: the share of the different requests recorded that was asked again.
    """
    answers = answers.dropna(subset=[value])
    recorded = answers[~answers["is_new"]]
    new = answers[answers["is_new"] & answers["request"].isin(recorded["request"])]
    if new.empty:
        return None
    recorded = recorded[recorded["request"].isin(new["request"])]
    numbers = answers[value].astype(float)
    decimals = decimals_of(numbers)
    weights = 1 / new.groupby("actor")["actor"].transform("size") / new["actor"].nunique()
    request_weights = weights.groupby(new["request"]).sum()
    recorded_weights = recorded["request"].map(request_weights / recorded["request"].value_counts())
    now = (weights * new[value]).groupby(new["request"]).sum() / request_weights
    before = recorded.groupby("request")[value].mean()
    shifts = (now - before).astype(float).round(decimals)

    def mean(by_request: pandas.Series) -> float:
        return round(float((request_weights * by_request).sum()), decimals) + 0.0  # not -0

    estimate = mean(shifts)
    freedom = len(shifts) - 1
    between = float((request_weights**2 * (shifts - estimate) ** 2).sum())
    variances, basis = shift_variances(
        Variance(between * (freedom + 1) / max(freedom, 1), freedom),
        _draws_variances([(new, weights), (recorded, recorded_weights)], value, decimals),
        asked_share,
    )
    is_yes_or_no = bool(numbers.isin((0, 1)).all())
    interval = None
    if variances and is_yes_or_no:
        counts = [float(1 / (side**2).sum()) for side in (weights, recorded_weights)]
        center, pseudo = pseudo_draws((mean(now), mean(before)), counts)
        found = interval_of_variances(center, [*variances, pseudo])
        interval = found and Interval(max(found.low, -1.0), min(found.high, 1.0))
    elif variances:
        interval = interval_of_variances(estimate, variances)
    low, high = interval or (math.nan, math.nan)
    shift = Shift(
        estimate, round(low, decimals), round(high, decimals), mean(before), mean(now), len(new)
    )
    if interval is not None:
        return Estimate(shift, basis, "")
    return Estimate(shift, "", _reason(len(new), len(recorded), freedom + 1, asked_share))


def shift_variances(
    between: Variance, draws: list[Variance], asked_share: float
) -> tuple[list[Variance], str]:
    """Return the parts of a shift's variance, and whose spread they come from.

    If the spread of the draws has more than half as many degrees of freedom as the spread between
    requests, it counts for the requests that were asked again, and the spread between requests for
    the others. Otherwise only the spread between requests counts, which contains the spread of the
    draws; if requests have shifted differently, it is then on the safe side. Rejected: the spread
    of recorded draws for single new ones, which a changed model need not have kept.

    :param between: the variance as it is between requests, 0 degrees of freedom for a single one.
    :param draws: the variances by the new and by the recorded draws.
    :param asked_share: the share of the requests that was asked again.
    :returns: nothing if there is not enough to see a spread.
    """
    if not between.freedom and asked_share < 1:
        return [], ""
    if 2 * min(part.freedom for part in draws) > between.freedom:
        of_others = Variance((1 - asked_share) * between.variance, between.freedom)
        of_draws = [Variance(asked_share * part.variance, part.freedom) for part in draws]
        return [*of_draws, *([of_others] if between.freedom else [])], "draws"
    return ([between], "requests") if between.freedom else ([], "")


def _draws_variances(
    sides: list[tuple[pandas.DataFrame, pandas.Series]], value: str, decimals: int
) -> list[Variance]:
    """Return the variances of two weighted means by the spread of draws around their request's mean.

    Few draws of whole numbers are often equal by chance. Such a side counts as if it had one more draw
    with the other side's spread: without it, two new ratings of a request would give an interval that
    holds the truth in 75 % of studies.

    :param sides: the answers of each mean, and their weights.
    """
    spreads = []
    for answers, _ in sides:
        means = answers.groupby("request")[value].transform("mean")
        squares = float(((answers[value] - means).astype(float).round(decimals) ** 2).sum())
        freedom = len(answers) - answers["request"].nunique()
        spreads.append(Variance(squares / max(freedom, 1), freedom))
    return [
        Variance(
            float((weights**2).sum()) * (own.variance or other.variance / (own.freedom + 1)),
            own.freedom,
        )
        for (_, weights), own, other in zip(sides, spreads, reversed(spreads), strict=True)
    ]


def _reason(new: int, recorded: int, requests: int, asked_share: float) -> str:
    """Return in words why there is no interval, and what would give one."""
    if requests == 1 and asked_share < 1:
        return "only one of the requests was asked again: 2 calls give one, 20 a useful one"
    if requests == 1 and recorded == 1:
        return IMPOSSIBLE
    if requests == 1 and new == 1:
        return "one new answer shows no spread: 2 calls give one, 20 a useful one"
    rare = 1 - 0.05 ** (1 / new)
    return (
        f"the {new:,} differences from the recorded answers show no spread. In 95 of 100 such checks, at most "
        f"{100 * rare:.1f} % of all answers would differ from these; more calls may show one"
    )
