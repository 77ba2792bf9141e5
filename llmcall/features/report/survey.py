"""Distributions of the answers to each question of a run: the templates and functions that its records name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
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
OTHER = "(other)"


class _Mark(str):
    """The reason why an answer has no value: "(cut)", "(refused)"."""


NO_FIELD = _Mark("(no such field)")


class _Answer(NamedTuple):
    """An answer to a question.

    :param variables: those of the template that asked.
    :param value: its JSON object or its text, or the reason why it has none.
    """

    variables: Mapping[str, str]
    value: object


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


def distributions(runs: Sequence[Iterable[RecordedCall]]) -> list[Distribution]:
    """Return the distributions of the answers of one or several runs, question by question.

    A question is the template or function that the records name; its fields are the fields of the answers' JSON.
    Answers that were asked again, and free texts, are left out.
    """
    questions: dict[str, tuple[str, list[list[_Answer]]]] = {}  # by digest: name, answers by run
    for run, calls in enumerate(runs):
        for call in calls:
            form = FORM.of(call.record)
            if form is not None and ASKED_AGAIN not in call.marks:
                new: list[list[_Answer]] = [[] for _ in runs]
                _, answers = questions.setdefault(form["digest"], (form["name"], new))
                answers[run] += (
                    _Answer(form["variables"], _value(choice)) for choice in _choices(call.record)
                )
    found = []
    for name, answers in questions.values():
        title = one_line(name, TITLE_CHARACTERS)
        colon = "" if title.endswith(("?", ".", "!", ":")) else ":"
        columns = [[answer.value for answer in of_run] for of_run in answers]
        fields = _fields([*chain(*columns)])
        for field in fields:
            values = [[_field(value, field) for value in column] for column in columns]
            found.append(_distribution(f"{title}{colon} {field}", values))
        if not fields:
            whole = _distribution(title, columns)
            found.append(whole)
            if whole is not None and len(runs) == 1:
                found += _by_variable(title, answers[0])
    return [distribution for distribution in found if distribution is not None]


def _by_variable(title: str, answers: Sequence[_Answer]) -> Iterator[Distribution | None]:
    """Yield the distribution of the answers by each variable of a few values."""
    for variable in dict.fromkeys(name for answer in answers for name in answer.variables):
        groups: dict[str, list[object]] = {}
        for answer in answers:
            if variable in answer.variables:
                groups.setdefault(answer.variables[variable], []).append(answer.value)
        if 1 < len(groups) <= min(MAX_GROUPS, len(answers) / 2):
            columns = sorted(groups, key=_number)
            by_value = [groups[value] for value in columns]
            yield _distribution(f"{title}, by {variable}", by_value, columns)


def _choices(record: Record) -> list[Record]:
    """Return a record for each answer; a call has several if ``n`` is above 1."""
    choices = choices_of(record.response)
    if len(choices) < 2:
        return [record]
    return [record.replace(response={**record.response, "choices": [choice]}) for choice in choices]


def _value(record: Record) -> object:
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


def _fields(values: Sequence[object]) -> list[str]:
    """Return the frequent fields of answers, the most frequent first; none unless most answers are objects."""
    objects = [value for value in values if isinstance(value, dict)]
    counts = Counter(field for fields in objects for field in fields)
    frequent = [name for name, count in counts.most_common() if count > len(objects) / 10]
    return frequent[:MAX_FIELDS] if len(objects) >= len(values) / 2 else []


def _field(value: object, name: str) -> object:
    """Return an answer's value of a field, or the reason why it has none."""
    if isinstance(value, dict):
        return value.get(name, NO_FIELD)
    return value if isinstance(value, _Mark) else NO_FIELD


def _distribution(
    title: str, columns: Sequence[Sequence[object]], names: Sequence[str] = ()
) -> Distribution | None:
    """Return the distribution of the values in each column, or ``None`` if they are free texts.

    :param names: of the columns, unless they are runs.
    """
    marks = [Counter(value for value in values if isinstance(value, _Mark)) for values in columns]
    texts = [
        Counter(_text(value) for value in values if not isinstance(value, _Mark))
        for values in columns
    ]
    totals = [len(values) for values in columns]
    counts = sum(texts, Counter[str]())
    most = MAX_VALUES if len(counts) > counts.total() / 2 else MAX_TEXTS
    if len(counts) > max(most, sum(totals) / 20):
        return None
    shown = sorted((text for text, _ in counts.most_common(MAX_VALUES)), key=_number)
    rows = [(one_line(text, TEXT_CHARACTERS), [column[text] for column in texts]) for text in shown]
    if len(counts) > len(shown):
        others = [column.total() - sum(map(column.__getitem__, shown)) for column in texts]
        rows.append((OTHER, others))
    for mark in sorted({*chain(*marks)}):
        rows.append((mark, [column[mark] for column in marks]))
    return Distribution(title, rows, totals, tuple(names))


def _number(text: str) -> tuple[bool, float]:
    """Return the key that sorts numbers first and leaves other texts in their order."""
    try:
        return False, float(text)
    except ValueError:
        return True, 0.0


def _text(value: object) -> str:
    return " ".join(as_text(value).split()) or "(empty)"
