"""The result of a check for drift."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...display.data_frames import data_frame
from ...display.formatting import counted
from ...display.notebook import html_table
from ...display.printable import printable
from ...display.tables import table
from ...records.served import served_by, served_words
from ...values import total_cost
from .check import cost_words, shown
from .estimate import Shift, shift_of, unit_of
from .sample import actor_of
from .values import ANSWER, answers_of

if TYPE_CHECKING:
    import pandas

    from ...records.served import Served
    from ...values import Record
    from .check import Check

UNREADABLE, CUT, REFUSED = "unreadable", "cut", "refused"
MARKS = (UNREADABLE, CUT, REFUSED)  # whose shares are compared, too
VALUE = "value."  # begins the names of columns with values
FEW_UNITS = 10
LARGE = 1e15  # numbers from here on are written with an exponent
NOT_COMPARED = Shift(0.0, -math.inf, math.inf, math.nan, math.nan, 0)
UNITS = {
    "request": "All calls come from one actor, so the intervals come from resampling its requests: they apply "
    "to this actor only.",
    "answer": "All calls make the same request, so the intervals come from resampling its answers: they apply to "
    "this request only.",
}


class Shifts(dict[str, Shift]):
    """Shifts by the value's name; a single one is also found as ``"answer"``."""

    def __missing__(self, name: str) -> Shift:
        if name == ANSWER and len(self) == 1:
            return next(iter(self.values()))
        raise KeyError(f"{name!r}; the values are {', '.join(map(repr, self))}")


class ServedModels(NamedTuple):
    """The models that answered, each with its days.

    :param before: those of the recorded answers that the check compares with.
    :param now: those of the new answers.
    """

    before: Served
    now: Served


class Drift:
    """The result of :func:`llmcall.drift`; ``str()`` says it in words.

    :ivar calls: how many requests were asked again.
    :ivar unanswered: how many further calls got no answer, since it was filtered or empty.
    :ivar cost: USD that the new answers cost when they were made, or ``None`` if that is unknown.
    :ivar served: the models that answered, then and now, with their days.
    :ivar shifts: by the value's name, its :class:`~llmcall.study.drift.estimate.Shift`.
    :ivar unreadable: the share of answers from which no value could be read, as a shift too.
    :ivar cut: the share of answers that ended at their token limit.
    :ivar refused: the share of answers in which the model refused.
    :ivar model: the model that was asked in place of the recorded ones, or ``None``.

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

    def __init__(self, check: Check, records: Sequence[Record | None]) -> None:
        self._check = check
        new_records = [record for record in records if record is not None]
        self._answers = _answers_of(check, records)
        self._values = [name for name in self._answers if name.startswith(VALUE)]
        self.calls = len(new_records)
        self.unanswered = len(records) - self.calls
        self.cost = total_cost(record.cost for record in new_records)
        self.model = check.model if check.is_of_another_model else None
        recorded = (record for draws in check.records.values() for record in draws)
        self.served = ServedModels(served_by(recorded), served_by(new_records))
        # By column, of those that can be compared.
        self._shifts = {
            column: shift
            for column in (*self._values, *MARKS)
            if (shift := shift_of(self._answers, column)) is not None
        }
        self.shifts = Shifts(
            (column.removeprefix(VALUE), shift)
            for column, shift in self._shifts.items()
            if column not in MARKS
        )
        self.unreadable, self.cut, self.refused = (
            self._shifts.get(mark, NOT_COMPARED) for mark in MARKS
        )

    # As a table

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each new answer.

        :returns: the columns actor, sample, request (its digest), asked (the model), another_model
            (whether that is another than the recorded one), served, prompt, text, unreadable, cut,
            refused, cost; then for each value ``value``, ``recorded`` (a list of the values of the
            recorded draws of the same request) and ``recorded_mean``. If there are several values,
            these three have the value's name after a dot: ``value.price``.
        """
        columns = [
            "actor",
            "sample",
            "request",
            "asked",
            "served",
            "prompt",
            "text",
            *MARKS,
            "cost",
        ]
        new = self._answers[self._answers["is_new"]]
        recorded = self._answers[~self._answers["is_new"]].groupby("request")
        frame = data_frame(new[columns].to_numpy().tolist(), columns)
        frame["actor"] = frame["actor"].replace("", None)
        frame.insert(4, "another_model", self.model is not None)
        for column in self._values:
            name = "" if len(self._values) == 1 else f".{column.removeprefix(VALUE)}"
            values = recorded[column].agg(lambda numbers: numbers.dropna().tolist())
            frame[f"value{name}"] = new[column].to_numpy()
            frame[f"recorded{name}"] = frame["request"].map(values)
            frame[f"recorded_mean{name}"] = frame["request"].map(recorded[column].mean())
        return frame

    # In words

    def __str__(self) -> str:
        parts = [
            *self._head(),
            "",
            table(self._rows(), right=(1, 2, 3, 5)),
            "",
            *self._notes(),
        ]
        return "\n".join(parts)

    def __repr__(self) -> str:
        other = f"; another model, {self.model}" if self.model is not None else ""
        values = ", ".join(
            f"{shown(name)} {self._notation(VALUE + name).shift(shift.estimate)}"
            for name, shift in self.shifts.items()
        )
        return f"Drift({counted(self.calls, 'call')}; {values or 'no value read'}{other})"

    def _repr_html_(self) -> str:
        from html import escape

        head = "".join(f"<p>{escape(line)}</p>" for line in self._head())
        notes = "".join(f"<p>{escape(line)}</p>" for line in self._notes())
        return f"{head}{html_table(self._rows())}{notes}"

    def to_dict(self) -> dict[str, Any]:
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
            **{mark: _as_json(getattr(self, mark)) for mark in MARKS},
            "notes": self._notes(),
        }

    def _head(self) -> list[str]:
        requests = self._check.requests
        different = counted(requests.different, "different recorded request")
        return [
            *filter(None, [self._check.model_words()]),
            f"{counted(self.calls, 'call')}, sampled from {different} in {printable(requests.name)} "
            f"(seed {self._check.seed}), {cost_words(self.cost)}",
            f"then: {', '.join(served_words(self.served.before))}",
            f"now:  {', '.join(served_words(self.served.now))}",
        ]

    def _rows(self) -> list[list[str]]:
        rows = [["", "then", "now", "shift", "95 % interval", "width"]]
        for column, shift in self._shifts.items():
            notation = self._notation(column)
            rows.append(
                [
                    shown(column.removeprefix(VALUE)),
                    notation.level(shift.before),
                    notation.level(shift.now),
                    notation.shift(shift.estimate),
                    f"{notation.shift(shift.low)} to {notation.shift(shift.high)}",
                    notation.number(shift.width),
                ]
            )
        return rows

    def _notation(self, column: str) -> _Notation:
        """Return how the numbers of a value are written; those of a share in percent."""
        is_share = bool(self._answers[column].dropna().isin([0.0, 1.0]).all())
        return _Notation(self._shifts[column], is_share=is_share)

    def _notes(self) -> list[str]:
        """Return how the intervals came about and what is not in them, in sentences."""
        notes = [self._unit_words()]
        if any(shift.width == 0 for shift in self.shifts.values()):
            notes.append(
                "An interval without width means that all differences are the same: it does not show how "
                "rarely another answer may come."
            )
        notes += [
            f"'{shown(column.removeprefix(VALUE))}': no new answer can be compared."
            for column in self._values
            if column not in self._shifts
        ]
        if not self._values:
            notes.append("No value could be read from the recorded answers to these requests.")
        if self.unanswered:
            notes.append(
                f"{counted(self.unanswered, 'further call')} got no answer: it was filtered or empty. Their "
                "requests are not compared; run the check again to ask them again."
            )
        before, now = set(self.served.before), set(self.served.now)
        if self.model is None and not now <= before:
            notes.append(
                f"Another model answers under the same name: {_joined(now - before)} now, {_joined(before)} then."
            )
        return [*notes, *self._check.notes()]

    def _unit_words(self) -> str:
        """Return what was resampled, in words."""
        new = self._answers[self._answers["is_new"]]
        unit = unit_of(new)
        count = new[unit].nunique()
        if count < 2:
            return "One new answer says nothing about a shift: ask for more, with calls= (--calls)."
        if unit != "actor":
            return UNITS[unit]
        actor = printable(min(filter(None, new["actor"])))
        rough = "; with so few, they are rough" if count < FEW_UNITS else ""
        return f"The intervals come from resampling {count:,} actors, such as {actor}{rough}."


def _answers_of(check: Check, new_records: Iterable[Record | None]) -> pandas.DataFrame:
    """Return a row for each answer: the recorded ones to the requests of a check, then the new ones."""
    import pandas

    rows: list[dict[str, Any]] = []

    def add(record: Record, actor: str, request: str, *, is_new: bool) -> None:
        for answer in answers_of(record):
            values: Mapping[str, float] = check.reader.values(answer)
            rows.append(
                {
                    "answer": len(rows),
                    "is_new": is_new,
                    "actor": actor,
                    "request": request,
                    "sample": record.sample,
                    "asked": record.request["model"],
                    "served": record.served,
                    "prompt": record.prompt,
                    "text": answer.text,
                    UNREADABLE: not values and not answer.is_refused,
                    CUT: answer.is_cut,
                    REFUSED: answer.is_refused,
                    "cost": record.cost,
                    **{VALUE + name: value for name, value in sorted(values.items())},
                }
            )

    for request, draws in check.records.items():
        for record in draws:
            add(record, actor_of(record), request, is_new=False)
    for draw, new_record in zip(check.draws, new_records, strict=True):
        if new_record is not None:
            add(new_record, draw.actor, draw.request, is_new=True)
    return pandas.DataFrame(rows)


class _Notation:
    """Writes the numbers of a shift with as many digits as its interval warrants.

    :param is_share: whether the value is a share, which is written in percent.
    """

    def __init__(self, shift: Shift, *, is_share: bool) -> None:
        self._is_share = is_share
        size = shift.width if 0 < shift.width < math.inf else abs(shift.estimate)
        digits = 1 - math.floor(math.log10(size)) if 0 < size < math.inf else 2
        self._decimals = 1 if is_share else max(digits, 0)

    def number(self, number: float, sign: str = "") -> str:
        """Return a number, without a unit."""
        if math.isinf(number):
            return f"{'−' if number < 0 else sign}∞"
        number = 100 * number if self._is_share else number
        form = f"{sign},.2e" if abs(number) >= LARGE else f"{sign},.{self._decimals}f"
        words = f"{number:{form}}"
        has_sign = any(digit in words for digit in "123456789")
        return words.replace("-", "−") if has_sign else words.lstrip("+-")

    def level(self, number: float) -> str:
        """Return a mean."""
        return f"{self.number(number)} %" if self._is_share else self.number(number)

    def shift(self, number: float) -> str:
        """Return a shift; that of a share in percentage points."""
        return self.number(number, "+")


def _as_json(shift: Shift) -> dict[str, Any]:
    return {
        name: value if math.isfinite(value) else None for name, value in shift._asdict().items()
    }


def _joined(names: Iterable[str]) -> str:
    return ", ".join(map(printable, sorted(names)))
