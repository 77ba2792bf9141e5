"""The result of a check for drift."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...display.data_frames import data_frame
from ...display.formatting import counted
from ...display.notebook import html_table
from ...display.printable import printable
from ...display.tables import table
from ...records.served import served_by, served_words
from ...types import total_cost
from .check import new_values
from .comparison import Comparison
from .holm import holm, holm_levels
from .permutation import UNBOUNDED
from .power import LEVEL, POWER, detectable
from .text import (
    FEW_UNITS,
    NO_SHIFT,
    Notation,
    cost_words,
    fields_left_out_words,
    label,
    left_out_words,
    low_power_words,
    missing_values_words,
    model_words,
    new_texts_words,
    p_words,
)
from .values import ANSWER, CUT, MARKS, REFUSED, UNREADABLE

if TYPE_CHECKING:
    import pandas

    from ...records.served import Served
    from ...types import Record
    from .check import Check, ReadAnswer
    from .permutation import PermutationTest
    from .resampling import Units

TOO_FEW = (
    "If no shift would have been found, there are too few answers to tell one from chance: ask for more, with "
    "calls= (--calls)."
)


class Shift(NamedTuple):
    """How much a value, or a share of answers, differs now.

    :param estimate: the mean shift: each new answer less the mean of the recorded draws of the same
        request, averaged within actors, then over actors.
    :param low: the lower end of its 95 % interval.
    :param high: the upper end.
    :param p: the p-value, adjusted by Holm's method if there are several; the intervals are, too.
    :param before: the mean of the recorded answers, weighted as the new ones.
    :param now: the mean of the new answers.
    :param found: the shift that would have been found with a power of 0.8; 0 if no answer differs
        from the recorded answers to its request, or all do by the same amount; infinite if no shift,
        however large, would have been found.
    :param answers: how many new answers it is of.
    """

    estimate: float
    low: float
    high: float
    p: float
    before: float
    now: float
    found: float
    answers: int

    @property
    def leaves_zero(self) -> bool:
        """Return whether the interval does not contain 0."""
        return self.low > 0 or self.high < 0


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
    :ivar shifts: by the value's name, its :class:`~llmcall.study.drift.result.Shift`.
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
        pairs = list(zip(check.draws, records, strict=True))
        self._draws = [draw for draw, record in pairs if record is not None]
        self._records = [record for _, record in pairs if record is not None]
        self.unanswered = len(pairs) - len(self._records)
        self._read_answers: list[list[ReadAnswer]] = [
            check.read(record, draw.actor, draw.request)
            for draw, record in zip(self._draws, self._records, strict=True)
        ]
        self.calls = len(self._records)
        self.cost = total_cost(record.cost for record in self._records)
        self.model = check.model if check.is_of_another_model else None
        self.served = ServedModels(served_by(check.records), served_by(self._records))
        self._units: Units | PermutationTest | None = None
        shifts = self._adjusted_shifts()
        self.unreadable, self.cut, self.refused = (shifts.pop(mark) for mark in MARKS)
        self.shifts = Shifts(shifts)

    def _adjusted_shifts(self) -> dict[str, Shift]:
        """Return the shift of each value, then of each mark, adjusted for their number."""
        comparisons = {}
        for name in (*self._check.names, *MARKS):
            comparison = Comparison(
                new_values(self._new_answers, name), self._check.recorded_values(name)
            )
            if comparison.new:
                comparisons[name] = comparison
        tested = {
            name: comparison.units
            for name, comparison in comparisons.items()
            if comparison.units is not None and comparison.varies
        }
        self._tested_names = list(tested)
        self._units = comparisons[UNREADABLE].units
        p_values = [units.p_value for units in tested.values()]
        adjusted = dict(zip(tested, holm(p_values), strict=True))
        levels = dict(zip(tested, holm_levels(p_values, LEVEL), strict=True))
        shifts = {
            name: _shift_of(comparison, levels.get(name, LEVEL), adjusted.get(name, 1.0))
            for name, comparison in comparisons.items()
        }
        return {
            name: _within_shares(shift) if self._is_share(name) else shift
            for name, shift in shifts.items()
        }

    @property
    def _new_answers(self) -> Iterator[ReadAnswer]:
        for answers in self._read_answers:
            yield from answers

    @property
    def differs(self) -> bool:
        """Return whether the interval of any value or share does not contain 0."""
        return any(shift.leaves_zero for shift in self._all_shifts.values())

    @property
    def _all_shifts(self) -> dict[str, Shift]:
        marks = {UNREADABLE: self.unreadable, CUT: self.cut, REFUSED: self.refused}
        return {**self.shifts, **marks}

    def _is_share(self, name: str) -> bool:
        return name in MARKS or name in self._check.reader.shares

    # As a table

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each new answer.

        :returns: the columns actor, sample, request (its digest), asked (the model), another_model
            (whether that is another than the recorded one), served, prompt, text, unreadable, cut,
            refused, cost; then for each value ``value``, ``recorded`` (a list of the values of the
            recorded draws of the same request) and ``recorded_mean``. If there are several values,
            these three have the value's name after a dot: ``value.price``.
        :raises ConfigError: if pandas is not installed.
        """
        names = self._check.names
        columns = [
            "actor",
            "sample",
            "request",
            "asked",
            "another_model",
            "served",
            "prompt",
            "text",
            UNREADABLE,
            CUT,
            REFUSED,
            "cost",
        ]
        for name in names:
            ending = "" if len(names) == 1 else f".{name}"
            columns += [f"value{ending}", f"recorded{ending}", f"recorded_mean{ending}"]
        recorded = {name: self._check.recorded_values(name) for name in names}
        rows = []
        for draw, record, answers in zip(
            self._draws, self._records, self._read_answers, strict=True
        ):
            for answer in answers:
                row: list[Any] = [
                    draw.actor or None,
                    draw.sample,
                    draw.request,
                    record.request["model"],
                    self.model is not None,
                    record.served,
                    record.prompt,
                    answer.answer.text,
                    *map(answer.has, MARKS),
                    record.cost,
                ]
                for name in names:
                    values = [each.value for each in recorded[name][draw.request]]
                    mean = sum(values) / len(values) if values else None
                    row += [answer.values.get(name), values, mean]
                rows.append(row)
        return data_frame(rows, columns)

    # In words

    def __str__(self) -> str:
        parts = [
            *filter(None, [model_words(self._check)]),
            self._summary(),
            *self._served_lines(),
            "",
            table(self._rows(), right=(1, 2, 3)),
            "",
            *self._sentences(),
        ]
        return "\n".join(parts)

    def __repr__(self) -> str:
        other = f"; another model, {self.model}" if self.model is not None else ""
        values = ", ".join(
            f"{label(self._check, name)} {self._notation(name, shift).shift(shift.estimate)}"
            for name, shift in self.shifts.items()
        )
        return f"Drift({counted(self.calls, 'call')}; {values or 'no value read'}{other})"

    def _repr_html_(self) -> str:
        from html import escape

        above = [*filter(None, [model_words(self._check)]), self._summary(), *self._served_lines()]
        head = "".join(f"<p>{escape(line)}</p>" for line in above)
        below = "".join(f"<p>{escape(line)}</p>" for line in self._sentences())
        return f"{head}{html_table(self._rows())}{below}"

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
            **{mark: _as_json(self._all_shifts[mark]) for mark in MARKS},
            "differs": self.differs,
            "words": self._sentences(),
        }

    def _summary(self) -> str:
        cost = cost_words(self.cost)
        different_requests = counted(self._check.requests.different, "different recorded request")
        return (
            f"{counted(self.calls, 'call')}, sampled from {different_requests} in {printable(self._check.run.name)} "
            f"(seed {self._check.seed}), {cost}"
        )

    def _served_lines(self) -> list[str]:
        before = ", ".join(served_words(self.served.before))
        now = ", ".join(served_words(self.served.now))
        return [f"then: {before}", f"now:  {now}"]

    def _rows(self) -> list[list[str]]:
        rows = [["", "then", "now", "shift", "95 % interval"]]
        for name, shift in self._all_shifts.items():
            write = self._notation(name, shift)
            rows.append(
                [
                    label(self._check, name),
                    write.level(shift.before),
                    write.level(shift.now),
                    write.shift(shift.estimate),
                    write.interval(shift.low, shift.high),
                ]
            )
        return rows

    def _sentences(self) -> list[str]:
        """Return what the check found, and what it would have found, in sentences."""
        sentences = [self._sentence(name, shift) for name, shift in self._all_shifts.items()]
        sentences += [
            f"'{label(self._check, name)}': no new answer has a value."
            for name in self._check.names
            if name not in self.shifts
        ]
        if not self._check.names:
            sentences.append("No value could be read from the recorded answers to these requests.")
        return [*filter(None, sentences), *self._notes()]

    def _sentence(self, name: str, shift: Shift) -> str:
        is_share = self._is_share(name)
        if name in MARKS and name not in self._tested_names:
            return ""  # as many as before, mostly none: the table says it
        write = self._notation(name, shift)
        subject = f"'{label(self._check, name)}'"
        if is_share:
            subject = f"The share of {f'{name} answers' if name in MARKS else subject}"
        interval = f"95 % interval {write.interval(shift.low, shift.high)}, {p_words(shift.p)}"
        if shift.found == UNBOUNDED and not shift.leaves_zero:
            return f"{subject}: {NO_SHIFT} would have been found with a power of {POWER}."
        if name not in self._tested_names:
            return f"{subject}: {_constant_words(shift.answers)}"
        power_words = (
            f"A shift of {write.amount(shift.found)} would have been found with a power of {POWER}"
        )
        if not shift.leaves_zero:
            return (
                f"{subject}: the interval contains 0 ({write.shift(shift.estimate)}, {interval}). {power_words}; "
                "there may be a smaller one."
            )
        if shift.found == UNBOUNDED:
            power_words = f"With a power of {POWER}, {NO_SHIFT} would have been found"
        elif not shift.found:
            power_words = (
                "Each new answer differs from the recorded ones by the same amount, so the interval "
                "has no width"
            )
        direction = "higher" if shift.estimate > 0 else "lower"
        return f"{subject} is {direction} now, by {write.amount(shift.estimate)} ({interval}). {power_words}."

    def _notation(self, name: str, shift: Shift) -> Notation:
        width = shift.high - shift.low
        if width == 0 or not math.isfinite(width):
            width = abs(shift.estimate)
        return Notation(width, is_share=self._is_share(name))

    def _notes(self) -> list[str]:
        notes = [
            self._unanswered_words(),
            self._snapshot_words(),
            left_out_words(self._check),
            fields_left_out_words(self._check),
            missing_values_words(self._check, self._new_answers),
            new_texts_words(self._check, list(self._new_answers)),
        ]
        units = self._units
        if units is None:
            notes.append(
                "One new answer says nothing about a shift: ask for more, with calls= (--calls)."
            )
        else:
            if any(self._all_shifts[name].found == UNBOUNDED for name in self._tested_names):
                notes.append(TOO_FEW)
            if units.noun != "answer":
                notes.append(low_power_words(self._check, units.count))
            if units.noun == "request":
                notes.append(
                    "All calls come from one actor, so the intervals come from resampling requests: they apply to "
                    "this actor only."
                )
            elif units.noun == "answer":
                notes.append(
                    "All calls make the same request, so the intervals come from exchanging its new and recorded "
                    "answers: they apply to this request only."
                )
            elif units.count < FEW_UNITS:
                notes.append(
                    f"The intervals are rough, because they come from resampling only {units.count} actors."
                )
            else:
                actor = min(filter(None, (draw.actor for draw in self._draws)))
                notes.append(
                    f"The intervals come from resampling {units.count:,} actors, such as {printable(actor)}."
                )
        if len(self._tested_names) > 1:
            notes.append(
                f"Intervals and p-values are adjusted for {len(self._tested_names)} comparisons by Holm's method."
            )
        return [note for note in notes if note]

    def _unanswered_words(self) -> str:
        if not self.unanswered:
            return ""
        return (
            f"{counted(self.unanswered, 'further call')} got no answer: it was filtered or empty. Their requests are "
            "not compared; run the check again to ask them again."
        )

    def _snapshot_words(self) -> str:
        """Return that another model answers under the recorded name; empty if none does."""
        before, now = set(self.served.before), set(self.served.now)
        if self.model is not None or now <= before:
            return ""
        return f"Another model answers under the same name: {_joined(now - before)} now, {_joined(before)} then."


def _joined(names: Iterable[str]) -> str:
    return ", ".join(map(printable, sorted(names)))


def _constant_words(answers: int) -> str:
    """Return what a check shows if each new answer has the value of all recorded ones to its request.

    :param answers: how many new answers there are.
    """
    share = 1 - (1 - POWER) ** (1 / answers)
    return (
        "each new answer has the same value as all recorded answers to its request, so the interval has no "
        f"width. If {100 * share:.1f} % of the answers were different now, at least one of the "
        f"{answers:,} would show it with a probability of {POWER}; there may be a rarer change."
    )


def _shift_of(comparison: Comparison, level: float, p_value: float) -> Shift:
    units = comparison.units
    if units is None:
        low, high, detectable_shift = -UNBOUNDED, UNBOUNDED, UNBOUNDED
    else:
        low, high = units.interval(level)
        is_bounded = high < UNBOUNDED
        detectable_shift = (
            detectable(units.standard_error, units.count, level) if is_bounded else UNBOUNDED
        )
    return Shift(
        comparison.estimate,
        low,
        high,
        p_value,
        comparison.before,
        comparison.now,
        detectable_shift,
        len(comparison.new),
    )


def _within_shares(shift: Shift) -> Shift:
    """Return the shift of a share, which cannot be more than 100 points."""
    return shift._replace(
        low=max(shift.low, -1.0),
        high=min(shift.high, 1.0),
        found=shift.found if shift.found <= 1 else UNBOUNDED,
    )


def _as_json(shift: Shift) -> dict[str, Any]:
    return {
        name: None if value in (UNBOUNDED, -UNBOUNDED) else value
        for name, value in shift._asdict().items()
    }
