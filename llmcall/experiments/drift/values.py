"""Readers of answers: numbers by name, and whether an answer was refused."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from ...answers.reading import read
from ...apis.message import message_text
from ...apis.shapes import choices_of
from ...errors import ArgumentError, OutputError
from ...support.display.formatting import one_line

if TYPE_CHECKING:
    from ...stores.record import Record

ANSWER = "answer"  # the name of a value that is the only one
WRAPPED = "value"  # the name under which structured output wraps what is no object
FEWEST_READ = 0.5  # the share of a field's values that must be readable
QUOTED = 3  # answers in an error
QUOTED_CHARACTERS = 60

Reader = Callable[[str], dict[str, float]]  # returns a text's numbers by name; none if unreadable


class Answer(NamedTuple):
    """One answer; a record with several choices holds several.

    :param text: what the model said; a tool call in words.
    :param is_refused: whether the model refused.
    """

    text: str
    is_refused: bool


def answers_of(record: Record) -> list[Answer]:
    """Return the answers of a chat record."""
    return [
        Answer(
            message_text(choice["message"]),
            bool(choice["message"].get("refusal")),
        )
        for choice in choices_of(record.response)
    ]


def user_reader(value: Callable[[str], Any]) -> Reader:
    """Return a reader that calls a user's function."""

    def read_text(text: str) -> dict[str, float]:
        try:
            result = value(text)
        except (ValueError, OutputError):  # as float(text) and llmcall's own readers raise it
            return {}
        numbers = result if isinstance(result, Mapping) else {ANSWER: result}
        return _finite(
            {str(name): float(each) for name, each in numbers.items() if each is not None}
        )

    return read_text


def reader_for(texts: Iterable[str]) -> Reader:
    """Return a reader of numbers, of yes and no, and of such fields of a JSON object.

    :param texts: the recorded answers, which decide the fields.
    :raises ValueError: if none of them can be read.
    """
    given: Counter[str] = Counter()
    readable: Counter[str] = Counter()
    quotable = set()
    for text in texts:
        quotable.add(text)
        fields = _fields(text)
        given.update(fields.keys())
        readable.update(name for name, value in fields.items() if _number(value) is not None)
    # Speeches and votes may stand in one run; what is no vote counts as unreadable.
    names = {
        name for name in readable if name == ANSWER or readable[name] >= FEWEST_READ * given[name]
    }
    if not names:
        quoted = "; ".join(
            repr(one_line(text, QUOTED_CHARACTERS)) for text in sorted(quotable)[:QUOTED]
        )
        raise ArgumentError(
            "give value= (--value), a function that reads an answer's text as a number, or as None: the recorded "
            f"answers are neither numbers, nor yes or no, nor JSON objects with such fields ({quoted})"
        )

    def read_text(text: str) -> dict[str, float]:
        numbers = {name: _number(value) for name, value in _fields(text).items() if name in names}
        return _finite({name: number for name, number in numbers.items() if number is not None})

    return read_text


def _fields(text: str) -> Mapping[str, Any]:
    """Return the fields of the JSON object that a text is; without one, the text as a field."""
    with suppress(OutputError):
        fields = read(text, dict)
        if fields.keys() != {WRAPPED}:
            return {name: value for name, value in fields.items() if value is not None}
    return {ANSWER: text}


def _number(value: Any) -> float | None:
    """Return a number, or yes and no as 1 and 0; ``None`` for anything else."""
    with suppress(OverflowError):
        if isinstance(value, (bool, int, float)):
            return float(value)
        if isinstance(value, str):
            for kind in (float, bool):
                with suppress(OutputError):
                    return float(read(value, kind))
    return None


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}
