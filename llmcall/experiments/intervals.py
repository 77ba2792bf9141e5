"""Intervals that hold the true value in about 95 of 100 studies.

``python -m benchmarks.coverage`` shows by simulation how often they do. None has a width of 0: where the
data shows no spread, there is none.
"""

from __future__ import annotations

import math
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas

LEVEL = 0.95
RESAMPLES = 9999
BATCH = 100  # resamples in memory at a time
SEED = 0  # of the resampling
NORMAL_QUANTILE = NormalDist().inv_cdf((1 + LEVEL) / 2)
DIGITS = 12  # that a difference of numbers keeps, counted from the first one of the larger number


class Interval(NamedTuple):
    """The ends of a 95 % interval."""

    low: float
    high: float


class Effect(NamedTuple):
    """The mean of paired differences, and its interval.

    :param low: NaN if there is no interval.
    :param n: the number of pairs with both values.
    :param missing: the number of pairs that lack one.
    """

    estimate: float
    low: float
    high: float
    n: int
    missing: int


def share_interval(count: int, total: int) -> Interval:
    """Return the interval of a share: Wilson's, with a correction for continuity (Newcombe, "Two-sided
    confidence intervals for the single proportion", 1998, method 4; R's ``prop.test``).

    For draws in several orders of a question's options, equally many in each, it is on the safe side:
    their mean varies less than draws from one share.

    :param count: of how many draws the share is.
    :param total: the number of draws, 1 or more.
    """

    def low(count: int) -> float:
        if not count:
            return 0.0
        share, square = count / total, NORMAL_QUANTILE**2
        spread = square - 2 - 1 / total + 4 * share * (total * (1 - share) + 1)
        end = 2 * count + square - 1 - NORMAL_QUANTILE * math.sqrt(spread)
        return end / (2 * (total + square))

    return Interval(low(count), 1 - low(total - count))


def mean_interval(numbers: Sequence[float]) -> Interval | None:
    """Return Student's interval of a mean (1908), or ``None`` if the numbers show no spread: one, or all
    equal.
    """
    if len(numbers) < 2 or len({*numbers}) == 1:
        return None
    mean, error = fmean(numbers), stdev(numbers) / math.sqrt(len(numbers))
    half = student_quantile(len(numbers) - 1) * error
    digits = DIGITS - _magnitude(numbers)
    return Interval(round(mean - half, digits), round(mean + half, digits))


def student_quantile(freedom: float) -> float:
    """Return how many standard errors an interval by Student's distribution reaches to each side.

    :param freedom: the degrees of freedom; infinite for the normal distribution.
    """
    from ..support.libraries import scipy

    return float(scipy.special.stdtrit(freedom, (1 + LEVEL) / 2))


def _magnitude(numbers: Iterable[float]) -> int:
    """Return the number of digits before the point of the largest number, as a power of ten."""
    largest = max(map(abs, numbers))
    return math.floor(math.log10(largest)) if largest else 0


def paired_shares_interval(first_only: int, second_only: int, total: int) -> Interval:
    """Return the interval of the difference between two shares of the same units (Bonett and Price,
    "Adjusted Wald confidence interval for a difference of binomial proportions based on paired data",
    2012): Wald's, as if one more unit had said yes only first, and one only second.

    :param first_only: the number of units that say yes only in the first share.
    :param second_only: only in the second.
    :param total: the number of units, 2 or more.
    """
    total += 2
    first, second = (first_only + 1) / total, (second_only + 1) / total
    mean = first - second
    half = NORMAL_QUANTILE * math.sqrt((first + second - mean**2) / total)
    return Interval(max(mean - half, -1.0), min(mean + half, 1.0))


def effect(pairs: Sequence[tuple[float, float]], *, may_vary: bool = True) -> Effect:
    """Return the mean of first minus second, over the pairs that have both values: by
    :func:`paired_shares_interval` if all are 0 or 1, else by :func:`mean_interval`.

    :param pairs: finite numbers; NaN is a missing value.
    :param may_vary: whether the differences would be others in other repeats. If not, equal ones have an
        interval without width.
    """
    whole = [pair for pair in pairs if not any(map(math.isnan, pair))]
    missing = len(pairs) - len(whole)
    if not whole:
        return Effect(math.nan, math.nan, math.nan, 0, missing)
    values = [number for pair in whole for number in pair]
    digits = DIGITS - _magnitude(values)
    differences = [round(one - other, digits) for one, other in whole]
    estimate = round(fmean(differences), digits) + 0.0  # not -0
    if not may_vary and len({*differences}) == 1:
        interval: Interval | None = Interval(estimate, estimate)
    elif {*values} <= {0, 1} and len(whole) > 1:
        counts = differences.count(1), differences.count(-1)
        interval = paired_shares_interval(*counts, len(whole))
    else:
        interval = mean_interval(differences)
    low, high = interval or (math.nan, math.nan)
    return Effect(estimate, low, high, len(whole), missing)


def import_statistics(purpose: str) -> None:
    """Import the libraries that compute intervals, before anything is paid for.

    :param purpose: the beginning of the error's sentence.
    :raises ConfigError: if one is not installed.
    """
    try:
        from ..support.libraries import pandas, scipy  # noqa: F401 - are they installed?
    except ImportError as error:
        raise ConfigError(
            f"{purpose} with pandas and scipy (the extra 'study'), and {error.name} is not installed: "
            "pip install pandas scipy"
        ) from error


def interval(influences: pandas.Series, count: int) -> tuple[float, float]:
    """Return the ends of a 95 % interval, relative to the estimate.

    The bootstrap's percentile interval is too narrow for few units, so it is taken at a higher level:
    the one at which normally distributed units have the width of Student's interval (Hesterberg,
    "What Teachers Should Know about the Bootstrap", 2015).

    :param influences: what each unit adds to the estimate, minus the average.
    :param count: the number of units.
    :returns: minus infinity and infinity for fewer than two units.
    """
    from ..support.libraries import scipy

    if count < 2:
        return -math.inf, math.inf
    quantile = scipy.stats.t.ppf((1 + LEVEL) / 2, count - 1) * math.sqrt(count / (count - 1))
    found = scipy.stats.bootstrap(
        (influences.to_numpy() * len(influences),),
        lambda units, axis: units.mean(axis=axis),
        n_resamples=RESAMPLES,
        batch=BATCH,
        confidence_level=1 - 2 * scipy.stats.norm.sf(quantile),
        method="percentile",
        rng=SEED,
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
