"""Readers that turn an answer into numbers by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from ...answers.json_texts import without_reasoning
from ...answers.lettered_options import listed_options, option_position
from ...answers.reading import read
from ...apis.decisions import is_decision, probabilities
from ...apis.message import message_text
from ...apis.shapes import choices_of
from ...errors import OutputError

if TYPE_CHECKING:
    from ...stores.record import Record

ANSWER = "answer"  # the name of an only value

# Takes a record and the text of one of its answers; returns the answer's numbers by name, none if it is
# unreadable
Reader = Callable[["Record", str], dict[str, float]]


class AnswerText(NamedTuple):
    """One answer; a record with several choices holds several.

    :param text: the model's text; a tool call in words.
    :param is_refused: whether the model refused.
    """

    text: str
    is_refused: bool


def answers_of(record: Record) -> list[AnswerText]:
    """Return the answers of a chat record."""
    return [
        AnswerText(message_text(choice["message"]), bool(choice["message"].get("refusal")))
        for choice in choices_of(record.response)
    ]


def user_reader(value: Callable[[str], Any]) -> Reader:
    """Return a reader that calls a user's function."""

    def read_text(_: Record, text: str) -> dict[str, float]:
        try:
            result = value(text)
        except (ValueError, OutputError):  # raised by float(text), and by llmcall's own readers
            return {}
        numbers = result if isinstance(result, Mapping) else {ANSWER: result}
        floats = {
            str(name): float(number) for name, number in numbers.items() if number is not None
        }
        return {name: number for name, number in floats.items() if math.isfinite(number)}

    return read_text


def read_answer(record: Record, text: str) -> dict[str, float]:
    """Return the numbers in an answer.

    For a closed question of :func:`llmcall.choice`: for each option that it lists, 1 for the one that the
    answer names, and 0 for the others. A decision gives the probabilities.
    """
    if is_decision(record.response):
        chances = (probabilities(answer) for answer in record.response["answers"])
        return {str(option): share for chance in chances for option, share in chance.items()}
    options = listed_options(record.request["messages"])
    if not options:
        return _read_numbers(text)
    position = option_position(without_reasoning(text), options)
    if position is None:
        return {}
    return {option: float(index == position) for index, option in enumerate(options)}


def _read_numbers(text: str) -> dict[str, float]:
    """Return an answer's number, or those in the fields of its JSON object; yes and no are 1 and 0."""
    with suppress(OutputError):
        return {ANSWER: _number(text)}
    numbers = {}
    with suppress(OutputError):
        fields = read(text, dict)
        for name, value in fields.items():
            with suppress(OutputError):
                in_json = json.dumps({"value": value})
                number = _number(value if isinstance(value, str) else in_json)
                numbers[ANSWER if [*fields] == ["value"] else name] = number
    return numbers


def _number(text: str) -> float:
    """Return a text as a number; yes and no are 1 and 0."""
    try:
        return float(read(text, float))
    except OutputError:
        return float(read(text, bool))
