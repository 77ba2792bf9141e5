"""An estimate's interval and p-value by permuting new and recorded answers to the same request.

Without drift, any of a request's answers may be the new ones. So the test is exact, however few
answers there are.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

from .resampling import RESAMPLES, SEED, SMALLEST_P

UNBOUNDED = math.inf
ROUNDING = 1e-9  # of the estimate: a smaller difference comes from the arithmetic


class Answers(NamedTuple):
    """The values of the answers to one request.

    :param weight: of the request in the estimate.
    :param new: the values of the new answers.
    :param recorded: the values of the recorded draws.
    """

    weight: float
    new: Sequence[float]
    recorded: Sequence[float]


class _PermutedEstimate(NamedTuple):
    """An estimate after a permutation.

    :param residual: if the new answers had not shifted.
    :param shifted: what remains of a shift of 1 of the new answers, from -1 to 1.
    """

    residual: float
    shifted: float


class PermutationTest:
    """The permutation test of one estimate.

    :param noun: what is said to be permuted, such as ``"answer"``.
    :param count: how many of these there are.
    :param estimate: the estimated shift; not 0 if all answers shifted by the same amount.
    :param requests: the answers to each request.
    """

    def __init__(self, noun: str, count: int, estimate: float, requests: Sequence[Answers]) -> None:
        self.noun = noun
        self.count = count
        self.estimate = estimate
        self._least_p = least_p((len(each.new), len(each.recorded)) for each in requests)
        self._requests = [
            each._replace(new=[value - estimate for value in each.new]) for each in requests
        ]

    @cached_property
    def _is_common_shift(self) -> bool:
        """Return whether all new answers differ from the recorded ones by the same amount."""
        rounding = ROUNDING * abs(self.estimate)
        return all(
            max(values) - min(values) <= rounding
            for values in ([*each.new, *each.recorded] for each in self._requests)
        )

    @cached_property
    def standard_error(self) -> float:
        """Return the standard error of the estimate."""
        if self._is_common_shift:
            return 0.0
        squares = math.fsum(each.residual**2 for each in self._permutations)
        return math.sqrt(squares / len(self._permutations))

    @cached_property
    def _permutations(self) -> list[_PermutedEstimate]:
        generator = random.Random(SEED)
        return [self._permuted_estimate(generator) for _ in range(RESAMPLES)]

    def _permuted_estimate(self, generator: random.Random) -> _PermutedEstimate:
        residual = shifted = 0.0
        for weight, new, recorded in self._requests:
            values = [*new, *recorded]
            sample_size = min(len(new), len(recorded))
            indexes = generator.sample(range(len(values)), sample_size)
            new_sum = math.fsum(values[index] for index in indexes)
            still_new = sum(index < len(new) for index in indexes)
            if sample_size < len(new):  # the sampled answers are the recorded ones
                new_sum = math.fsum(values) - new_sum
                still_new = len(new) - still_new
            recorded_sum = math.fsum(values) - new_sum
            residual += weight * (new_sum / len(new) - recorded_sum / len(recorded))
            shifted += weight * (still_new / len(new) - (len(new) - still_new) / len(recorded))
        is_rounding = abs(residual) <= ROUNDING * self._largest
        return _PermutedEstimate(0.0 if is_rounding else residual, shifted)

    @cached_property
    def _largest(self) -> float:
        """Return the size of the largest value."""
        values = (value for each in self._requests for value in [*each.new, *each.recorded])
        return max(map(abs, values))

    @cached_property
    def _distances_below(self) -> list[float]:
        return self._distances(1)

    @cached_property
    def _distances_above(self) -> list[float]:
        return self._distances(-1)

    def _distances(self, side: int) -> list[float]:
        """Return for each permutation how far a supposed shift may be from the estimate, on one side,
        so that the permutation differs from the supposed shift at least as much as the estimate
        does; the largest first.

        :param side: 1 for shifts below the estimate, -1 for those above.
        """
        distances = (
            max(
                _ratio(each.residual, 1 - side * each.shifted),
                _ratio(-each.residual, 1 + side * each.shifted),
            )
            for each in self._permutations
        )
        return sorted(distances, reverse=True)

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval that misses the true shift with a probability of at most ``level``."""
        if self._is_common_shift:
            is_chance = self._least_p >= level
            return (-UNBOUNDED, UNBOUNDED) if is_chance else (self.estimate, self.estimate)
        # The estimate itself is one of the permutations.
        rank = math.ceil(level * (RESAMPLES + 1)) - 1
        if rank < 1:
            return -UNBOUNDED, UNBOUNDED
        low = self.estimate - self._distances_below[rank - 1]
        high = self.estimate + self._distances_above[rank - 1]
        return self._rounded(low), self._rounded(high)

    def _rounded(self, end: float) -> float:
        return 0.0 if abs(end) <= ROUNDING * abs(self.estimate) else end

    def excludes_zero(self, level: float) -> bool:
        """Return whether the interval of a level does not contain 0."""
        low, high = self.interval(level)
        return low > 0 or high < 0

    @cached_property
    def p_value(self) -> float:
        """Return the smallest level whose interval excludes 0."""
        if self._is_common_shift:
            return max(self._least_p, SMALLEST_P)
        distances = self._distances_below if self.estimate > 0 else self._distances_above
        edge = (1 - ROUNDING) * abs(self.estimate)
        return (1 + sum(distance >= edge for distance in distances)) / (RESAMPLES + 1)


def _ratio(numerator: float, denominator: float) -> float:
    if denominator <= ROUNDING:
        return UNBOUNDED if numerator >= 0 else 0.0
    return numerator / denominator


def least_p(counts: Iterable[tuple[int, int]]) -> float:
    """Return the smallest p-value that permutations of answers can have: the probability of the one
    that leaves all answers where they are, and of its mirror image.

    :param counts: how many new answers and recorded draws each request has.
    """
    counts = list(counts)
    arrangements = math.prod(math.comb(new + recorded, new) for new, recorded in counts)
    has_mirror = all(new == recorded for new, recorded in counts)
    return (2 if has_mirror else 1) / arrangements
