"""The statistics of a check for drift, against tables, closed forms and other libraries."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmcall.study.drift.comparison import (
    Comparison,
    NewAnswer,
    RecordedAnswer,
    variances_within,
)
from llmcall.study.drift.holm import holm, holm_levels
from llmcall.study.drift.permutation import Answers, PermutationTest, least_p
from llmcall.study.drift.power import detectable, power
from llmcall.study.drift.resampling import Units
from llmcall.study.drift.student import student_cdf, student_quantile

# NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
TABLE = {
    1: (3.078, 6.314, 12.706, 31.821, 63.657, 318.309),
    2: (1.886, 2.920, 4.303, 6.965, 9.925, 22.327),
    3: (1.638, 2.353, 3.182, 4.541, 5.841, 10.215),
    4: (1.533, 2.132, 2.776, 3.747, 4.604, 7.173),
    5: (1.476, 2.015, 2.571, 3.365, 4.032, 5.893),
    9: (1.383, 1.833, 2.262, 2.821, 3.250, 4.297),
    10: (1.372, 1.812, 2.228, 2.764, 3.169, 4.144),
    20: (1.325, 1.725, 2.086, 2.528, 2.845, 3.552),
    29: (1.311, 1.699, 2.045, 2.462, 2.756, 3.396),
    50: (1.299, 1.676, 2.009, 2.403, 2.678, 3.261),
    100: (1.290, 1.660, 1.984, 2.364, 2.626, 3.174),
}
SHARES = (0.90, 0.95, 0.975, 0.99, 0.995, 0.999)
FREEDOMS = st.integers(1, 2000)
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


# Student's distribution


@pytest.mark.parametrize("freedom", TABLE)
def test_quantiles_are_those_of_the_published_table(freedom: int) -> None:
    """To the three digits that it prints."""
    for share, published in zip(SHARES, TABLE[freedom], strict=True):
        assert student_quantile(share, freedom) == pytest.approx(published, abs=0.00051)


@given(st.floats(-50, 50))
def test_one_and_two_degrees_of_freedom_have_closed_forms(value: float) -> None:
    """The first is Cauchy's distribution."""
    assert student_cdf(value, 1) == pytest.approx(0.5 + math.atan(value) / math.pi, abs=1e-14)
    of_two = 0.5 + value / (2 * math.sqrt(2 + value**2))
    assert student_cdf(value, 2) == pytest.approx(of_two, abs=1e-14)


@given(st.floats(0, 12), st.integers(1, 400))
def test_the_distribution_is_the_integral_of_its_density(value: float, freedom: int) -> None:
    """By Simpson's rule."""

    def density(x: float) -> float:
        logarithm = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
        logarithm -= math.log(freedom * math.pi) / 2 + (freedom + 1) / 2 * math.log1p(
            x * x / freedom
        )
        return math.exp(logarithm)

    steps = 400
    width = value / steps
    inner = sum((4 if step % 2 else 2) * density(step * width) for step in range(1, steps))
    area = width / 3 * (density(0) + inner + density(value))
    assert student_cdf(value, freedom) == pytest.approx(0.5 + area, abs=1e-7)


@given(st.floats(0.5, 0.9999), FREEDOMS)
def test_a_quantile_is_where_the_distribution_reaches_its_share(share: float, freedom: int) -> None:
    """For any degrees of freedom."""
    assert student_cdf(student_quantile(share, freedom), freedom) == pytest.approx(share, abs=1e-9)


@given(st.floats(-30, 30), FREEDOMS)
def test_the_distribution_is_symmetric(value: float, freedom: int) -> None:
    """Around 0."""
    both = student_cdf(value, freedom) + student_cdf(-value, freedom)
    assert both == pytest.approx(1, abs=1e-12)


def test_many_degrees_of_freedom_are_almost_normal() -> None:
    """The quantile's expansion says by how much they differ (Abramowitz and Stegun, 26.7.5)."""
    normal = NormalDist()
    for freedom in (1_000, 10_000):
        for share in SHARES:
            z = normal.inv_cdf(share)
            first = z + (z**3 + z) / (4 * freedom)
            assert student_quantile(share, freedom) == pytest.approx(first, abs=40 / freedom**2)


def test_the_distribution_is_that_of_scipy() -> None:
    """Over a wide grid of values and degrees of freedom, if SciPy is installed."""
    student = pytest.importorskip("scipy.stats").t
    for freedom in (*range(1, 40), 99, 100, 199, 200, 201, 202, 500, 501, 2_000, 10_001):
        for value in (-30, -5, -2, -1, -0.1, 0, 0.3, 0.7, 1, 1.96, 2.5, 4, 8, 30, 300):
            expected = student.cdf(value, freedom)
            assert student_cdf(value, freedom) == pytest.approx(expected, abs=1e-12)
        for share in (0.5, 0.6, 0.8, 0.9, 0.975, 0.99, 0.9975, 0.9998, 0.99999):
            expected = student.ppf(share, freedom)
            assert student_quantile(share, freedom) == pytest.approx(expected, rel=1e-6, abs=1e-9)


# Several comparisons


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # the textbook's example
        ([0.01, 0.01, 0.01], [0.03, 0.03, 0.03]),
        ([0.5, 0.9, 0.6], [1, 1, 1]),
        ([0.02], [0.02]),
        ([], []),
    ],
)
def test_p_values_are_adjusted_by_holms_method(
    p_values: list[float], adjusted: list[float]
) -> None:
    """The k-th smallest of n is multiplied by n − k + 1, and none is below a smaller one's."""
    assert holm(p_values) == pytest.approx(adjusted)


@given(P_VALUES)
def test_p_values_are_adjusted_as_statsmodels_does(p_values: list[float]) -> None:
    """If it is installed."""
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    expected = multitest.multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(list(expected))


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=30))
def test_an_interval_excludes_0_if_its_adjusted_p_value_is_small(thousandths: list[int]) -> None:
    """The levels of the intervals and the adjusted p-values reject the same hypotheses."""
    p_values = [each / 1000.5 for each in thousandths]
    levels = holm_levels(p_values, 0.05)
    by_interval = [p_value < level for p_value, level in zip(p_values, levels, strict=True)]
    assert by_interval == [adjusted < 0.05 for adjusted in holm(p_values)]


# Resampling


def units_of(values: list[float]) -> Units:
    """Return one actor for each difference; the requests were recorded once, with 0."""
    new = [NewAnswer(f"actor {number}", str(number), value) for number, value in enumerate(values)]
    recorded = {each.request: [RecordedAnswer(each.actor, 0.0)] for each in new}
    units = Comparison(new, recorded).units
    assert units is not None
    return units


@pytest.mark.parametrize("actors", [3, 5, 10, 40, 300])
def test_an_interval_of_normal_differences_is_about_students(actors: int) -> None:
    """Also of few actors."""
    chance = random.Random(actors)
    values = [chance.gauss(1, 2) for _ in range(actors)]
    low, high = units_of(values).interval(0.05)
    width = 2 * student_quantile(0.975, actors - 1) * stdev(values) / math.sqrt(actors)
    assert high - low == pytest.approx(width, rel=0.1)


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=12), st.floats(1e-8, 0.5))
def test_the_p_value_is_the_level_from_which_on_intervals_exclude_0(
    values: list[int], level: float
) -> None:
    """So p-values and intervals never disagree."""
    units = units_of([float(value) for value in values])
    assume(abs(units.p_value - level) > 1e-9)  # else rounding decides
    assert units.excludes_zero(level) == (units.p_value < level)


def test_resampling_has_a_fixed_seed() -> None:
    """The same answers have the same interval, whatever the process drew before."""
    values = [0.0, 1.0, 1.0, 3.0, 0.0, -1.0]
    first = units_of(values).interval(0.05)
    random.seed(1)
    assert units_of(values).interval(0.05) == first


# Permutation tests

FEW_VALUES = st.lists(st.integers(-3, 3), min_size=1, max_size=5)


def permutation_test_of(new: Sequence[float], recorded: Sequence[float]) -> PermutationTest:
    """Return the test of the answers to a single request."""
    return PermutationTest(
        "answer", len(new), fmean(new) - fmean(recorded), [Answers(1, new, recorded)]
    )


def share_as_far_apart(new: list[int], recorded: list[int]) -> float:
    """Return the share of all ways to call some answers new whose means differ as much."""
    values = [*new, *recorded]
    distances = []
    for chosen in itertools.combinations(range(len(values)), len(new)):
        others = [value for index, value in enumerate(values) if index not in chosen]
        distances.append(abs(fmean(values[index] for index in chosen) - fmean(others)))
    observed = abs(fmean(new) - fmean(recorded))
    return fmean(distance >= observed - 1e-9 for distance in distances)


@settings(max_examples=12, deadline=None)
@given(FEW_VALUES, FEW_VALUES)
def test_the_p_value_of_a_permutation_test_is_the_share_of_permutations_as_far_apart(
    new: list[int], recorded: list[int]
) -> None:
    """Counted over all of them."""
    assume(fmean(new) != fmean(recorded))
    exact = share_as_far_apart(new, recorded)
    assert permutation_test_of(new, recorded).p_value == pytest.approx(exact, abs=0.04)
    assert exact >= least_p([(len(new), len(recorded))]) - 1e-9


@settings(max_examples=12, deadline=None)
@given(FEW_VALUES, FEW_VALUES, st.floats(0.001, 0.5))
def test_the_interval_of_a_permutation_test_excludes_0_below_its_p_value(
    new: list[int], recorded: list[int], level: float
) -> None:
    """So p-values and intervals never disagree."""
    assume(fmean(new) != fmean(recorded))
    test = permutation_test_of([value / 10 for value in new], [value / 10 for value in recorded])
    assume(abs(test.p_value - level) > 1e-9)
    assert test.excludes_zero(level) == (test.p_value < level)


@settings(max_examples=12, deadline=None)
@given(FEW_VALUES, FEW_VALUES, st.integers(-3, 3))
def test_the_interval_of_a_permutation_test_moves_with_the_new_answers(
    new: list[int], recorded: list[int], shift: int
) -> None:
    """A supposed shift is tested as 0 is after it was subtracted from the new answers."""
    means = fmean(new) - fmean(recorded)
    assume(means != 0 and means + shift != 0)
    before = permutation_test_of(new, recorded).interval(0.2)
    after = permutation_test_of([value + shift for value in new], recorded).interval(0.2)
    assert after == pytest.approx((before[0] + shift, before[1] + shift), abs=1e-6)


def test_the_p_value_of_a_permutation_test_is_never_0() -> None:
    """Also if all answers changed alike, and there are too many permutations for a float."""
    assert 0 < permutation_test_of([1] * 600, [0] * 600).p_value < 1e-6


def test_at_a_level_below_all_permutations_the_interval_has_no_ends() -> None:
    """So many values may be compared that the level of each is smaller than one permutation."""
    test = permutation_test_of([1, 2, 3], [0, 1, 5])
    assert test.interval(1e-5) == (-math.inf, math.inf)


def test_a_request_with_one_answer_has_the_average_variance_of_the_others() -> None:
    """Its own is unknown."""
    answers = {"a": [[1.0, 3.0]], "b": [[5.0]], "c": [[1.0, 1.0, 1.0]]}
    found = variances_within(answers)
    assert found == pytest.approx({"a": 2, "b": 2 / 3, "c": 0})


def test_equal_answers_to_a_single_request_have_an_interval_without_width() -> None:
    """They show no variance, however few they are."""
    new = [NewAnswer("ann", "bread", 3.0)] * 2
    units = Comparison(new, {"bread": [RecordedAnswer("ann", 3.0)]}).units
    assert units is not None and units.interval(0.05) == (0, 0)


# Power


@given(st.floats(0.01, 100), st.integers(2, 500))
def test_the_shift_that_is_found_with_a_power_of_80_percent(error: float, units: int) -> None:
    """Power and shift are each other's inverse."""
    assert power(detectable(error, units), error, units) == pytest.approx(0.8, abs=1e-6)
