"""An estimate's interval and p-value by resampling the units that it is made of."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import cached_property
from statistics import NormalDist

from .bisection import smallest
from .student import student_quantile

RESAMPLES = 5000
SEED = 0  # of the resampling
REACHED = 2 / RESAMPLES  # the smallest level whose interval ends within the resampled estimates
SMALLEST_P = 1e-9  # a smaller one is not told from it

_normal = NormalDist()


class Units:
    """The units that are resampled for one estimate.

    :param noun: what a unit is, such as ``"actor"``.
    :param count: how many units have new answers.
    :param estimate: the estimate.
    :param influences: what each unit contributes to the estimate, less the average; also of units
        without new answers.
    :param least_error: the smallest standard error to assume.
    :ivar standard_error: of the estimate.
    """

    def __init__(
        self,
        noun: str,
        count: int,
        estimate: float,
        influences: Sequence[float],
        least_error: float,
    ) -> None:
        self.noun = noun
        self.count = count
        self.estimate = estimate
        self._influences = influences
        squares = math.fsum(influence * influence for influence in influences)
        self._own_error = math.sqrt(squares * count / (count - 1))
        self.standard_error = max(self._own_error, least_error)

    @cached_property
    def _deviations(self) -> list[float]:
        """Return by how much the resampled estimates differ from the estimate, sorted."""
        generator = random.Random(SEED)
        size = len(self._influences)
        resamples = (generator.choices(self._influences, k=size) for _ in range(RESAMPLES))
        return sorted(math.fsum(influences) for influences in resamples)

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval that misses the true shift with a probability of ``level``.

        It is the interval of the resampled estimates' percentiles, widened for few units: by
        Student's distribution, and since a resample varies less than a sample. If the units do not
        differ, resampling shows no variance, and the interval is Student's. At a level that the
        resampled estimates do not reach, it grows as Student's does.
        """
        half = level / 2
        quantile = student_quantile(1 - half, self.count - 1)
        if not self._own_error:
            width = quantile * self.standard_error
            return self.estimate - width, self.estimate + width
        tail = max(level, REACHED) / 2
        factor = quantile / _normal.inv_cdf(1 - tail)
        factor *= math.sqrt(self.count / (self.count - 1)) * self.standard_error / self._own_error
        low = self.estimate + factor * _percentile(self._deviations, tail)
        high = self.estimate + factor * _percentile(self._deviations, 1 - tail)
        return low, high

    def excludes_zero(self, level: float) -> bool:
        """Return whether the interval of a level does not contain 0."""
        low, high = self.interval(level)
        return low > 0 or high < 0

    @cached_property
    def p_value(self) -> float:
        """Return the smallest level whose interval excludes 0, at least ``SMALLEST_P``."""
        if self.excludes_zero(SMALLEST_P):
            return SMALLEST_P
        return smallest(self.excludes_zero, SMALLEST_P, 1.0)


def _percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile of sorted values, interpolated."""
    position = share * (len(values) - 1)
    below = math.floor(position)
    above = min(below + 1, len(values) - 1)
    return values[below] + (position - below) * (values[above] - values[below])
