"""Distributions of the answers of a survey: a run with many actors and one or two calls each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ..answers.lettered_options import named_option, without_options
from ..apis.message import as_text
from ..apis.shapes import choices_of
from ..scopes import without_repeats
from ..support.display import as_json, one_line
from .marks import CUT, MARKS, REFUSED, marks_of
from .prompt_forms import MAX_FORMS, all_forms, form_of, prompt_forms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..stores.record import Record

# A run is a survey if it has at least MIN_ACTORS actors, and at least MIN_SHARE of them made at most
# MAX_CALLS calls.
MIN_ACTORS, MIN_SHARE, MAX_CALLS = 12, 0.9, 2
MAX_VALUES = 12  # shown separately; the others are "(other)"
MAX_TEXTS = 40  # different texts; with more, answers are free texts without a distribution
MAX_FIELDS = 8
TEXT_CHARACTERS, QUESTION_CHARACTERS = 60, 80  # of an answer, of a question
OTHER, NO_FIELD, ANSWER = "(other)", "(no such field)", "answer"


class AnsweredQuestion(NamedTuple):
    """A question of a survey.

    :param asked: the record of its first answer, which may have been asked again.
    :param answered: the record of its last one.
    """

    asked: Record
    answered: Record


Run = Mapping[str, Sequence[AnsweredQuestion]]  # the questions of each actor


class Distribution(NamedTuple):
    """The frequency of each value of a field.

    :param field: the question, and the field of the answers' JSON if they are objects.
    :param rows: each value and its frequency in each run; the most frequent first, numbers in their
        order.
    :param totals: the number of answers of each run.
    """

    field: str
    rows: list[tuple[str, list[int]]]
    totals: list[int]


def is_survey(actors: Run) -> bool:
    """Return whether a run is a survey.

    :param actors: the questions of each actor.
    """
    few = sum(1 <= len(questions) <= MAX_CALLS for questions in actors.values())
    return len(actors) >= MIN_ACTORS and few >= MIN_SHARE * len(actors)


def distributions(runs: Sequence[Run]) -> list[Distribution]:
    """Return the distributions of the answers of one or several runs, question by question.

    The n-th calls of all actors whose prompts have one form are one question, named by the words
    that they have in common; if a form has few actors, the n-th calls of all actors are. Its fields
    are the fields of the answers' JSON.

    :param runs: the questions of each run by actor.
    """
    found = []
    for questions in _questions(runs):
        answers = [
            [_read_answer(choice) for _, answered in of_run for choice in _choices(answered)]
            for of_run in questions
        ]
        question = _question(asked for of_run in questions for asked, _ in of_run)
        for name, values in _fields(answers).items():
            field = question if name == ANSWER else f"{question} {name}"
            distribution = _distribution(field, values)
            if distribution is not None:
                found.append(distribution)
    return found


def _questions(runs: Sequence[Run]) -> Iterator[list[list[AnsweredQuestion]]]:
    """Yield the answers to each question, run by run."""
    for part in _parts(runs):
        numbered = [_by_number(run) for run in part]
        for number in sorted({number for by_number in numbered for number in by_number}):
            yield [by_number.get(number, []) for by_number in numbered]


def _parts(runs: Sequence[Run]) -> list[Sequence[Run]]:
    """Return the runs once for each form of prompts, with its questions alone. If a run asked a form of few
    actors, or of none, the form may be another wording, or name the actor: then the runs stay whole.
    """
    texts = {
        id(question.asked): without_options(question.asked.prompt)
        for run in runs
        for questions in run.values()
        for question in questions
    }
    forms = all_forms(texts.values())
    if len(forms) > MAX_FORMS:
        return [runs]
    numbers = {text: form_of(text, forms) for text in {*texts.values()}}
    parts: list[Sequence[Run]] = []
    for number in dict.fromkeys(numbers[text] for text in texts.values()):
        part = []
        for run in runs:
            kept = {
                scope: [item for item in questions if numbers[texts[id(item.asked)]] == number]
                for scope, questions in run.items()
            }
            part.append({scope: questions for scope, questions in kept.items() if questions})
        parts.append(part)
    are_asked_of_many = all(len(run) >= MIN_ACTORS for part in parts for run in part)
    return parts if are_asked_of_many else [runs]


def _by_number(run: Run) -> dict[int, list[AnsweredQuestion]]:
    """Return the n-th questions of all actors, by n. A repeat's question has the number that it has in
    the first repeat: a table with repeats may come after one without.
    """
    found: dict[int, list[AnsweredQuestion]] = {}
    numbers: dict[tuple[str, str], int] = {}
    for scope, questions in run.items():
        actor, _ = without_repeats(scope)
        for number, question in enumerate(questions):
            key = actor, _request_key(question.asked)
            if scope == actor:
                numbers[key] = number
            found.setdefault(numbers.get(key, number), []).append(question)
    return found


def _request_key(record: Record) -> str:
    """Return a text that a request shares with its repeats, which may list options in another order."""
    request = dict(record.request)
    if record.kind == "chat":
        request["messages"] = [*request["messages"][:-1], without_options(record.prompt)]
    return as_json([request, (record.sample or "").partition("#")[2]])


def _question(records: Iterable[Record]) -> str:
    """Return the words that most of some calls' questions have in common."""
    form, *_ = prompt_forms(without_options(record.prompt) for record in records)
    return one_line(form.text, QUESTION_CHARACTERS)


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
    mark = next((candidate for candidate in MARKS if candidate in marks), None)
    if mark == REFUSED:
        return _Mark(f"({mark})")
    text = record.answer or ""
    if record.kind == "chat":
        option = named_option(record.request["messages"], text)
        if option is not None:
            return option
    with suppress(ValueError):  # no JSON object, or a broken one
        fields = json.loads(text[text.index("{") : text.rindex("}") + 1])
        return fields["value"] if fields.keys() == {"value"} else fields
    return _Mark(f"({mark})") if mark == CUT else text.strip()


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


def _distribution(field: str, runs: Sequence[Sequence[object]]) -> Distribution | None:
    """Return the distribution of a field, or ``None`` if the answers are free texts."""
    texts = [[_value_text(value) for value in run] for run in runs]
    counts = Counter(text for run in texts for text in run if not isinstance(text, _Mark))
    if len(counts) > MAX_TEXTS and len(counts) > sum(map(len, runs)) / 20:
        return None
    shown = [text for text, _ in counts.most_common(MAX_VALUES)]
    shown.sort(key=_number)
    marks = sorted({text for run in texts for text in run if isinstance(text, _Mark)})
    others = [OTHER] if len(counts) > len(shown) else []
    totals = [Counter(text if text in {*shown, *marks} else OTHER for text in run) for run in texts]
    values = [*shown, *others, *marks]
    return Distribution(
        field,
        [
            (one_line(value, TEXT_CHARACTERS), [total[value] for total in totals])
            for value in values
        ],
        list(map(len, runs)),
    )


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
