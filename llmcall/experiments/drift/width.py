"""The width of interval that a check is expected to give, and how many calls give a useful one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from ..intervals import Variance, interval_of_variances, pseudo_draws
from .estimate import shift_variances
from .values import answers_of

if TYPE_CHECKING:
    from .sample import DriftCall, Requests
    from .values import Reader

USEFUL_SHARE = 0.1  # the width of a useful interval: ten percentage points for yes and no,
USEFUL_DEVIATIONS = 0.2  # and for numbers so many of the recorded standard deviations

GREATEST_OF_SHARES = 2.0  # the width from a shift of -1 to one of 1


class Spread(NamedTuple):
    """The spread of a value in a recording.

    :param name: the value's name.
    :param deviation: the standard deviation of all recorded answers.
    :param draws_deviation: the standard deviation of draws of the same request; the same if none
        was drawn twice.
    :param is_yes_or_no: whether all answers are 0 or 1.
    """

    name: str
    deviation: float
    draws_deviation: float
    is_yes_or_no: bool

    @property
    def useful_width(self) -> float:
        """Return the width of a useful interval."""
        return USEFUL_SHARE if self.is_yes_or_no else USEFUL_DEVIATIONS * self.deviation


class Size(NamedTuple):
    """The size of a check.

    :param calls: the number of new calls.
    :param answers: the number of new answers; a call has several if ``n`` is above 1.
    :param requests: the number of different requests that are asked.
    :param recorded: the number of recorded answers to these.
    :param asked_share: the share of the different requests that is asked.
    """

    calls: int
    answers: int
    requests: int
    recorded: int
    asked_share: float

    def width(self, spread: Spread) -> float | None:
        """Return the expected width of a value's interval, if its spread stays as it was; ``None`` if
        there will be none.
        """
        freedom = self.requests - 1
        draws = [
            Variance(spread.draws_deviation**2 / count, count - self.requests)
            for count in (self.answers, self.recorded)
        ]
        between = Variance(math.fsum(part.variance for part in draws), freedom)
        variances, _ = shift_variances(between, draws, self.asked_share)
        if variances and spread.is_yes_or_no:
            variances = [*variances, pseudo_draws((0, 0), (self.answers, self.recorded))[1]]
        interval = interval_of_variances(0, variances)
        if interval is None:
            return None
        width = interval.high - interval.low
        return min(width, GREATEST_OF_SHARES) if spread.is_yes_or_no else width


def sizes(requests: Requests, calls: Iterable[DriftCall]) -> Iterator[Size]:
    """Yield the size of a check after each of its calls."""
    asked: set[tuple[str, str]] = set()
    answers_per_call: dict[str, int] = {}
    answers = recorded = 0
    for count, call in enumerate(calls, 1):
        asked.add((call.actor, call.digest))
        if call.digest not in answers_per_call:
            counts = [len(answers_of(record)) for record in requests.records[call.digest]]
            answers_per_call[call.digest] = max(counts)
            recorded += sum(counts)
        answers += answers_per_call[call.digest]
        share = len(asked) / requests.different
        yield Size(count, answers, len(answers_per_call), recorded, share)


def spreads_of(requests: Requests, reader: Reader) -> list[Spread]:
    """Return the spread of each value that recorded answers have."""
    values: dict[str, list[list[float]]] = {}
    for records in requests.records.values():
        draws: dict[str, list[float]] = {}
        for record in records:
            for answer in answers_of(record):
                for name, value in {} if answer.is_refused else reader(record, answer.text).items():
                    draws.setdefault(name, []).append(value)
        for name, numbers in draws.items():
            values.setdefault(name, []).append(numbers)
    return [_spread(name, by_request) for name, by_request in sorted(values.items())]


def _spread(name: str, by_request: list[list[float]]) -> Spread:
    numbers = [number for draws in by_request for number in draws]
    deviation = _deviation([numbers])
    has_repeats = len(numbers) > len(by_request)
    return Spread(
        name,
        deviation,
        _deviation(by_request) if has_repeats else deviation,
        {*numbers} <= {0, 1},
    )


def _deviation(groups: list[list[float]]) -> float:
    """Return the standard deviation around each group's mean; 0 if no group has two numbers."""
    means = map(fmean, groups)
    squares = [
        (number - mean) ** 2 for group, mean in zip(groups, means, strict=True) for number in group
    ]
    return math.sqrt(math.fsum(squares) / max(len(squares) - len(groups), 1))


def enough_calls(requests: Requests, calls: Iterable[DriftCall], spreads: Sequence[Spread]) -> int:
    """Return how many calls give a useful interval of each value, 1 at least.

    :param calls: those that may be paid for, in turn.
    """
    enough = 1
    for size in sizes(requests, calls):
        enough = size.calls
        widths = [(size.width(spread), spread.useful_width) for spread in spreads]
        if spreads and all(width is not None and width <= useful for width, useful in widths):
            break
    return enough
