"""The result of a check for drift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...apis.token_usage import total_cost
from ...stores.record import Record
from ...stores.records.served import Served, served_by, served_words
from ...support.display import counted, money, printable, text_table
from .answer_values import ANSWER, VALUE, WITHOUT_VALUE, Reader, answers_frame, value_columns
from .estimate import Shift, estimate_shift
from .sample import DriftCheck

if TYPE_CHECKING:
    import pandas


class Shares(NamedTuple):
    """The share of the answers without a value of one kind, among the recorded and among the new ones."""

    before: float
    now: float


class ServedModels(NamedTuple):
    """The models that answered, each with its days.

    :param before: the models of the recorded answers that are compared.
    :param now: the models of the new answers.
    """

    before: Served
    now: Served


class Drift:
    """The result of :func:`llmcall.drift`; ``str()`` of it is a report.

    :ivar calls: the number of new answers.
    :ivar unanswered: the number of further calls whose answer was filtered or empty.
    :ivar cost: USD that the new answers cost when they were made, or ``None`` if that is unknown.
    :ivar served: the models that answered, then and now, with their days.
    :ivar shifts: by the value's name, its :class:`~llmcall.experiments.drift.estimate.Shift`.
    :ivar unreadable: the shares of answers without a readable value, before and now.
    :ivar refused: those in which the model refused.
    :ivar model: the model that answered instead of the recorded ones, or ``None``.

    >>> from llmcall.testing import ScriptedClient
    >>> client = ScriptedClient(lambda messages: "3")
    >>> llmcall.register_client("rating", client)
    >>> with llmcall.cassette("ratings-then.jsonl"):
    ...     for name in ("Ann", "Ben", "Cleo"):
    ...         with llmcall.scope(name):
    ...             _ = client.send_message(f"You are {name}. Rate the bread.", temperature=1)
    >>> with llmcall.configured(api_type="rating"):
    ...     drift = llmcall.drift("ratings-then.jsonl", share=1, to="ratings-now.jsonl")
    >>> drift.calls, drift.shifts["answer"].before, drift.shifts["answer"].estimate
    (3, 3.0, 0.0)
    """

    def __init__(self, check: DriftCheck, reader: Reader, records: Sequence[Record | None]) -> None:
        new_records = [record for record in records if record is not None]
        self.calls = len(new_records)
        self.unanswered = len(records) - self.calls
        self.cost = total_cost(record.cost for record in new_records)
        self.model = check.model
        self.served = ServedModels(served_by(check.recorded), served_by(new_records))
        self._check = check
        answered = zip(check.calls, records, strict=True)
        self._answers = answers_frame(
            check.records,
            reader,
            [(call, record) for call, record in answered if record is not None],
        )
        self._values = value_columns(self._answers)
        self._new = self._answers[self._answers["is_new"]]
        recorded = self._answers[~self._answers["is_new"]]
        self.unreadable, self.refused = (
            Shares(float(recorded[state].mean()), float(self._new[state].mean()))
            for state in WITHOUT_VALUE
        )
        found = {
            column.removeprefix(VALUE): estimate
            for column in self._values
            if (estimate := estimate_shift(self._answers, column, is_sample=check.is_sample))
        }
        self.shifts = {name: shift for name, (shift, _) in found.items()}
        self._reasons = {name: reason for name, (_, reason) in found.items() if reason}
        names = [column.removeprefix(VALUE) for column in self._values] or [ANSWER]
        unread = "no request has an answer that was read then, and one that was read now"
        self._reasons |= {name: unread for name in names if name not in found}

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each new answer.

        :returns: the columns actor, sample, request (its digest), asked and served (models), prompt,
            text, unreadable, refused, cost; then for each value ``value`` and ``recorded`` (a list of
            the values of the recorded draws of the same request). If there are several values, both
            have the value's name after a dot: ``value.price``.
        """
        new = self._new.reset_index(drop=True)
        recorded = self._answers[~self._answers["is_new"]].groupby("request")
        frame = new.drop(columns=["is_new", *self._values])
        frame["actor"] = frame["actor"].replace("", None)
        for column in self._values:
            name = "" if len(self._values) == 1 else f".{column.removeprefix(VALUE)}"
            values = recorded[column].agg(lambda numbers: numbers.dropna().tolist())
            frame[f"value{name}"] = new[column]
            frame[f"recorded{name}"] = new["request"].map(values)
        return frame

    def to_dict(self) -> dict[str, object]:
        """Return the result as JSON data."""
        return {
            "calls": self.calls,
            "unanswered": self.unanswered,
            "cost": self.cost,
            "another_model": self.model,
            "served": {
                "before": served_words(self.served.before),
                "now": served_words(self.served.now),
            },
            "shifts": {name: _as_json(shift) for name, shift in self.shifts.items()},
            "unreadable": self.unreadable._asdict(),
            "refused": self.refused._asdict(),
            "notes": [*self._check.notes(), *self._notes()],
        }

    def __str__(self) -> str:
        cost = "at an unknown price" if self.cost is None else f"for {money(self.cost)}"
        rows = [["", "then", "now", "shift", "95 % interval", "width"]]
        rows += [_row(name, shift) for name, shift in self.shifts.items()]
        return "\n".join(
            [
                *self._check.notes(),
                f"{self._check.origin}, {cost}",
                f"then: {', '.join(served_words(self.served.before))}",
                f"now:  {', '.join(served_words(self.served.now))}",
                "",
                text_table(rows, right=(1, 2, 3, 5)),
                "",
                *self._notes(),
            ]
        )

    __repr__ = __str__

    def _notes(self) -> list[str]:
        """Return sentences on the origin of the intervals and on answers without a value."""
        notes = [
            f"No interval of {printable(name)}: {reason}." for name, reason in self._reasons.items()
        ]
        notes.append(
            f"{_percent(self.unreadable.before)} of all answers were unreadable then and "
            f"{_percent(self.unreadable.now)} now, {_percent(self.refused.before)} were refusals then and "
            f"{_percent(self.refused.now)} now."
        )
        if self.unanswered:
            notes.append(
                f"{counted(self.unanswered, 'further call')} got no answer: it was filtered or empty. Their "
                "requests are not compared; run the check again to resend them."
            )
        return notes


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _row(name: str, shift: Shift) -> list[str]:
    """Return a shift in words, with as many digits as its interval warrants."""
    width = shift.high - shift.low
    has_interval = not math.isnan(width)
    decimals = max(1 - math.floor(math.log10(width)), 0) if has_interval else 2

    def words(number: float, sign: str = "") -> str:
        # an end that rounds to 0 keeps its sign: −0.0 to +1.2 contains 0
        return f"{number + 0.0:{sign},.{decimals}f}".replace("-", "−")

    return [
        printable(name),
        words(shift.before),
        words(shift.now),
        words(shift.estimate, "+"),
        f"{words(shift.low, '+')} to {words(shift.high, '+')}" if has_interval else "none",
        words(width) if has_interval else "",
    ]


def _as_json(shift: Shift) -> dict[str, object]:
    return {
        name: value if math.isfinite(value) else None for name, value in shift._asdict().items()
    }
