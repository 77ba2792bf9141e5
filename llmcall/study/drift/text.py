"""What a check says, in words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from ...display.formatting import counted, money, shortened
from ...display.printable import printable
from .power import detectable, power
from .values import SHOWN_CHARACTERS, UNREADABLE

if TYPE_CHECKING:
    from .check import Check, ReadAnswer

FEW_UNITS = 10
MANY_DRAWS = 10  # of each request, with which the power of a single one is compared
LEAST_P = 0.001  # a smaller one is not written out
DIGITS = 2  # of an interval's width that are written
LARGE = 1e15  # numbers from here on are written with an exponent
POINTS = " points"
NO_SHIFT = "no shift, however large,"


class Notation:
    """Writes the numbers of one value with as many digits as its interval warrants.

    :param width: the width of the interval; if it has none, or no ends, the size of the shift.
    :param is_share: whether the value is a share, which is written in percent.
    """

    def __init__(self, width: float, *, is_share: bool = False) -> None:
        self._is_share = is_share
        if is_share:
            width *= 100
        is_known = 0 < width < math.inf
        decimals = DIGITS - 1 - math.floor(math.log10(width)) if is_known else DIGITS
        self._decimals = max(decimals, 0)
        if is_share:
            self._decimals = 1

    def level(self, number: float) -> str:
        """Return a mean."""
        return f"{100 * number:.1f} %" if self._is_share else self._formatted(number)

    def _formatted(self, number: float) -> str:
        is_large = abs(number) >= LARGE
        return f"{number:.2e}" if is_large else f"{number:,.{self._decimals}f}"

    def amount(self, shift: float) -> str:
        """Return a shift without its sign; that of a share in percentage points."""
        size = abs(100 * shift if self._is_share else shift)
        unit = POINTS if self._is_share else ""
        return f"{self._formatted(size)}{unit}"

    def shift(self, shift: float) -> str:
        """Return a shift with its sign."""
        if not math.isfinite(shift):
            return "−∞" if shift < 0 else "+∞"
        words = self.amount(shift)
        if not any(digit in words for digit in "123456789"):
            return words
        return f"{'−' if shift < 0 else '+'}{words}"

    def interval(self, low: float, high: float) -> str:
        """Return an interval, its unit written once."""
        return f"{self.shift(low).removesuffix(POINTS)} to {self.shift(high)}"


def label(check: Check, name: str) -> str:
    """Return the name of a value or mark on one line; a recorded text may be long."""
    text = shortened(printable(name), SHOWN_CHARACTERS)
    return f"{text} = yes" if name in check.reader.verdicts else text


def p_words(p_value: float) -> str:
    """Return a p-value."""
    return f"p < {LEAST_P}" if p_value < LEAST_P else f"p = {p_value:.3f}"


def cost_words(cost: float | None, *, is_estimate: bool = False) -> str:
    """Return for which price calls are made.

    :param cost: in USD, or ``None`` if a price is unknown.
    """
    if cost is None:
        return "at an unknown price"
    amount = money(cost)
    if amount.startswith("<"):
        return f"for less than {amount.removeprefix('<')}"
    return f"for {'about ' if is_estimate else ''}{amount}"


def model_words(check: Check) -> str:
    """Return the mark of a check that asked another model; empty if it asked the recorded one."""
    if not check.is_of_another_model:
        return ""
    recorded = ", ".join(map(printable, check.recorded_models))
    return (
        f"ANOTHER MODEL: {printable(str(check.model))} is asked in place of {recorded}. A shift is a difference "
        "between the two models, not a change in one of them."
    )


def left_out_words(check: Check) -> str:
    """Return which requests were left out; empty if there are none."""
    words = check.requests.left_out_words()
    return f"Left out: {words}." if words else ""


def fields_left_out_words(check: Check) -> str:
    """Return which fields of the answers are not compared; empty if all are."""
    fields = check.reader.fields_left_out
    if not fields:
        return ""
    names = ", ".join(repr(shortened(printable(name), SHOWN_CHARACTERS)) for name in fields)
    return (
        f"Not compared: {names}, because most of their values are neither numbers nor yes or no. To compare "
        "them, give value= (--value)."
    )


def missing_values_words(check: Check, new_answers: Iterable[ReadAnswer]) -> str:
    """Return which values some answers lack, as a JSON field that is null or absent; empty if none do."""
    recorded_answers = itertools.chain.from_iterable(check.recorded_answers.values())
    recorded = [each for each in recorded_answers if each.values]
    new = [each for each in new_answers if each.values]
    lacking = []
    for name in check.names:
        recorded_count = sum(name not in each.values for each in recorded)
        new_count = sum(name not in each.values for each in new)
        if recorded_count or new_count:
            lacking.append(
                f"{shortened(printable(name), SHOWN_CHARACTERS)!r} in {recorded_count:,} of {len(recorded):,} recorded "
                f"and {new_count:,} of {len(new):,} new answers"
            )
    if not lacking:
        return ""
    return f"Not given: {'; '.join(lacking)}. A value's shift is that of the answers that give it."


def new_texts_words(check: Check, new_answers: Sequence[ReadAnswer]) -> str:
    """Return how many answers have a text that no recorded answer has; empty if none do, or if no
    shares of texts are compared.
    """
    if check.reader.shares == check.reader.verdicts:
        return ""
    texts = [
        each.answer.meaning for each in new_answers if each.answer.meaning and each.has(UNREADABLE)
    ]
    if not texts:
        return ""
    text = shortened(printable(texts[0]), SHOWN_CHARACTERS)
    return (
        f"{len(texts):,} of {counted(len(new_answers), 'new answer')} have a text that was not recorded, such as "
        f"{text!r}: they count as unreadable, and the shares of texts are those among the other answers."
    )


def low_power_words(check: Check, units: int) -> str:
    """Return how low the power is if most requests have one recorded draw, else an empty text.

    :param units: how many units are resampled.
    """
    counts = check.recorded_answer_counts
    single_count = counts.count(1)
    if 2 * single_count <= len(counts) or units < 2:
        return ""
    subject = "each request has" if single_count == len(counts) else "most requests have"
    # The variance of a difference is that of an answer and that of the recorded mean.
    error = math.sqrt(1 + fmean(1 / count for count in counts))
    error_of_many = math.sqrt(1 + 1 / MANY_DRAWS)
    low_power = power(detectable(error_of_many, units), error, units)
    return (
        f"The power is low, because {subject} only one recorded answer: a shift that would be found with "
        f"a power of 0.80 with ten answers to each is found with a power of {low_power:.2f}."
    )
