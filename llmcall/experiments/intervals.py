"""Intervals of estimates, by resampling what they are estimates of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas

LEVEL = 0.95
RESAMPLES = 9999
BATCH = 100  # resamples that are in memory at once
SEED = 0  # of the resampling


class Effect(NamedTuple):
    """The mean of paired differences, and its interval.

    :param n: how many pairs it is the mean of.
    :param missing: how many further pairs lack a value.
    """

    estimate: float
    low: float
    high: float
    n: int
    missing: int


def effect(pairs: Sequence[tuple[float, float]]) -> Effect:
    """Return the mean difference of the pairs that lack no value: the first less the second.

    :param pairs: NaN stands for a value that is missing.
    """
    from ..support.libraries import pandas

    differences = pandas.Series([one - other for one, other in pairs], dtype=float).dropna()
    count = len(differences)
    estimate = float(differences.mean())
    low, high = interval((differences - estimate) / count, count) if count else (math.nan, math.nan)
    return Effect(estimate, estimate + low, estimate + high, count, len(pairs) - count)


def import_statistics(purpose: str) -> None:
    """Import what computes intervals, before anything is paid for.

    :param purpose: what needs it, for the error.
    :raises ConfigError: if it is not installed.
    """
    try:
        from ..support.libraries import pandas, scipy  # noqa: F401 - are they installed?
    except ImportError as error:
        raise ConfigError(
            f"{purpose} with pandas and scipy (the extra 'study'), and {error.name} is not installed: "
            "pip install pandas scipy"
        ) from error


def interval(influences: pandas.Series, count: int) -> tuple[float, float]:
    """Return by how much an estimate may differ from the truth, down and up.

    The interval of percentiles is too narrow for few units: it is taken at the level at which
    normally distributed units would have the width of Student's interval (Hesterberg, "What
    Teachers Should Know about the Bootstrap", 2015).

    :param influences: what each unit adds to the estimate, less the average.
    :param count: how many units it is an estimate of.
    :returns: minus infinity and infinity for fewer than two.
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
