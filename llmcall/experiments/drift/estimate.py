"""The estimated shift of a value in a recording, with its 95 % interval.

The shift is the mean over the resent requests. Two things vary: the draws of each
request, and the choice of requests. The larger of the two spreads counts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from ..intervals import DUST, LEVEL, Interval, is_yes_or_no

if TYPE_CHECKING:
    import pandas

USEFUL_SHARE = 0.1  # the width of a useful interval: ten percentage points for yes and no,
USEFUL_DEVIATIONS = 0.2  # and for numbers, in recorded standard deviations


class Shift(NamedTuple):
    """The difference of a value between before and now.

    :param estimate: the mean shift of the resent requests: of each, the mean of the new answers minus
        that of the recorded ones.
    :param low: the lower end of its 95 % interval; NaN if there is none.
    :param high: the upper end.
    :param before: the mean over the requests of their recorded answers.
    :param now: the mean over the requests of their new answers.
    :param answers: the number of new answers.
    """

    estimate: float
    low: float
    high: float
    before: float
    now: float
    answers: int


class Variance(NamedTuple):
    """The variance of an estimate, and the degrees of freedom from which it is known."""

    variance: float
    freedom: float


def estimate_shift(
    answers: pandas.DataFrame, value: str, *, is_sample: bool
) -> tuple[Shift, str] | None:
    """Estimate the shift of a value; ``None`` if no new answer can be compared.

    :param answers: a row for each answer, with the columns ``is_new``, ``request`` and the value's.
    :param value: the column of the value: numbers, or ``bool``; empty where an answer has none.
    :param is_sample: whether further requests could have been resent.
    :returns: the shift, and in words why it has no interval.
    """
    answers = answers.dropna(subset=[value])
    is_share = is_yes_or_no(answers[value])
    numbers = answers[value].astype(float)
    cells = numbers.groupby([answers["request"], answers["is_new"]]).agg(["mean", "var", "size"])
    cells = cells.unstack().reindex(
        columns=[(of, new) for of in ("mean", "var", "size") for new in (False, True)]
    )
    cells = cells.dropna(subset=[("mean", False), ("mean", True)])
    if cells.empty:
        return None
    means = cells["mean"]
    before, now = float(means[False].mean()), float(means[True].mean())
    dust = DUST * float(numbers.abs().max())
    estimate = 0.0 if abs(now - before) <= dust else now - before
    variances = cells["var"].where(cells["var"] > dust**2, 0.0).where(cells["var"].notna())
    within = _within(variances, cells["size"], takes_zero=is_share)
    shifts = means[True] - means[False]
    between = Variance(float(shifts.var()) / len(shifts), len(shifts) - 1)
    if between.variance <= dust**2:
        between = Variance(0.0, between.freedom)
    found = _larger(within, between, is_sample=is_sample)
    low = high = math.nan
    count = int(cells["size"][True].sum())
    reason = ""
    if found is None:
        reason = _reason(cells["size"], is_sample=is_sample)
    elif is_share:
        low, high = _share_interval(before, now, found, cells["size"])
    elif found.variance:
        low, high = interval_of(estimate, found)
    else:
        share = 100 * (1 - (1 - LEVEL) ** (1 / count))
        reason = (
            f"the {count:,} differences from the recorded answers show no spread. In 95 of 100 such checks, at most "
            f"{share:.1f} % of all answers would differ from these; more calls may show one"
        )
    return Shift(estimate, low, high, before, now, count), reason


def interval_of(estimate: float, found: Variance) -> Interval:
    """Return Student's interval of an estimate."""
    from ...support.libraries import scipy

    deviation = math.sqrt(found.variance)
    low, high = scipy.stats.t.interval(LEVEL, found.freedom, estimate, deviation)
    return Interval(float(low), float(high))


def _within(
    variances: pandas.DataFrame, sizes: pandas.DataFrame, *, takes_zero: bool
) -> Variance | None:
    """Return the variance of the mean shift by the spread of each request's own answers; ``None`` if no
    request was answered twice before, or none now.

    The degrees of freedom are Satterthwaite's ("An approximate distribution of estimates of variance
    components", 1946). A request with a single answer takes the pooled spread of all of its side; so
    does one whose few numbers are equal, which says little of its spread.

    :param variances: of each request's recorded and new answers; NaN of a single one.
    :param sizes: the numbers of these.
    :param takes_zero: whether equal answers may show that a request has no spread, as yes and no do.
    """
    freedom = sizes - 1
    sides = freedom.sum()
    if not sides.all():
        return None
    squares = (variances * freedom).sum()
    pooled = squares / sides
    pooled = pooled.where(pooled > 0, squares.sum() / sides.sum())
    is_own = variances.notna() if takes_zero else variances > 0
    parts = variances.where(is_own, pooled, axis=1) / sizes / len(sizes) ** 2
    of_own = (parts**2 / freedom).where(is_own).sum().sum()
    of_pooled = (parts.mask(is_own).sum() ** 2 / sides).sum()
    total = float(parts.sum().sum())
    return Variance(total, total**2 / (of_own + of_pooled) if total else float(sides.sum()))


def _larger(within: Variance | None, between: Variance, *, is_sample: bool) -> Variance | None:
    """Return the larger of two variances. Of a sample of the requests, only the requests say how others
    have shifted; of all of them, their own answers say it.
    """
    if within is None or is_sample:
        if not between.freedom:
            return None
        return Variance(max(between.variance, within.variance if within else 0.0), between.freedom)
    return Variance(
        max(within.variance, between.variance if between.freedom else 0.0), within.freedom
    )


def _share_interval(
    before: float, now: float, found: Variance, sizes: pandas.DataFrame
) -> Interval:
    """Return the interval of a difference of shares, as if each had one more yes and one more no (Agresti
    and Caffo, "Simple and effective confidence intervals for proportions", 2000).
    """
    then, new = (len(sizes) ** 2 / float((1 / sizes[is_new]).sum()) for is_new in (False, True))
    center = (now * new + 1) / (new + 2) - (before * then + 1) / (then + 2)
    added = 1 / (new + 2) ** 2 + 1 / (then + 2) ** 2
    low, high = interval_of(center, Variance(found.variance + added, found.freedom))
    return Interval(max(low, -1.0), min(high, 1.0))


def _reason(sizes: pandas.DataFrame, *, is_sample: bool) -> str:
    """Return the reason for a missing interval, and a remedy."""
    if len(sizes) == 1 and is_sample:
        return (
            "only one request has answers that were read then and now: 2 give one, 20 a useful one"
        )
    if sizes[True].max() == 1:
        return "one new answer shows no spread: 2 calls give one, 20 a useful one"
    return "no number of calls gives one: the request was recorded once, which shows no spread"


class Spread(NamedTuple):
    """The spread of a value in a recording.

    :param name: the value's column.
    :param deviation: the standard deviation of all answers.
    :param of_draws: that of answers to the same request; of all, if no request was answered twice.
    :param is_share: whether the value is yes or no.
    """

    name: str
    deviation: float
    of_draws: float
    is_share: bool

    @property
    def useful_width(self) -> float:
        """Return the width of a useful interval."""
        return USEFUL_SHARE if self.is_share else USEFUL_DEVIATIONS * self.deviation

    def width(self, requests: int, new: int, recorded: int, *, is_sample: bool) -> float | None:
        """Return the width of interval to expect, or ``None`` if there will be none.

        :param requests: the number of resent requests.
        :param new: the number of their new answers.
        :param recorded: the number of their recorded answers.
        :param is_sample: whether further requests could be sent.
        """
        parts = [self.of_draws**2 / count for count in (new, recorded)]
        variance = sum(parts)
        freedom: float = requests - 1
        if min(new, recorded) > requests and not is_sample:
            ratios = [
                part**2 / (n - requests) for part, n in zip(parts, (new, recorded), strict=True)
            ]
            freedom = variance**2 / sum(ratios) if variance else new - requests
        if not freedom or not (variance or self.is_share):
            return None
        if self.is_share:
            variance += 1 / (new + 2) ** 2 + 1 / (recorded + 2) ** 2
        low, high = interval_of(0.0, Variance(variance, freedom))
        return min(high - low, 2.0) if self.is_share else high - low


def spread_of(answers: pandas.DataFrame, value: str) -> Spread:
    """Return the spread of a value in recorded answers.

    :param answers: see :func:`estimate_shift`.
    """
    answers = answers.dropna(subset=[value])
    numbers = answers[value].astype(float)
    cells = numbers.groupby(answers["request"]).agg(["var", "size"])
    freedom = (cells["size"] - 1).sum()
    deviation = float(numbers.std()) if len(numbers) > 1 else 0.0
    squares = float((cells["var"] * (cells["size"] - 1)).sum())
    of_draws = math.sqrt(squares / freedom) if freedom else deviation
    return Spread(value, deviation, of_draws, is_yes_or_no(answers[value]))
