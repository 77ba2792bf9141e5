"""Effects of a treatment on a table of results, their intervals by scipy, and the number of units that one needs.

``python -m benchmarks.effects`` shows by simulation how often intervals contain the truth. None has a width of 0:
numbers without a spread have none.
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, SupportsFloat

from ...errors import ArgumentError, ConfigError
from ...support.arguments import checked
from ...support.display import counted, money, one_line
from ...support.frames import import_pandas
from ...support.notices import notice

if TYPE_CHECKING:
    import pandas

LEVEL = 0.95
YES_AND_NO = (1.0, 0.0)
DUST = 1e-12  # of the largest number: smaller differences come from floating point
COST = "cost"  # the column of a table that says what its answers cost
MOST_UNITS = 10**9
QUOTED_CHARACTERS = 40  # of a value that is not a number
FEW_UNITS = 10  # fewer are said to be skewed
# Bulmer, Principles of Statistics (1979): above 1, a distribution is highly skewed. In simulations, 9 to 12% of
# samples of 4 to 9 normal units exceed it, and 19 to 43% of exponential ones; 3 units never do.
SKEWED = 1.0
ARMS = ("treated", "control")
COLUMNS = (
    *("estimate", "low", "high", "level", "n_treated", "n_control", "paired"),
    *("missing_treated", "missing_control"),
)


class UnitsNeeded(NamedTuple):
    """The number of units that an interval of a given width needs, estimated from a pilot.

    :param units: the number; without pairs, of both arms together, half in each.
    :param cost: USD, each arm by its costs in the pilot's column ``cost``, or ``None`` if it has none or a cost is
        unknown.
    :param paired: ``True`` if each unit is in both arms.
    """

    units: int
    cost: float | None
    paired: bool = True

    def __str__(self) -> str:
        cost = "cost unknown" if self.cost is None else f"about {money(self.cost)}"
        arms = "" if self.paired else f" (half in each arm: {self.units // 2:,})"
        return f"{counted(self.units, 'unit')}{arms}, {cost}"


class _Means(NamedTuple):
    """The mean of each unit in each arm, of one column.

    :param pairs: by unit, its means when treated and as a control; NaN where it has none.
    :param column: its name.
    :param is_paired: ``True`` if units are in both arms.
    :param is_share: ``True`` if the values are yes and no.
    :param missing: of each arm, the number of units that only the other has, plus that of missing values.
    """

    pairs: pandas.DataFrame
    column: str
    is_paired: bool
    is_share: bool
    missing: tuple[int, ...]

    def samples(self) -> list[list[float]]:
        """Return the numbers whose spread counts: the differences, or each arm's."""
        if self.is_paired:
            return [(self.pairs["treated"] - self.pairs["control"]).dropna().tolist()]
        return [self.pairs[arm].dropna().tolist() for arm in ARMS]

    def too_few(self) -> str:
        """Say why units are too few for an interval; empty if they suffice."""
        fewest = min(map(len, self.samples()))
        words = counted(fewest, "pair" if self.is_paired else "unit")
        where = "" if self.is_paired else " in an arm"
        return f"{words}{where}; an interval needs 2, a useful one 5" if fewest < 2 else ""

    def warn_if_skewed(self) -> None:
        """Warn if few units are skewed, by Fisher's and Pearson's skewness. Those of yes and no are not looked at:
        their intervals add units.
        """
        from ...support.libraries import scipy

        largest = self.pairs.abs().max(axis=None)
        for sample in [] if self.is_share else self.samples():
            if not (1 < len(sample) < FEW_UNITS and have_spread(sample, largest)):
                continue
            with _of_equal_numbers():
                skewed = float(scipy.stats.skew(sample))
            if abs(skewed) > SKEWED:
                notice(
                    "the effect on %r is over %s that are skewed (skewness %.1f): intervals from so few contain "
                    "the truth less often than they state. Get more units",
                    self.column,
                    counted(len(sample), "difference" if self.is_paired else "unit"),
                    skewed,
                )

    def interval(self, level: float) -> Interval | str:
        """Return the effect's interval, or say why there is none."""
        if few := self.too_few():
            return few
        samples = self.samples()
        largest = self.pairs.abs().max(axis=None)
        if not self.is_share and not any(have_spread(sample, largest) for sample in samples):
            whose = "differences" if self.is_paired else "units of each arm"
            return f"all {whose} are equal, so they show no spread; more units may show one"
        if self.is_paired:
            return paired_interval(samples[0], level, is_share=self.is_share)
        return unpaired_interval(samples[0], samples[1], level, is_share=self.is_share)


@checked
def effect(
    frame: pandas.DataFrame,
    value: str | Sequence[str],
    *,
    by: str,
    treated: object,
    control: object,
    unit: str,
    level: float = LEVEL,
) -> pandas.DataFrame:
    """Estimate the effect of a treatment from a table: the mean difference between two arms.

    Each unit counts once per arm, with its mean there. If units are in both arms, the effect is the
    mean difference within units, with Student's interval; a unit that lacks an arm counts as missing.
    Otherwise it is the difference between the arms' means over units, with Welch's interval. Yes
    and no (``bool``) get the additions of Bonett and Price (2012) or of Agresti and Caffo (2000).

    :param frame: a row for each answer or result, such as that of ``.table``.
    :param value: a column of numbers or of ``bool``, or a list of columns.
    :param by: the column that names the arm.
    :param treated: the arm whose effect is estimated. Rows of other arms are ignored.
    :param control: the arm that is subtracted.
    :param unit: the column that names the units: what you drew, and would draw more of. A person is a unit where
        each answers alone, as in a survey. People who share a simulated world are not, since one answer moves
        the others': there, the unit is the world, a repeat of the simulation.
    :param level: the share of studies whose interval contains the truth.
    :returns: a row for each column, with ``estimate``; ``low`` and ``high``, the ends of the interval,
        NaN if there is none; ``level``; ``n_treated`` and ``n_control``, the units that count;
        ``paired``; ``missing_treated`` and ``missing_control``, the units that lack this arm plus its missing values.
        Values without a unit, or that are not finite numbers, are missing. A warning gives both numbers, and says why
        an interval is missing. It also says if fewer than 10 units are skewed (above 1, by scipy's ``skew``):
        their intervals contain the truth less often.
    :raises ConfigError: if pandas and scipy are not installed (the extra ``study``).
    :raises TypeError, ValueError: for an unknown column or arm, a column of texts, or if ``level`` is not between 0
        and 1.

    >>> import pandas
    >>> frame = pandas.DataFrame(
    ...     {
    ...         "person": ["Ann", "Ben", "Cleo"] * 2,
    ...         "arm": ["tax"] * 3 + ["none"] * 3,
    ...         "kilometres": [3, 5, 4, 6, 9, 5],
    ...     }
    ... )
    >>> table = llmcall.effect(
    ...     frame, "kilometres", by="arm", treated="tax", control="none", unit="person"
    ... )
    >>> print(table[["estimate", "low", "high"]].round(2).to_string())
                estimate   low  high
    kilometres     -2.67 -6.46  1.13
    """
    import_statistics("llmcall.effect computes intervals")
    found = _checked_means(frame, value, by, treated, control, unit, level)
    rows = []
    without: dict[str, list[str]] = {}
    for means in found:
        arms = means.pairs.dropna() if means.is_paired else means.pairs
        interval = means.interval(level)
        if isinstance(interval, str):
            without.setdefault(interval, []).append(repr(means.column))
            interval = (math.nan, math.nan)
        else:
            means.warn_if_skewed()
        difference = float(arms["treated"].mean() - arms["control"].mean())
        estimate = 0.0 if abs(difference) <= DUST * arms.abs().max(axis=None) else difference
        counts = [int(arms[arm].count()) for arm in ARMS]
        rows.append((estimate, *interval, level, *counts, means.is_paired, *means.missing))
    for reason, names in without.items():
        notice("no interval for the effect on %s (%s)", ", ".join(names), reason)
    names = [means.column for means in found]
    return import_pandas().DataFrame(rows, index=names, columns=COLUMNS)


@checked
def units_needed(
    pilot: pandas.DataFrame,
    value: str | Sequence[str],
    *,
    by: str,
    treated: object,
    control: object,
    unit: str,
    width: float,
    level: float = LEVEL,
) -> UnitsNeeded:
    """Estimate from a pilot how many units an interval of this width needs.

    A pilot shows the spread only roughly: about half of the studies planned this way get the width or less. In
    simulations with pilots of 5 to 20 units, one study in ten got an interval 1.3 to 1.9 times as wide.

    :param pilot: a table with results of a few units; see :func:`llmcall.effect` for it and for the other
        arguments.
    :param value: of several columns, the one with the most units counts.
    :param width: the width that the interval of :func:`llmcall.effect` should have, in the value's unit.
    :returns: the units, and what they would cost.
    :raises ConfigError: if pandas and scipy are not installed (the extra ``study``).
    :raises TypeError, ValueError: as of :func:`llmcall.effect`; if the pilot shows no spread, or no number of
        units gives that width. A warning says where fewer than 10 units are skewed.

    >>> import pandas
    >>> pilot = pandas.DataFrame(
    ...     {
    ...         "person": ["Ann", "Ben", "Cleo"] * 2,
    ...         "arm": ["tax"] * 3 + ["none"] * 3,
    ...         "kilometres": [3, 5, 4, 6, 9, 5],
    ...         "cost": [0.01] * 6,
    ...     }
    ... )
    >>> needed = llmcall.units_needed(
    ...     pilot, "kilometres", by="arm", treated="tax", control="none", unit="person", width=1
    ... )
    >>> print(needed)
    39 units, about $0.7800
    """
    import_statistics("llmcall.units_needed computes intervals")
    found = _checked_means(pilot, value, by, treated, control, unit, level)
    for means in found:
        means.warn_if_skewed()
    needed = max((_units(means, width, level) for means in found), default=0)
    is_paired = all(means.is_paired for means in found)
    in_arm = needed if is_paired else needed // 2
    cost = 0.0 if COST in pilot else math.nan
    for arm in (treated, control) if COST in pilot else ():
        used = pilot[pilot[by].eq(arm)]
        cost += used[COST].map(_number).sum(skipna=False) / used[unit].nunique() * in_arm
    return UnitsNeeded(needed, None if math.isnan(cost) else float(cost), is_paired)


def _units(means: _Means, width: float, level: float) -> int:
    """Return how many units give an interval of a width."""
    from ...support.libraries import scipy

    if few := means.too_few():
        raise ArgumentError(f"the pilot shows no spread of {means.column!r} ({few})")
    added = [1.0, -1.0] if means.is_paired else [1.0, 0.0]
    samples = [[*sample, *(added if means.is_share else ())] for sample in means.samples()]
    variance = sum(map(scipy.stats.tvar, samples))
    if not math.sqrt(variance) > DUST * means.pairs.abs().max(axis=None):
        raise ArgumentError(
            f"the pilot shows no spread of {means.column!r} within its arms: give one with more units"
        )
    arms = len(samples)
    extra = len(added) if means.is_share else 0

    def is_narrow(units: int) -> bool:
        total = units + extra
        quantile = scipy.stats.t.ppf((1 + level) / 2, arms * (total - 1))
        return bool(2 * quantile * math.sqrt(variance / total) <= width)

    units = range(2, MOST_UNITS)  # of each arm
    found = bisect_left(units, True, key=is_narrow)
    if found == len(units):
        raise ArgumentError(
            f"{MOST_UNITS:,} units do not reach the width {width!r}; give a larger width"
        )
    return arms * units[found]


def _checked_means(
    frame: pandas.DataFrame,
    value: str | Sequence[str],
    by: str,
    treated: object,
    control: object,
    unit: str,
    level: float,
) -> list[_Means]:
    """Return the means of each column's values; check the arguments about the table."""
    columns = [value] if isinstance(value, str) else list(value)
    for column in [*columns, by, unit]:
        if column not in frame:
            raise ArgumentError(
                f"there is no column {column!r}; the columns are {', '.join(map(repr, frame))}"
            )
    arms = frame[by].dropna().unique().tolist()
    for arm in (treated, control):
        if arm not in arms:
            raise ArgumentError(
                f"no row has {arm!r} in the column {by!r}; it has {', '.join(map(repr, arms))}"
            )
    if not 0 < level < 1:
        raise ArgumentError(f"level is {level!r}; it must be between 0 and 1, such as 0.95")
    return [_means(frame, column, by, treated, control, unit) for column in columns]


def _means(
    frame: pandas.DataFrame, column: str, by: str, treated: object, control: object, unit: str
) -> _Means:
    """Return the means of a column's values, by unit and arm, and say what is omitted."""
    rows = frame[frame[by].isin([treated, control])]
    values = rows[column].map(_number)
    present = rows[column].dropna()
    if len(present) and present.map(lambda value: isinstance(value, str)).all():
        _refuse_texts(column, present)
    arm = rows[by].eq(treated).map({True: "treated", False: "control"})
    keys = [rows[unit], arm]
    sizes = rows.groupby(keys, sort=False).size().unstack().reindex(columns=ARMS)
    pairs = values.groupby(keys, sort=False).mean().unstack().reindex_like(sizes)
    is_paired = bool(sizes.notna().all(axis=1).any())
    missing = tuple(
        int((sizes[name].isna() & is_paired).sum())
        + int(((values.isna() | rows[unit].isna()) & arm.eq(name)).sum())
        for name in ARMS
    )
    if any(missing):
        counts = f"{missing[0]:,} in {treated!r} and {missing[1]:,} in {control!r}"
        notice("the effect on %r leaves out missing units and values: %s", column, counts)
    is_share = bool(len(present)) and all(map(import_pandas().api.types.is_bool, present))
    return _Means(pairs, column, is_paired, is_share, missing)


def _refuse_texts(column: str, texts: pandas.Series) -> None:
    """Raise TypeError for a column of texts."""
    options = texts.unique().tolist()
    change = f"pandas.to_numeric(frame[{column!r}])"
    if not any(text.strip()[:1].isdecimal() for text in options):
        answers = ", ".join(f"{text!r}: {number == 0}" for number, text in enumerate(options[:2]))
        change = f"frame[{column!r}].map({{{answers}}})"
    raise TypeError(
        f"the column {column!r} holds texts, such as {one_line(repr(options[0]), QUOTED_CHARACTERS)}. Make them "
        f"numbers or booleans first: frame[{column!r}] = {change}"
    )


def _number(value: object) -> float:
    """Return a value as a finite number, or NaN."""
    if isinstance(value, (str, bytes)) or not isinstance(value, SupportsFloat):
        return math.nan
    if import_pandas().isna(value) is True:
        return math.nan
    number = float(value)
    return number if math.isfinite(number) else math.nan


Interval = tuple[float, float]  # its ends


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


def _within_shares(found: Iterable[float], *, is_share: bool) -> Interval:
    low, high = map(float, found)
    return (max(low, -1.0), min(high, 1.0)) if is_share else (low, high)


def have_spread(numbers: Sequence[float], largest: float) -> bool:
    """Return whether numbers differ by more than floating point does.

    :param largest: the largest absolute value of the numbers subtracted.
    """
    return max(numbers) - min(numbers) > DUST * largest


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
