"""Intervals of mean differences, by scipy.

``python -m benchmarks.effects`` shows by simulation how often they contain the truth. No interval
has a width of 0: numbers without a spread have none.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ...errors import ConfigError
from ...support.frames import import_pandas

if TYPE_CHECKING:
    import pandas

LEVEL = 0.95
YES_AND_NO = (1.0, 0.0)
DUST = 1e-12  # of the largest number: smaller differences come from floating point


class Interval(NamedTuple):
    """The ends of an interval."""

    low: float
    high: float


def paired_interval(differences: Sequence[float], level: float, *, is_share: bool) -> Interval:
    """Return Student's interval of a mean difference within units.

    For shares, as if one more unit had said yes only when treated, and one only as a control: the units
    that Bonett and Price add ("Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data", 2012). Rejected: their normal quantile, which holds the truth
    in 87.5% of studies with seven units that differ half of the time in either direction.

    :param differences: of two or more units; not all equal, unless they are of shares.
    """
    from ...support.libraries import scipy

    numbers = [*differences, 1.0, -1.0] if is_share else differences
    with _of_equal_numbers():
        found = scipy.stats.ttest_1samp(numbers, 0).confidence_interval(level)
    return _within_shares(found, is_share=is_share)


def unpaired_interval(
    treated: Sequence[float], control: Sequence[float], level: float, *, is_share: bool
) -> Interval:
    """Return Welch's interval of the difference between two means of different units.

    For shares, as if each arm had one more yes and one more no (Agresti and Caffo, "Simple and
    effective confidence intervals for proportions", 2000).

    :param treated: two or more numbers; not all equal to each other, unless they are of shares.
    """
    from ...support.libraries import scipy

    added = YES_AND_NO if is_share else ()
    with _of_equal_numbers():
        test = scipy.stats.ttest_ind([*treated, *added], [*control, *added], equal_var=False)
        found = test.confidence_interval(level)
    return _within_shares(found, is_share=is_share)


@contextmanager
def _of_equal_numbers() -> Iterator[None]:
    """Silence scipy's warning about nearly equal numbers: it concerns p-values, which are not used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def _within_shares(found: Interval, *, is_share: bool) -> Interval:
    low, high = float(found.low), float(found.high)
    return Interval(max(low, -1.0), min(high, 1.0)) if is_share else Interval(low, high)


def have_spread(numbers: Sequence[float], largest: float) -> bool:
    """Return whether numbers differ by more than floating point does.

    :param largest: the largest absolute value of the numbers subtracted.
    """
    return max(numbers) - min(numbers) > DUST * largest


def skewness(numbers: Sequence[float]) -> float:
    """Return the skewness of numbers that have a spread: Fisher's and Pearson's, scipy's ``skew``."""
    from ...support.libraries import scipy

    with _of_equal_numbers():
        return float(scipy.stats.skew(numbers))


def is_yes_or_no(values: pandas.Series) -> bool:
    """Return whether values are yes and no, which is a type."""
    return all(map(import_pandas().api.types.is_bool, values))


def import_statistics(purpose: str) -> None:
    """Import the libraries that compute intervals, before anything is paid for.

    :param purpose: the beginning of the error's sentence.
    :raises ConfigError: if one is not installed.
    """
    try:
        from ...support.libraries import pandas, scipy  # noqa: F401 - are they installed?
    except ImportError as error:
        raise ConfigError(
            f"{purpose} with pandas and scipy (the extra 'study'), and {error.name} is not installed: "
            "pip install pandas scipy"
        ) from error
