"""What a check would cost, and which shift it would find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from ...call.estimates import estimate
from ...display.formatting import counted
from ...models.prices import MILLION, tier_of
from ...types import total_cost
from .comparison import Recorded, resampling_units
from .permutation import least_p
from .power import LEVEL, POWER, detectable, planned_error, power
from .text import (
    NO_SHIFT,
    Notation,
    cost_words,
    fields_left_out_words,
    label,
    left_out_words,
    low_power_words,
    model_words,
)
from .values import MARKS

if TYPE_CHECKING:
    from ...clients.base import LLMClient
    from ...types import Record
    from .check import Check
    from .sample import Draw


class DriftPlan(NamedTuple):
    """What a check for drift would do; see :func:`llmcall.drift`.

    :param calls: how many answers it compares.
    :param recorded: how many of them the cassette ``to`` already contains.
    :param cost: USD of the others, by the tokens of the recorded answers at the current price, or
        ``None`` if a price is unknown.
    :param shift: the shift that would be found with a power of 0.8, from the recorded variance; of
        several values, the largest of ``shifts``. ``None`` if the recording has too few answers.
    :param shifts: the same by the value's name.
    :param units: how many actors its intervals come from; of a single actor, how many requests.
    :param notes: what else to know, in words.
    :param shares: the names of values that are shares of answers.
    :param comparisons: how many values and shares of answers are compared, by the recorded answers;
        Holm's method adjusts for their number.
    :param lines: which shift of each value would be found, in words.

    >>> from llmcall.testing import ScriptedClient
    >>> client = ScriptedClient(["3", "4", "2", "5"])
    >>> with llmcall.cassette("ratings-planned.jsonl"):
    ...     for name in ("Ann", "Ben"):
    ...         with llmcall.scope(name):
    ...             for _ in range(2):
    ...                 _ = client.send_message(f"You are {name}. Rate the bread.", temperature=1)
    >>> plan = llmcall.drift("ratings-planned.jsonl", calls=10, dry_run=True)
    >>> plan.calls, plan.recorded
    (10, 0)
    """

    calls: int
    recorded: int
    cost: float | None
    shift: float | None
    shifts: Mapping[str, float]
    units: int
    notes: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    comparisons: int = 1
    lines: tuple[str, ...] = ()

    def power(self, shift: float, value: str | None = None) -> float | None:
        """Return the probability that the check finds a shift; ``None`` if the recording does not say
        it.

        :param shift: the shift.
        :param value: the value's name, if there are several.
        :raises KeyError: if there is no such value.
        """
        if not self.shifts:
            return None
        if value is None and len(self.shifts) > 1:
            raise KeyError(f"name the value; the values are {', '.join(map(repr, self.shifts))}")
        planned_shift = self.shift if value is None else self.shifts[value]
        assert planned_shift is not None
        level = LEVEL / self.comparisons
        return power(shift, planned_shift / detectable(1.0, self.units, level), self.units, level)

    def __str__(self) -> str:
        cost = cost_words(self.cost, is_estimate=True)
        recorded_words = f", {self.recorded:,} of them recorded already" if self.recorded else ""
        lines = [f"{counted(self.calls, 'call')}{recorded_words}, {cost}", *self.lines]
        if not self.shifts:
            lines.append("There are too few answers to say which shift would be found.")
        return "\n".join([*lines, *self.notes])

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"


def plan_of(check: Check, client: LLMClient, recorded: Collection[str]) -> DriftPlan:
    """Return the plan of a check.

    :param client: would make the calls.
    :param recorded: the keys of the calls that are recorded already.
    """
    missing = [draw for draw in check.draws if check.key(draw) not in recorded]
    comparisons = len(check.names) + len(_varying_marks(check))
    shifts = _planned_shifts(check, LEVEL / max(comparisons, 1))
    notes = (
        model_words(check),
        low_power_words(check, _units_of_calls(check)) if shifts else "",
        left_out_words(check),
        fields_left_out_words(check),
    )
    return DriftPlan(
        calls=len(check.draws),
        recorded=len(check.draws) - len(missing),
        cost=_cost(check, client, missing),
        shift=max(shifts.values(), default=None),
        shifts=shifts,
        units=_units_of_calls(check),
        notes=tuple(filter(None, notes)),
        shares=tuple(name for name in shifts if name in check.reader.shares),
        comparisons=comparisons,
        lines=tuple(_shift_line(check, name, shift) for name, shift in shifts.items()),
    )


def _varying_marks(check: Check) -> list[str]:
    """Return the marks that some recorded answers have, but not all: their shares will be compared."""
    marks = []
    for mark in MARKS:
        recorded = check.recorded_values(mark).values()
        if len({answer.value for answers in recorded for answer in answers}) > 1:
            marks.append(mark)
    return marks


def _planned_shifts(check: Check, level: float) -> dict[str, float]:
    """Return by value the shift that a check finds with a power of 0.8, from the recorded variance.

    :param level: of each test.
    """
    shifts = {}
    for name in check.names:
        recorded = check.recorded_values(name)
        actor_requests = [
            (draw.actor, draw.request) for draw in check.draws if recorded[draw.request]
        ]
        error = planned_error(actor_requests, recorded, share=_share_with(check, name))
        noun, units = resampling_units(actor_requests)
        if error is None or units < 2:
            continue
        is_exact = noun == "answer" or not error
        if not is_exact or _least_p(actor_requests, recorded) < level:
            shifts[name] = detectable(error, units, level)
    return shifts


def _least_p(actor_requests: Sequence[tuple[str, str]], recorded: Recorded) -> float:
    """Return the smallest p-value of a check that permutes new answers and recorded draws."""
    counts = Counter(request for _, request in actor_requests)
    return least_p((new, len(recorded[request])) for request, new in counts.items())


def _share_with(check: Check, name: str) -> float:
    """Return the share of recorded answers that have a value, of requests with any such answer."""
    shares = []
    for answers in check.recorded_answers.values():
        count = sum(name in answer.values for answer in answers)
        if count:
            shares.append(count / len(answers))
    return fmean(shares)


def _shift_line(check: Check, name: str, shift: float) -> str:
    """Return in words which shift of a value would be found."""
    is_share = name in check.reader.shares
    amount = Notation(shift, is_share=is_share).amount(shift)
    shift_words = NO_SHIFT if is_share and shift > 1 else f"a shift of {amount}"
    words = f"{shift_words} would be found with a power of {POWER}"
    if not shift:
        words = (
            "the recorded answers to each request are equal, so any shift that all new answers share "
            "would be found"
        )
    return f"{label(check, name)}: {words}"


def _units_of_calls(check: Check) -> int:
    return resampling_units([(draw.actor, draw.request) for draw in check.draws])[1]


def _cost(check: Check, client: LLMClient, draws: Collection[Draw]) -> float | None:
    """Return what some calls would cost, or ``None`` if a price is unknown."""
    return total_cost(_cost_of(check, client, draw) for draw in draws)


def _cost_of(check: Check, client: LLMClient, draw: Draw) -> float | None:
    request = check.request_fields(draw)
    records = check.requests.records[draw.request]
    model = str(request["model"])
    inputs = [each.usage.input_tokens for each in records if each.usage.input_tokens is not None]
    estimated = estimate("chat", request, client.capabilities(model))
    input_tokens = sum(inputs) / len(inputs) if inputs else estimated.input_tokens
    output_tokens = sum(_output_tokens(record, client) for record in records) / len(records)
    price = client.price(model, estimated.input_tokens, tier_of(client.resolved.defaults))
    if price is None:
        return None
    return (input_tokens * price.input + output_tokens * price.output) / MILLION


def _output_tokens(record: Record, client: LLMClient) -> int:
    """Return the tokens of a recorded answer, counted here if the server did not report them."""
    reported = record.usage.output_tokens
    if reported is not None:
        return reported
    return int(client.count_tokens(record.answer, str(record.request["model"])))
