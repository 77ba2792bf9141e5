"""The statistics of a check for drift: shifts, their intervals and p-values, and power.

A new answer is compared with the mean of the recorded draws of the same request, and the differences
are averaged within actors, then over actors. Intervals come from resampling actors: each stands for
all its new answers and all its recorded draws.

Everything here uses the standard library alone, so a check needs no extra package, and gives the
same digits wherever it is repeated.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from statistics import NormalDist, fmean, variance
from typing import NamedTuple

LEVEL = 0.05  # of a test, and one minus that of an interval
POWER = 0.8  # with which the shift of a plan would be found
RESAMPLES = 5000
SEED = 0  # of the resampling
SMALLEST_P = 2 / RESAMPLES
LARGE = 200  # degrees of freedom from which a series replaces the exact distribution
HALVINGS = 50

_normal = NormalDist()


class NewAnswer(NamedTuple):
    """The value of a new answer.

    :param actor: who asked.
    :param request: the digest of what was asked.
    :param value: the answer's value.
    """

    actor: str
    request: str
    value: float


class RecordedAnswer(NamedTuple):
    """The value of a recorded draw.

    :param actor: who asked.
    :param value: the answer's value.
    """

    actor: str
    value: float


Recorded = Mapping[str, Sequence[RecordedAnswer]]  # by request


class _Part(NamedTuple):
    """What one answer contributes to an estimate, less what it would on average.

    :param is_new: whether it is a new answer.
    """

    actor: str
    request: str
    is_new: bool
    influence: float


class Comparison:
    """New answers compared with the recorded draws of the same requests.

    :param new: the new answers; those without a recorded draw to compare with are left out.
    :param recorded: the recorded draws.
    :ivar new: the compared new answers.
    """

    def __init__(self, new: Iterable[NewAnswer], recorded: Recorded) -> None:
        self.new = [answer for answer in new if recorded.get(answer.request)]
        requests = sorted({answer.request for answer in self.new})
        self._recorded = {request: recorded[request] for request in requests}
        self._means = {
            request: fmean(draw.value for draw in draws)
            for request, draws in self._recorded.items()
        }
        self._weights = weights_of([answer.actor for answer in self.new])

    @property
    def before(self) -> float:
        """Return the mean of the recorded answers, weighted as the new ones."""
        return self._mean(self._means[answer.request] for answer in self.new)

    @property
    def now(self) -> float:
        """Return the mean of the new answers within actors, then over actors."""
        return self._mean(answer.value for answer in self.new)

    @property
    def estimate(self) -> float:
        """Return the mean shift."""
        return self._mean(answer.value - self._means[answer.request] for answer in self.new)

    @property
    def is_constant(self) -> bool:
        """Return whether all answers, new and recorded, have one value: then nothing is tested."""
        return len(self._values) < 2

    @property
    def _values(self) -> set[float]:
        """Return the different values of all answers, new and recorded."""
        recorded = (draw.value for draws in self._recorded.values() for draw in draws)
        return {*recorded, *(answer.value for answer in self.new)}

    def _mean(self, values: Iterable[float]) -> float:
        weighted = zip(self._weights, values, strict=True)
        return math.fsum(weight * value for weight, value in weighted)

    @cached_property
    def units(self) -> Units | None:
        """Return what is resampled: actors; of a single actor, its requests; of a single request, its
        answers. ``None`` if there is only one new answer.
        """
        parts = list(self._parts())
        ways: tuple[tuple[str, Callable[[int, _Part], Hashable]], ...] = (
            ("actor", lambda _, part: part.actor),
            ("request", lambda _, part: part.request),
            ("answer", lambda number, _: number),
        )
        for noun, unit_of in ways:
            influences: dict[Hashable, list[float]] = {}
            with_new = set()
            for number, part in enumerate(parts):
                unit = unit_of(number, part)
                influences.setdefault(unit, []).append(part.influence)
                if part.is_new:
                    with_new.add(unit)
            if len(with_new) > 1:
                sums = [math.fsum(each) for each in influences.values()]
                return Units(noun, self.estimate, tuple(sums), len(with_new), self._least_error)
        return None

    @property
    def _least_error(self) -> float:
        """Return a standard error that an interval must not fall below; 0 unless the values are
        shares.

        Of rare answers, a sample may hold none, and then shows no variance. Without drift, the new
        and the recorded draws of a request are exchangeable, so their common variance counts.
        """
        if not self._values <= {0.0, 1.0}:
            return 0.0
        drawn: dict[str, list[float]] = {
            request: [draw.value for draw in draws] for request, draws in self._recorded.items()
        }
        weights: dict[str, list[float]] = {}
        for answer, weight in zip(self.new, self._weights, strict=True):
            drawn[answer.request].append(answer.value)
            weights.setdefault(answer.request, []).append(weight)
        return math.sqrt(
            math.fsum(
                variance(drawn[request])
                * (
                    math.fsum(w * w for w in its)
                    + math.fsum(its) ** 2 / len(self._recorded[request])
                )
                for request, its in weights.items()
            )
        )

    def _parts(self) -> Iterable[_Part]:
        """Yield what each answer contributes to the estimate."""
        estimate = self.estimate
        weight_of: dict[str, float] = {}
        for answer, weight in zip(self.new, self._weights, strict=True):
            difference = answer.value - self._means[answer.request]
            weight_of[answer.request] = weight_of.get(answer.request, 0.0) + weight
            yield _Part(answer.actor, answer.request, True, weight * (difference - estimate))
        for request, draws in self._recorded.items():
            share = weight_of[request] / len(draws)
            for draw in draws:
                influence = -share * (draw.value - self._means[request])
                yield _Part(draw.actor, request, False, influence)


def weights_of(actors: Sequence[str]) -> list[float]:
    """Return the weight of each answer in a mean within actors, then over actors.

    :param actors: the actor of each answer.
    """
    counts: dict[str, int] = {}
    for actor in actors:
        counts[actor] = counts.get(actor, 0) + 1
    return [1 / (len(counts) * counts[actor]) for actor in actors]


class Units:
    """The units that are resampled for one estimate.

    :param noun: what a unit is, such as ``"actor"``.
    :param estimate: the estimate.
    :param influences: what each unit contributes to the estimate, less the average.
    :param with_new: how many units have new answers.
    :param least_error: the smallest standard error to assume.
    :ivar count: how many units have new answers.
    :ivar standard_error: of the estimate.
    """

    def __init__(
        self,
        noun: str,
        estimate: float,
        influences: tuple[float, ...],
        with_new: int,
        least_error: float = 0.0,
    ) -> None:
        self.noun = noun
        self.estimate = estimate
        self.influences = influences
        self.count = with_new
        squares = math.fsum(influence * influence for influence in influences)
        own_error = math.sqrt(squares * with_new / (with_new - 1))
        self.standard_error = max(own_error, least_error) if own_error else 0.0
        self._widening = self.standard_error / own_error if own_error else 1.0

    @cached_property
    def _deviations(self) -> list[float]:
        """Return by how much the resampled estimates differ from the estimate, sorted."""
        size = len(self.influences)
        if not any(self.influences):
            return [0.0] * RESAMPLES
        chance = random.Random(SEED)
        drawn = (chance.choices(self.influences, k=size) for _ in range(RESAMPLES))
        return sorted(math.fsum(influences) for influences in drawn)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the interval that misses the true shift with a probability of ``level``.

        It is the interval of the resampled estimates' percentiles, widened for few units: by
        Student's distribution, and since a resample varies less than a sample.
        """
        half = level / 2
        factor = student_quantile(1 - half, self.count - 1) / _normal.inv_cdf(1 - half)
        factor *= math.sqrt(self.count / (self.count - 1)) * self._widening
        low = self.estimate + factor * _percentile(self._deviations, half)
        high = self.estimate + factor * _percentile(self._deviations, 1 - half)
        return low, high

    def excludes_zero(self, level: float) -> bool:
        """Return whether the interval of a level leaves 0."""
        low, high = self.interval(level)
        return low > 0 or high < 0

    @cached_property
    def p_value(self) -> float:
        """Return the smallest level whose interval leaves 0, at least ``SMALLEST_P``."""
        low, high = SMALLEST_P, 1.0
        if self.excludes_zero(low):
            return low
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if self.excludes_zero(middle):
                high = middle
            else:
                low = middle
        return high


def _percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile of sorted values, interpolated."""
    position = share * (len(values) - 1)
    below = math.floor(position)
    above = min(below + 1, len(values) - 1)
    return values[below] + (position - below) * (values[above] - values[below])


# Several values


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's method, in the same order."""
    adjusted = [1.0] * len(p_values)
    least = 0.0
    for rank, index in enumerate(_ranked(p_values)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def holm_levels(p_values: Sequence[float], level: float = LEVEL) -> list[float]:
    """Return the level at which each interval leaves 0 if and only if Holm's method rejects.

    A rejected hypothesis has the level at which it was tested; the others have the level at which
    the method stopped.
    """
    levels = [0.0] * len(p_values)
    left = len(p_values)
    has_stopped = False
    for index in _ranked(p_values):
        levels[index] = level / left
        has_stopped = has_stopped or p_values[index] >= levels[index]
        if not has_stopped:
            left -= 1
    return levels


def _ranked(p_values: Sequence[float]) -> list[int]:
    """Return the indexes of p-values, from the smallest on."""
    return sorted(range(len(p_values)), key=lambda index: (p_values[index], index))


# Power


def detectable(standard_error: float, units: int, level: float = LEVEL) -> float:
    """Return the shift that a test finds with a power of 0.8.

    :param units: how many units are resampled.
    """
    freedom = units - 1
    quantiles = student_quantile(1 - level / 2, freedom) + student_quantile(POWER, freedom)
    return standard_error * quantiles


def power(shift: float, standard_error: float, units: int, level: float = LEVEL) -> float:
    """Return the probability that a test finds a shift."""
    if not standard_error:
        return 1.0
    freedom = units - 1
    return student_cdf(shift / standard_error - student_quantile(1 - level / 2, freedom), freedom)


def planned_error(
    asked: Sequence[tuple[str, str]], recorded: Recorded, *, draws: int | None = None
) -> float | None:
    """Return the standard error that a check would have, from the variance of the recorded draws.

    If no request was drawn twice, the variance between all recorded answers takes the place of that
    within requests: the error is at most this.

    :param asked: the actor and the request of each new answer.
    :param recorded: the recorded draws.
    :param draws: the number of draws that each request is assumed to have, instead of its own.
    :returns: ``None`` if there are fewer than two recorded answers.
    """
    asked = [(actor, request) for actor, request in asked if recorded.get(request)]
    variances = _variances({request: recorded[request] for _, request in asked})
    if variances is None:
        return None
    squares = []
    weight_of: dict[str, float] = {}
    for weight, (_, request) in zip(weights_of([actor for actor, _ in asked]), asked, strict=True):
        squares.append(weight**2 * variances[request])
        weight_of[request] = weight_of.get(request, 0.0) + weight
    for request, weight in weight_of.items():
        squares.append(weight**2 * variances[request] / (draws or len(recorded[request])))
    return math.sqrt(math.fsum(squares))


def _variances(recorded: Recorded) -> dict[str, float] | None:
    """Return the variance of each request's answers; a request with one draw gets the others'
    average.
    """
    own = {
        request: variance([draw.value for draw in draws])
        for request, draws in recorded.items()
        if len(draws) > 1
    }
    if own:
        freedom = {request: len(recorded[request]) - 1 for request in own}
        pooled = math.fsum(own[request] * freedom[request] for request in own)
        common = pooled / sum(freedom.values())
    else:
        values = [draw.value for draws in recorded.values() for draw in draws]
        if len(values) < 2:
            return None
        common = variance(values)
    return {request: own.get(request, common) for request in recorded}


# Student's distribution


@lru_cache(maxsize=1024)
def student_quantile(share: float, freedom: int) -> float:
    """Return a quantile of Student's distribution.

    :param share: the probability below it, at least 0.5.
    :param freedom: the degrees of freedom.
    """
    if freedom > LARGE:
        z = _normal.inv_cdf(share)
        return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    low, high = 0.0, 1.0
    while student_cdf(high, freedom) < share:
        high *= 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if student_cdf(middle, freedom) < share:
            low = middle
        else:
            high = middle
    return high


def student_cdf(value: float, freedom: int) -> float:
    """Return the probability that Student's distribution is at most a value.

    The sum is exact (Abramowitz and Stegun, 26.7.3 and 26.7.4).
    """
    if freedom > LARGE:
        return _normal.cdf(
            value * (1 - 1 / (4 * freedom)) / math.sqrt(1 + value**2 / (2 * freedom))
        )
    angle = math.atan(value / math.sqrt(freedom))
    squared = math.cos(angle) ** 2
    is_odd = freedom % 2 == 1
    term = math.cos(angle) if is_odd else 1.0
    total = 0.0
    for step in range(2 if is_odd else 1, freedom, 2):
        total += term
        term *= squared * step / (step + 1)
    inside = math.sin(angle) * total
    if is_odd:
        inside = 2 / math.pi * (angle + inside)
    return 0.5 + inside / 2
