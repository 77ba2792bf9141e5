"""Intervals of estimates, by resampling their units."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas

LEVEL = 0.95
RESAMPLES = 9999
BATCH = 100  # resamples in memory at a time
SEED = 0  # of the resampling


class Effect(NamedTuple):
    """The mean of paired differences, and its interval.

    :param n: the number of pairs with both values.
    :param missing: the number of pairs that lack one.
    """

    estimate: float
    low: float
    high: float
    n: int
    missing: int


def effect(pairs: Sequence[tuple[float, float]]) -> Effect:
    """Return the mean of first minus second, over the pairs that have both values.

    :param pairs: NaN is a missing value.
    """
    from ..support.libraries import pandas

    differences = pandas.Series([one - other for one, other in pairs], dtype=float).dropna()
    count = len(differences)
    estimate = float(differences.mean())
    low, high = interval((differences - estimate) / count, count) if count else (math.nan, math.nan)
    return Effect(estimate, estimate + low, estimate + high, count, len(pairs) - count)


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
