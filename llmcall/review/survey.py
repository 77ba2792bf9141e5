"""A survey: many actors, one or two calls each. Its answers as distributions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..display.formatting import one_line
from ..errors import OutputError
from ..outputs import containers
from .columns import Column, binned, columns, counts_by
from .conversations import Call
from .marks import CUT, MARKS, REFUSED
from .rounds import natural_order

ACTORS = 12  # fewer make no survey
CALLS = 2  # of one actor
SHARE = 0.9  # of actors that have no more
MOST_VALUES = 12  # that are shown apart; numbers are joined to ranges, the others are "other"
TOO_MANY = 40  # different texts: free answers have no distribution
NUMBER_BINS = 8
FIELDS = 8
TEXT = 60  # characters of an answer
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


def is_survey(calls: Mapping[str, Sequence[Call]], again: set[int]) -> bool:
    """Return whether a run is a survey.

    :param calls: by actor.
    :param again: the records that were asked again, by their ``id``.
    """
    counts = [sum(id(call.record) not in again for call in its) for its in calls.values()]
    few = sum(1 <= count <= CALLS for count in counts)
    return len(counts) >= ACTORS and few >= SHARE * len(counts)


def distributions(
    calls: Sequence[Call],
    marks: Mapping[int, Sequence[str]],
    numbers: Sequence[int],
    sides: Sequence[str] = (),
) -> list[Distribution]:
    """Return the distribution of each field of the answers, or of the answers themselves, by what
    tells the calls apart.

    :param calls: those of a survey, without those that were asked again.
    :param marks: of each record, by its ``id``.
    :param numbers: which call of its actor each is, from 0: each question has its own answers.
    :param sides: which run each call is of, if there are two.
    """
    found = []
    for number in sorted(set(numbers)):
        chosen = [index for index, each in enumerate(numbers) if each == number]
        its = [calls[index] for index in chosen]
        by = columns(its)
        if sides:
            by = [Column(RUN, [sides[index] for index in chosen]), *by]
        question = f"call {number + 1}: " if len(set(numbers)) > 1 else ""
        for field, values in _fields(its, marks).items():
            ordered = _ordered(values)
            if ordered is not None:
                found.append(_distribution(question + field, *ordered, by))
    return found


def _distribution(
    field: str, values: Sequence[str], order: list[str], by: Iterable[Column]
) -> Distribution:
    groups = {"all answers": {"all": _counted(values, order, None)[""]}}
    for column in by:
        counts = _counted(values, order, column)
        names = counts if column.name == RUN else sorted(counts, key=natural_order)
        groups[column.name] = {name: counts[name] for name in names}
    return Distribution(field, order, groups)


def _counted(
    values: Sequence[str], order: Sequence[str], column: Column | None
) -> dict[str, list[int]]:
    """Return how often each value came, for each value of a column."""
    counts = counts_by(values, column)
    return {group: [found[value] for value in order] for group, found in counts.items()}


def _fields(calls: Sequence[Call], marks: Mapping[int, Sequence[str]]) -> dict[str, list[Any]]:
    """Return the values of each field of the answers, of each call one."""
    read = [_read(call, marks.get(id(call.record), ())) for call in calls]
    objects = [each for each in read if isinstance(each, dict)]
    names = Counter(name for each in objects for name in each)
    shown = [name for name, count in names.most_common() if count > len(objects) / 10][:FIELDS]
    if not shown or len(objects) < len(read) / 2:
        return {ANSWER: [json.dumps(each) if isinstance(each, dict) else each for each in read]}
    return {name: [_field(each, name) for each in read] for name in shown}


def _field(answer: Any, name: str) -> Any:
    """Return one field of what was read."""
    if isinstance(answer, dict):
        return answer.get(name, _Mark(NO_FIELD))
    return answer if isinstance(answer, _Mark) else _Mark(NO_FIELD)


class _Mark(str):
    """Why an answer has no value: "(cut)", "(refused)"."""


def _read(call: Call, marks: Sequence[str]) -> Any:
    """Return an answer's JSON object, its text, or why it has none."""
    mark = next((each for each in MARKS if each in marks), None)
    if mark == REFUSED:
        return _Mark(f"({mark})")
    text = call.record.answer or ""
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
    told = [_told(each) for each in _in_ranges(values)]
    counts = Counter(text for text in told if text not in missing)
    if len(counts) > TOO_MANY and len(counts) > len(told) / 20:
        return None
    shown = [text for text, _ in counts.most_common(MOST_VALUES)]
    if any(map(_is_number, values)):
        shown.sort(key=_first_number)
    others = counts.keys() - set(shown)
    order = [*shown, *([OTHER] if others else []), *missing]
    return [OTHER if text in others else text for text in told], order


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
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _told(value: Any) -> str:
    if isinstance(value, str):
        return one_line(value, TEXT) or "(empty)"
    return one_line(json.dumps(value, ensure_ascii=False), TEXT)
