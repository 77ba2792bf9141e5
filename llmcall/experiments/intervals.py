"""Intervals that hold the true value in about 95 of 100 studies.

``python -m benchmarks.coverage`` shows by simulation how often they do. No interval has a width of
0: data without a spread get none.
"""

from __future__ import annotations

import math
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


LEVEL = 0.95
NORMAL_QUANTILE = NormalDist().inv_cdf((1 + LEVEL) / 2)
DIGITS = 12  # that a difference of numbers keeps, counted from the first one of the larger number


class Interval(NamedTuple):
    """The ends of a 95 % interval."""

    low: float
    high: float


class Variance(NamedTuple):
    """A part of an estimate's variance.

    :param freedom: the degrees of freedom from which it is estimated; infinite if it is known.
    """

    variance: float
    freedom: float


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

    :param count: the number of draws that have the value.
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
    return None if len({*numbers}) < 2 else _students(numbers)


def _students(numbers: Sequence[float]) -> Interval:
    mean, error = fmean(numbers), stdev(numbers) / math.sqrt(len(numbers))
    half = student_quantile(len(numbers) - 1) * error
    decimals = decimals_of(numbers)
    return Interval(round(mean - half, decimals), round(mean + half, decimals))


def student_quantile(freedom: float) -> float:
    """Return how many standard errors an interval by Student's distribution reaches to each side.

    :param freedom: the degrees of freedom; infinite for the normal distribution.
    """
    from ..support.libraries import scipy

    return float(scipy.special.stdtrit(freedom, (1 + LEVEL) / 2))


def decimals_of(numbers: Iterable[float]) -> int:
    """Return the number of decimals to which differences of numbers are exact: further digits come
    from floating point.
    """
    largest = max(map(abs, numbers))
    return DIGITS - (math.floor(math.log10(largest)) if largest else 0)


def paired_shares_interval(differences: Sequence[float]) -> Interval:
    """Return the interval of the difference between two shares of the same units: Student's, as if one more
    unit had said yes only first, and one only second (the units that Bonett and Price add, "Adjusted
    Wald confidence interval for a difference of binomial proportions based on paired data", 2012).

    Rejected: their normal quantile. By the exact distribution it holds the truth in 87.5 % of studies
    with seven units that differ half of the time in either direction.

    :param differences: for each of two or more units 1 (yes only first), -1 (only second) or 0.
    """
    low, high = _students([*differences, 1, -1])
    return Interval(max(low, -1.0), min(high, 1.0))


def interval_of_variances(estimate: float, variances: Sequence[Variance]) -> Interval | None:
    """Return the interval of an estimate whose variance has several parts; ``None`` if there is no spread.

    Student's quantile is the mean of the parts' quantiles, weighted by the parts (Cochran and Cox,
    "Experimental Designs", 1957, section 4.14). Rejected: the degrees of freedom of Satterthwaite
    (1946). If one part comes from two draws and another from many, the interval then holds the
    truth in only 88 % of studies.
    """
    total = math.fsum(part.variance for part in variances)
    if not total:
        return None
    quantiles = (part.variance * student_quantile(part.freedom) for part in variances)
    half = math.fsum(quantiles) / math.sqrt(total)
    return Interval(estimate - half, estimate + half)


def pseudo_draws(shares: tuple[float, float], draws: Sequence[float]) -> tuple[float, Variance]:
    """Return the difference of two shares as if each had one more yes and one more no, and the variance
    that these add (Agresti and Caffo, "Simple and effective confidence intervals for proportions",
    2000). So the variance is not 0 even if all answers are the same.

    :param shares: the share that is compared, and the one that is subtracted.
    :param draws: the number of independent draws of each.
    """
    first, second = (
        (share * count + 1) / (count + 2) for share, count in zip(shares, draws, strict=True)
    )
    added = math.fsum(1 / (count + 2) ** 2 for count in draws)
    return first - second, Variance(added, math.inf)


def effect(pairs: Sequence[tuple[float, float]], *, may_vary: bool = True) -> Effect:
    """Return the mean of first minus second, over the pairs that have both values: by
    :func:`paired_shares_interval` if all are 0 or 1, else by :func:`mean_interval`.

    :param pairs: finite numbers; NaN is a missing value.
    :param may_vary: whether the differences could change in other repeats. If not, equal
        differences have an interval without width.
    """
    whole = [pair for pair in pairs if not any(map(math.isnan, pair))]
    missing = len(pairs) - len(whole)
    if not whole:
        return Effect(math.nan, math.nan, math.nan, 0, missing)
    values = [number for pair in whole for number in pair]
    decimals = decimals_of(values)
    differences = [round(one - other, decimals) for one, other in whole]
    estimate = round(fmean(differences), decimals) + 0.0  # not -0
    if not may_vary and len({*differences}) == 1:
        interval: Interval | None = Interval(estimate, estimate)
    elif {*values} <= {0, 1} and len(whole) > 1:
        interval = paired_shares_interval(differences)
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
