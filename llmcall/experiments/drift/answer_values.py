"""Readers that turn an answer into numbers by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from ...answers.json_texts import without_reasoning
from ...answers.lettered_options import listed_options, option_position
from ...answers.reading import read
from ...apis.decisions import is_decision, probabilities
from ...apis.message import message_text
from ...apis.shapes import choices_of
from ...errors import ArgumentError, OutputError
from ...stores.record import Record
from ...support.display import import_pandas
from .sample import DriftCall, actor_name

if TYPE_CHECKING:
    import pandas


ANSWER = "answer"  # the name of an only value
WITHOUT_VALUE = ("unreadable", "refused")  # of answers without a value
VALUE = "value."  # begins the names of columns with values

# Takes a record and the text of one of its answers; returns the answer's numbers, or yes and no, by name;
# none if it is unreadable
Reader = Callable[["Record", str], dict[str, float | bool]]


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

    def read_text(_: Record, text: str) -> dict[str, float | bool]:
        try:
            result = value(text)
        except (ValueError, OutputError):  # raised by float(text), and by llmcall's own readers
            return {}
        numbers = result if isinstance(result, Mapping) else {ANSWER: result}
        is_bool = import_pandas().api.types.is_bool
        return {
            str(name): bool(number) if is_bool(number) else float(number)
            for name, number in numbers.items()
            if _is_finite(number, value)
        }

    return read_text


def _is_finite(number: Any, function: Callable[[str], Any]) -> bool:
    """Return whether what a user's function returned is a finite number; ``None`` is none.

    :raises ArgumentError: if it is anything else, such as a text.
    """
    try:
        return number is not None and math.isfinite(number)
    except TypeError:
        name = getattr(function, "__qualname__", repr(function))
        raise ArgumentError(
            f"value= (--value): {name} returned {number!r:.60}, a {type(number).__name__}. Return a number, a bool, a "
            "dict of these, or None for an answer that cannot be read"
        ) from None


def read_answer(record: Record, text: str) -> dict[str, float | bool]:
    """Return the numbers in an answer.

    For a closed question of :func:`llmcall.choice`: for each option that it lists, whether the answer
    names it. A decision gives the probabilities.
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
    return {option: index == position for index, option in enumerate(options)}


def _read_numbers(text: str) -> dict[str, float | bool]:
    """Return an answer's number, yes or no, or those in the fields of its JSON object."""
    with suppress(OutputError):
        return {ANSWER: _number(text)}
    numbers: dict[str, float | bool] = {}
    with suppress(OutputError):
        fields = read(text, dict)
        for name, value in fields.items():
            with suppress(OutputError):
                in_json = json.dumps({"value": value})
                number = _number(value if isinstance(value, str) else in_json)
                numbers[ANSWER if [*fields] == ["value"] else name] = number
    return numbers


def _number(text: str) -> float | bool:
    """Return a text as a number, or as yes or no."""
    try:
        return float(read(text, float))
    except OutputError:
        return bool(read(text, bool))


def answers_frame(
    recorded: Mapping[str, Iterable[Record]],
    reader: Reader,
    new: Iterable[tuple[DriftCall, Record]] = (),
) -> pandas.DataFrame:
    """Return a frame with a row for each answer to a check's requests, first the recorded ones.

    :param recorded: the recorded draws of each request, by its digest.
    :param new: calls, each with the record of its answer.
    """
    rows: list[dict[str, object]] = []

    def add(record: Record, actor: str, digest: str, *, is_new: bool) -> None:
        for answer in answers_of(record):
            values = {} if answer.is_refused else reader(record, answer.text)
            states = (not values and not answer.is_refused, answer.is_refused)
            rows.append(
                {
                    "is_new": is_new,
                    "actor": actor,
                    "sample": record.sample,
                    "request": digest,
                    "asked": record.request["model"],
                    "served": record.served,
                    "prompt": record.prompt,
                    "text": answer.text,
                    **dict(zip(WITHOUT_VALUE, states, strict=True)),
                    "cost": record.cost,
                    **{VALUE + name: value for name, value in sorted(values.items())},
                }
            )

    for digest, draws in recorded.items():
        for record in draws:
            add(record, actor_name(record), digest, is_new=False)
    for call, record in new:
        add(record, call.actor, call.digest, is_new=True)
    return import_pandas().DataFrame(rows)


def value_columns(answers: pandas.DataFrame) -> list[str]:
    """Return the columns of values in a frame of answers."""
    return [name for name in answers if name.startswith(VALUE)]
