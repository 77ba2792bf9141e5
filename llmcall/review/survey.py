"""Distributions of the answers to each question of a run: the templates and functions that its records name."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, takewhile
from typing import NamedTuple

from ..answers.lettered_options import named_option
from ..apis.message import as_text
from ..apis.shapes import choices_of
from ..scopes.position import path_before_items
from ..stores.record import Record
from ..support.display import one_line
from ..typed.notes import FORM
from .conversations import ASKED_AGAIN, CUT, REFUSED, RecordedCall, marks_of
from .pairs import Pair

MAX_VALUES = 12  # shown separately; the others are "(other)"
MAX_TEXTS = 40  # different texts; with more, or more than MAX_VALUES if most occur once, answers are free texts
MAX_FIELDS = 8
TEXT_CHARACTERS = 60  # of an answer
OTHER, NO_FIELD, ANSWER = "(other)", "(no such field)", "answer"
QUESTION = "question"  # one without a name, asked outside any scope
TEMPLATE = re.compile("{[{%]")


class Distribution(NamedTuple):
    """The frequency of each value of a field.

    :param title: the question, and the field of the answers' JSON if they are objects.
    :param template: the template of a question without a name; empty for others.
    :param rows: each value and its frequency in each run; the most frequent first, numbers in their
        order.
    :param totals: the number of answers of each run.
    """

    title: str
    template: str
    rows: list[tuple[str, list[int]]]
    totals: list[int]


def distributions(
    runs: Sequence[Mapping[str, Sequence[RecordedCall]]], pairs: Iterable[Pair] = ()
) -> list[Distribution]:
    """Return the distributions of the answers of one or several runs, question by question.

    A question is the template or function that the records name; its fields are the fields of the answers' JSON.
    Answers that were asked again, and free texts, are left out.

    :param runs: the calls of each run by actor.
    :param pairs: the calls of two runs: a question that one words otherwise is the same one.
    """
    reworded = _reworded(pairs)
    questions: dict[str, list[list[Record]]] = {}
    for number, run in enumerate(runs):
        for call in chain.from_iterable(run.values()):
            form = FORM.of(call.record)
            if form is not None and ASKED_AGAIN not in call.marks:
                digest: str = form["digest"]
                if number:
                    digest = reworded.get(digest, digest)
                of_runs = questions.setdefault(digest, [[] for _ in runs])
                of_runs[number] += _choices(call.record)
    found = []
    titles: Counter[str] = Counter()
    for of_runs in questions.values():
        forms = (FORM.of(record) for of_run in of_runs for record in of_run)
        name = " → ".join(dict.fromkeys(form["name"] for form in forms if form))
        template = name if TEMPLATE.search(name) else ""
        if template:
            name = _place_of(record for of_run in of_runs for record in of_run)
            titles[name] += 1
            name += f" {titles[name]}" if titles[name] > 1 else ""
        answers = [list(map(_read_answer, of_run)) for of_run in of_runs]
        for field, values in _fields(answers).items():
            colon = "" if name.endswith(("?", ".", "!", ":")) else ":"
            title = name if field == ANSWER else f"{name}{colon} {field}"
            distribution = _distribution(title, template, values)
            if distribution is not None:
                found.append(distribution)
    return found


def _place_of(records: Iterable[Record]) -> str:
    """Return what a question without a name is called: by the levels that the scopes of its calls share."""
    scopes = [path_before_items(record.scope).split("/") for record in records]
    outer = [scope[:-1] if len(scope) > 1 else scope for scope in scopes]
    shared = takewhile(lambda names: len({*names}) == 1, zip(*outer, strict=False))
    return "/".join(names[0] for names in shared if names[0]) or QUESTION


def _reworded(pairs: Iterable[Pair]) -> dict[str, str]:
    """Return the digests of the first run's forms by those of the forms that the other run has instead."""
    counts: dict[str, Counter[str]] = {}
    for pair in pairs:
        form, other = (record and FORM.of(record) for record in (pair.one, pair.other))
        if form and other:
            counts.setdefault(other["digest"], Counter())[form["digest"]] += 1
    return {other: count.most_common(1)[0][0] for other, count in counts.items()}


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
    """Return an answer's JSON object, its text, or the reason why it has no value. The value in
    ``{"value": …}``, which structured output wraps, is read as the same answer without it.
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


def _fields(answers: Sequence[Sequence[object]]) -> dict[str, list[list[object]]]:
    """Return the values of each field of the answers, run by run."""
    objects = [value for run in answers for value in run if isinstance(value, dict)]
    names = Counter(name for value in objects for name in value)
    frequent = [name for name, count in names.most_common() if count > len(objects) / 10]
    if not frequent or len(objects) < sum(map(len, answers)) / 2:
        return {ANSWER: [list(run) for run in answers]}
    return {
        name: [[_field(value, name) for value in run] for run in answers]
        for name in frequent[:MAX_FIELDS]
    }


def _field(answer: object, name: str) -> object:
    if isinstance(answer, dict):
        return answer.get(name, _Mark(NO_FIELD))
    return answer if isinstance(answer, _Mark) else _Mark(NO_FIELD)


def _distribution(
    title: str, template: str, runs: Sequence[Sequence[object]]
) -> Distribution | None:
    """Return the distribution of a field, or ``None`` if the answers are free texts."""
    texts = [[_value_text(value) for value in run] for run in runs]
    counts = Counter(text for run in texts for text in run if not isinstance(text, _Mark))
    most = MAX_VALUES if len(counts) > sum(counts.values()) / 2 else MAX_TEXTS
    if len(counts) > most and len(counts) > sum(map(len, runs)) / 20:
        return None
    shown = [text for text, _ in counts.most_common(MAX_VALUES)]
    shown.sort(key=_number)
    marks = sorted({text for run in texts for text in run if isinstance(text, _Mark)})
    others = [OTHER] if len(counts) > len(shown) else []
    kept = {*shown, *marks}
    told = [[text if text in kept else OTHER for text in run] for run in texts]
    values = [*shown, *others, *marks]
    totals = list(map(Counter, told))
    rows = [
        (one_line(value, TEXT_CHARACTERS), [total[value] for total in totals]) for value in values
    ]
    return Distribution(title, template, rows, list(map(len, runs)))


def _number(text: str) -> tuple[bool, float]:
    """Return the key that sorts numbers first and leaves other texts in their order."""
    try:
        return False, float(text)
    except ValueError:
        return True, 0.0


def _value_text(value: object) -> str:
    if isinstance(value, _Mark):
        return value
    return " ".join(as_text(value).split()) or "(empty)"
