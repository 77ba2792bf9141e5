"""A survey: many actors, one or two calls each. Its answers as distributions."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..display.formatting import distinct_lines
from ..errors import OutputError
from ..outputs import containers, named_option
from .columns import Column, binned, columns, counts_by
from .conversations import Call
from .marks import CUT, MARKS, REFUSED, marks_of
from .rounds import natural_order

FEWEST_ACTORS = 12  # fewer make no survey
MOST_CALLS = 2  # of one actor
LEAST_SHARE = 0.9  # of actors that have no more
MOST_VALUES = 12  # that are shown apart; numbers are joined to ranges, the others are "other"
MOST_TEXTS = 40  # different texts: free answers have no distribution
NUMBER_BINS = 8
MOST_FIELDS = 8
TEXT_CHARACTERS = 60  # characters of an answer
OTHER, NO_FIELD = "(other)", "(no such field)"
ANSWER = "answer"
RUN = "run"  # the column that tells two runs apart


class Distribution(NamedTuple):
    """How often each value of a field came.

    :param field: the field of the answers' JSON, or ``"answer"``.
    :param values: the values, in order.
    :param groups: the names of the columns; for each, by its values, how often each value came.
    """

    field: str
    values: list[str]
    groups: dict[str, dict[str, list[int]]]


def is_survey(calls: Mapping[str, Sequence[Call]], asked_again_ids: set[int]) -> bool:
    """Return whether a run is a survey.

    :param calls: by actor.
    :param asked_again_ids: the records that were asked again, by their ``id``.
    """
    counts = [
        sum(id(call.record) not in asked_again_ids for call in actor_calls)
        for actor_calls in calls.values()
    ]
    few = sum(1 <= count <= MOST_CALLS for count in counts)
    return len(counts) >= FEWEST_ACTORS and few >= LEAST_SHARE * len(counts)


def calls_by_choice(call: Call) -> list[Call]:
    """Return a call once for each of its answers; they are several if ``n`` is above 1."""
    response = call.record.response
    choices = response.get("choices") or ()
    if len(choices) < 2:
        return [call]
    return [
        call._replace(record=call.record.replace(response={**response, "choices": [choice]}))
        for choice in choices
    ]


def distributions(
    calls: Sequence[Call], numbers: Sequence[int], sides: Sequence[str] = ()
) -> list[Distribution]:
    """Return the distribution of each field of the answers, or of the answers themselves, by what
    tells the calls apart.

    :param calls: those of a survey, without those that were asked again, by choice.
    :param numbers: which call of its actor each is, from 0: each question has its own answers.
    :param sides: which run each call is of, if there are two.
    """
    field_distributions = []
    for number in sorted(set(numbers)):
        indexes = [index for index, each in enumerate(numbers) if each == number]
        question_calls = [calls[index] for index in indexes]
        question_columns = columns(question_calls)
        if sides:
            question_columns = [Column(RUN, [sides[index] for index in indexes]), *question_columns]
        question = f"call {number + 1}: " if len(set(numbers)) > 1 else ""
        for field, values in _fields(question_calls).items():
            ordered = _ordered(values)
            if ordered is not None:
                field_distributions.append(
                    _distribution(question + field, *ordered, question_columns)
                )
    return field_distributions


def _distribution(
    field: str, values: Sequence[str], order: list[str], question_columns: Iterable[Column]
) -> Distribution:
    groups = {"all answers": {"all": _counts_by_group(values, order, None)[""]}}
    for column in question_columns:
        counts = _counts_by_group(values, order, column)
        names = counts if column.name == RUN else sorted(counts, key=natural_order)
        groups[column.name] = {name: counts[name] for name in names}
    return Distribution(field, order, groups)


def _counts_by_group(
    values: Sequence[str], order: Sequence[str], column: Column | None
) -> dict[str, list[int]]:
    """Return how often each value came, for each value of a column."""
    counts = counts_by(values, column)
    return {
        group: [value_counts[value] for value in order] for group, value_counts in counts.items()
    }


def _fields(calls: Sequence[Call]) -> dict[str, list[Any]]:
    """Return the values of each field of the answers, of each call one."""
    answers = list(map(_read_answer, calls))
    objects = [each for each in answers if isinstance(each, dict)]
    names = Counter(name for each in objects for name in each)
    frequent_fields = [name for name, count in names.most_common() if count > len(objects) / 10]
    shown_fields = frequent_fields[:MOST_FIELDS]
    if not shown_fields or len(objects) < len(answers) / 2:
        return {ANSWER: [json.dumps(each) if isinstance(each, dict) else each for each in answers]}
    return {name: [_field(each, name) for each in answers] for name in shown_fields}


def _field(answer: Any, name: str) -> Any:
    """Return one field of an answer."""
    if isinstance(answer, dict):
        return answer.get(name, _Mark(NO_FIELD))
    return answer if isinstance(answer, _Mark) else _Mark(NO_FIELD)


class _Mark(str):
    """Why an answer has no value: "(cut)", "(refused)"."""


def _read_answer(call: Call) -> Any:
    """Return an answer's JSON object, its text, or why it has none."""
    marks = marks_of(call.record, is_asked_again=False)
    mark = next((each for each in MARKS if each in marks), None)
    if mark == REFUSED:
        return _Mark(f"({mark})")
    text = call.record.answer or ""
    if call.record.kind == "chat":
        option = named_option(call.record.request["messages"], text)
        if option is not None:
            return option
    try:
        objects = containers(text) if "{" in text else []
    except OutputError:
        objects = []
    if len(objects) == 1 and isinstance(objects[0], dict):
        return objects[0]
    return _Mark(f"({mark})") if mark == CUT else text.strip()


def _ordered(values: Sequence[Any]) -> tuple[list[str], list[str]] | None:
    """Return values as they are counted, and in which order they are shown; ``None`` if they are
    free texts.
    """
    missing = sorted({each for each in values if isinstance(each, _Mark)})
    texts = [_value_text(each) for each in _in_ranges(values)]
    counts = Counter(text for text in texts if text not in missing)
    if len(counts) > MOST_TEXTS and len(counts) > len(texts) / 20:
        return None
    frequent_texts = [text for text, _ in counts.most_common(MOST_VALUES)]
    if any(map(_is_number, values)):
        frequent_texts.sort(key=_first_number)
    lines = distinct_lines(frequent_texts, TEXT_CHARACTERS)
    other = [OTHER] if len(counts) > len(frequent_texts) else []
    order = [*(lines[text] for text in frequent_texts), *other, *missing]
    return [text if text in missing else lines.get(text, OTHER) for text in texts], order


def _in_ranges(values: Sequence[Any]) -> Sequence[Any]:
    """Return values, of which many different numbers are joined to ranges."""
    numbers = [float(each) for each in values if _is_number(each)]
    if len(set(numbers)) <= MOST_VALUES:
        return values
    name_of = binned(numbers, NUMBER_BINS)
    return [name_of(float(each)) if _is_number(each) else each for each in values]


def _first_number(text: str) -> tuple[bool, float, str]:
    """Return what sorts numbers and ranges, before any other text."""
    try:
        return False, float(text.split()[0]), text
    except (ValueError, IndexError):
        return True, 0.0, text


def _is_number(value: Any) -> bool:
    """Return whether a value is a number that a float can hold."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max


def _value_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split()) or "(empty)"
