"""New answers compared with the recorded draws of the same requests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from statistics import mean, variance
from typing import NamedTuple

from .permutation import Answers, PermutationTest
from .resampling import Units

ROUNDING = 1e-14  # of the largest value: a smaller shift comes from the arithmetic


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


class _Contribution(NamedTuple):
    """What one answer, new or recorded, contributes to an estimate, less what it would on average."""

    actor: str
    request: str
    influence: float


class Comparison:
    """New answers compared with the recorded draws of the same requests.

    The mean of a request's recorded draws is subtracted from each new answer. The differences are
    averaged within actors, then over actors.

    :param new: the new answers; those without a recorded draw to compare with are left out.
    :param recorded: the recorded draws.
    :ivar new: the compared new answers.
    """

    def __init__(self, new: Iterable[NewAnswer], recorded: Recorded) -> None:
        self.new = [answer for answer in new if recorded.get(answer.request)]
        requests = sorted({answer.request for answer in self.new})
        self._recorded = {request: recorded[request] for request in requests}
        self._means = {
            request: mean(draw.value for draw in draws) for request, draws in self._recorded.items()
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

    @cached_property
    def estimate(self) -> float:
        """Return the mean shift."""
        shift = self._mean(self._difference(answer) for answer in self.new)
        return 0.0 if abs(shift) <= self._negligible else shift

    @property
    def varies(self) -> bool:
        """Return whether any two answers to one request differ, be they new or recorded.

        If none do, nothing is known about their variance, and nothing can be tested.
        """
        return any(max(values) - min(values) > self._negligible for values in self._values.values())

    @cached_property
    def units(self) -> Units | PermutationTest | None:
        """Return what is resampled or permuted; ``None`` if there is only one new answer."""
        noun, count = resampling_units(self._actor_requests)
        if count < 2:
            return None
        if not self.varies:
            return Units(noun, count, self.estimate, [0.0] * count, 0.0)
        if noun == "answer":
            return PermutationTest(noun, count, self.estimate, self._exchangeable_answers)
        influences: dict[str, list[float]] = {}
        for contribution in self._contributions():
            unit = contribution.actor if noun == "actor" else contribution.request
            influences.setdefault(unit, []).append(contribution.influence)
        sums = list(map(math.fsum, influences.values()))
        if max(map(abs, sums)) > self._negligible:
            return Units(noun, count, self.estimate, sums, self._least_error)
        # Units that agree exactly show no variance, but the answers to one request may.
        if not self._error_within_requests:
            return PermutationTest(noun, count, self.estimate, self._exchangeable_answers)
        error = max(self._error_within_requests, self._error_around_shift)
        return Units(noun, count, self.estimate, [0.0] * len(sums), error)

    @property
    def _exchangeable_answers(self) -> list[Answers]:
        return [
            Answers(weight, self._new_values[request], self._recorded_values[request])
            for request, weight in self._request_weights.items()
        ]

    @cached_property
    def _request_weights(self) -> dict[str, float]:
        weight_of: dict[str, float] = {}
        for answer, weight in zip(self.new, self._weights, strict=True):
            weight_of[answer.request] = weight_of.get(answer.request, 0.0) + weight
        return weight_of

    @cached_property
    def _recorded_values(self) -> dict[str, list[float]]:
        return {
            request: [draw.value for draw in draws] for request, draws in self._recorded.items()
        }

    @cached_property
    def _new_values(self) -> dict[str, list[float]]:
        values: dict[str, list[float]] = {}
        for answer in self.new:
            values.setdefault(answer.request, []).append(answer.value)
        return values

    @cached_property
    def _values(self) -> dict[str, list[float]]:
        """Return the values of all answers to each request, recorded and new."""
        return {
            request: [*recorded, *self._new_values[request]]
            for request, recorded in self._recorded_values.items()
        }

    @cached_property
    def _negligible(self) -> float:
        """Return the size up to which a shift comes from the arithmetic."""
        return ROUNDING * max(abs(value) for values in self._values.values() for value in values)

    @property
    def _least_error(self) -> float:
        """Return a standard error that an interval must not fall below.

        A sample may hold none of the rare answers, and then shows no variance. Without drift, the
        new and the recorded draws of a request are exchangeable, so their common variance counts: of
        shares as they are, of other values around the shift, which is no part of their variance.
        """
        if not all(set(values) <= {0.0, 1.0} for values in self._values.values()):
            return self._error_around_shift
        return self._error({request: variance(values) for request, values in self._values.items()})

    @cached_property
    def _error_within_requests(self) -> float:
        """Return the standard error by the variance between the recorded draws of each request, and
        between its new answers.
        """
        variances = variances_within(
            {
                request: [recorded, self._new_values[request]]
                for request, recorded in self._recorded_values.items()
            }
        )
        return 0.0 if variances is None else self._error(variances)

    @property
    def _error_around_shift(self) -> float:
        """Return the standard error by the variance between all answers to each request, recorded and
        new, if all new answers have shifted by the estimate.
        """
        variances = {}
        for request, recorded in self._recorded_values.items():
            without_shift = [value - self.estimate for value in self._new_values[request]]
            variances[request] = variance([*recorded, *without_shift])
        return self._error(variances)

    def _error(self, variances: Mapping[str, float]) -> float:
        return error_within(self._actor_requests, self._recorded, variances)

    @property
    def _actor_requests(self) -> list[tuple[str, str]]:
        return [(answer.actor, answer.request) for answer in self.new]

    def _mean(self, values: Iterable[float]) -> float:
        weighted = zip(self._weights, values, strict=True)
        return math.fsum(weight * value for weight, value in weighted)

    def _difference(self, answer: NewAnswer) -> float:
        return answer.value - self._means[answer.request]

    def _contributions(self) -> Iterator[_Contribution]:
        """Yield what each answer contributes to the estimate."""
        for answer, weight in zip(self.new, self._weights, strict=True):
            influence = weight * (self._difference(answer) - self.estimate)
            yield _Contribution(answer.actor, answer.request, influence)
        for request, draws in self._recorded.items():
            share = self._request_weights[request] / len(draws)
            for draw in draws:
                influence = -share * (draw.value - self._means[request])
                yield _Contribution(draw.actor, request, influence)


def resampling_units(actor_requests: Sequence[tuple[str, str]]) -> tuple[str, int]:
    """Return what is resampled, and how many there are: actors; of a single actor, its requests; of
    a single request, its answers.

    :param actor_requests: the actor and the request of each new answer.
    """
    actors = {actor for actor, _ in actor_requests}
    if len(actors) > 1:
        return "actor", len(actors)
    requests = {request for _, request in actor_requests}
    if len(requests) > 1:
        return "request", len(requests)
    return "answer", len(actor_requests)


def weights_of(actors: Sequence[str]) -> list[float]:
    """Return the weight of each answer in a mean within actors, then over actors.

    :param actors: the actor of each answer.
    """
    counts: dict[str, int] = {}
    for actor in actors:
        counts[actor] = counts.get(actor, 0) + 1
    return [1 / (len(counts) * counts[actor]) for actor in actors]


def variances_within(
    groups: Mapping[str, Sequence[Sequence[float]]],
) -> dict[str, float] | None:
    """Return by request the variance of answers around the mean of their group.

    A request whose groups have one answer each gets the others' average.

    :param groups: the answers to each request, in groups.
    :returns: ``None`` if no group has two answers.
    """
    squares = {
        request: math.fsum(
            variance(group) * (len(group) - 1) for group in request_groups if len(group) > 1
        )
        for request, request_groups in groups.items()
    }
    freedom = {
        request: sum(len(group) - 1 for group in request_groups if group)
        for request, request_groups in groups.items()
    }
    total = sum(freedom.values())
    if not total:
        return None
    common_variance = math.fsum(squares.values()) / total
    return {
        request: squares[request] / freedom[request] if freedom[request] else common_variance
        for request in groups
    }


def error_within(
    actor_requests: Sequence[tuple[str, str]],
    recorded: Recorded,
    variances: Mapping[str, float],
    *,
    share: float = 1.0,
) -> float:
    """Return the standard error of a mean shift if answers vary within requests alone.

    :param actor_requests: the actor and the request of each new answer.
    :param recorded: the recorded draws.
    :param variances: the variance of each request's answers.
    :param share: the share of the new answers that have a value.
    """
    squares = []
    weight_of: dict[str, float] = {}
    weights = weights_of([actor for actor, _ in actor_requests])
    for weight, (_, request) in zip(weights, actor_requests, strict=True):
        squares.append(weight**2 * variances[request] / share)
        weight_of[request] = weight_of.get(request, 0.0) + weight
    for request, weight in weight_of.items():
        squares.append(weight**2 * variances[request] / len(recorded[request]))
    return math.sqrt(math.fsum(squares))
