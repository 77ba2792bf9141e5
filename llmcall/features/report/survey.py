"""Distributions of the answers to each question of a run: the templates and functions that its records name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from typing import NamedTuple

from ...answers.lettered_options import named_option
from ...apis.message import as_text
from ...apis.shapes import choices_of
from ...review.conversations import ASKED_AGAIN, CUT, REFUSED, RecordedCall, marks_of
from ...stores.record import Record
from ...support.display import one_line
from ...typed.notes import FORM

MAX_VALUES = 12  # shown separately; the others are "(other)"
MAX_TEXTS = 40  # different texts; with more, or more than MAX_VALUES if most occur once, answers are free texts
MAX_FIELDS = 8
MAX_GROUPS = 8  # the most values of a variable by which answers are counted
TEXT_CHARACTERS = 60  # of an answer
TITLE_CHARACTERS = 120
OTHER, NO_FIELD, ANSWER = "(other)", "(no such field)", "answer"


class Distribution(NamedTuple):
    """The frequency of each value of a field.

    :param title: the question, and the field of the answers' JSON if they are objects.
    :param rows: each value and its frequency in each run; the most frequent first, numbers in their
        order.
    :param totals: the number of answers of each run.
    :param columns: the values of the variable by which the answers of one run are counted; empty for runs.
    """

    title: str
    rows: list[tuple[str, list[int]]]
    totals: list[int]
    columns: tuple[str, ...] = ()


class Survey:
    """The answers of one or several runs, question by question, as counts.

    A question is the template or function that the records name; its fields are the fields of the answers' JSON.
    Answers that were asked again, and free texts, are left out.

    :param runs: the number of the runs.
    """

    def __init__(self, runs: int) -> None:
        self._runs = runs
        self._questions: dict[str, list[_Question]] = {}  # by digest, in each run

    def add(self, run: int, call: RecordedCall) -> None:
        """Count the answers to a call.

        :param run: the number of its run, from 0.
        """
        form = FORM.of(call.record)
        if form is not None and ASKED_AGAIN not in call.marks:
            runs = [_Question(form["name"]) for _ in range(self._runs)]
            self._questions.setdefault(form["digest"], runs)[run].add(
                form["variables"], call.record
            )

    def distributions(self) -> list[Distribution]:
        """Return the distributions of the answers."""
        found = []
        for runs in self._questions.values():
            name = one_line(runs[0].name, TITLE_CHARACTERS)
            for field, values in _fields(runs).items():
                colon = "" if name.endswith(("?", ".", "!", ":")) else ":"
                title = name if field == ANSWER else f"{name}{colon} {field}"
                distribution = _distribution(title, values)
                if distribution is not None:
                    found.append(distribution)
                if distribution is not None and field == ANSWER and len(runs) == 1:
                    found += runs[0].crossed(title)
        return found


class _Values:
    """The counts of each value, and of each reason why an answer has none.

    :ivar uses: how many were counted.
    """

    def __init__(self) -> None:
        self.uses = 0
        self.counts: Counter[str] = Counter()
        self.marks: Counter[str] = Counter()

    def add(self, value: object) -> None:
        """Count a value."""
        self.uses += 1
        if isinstance(value, _Mark):
            self.marks[value] += 1
        else:
            self.counts[_value_text(value)] += 1


class _Question:
    """The answers of a run to a question.

    :ivar name: its name, or its template.
    :ivar total: the number of the answers.
    :ivar objects: the number of those that are JSON objects.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.total = self.objects = 0
        self.whole = _Values()
        self.not_objects: Counter[str] = Counter()  # the reasons why they have no value
        self.fields: dict[str, _Values] = {}
        self.groups: dict[str, dict[str, _Values]] = {}  # the answers by variable and its value

    def add(self, variables: Mapping[str, str], record: Record) -> None:
        """Count the answers of a call."""
        for choice in _choices(record):
            answer = _read_answer(choice)
            self.total += 1
            self.whole.add(answer)
            for variable, value in variables.items():
                groups = self.groups.setdefault(variable, {})
                if len(groups) <= MAX_GROUPS:  # one more shows that they are too many
                    groups.setdefault(value, _Values()).add(answer)
            if isinstance(answer, dict):
                self.objects += 1
                for field, value in answer.items():
                    self.fields.setdefault(field, _Values()).add(value)
            else:
                self.not_objects[answer if isinstance(answer, _Mark) else NO_FIELD] += 1

    def crossed(self, title: str) -> Iterator[Distribution]:
        """Yield the distribution of the answers by each variable of a few values."""
        for variable, groups in self.groups.items():
            if 1 < len(groups) <= min(MAX_GROUPS, self.total / 2):
                columns = sorted(groups, key=_number)
                by_value = [groups[value] for value in columns]
                found = _distribution(f"{title}, by {variable}", by_value)
                if found is not None:
                    yield found._replace(columns=tuple(columns))

    def of_field(self, name: str) -> _Values:
        """Return the values of a field; answers without it have a reason instead."""
        values = copy(self.fields.get(name, _Values()))
        lacking = Counter({NO_FIELD: self.objects - values.uses})
        values.marks = values.marks + self.not_objects + lacking
        values.uses = self.total
        return values


def _choices(record: Record) -> Iterator[Record]:
    """Yield a record for each answer; a call has several if ``n`` is above 1."""
    choices = choices_of(record.response)
    for choice in choices if len(choices) > 1 else ():
        yield record.replace(response={**record.response, "choices": [choice]})
    if len(choices) < 2:
        yield record


class _Mark(str):
    """The reason why an answer has no value: "(cut)", "(refused)"."""


def _read_answer(record: Record) -> object:
    """Return an answer's JSON object or text, or the reason why it has no value. ``{"value": …}``, from
    structured output, reads as its value.
    """
    marks = marks_of(record, is_asked_again=False)
    if REFUSED in marks:
        return _Mark(f"({REFUSED})")
    text = record.answer or ""
    if record.kind == "chat":
        option = named_option(record.request["messages"], text)
        if option is not None:
            return option
    with suppress(ValueError):  # no JSON object, or a broken one
        fields = json.loads(text[text.index("{") : text.rindex("}") + 1])
        return fields["value"] if fields.keys() == {"value"} else fields
    return _Mark(f"({CUT})") if CUT in marks else text.strip()


def _fields(runs: Sequence[_Question]) -> dict[str, list[_Values]]:
    """Return the values of each field of the answers, run by run."""
    objects = sum(run.objects for run in runs)
    names: Counter[str] = Counter()
    for run in runs:
        for name, values in run.fields.items():
            names[name] += values.uses
    frequent = [name for name, count in names.most_common() if count > objects / 10]
    if not frequent or objects < sum(run.total for run in runs) / 2:
        return {ANSWER: [run.whole for run in runs]}
    return {name: [run.of_field(name) for run in runs] for name in frequent[:MAX_FIELDS]}


def _distribution(title: str, runs: Sequence[_Values]) -> Distribution | None:
    """Return the distribution of a field, or ``None`` if the answers are free texts."""
    counts: Counter[str] = Counter()
    for run in runs:
        counts.update(run.counts)
    most = MAX_VALUES if len(counts) > sum(counts.values()) / 2 else MAX_TEXTS
    total = sum(run.uses for run in runs)
    if len(counts) > max(most, total / 20):
        return None
    shown = [text for text, _ in counts.most_common(MAX_VALUES)]
    shown.sort(key=_number)
    marks = sorted({mark for run in runs for mark in run.marks})
    others = [OTHER] if len(counts) > len(shown) else []
    rows = [(one_line(text, TEXT_CHARACTERS), [run.counts[text] for run in runs]) for text in shown]
    left = [run.counts.total() - sum(run.counts[text] for text in shown) for run in runs]
    rows += [(words, left) for words in others]
    rows += [(mark, [run.marks[mark] for run in runs]) for mark in marks]
    return Distribution(title, rows, [run.uses for run in runs])


def _number(text: str) -> tuple[bool, float]:
    """Return the key that sorts numbers first and leaves other texts in their order."""
    try:
        return False, float(text)
    except ValueError:
        return True, 0.0


def _value_text(value: object) -> str:
    return " ".join(as_text(value).split()) or "(empty)"
