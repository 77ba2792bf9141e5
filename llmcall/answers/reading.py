"""The reading of an answer as the expected type: from JSON, or from plain words."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Annotated, Any, get_args, get_origin

from ..errors import OutputError
from ..keys import schemas
from ..support.data import Data
from ..support.display import shortened
from .instructions import describe
from .json_texts import json_values, without_reasoning

_VERDICTS = {"yes": True, "true": True, "no": False, "false": False}
# A number as Python writes it, or with commas if it has two groups of three, or a point.
_NUMBER = re.compile(
    r"[-+]?(?:0|[1-9][0-9]*|[1-9][0-9]{0,2}(?:,[0-9]{3}){2,}|[1-9][0-9]{0,2},[0-9]{3}(?=\.)|(?=\.))"
    r"(?P<fraction>\.[0-9]+)?(?P<exponent>[eE][-+]?[0-9]+)?"
)
_THOUSANDS = re.compile(r"[-+]?[1-9][0-9]{0,2}\.[0-9]{3}")  # 45.000 is 45,000 in many languages
_ANSWER = re.compile(r"(?:\*\*answer:\*\*|answer:)\s*(?=\S)", re.IGNORECASE)
_BOLD_AND_QUOTES = ("****", "____", '""', "''", "``", "“”", "‘’", "„“", "«»", "「」")
_STOPS = (".", "!", "。")
_LARGEST = 2**1023  # a whole number below it fits a float
_MOST_LAYERS = 8  # more than models write
_LONGEST_PROBLEM = 300  # characters of pydantic's message


def read(text: str, output_type: object) -> Any:
    """Read an answer as a type.

    :param text: the answer as the model gave it.
    :param output_type: ``str`` (the text without reasoning in tags), ``bool``, ``int``, ``float``, a ``Literal``,
        an ``Enum``, ``list`` or ``list[…]``, ``dict``, ``Optional`` of these, ``Annotated`` with
        pydantic's constraints, a pydantic model, a dataclass, a ``TypedDict``, or any other type
        that pydantic reads from JSON.
    :raises OutputError: if the answer is not plainly a value of the type.
    :raises TypeError: if pydantic cannot read the type.
    """
    try:
        return _text_in(text) if output_type is str else _read_answer(text, output_type)
    except OutputError as error:
        error.text, error.expected = text, describe(output_type)
        raise
    except RecursionError:
        problem = "its JSON is nested too deeply"
        raise OutputError(problem, text=text, expected=describe(output_type)) from None


def _read_answer(text: str, output_type: object) -> object:
    problems = []
    for part, value in json_values(text):
        try:
            return _from_json(part, value, output_type)
        except OutputError as error:
            problems.append(error)
    answer = _text_in(text).strip()
    if schemas.optional_type(output_type) is str:
        return answer
    plain_type = _unannotated(output_type)
    if plain_type is str:
        return _as_type(answer, output_type)
    plain_type = _unannotated(schemas.optional_type(plain_type) or plain_type)
    if plain_type in (bool, int, float) or schemas.is_choice(plain_type):
        value = _from_words(answer, plain_type)
        if value is None and answer:
            values = [_from_words(line, plain_type) for line in answer.splitlines()]
            if all(line_value in (None, values[-1]) for line_value in values):  # else two answers
                value = values[-1]
        if value is not None:
            return _as_type(value, output_type)
    elif not problems:
        raise OutputError(
            f"the answer does not contain exactly one JSON {schemas.json_kind(output_type)}"
        )
    raise (
        problems[0] if problems else OutputError("the answer is not in the form that was asked for")
    )


def _text_in(text: str) -> str:
    """Return an answer without its reasoning, if any."""
    answer = without_reasoning(text)
    if answer == text:
        return text
    if not answer.strip():
        raise OutputError("the answer contains only reasoning")
    return answer.strip()


@schemas.once_per_type
def _unannotated(output_type: Any) -> object:
    return get_args(output_type)[0] if get_origin(output_type) is Annotated else output_type


def _plain_words(text: str) -> Iterator[str]:
    """Yield a text, then shorter forms without "Answer:", quotes, bold and a closing stop. They go one at a
    time, so "C#" and "A*" keep their marks.
    """
    text = text.strip()
    for _ in range(_MOST_LAYERS):
        yield text
        inside = _ANSWER.sub("", text, count=1) if _ANSWER.match(text) else _inside(text)
        if inside in ("", text):
            return
        text = inside


def _inside(text: str) -> str:
    for pair in _BOLD_AND_QUOTES:
        half = len(pair) // 2
        if len(text) > len(pair) and text.startswith(pair[:half]) and text.endswith(pair[half:]):
            return text[half:-half].strip()
    return text[:-1].rstrip() if text.endswith(_STOPS) else text


def _from_words(text: str, plain_type: object) -> object:
    """Return the value of the type that a text names in plain words, or ``None``."""
    for words in _plain_words(text):
        value = _match_words(words, plain_type)
        if value is not None:
            return value
    return None


def _match_words(words: str, plain_type: object) -> object:
    if plain_type is bool:
        return _VERDICTS.get(words.lower())
    if plain_type in (int, float):
        value = _parse_number(words)
        return float(value) if plain_type is float and value is not None else value
    options = schemas.labels(plain_type)
    if words in options:
        return options[words]
    named = [option for label, option in options.items() if _folded(label) == _folded(words)]
    return named[0] if len(named) == 1 else None


def _parse_number(text: str) -> int | float | None:
    """Return the number in a text. Return ``None`` without one, or if it reads as thousands in one language
    and a fraction in another.
    """
    match = _NUMBER.fullmatch(text)
    if match is None or _THOUSANDS.fullmatch(text):
        return None
    digits = text.replace(",", "")
    value = float(digits)
    if not math.isfinite(value):
        return None
    return int(digits) if match["fraction"] is None and match["exponent"] is None else value


def _folded(text: str) -> str:
    """Return a text composed, in one case, with single blanks and straight apostrophes."""
    return " ".join(schemas.composed(text).split()).replace("’", "'").casefold()


def _from_json(text: str, value: Data, output_type: object) -> object:
    """Return the value of JSON as a type. A value that is not an object may be wrapped as ``{"value": …}``."""
    if type(value) in (int, float):
        value = _parse_number(text)
        if value is None:
            raise OutputError("the answer's number is ambiguous or too large")
    is_wrapped = isinstance(value, dict) and value.keys() == {"value"}
    is_wrapped = is_wrapped and schemas.json_kind(output_type) != "object"
    # Of these types, none has an object as its value.
    if not is_wrapped or schemas.simple_schema(output_type) is None:
        try:
            return _as_type(value, output_type, text)
        except OutputError:
            if not is_wrapped:
                raise
    return _as_type(value["value"], output_type)


def _as_type(value: object, output_type: object, text: str | None = None) -> object:
    """Return a JSON value as a type, without conversions.

    :param text: the JSON itself, if there is one.
    """
    if schemas.simple_schema(output_type) is not None:
        return _as_simple_type(value, output_type)
    value = value.value if isinstance(value, Enum) else value  # as pydantic reads it
    spelled = _as_spelled(value, schemas.spellings(output_type))
    if text is None or spelled != value:
        text = json.dumps(spelled)
    try:
        converted = schemas.adapter(output_type).validate_json(text, strict=True)
    except ValueError as error:
        from ..support.libraries import pydantic  # takes long, even where it is imported

        if not isinstance(error, pydantic.ValidationError):
            raise
        problems = (
            ": ".join(filter(None, (".".join(map(str, problem["loc"])), problem["msg"])))
            for problem in error.errors(include_url=False)
        )
        raise OutputError(shortened("; ".join(problems), _LONGEST_PROBLEM)) from error
    if not schemas.fits_closed(spelled, output_type):
        if isinstance(value, dict) and schemas.json_kind(output_type) == "array":
            # pydantic reads it as a NamedTuple
            raise OutputError("the answer is a JSON object, not an array")
        raise OutputError("the answer has keys that are not in the schema")
    return converted


def _as_spelled(value: object, spellings: Mapping[str, str]) -> Any:
    """Return a JSON value with its options spelled as in the type."""
    if not spellings:
        return value
    if isinstance(value, str):
        return spellings.get(schemas.composed(value), value)
    if isinstance(value, list):
        return [_as_spelled(element, spellings) for element in value]
    if isinstance(value, dict):
        return {name: _as_spelled(element, spellings) for name, element in value.items()}
    return value


def _as_simple_type(value: object, output_type: Any) -> Any:
    """Return a JSON value as a type that needs no pydantic."""
    if type(value) is output_type:
        return value
    if schemas.is_choice(output_type):
        value = _as_spelled(value, schemas.spellings(output_type))
        for option in schemas.labels(output_type).values():
            written = schemas.json_of(option)
            if type(value) in (type(written), type(option)) and value in (written, option):
                return option
        raise OutputError("the answer is not one of the options")
    inner = schemas.optional_type(output_type)
    if inner is not None:
        return None if value is None else _as_simple_type(value, inner)
    if get_origin(output_type) is list:
        [element_type] = get_args(output_type)
        return [_as_simple_type(element, element_type) for element in _as_simple_type(value, list)]
    if output_type is float and type(value) is int and abs(value) < _LARGEST:
        return float(value)
    raise OutputError(f"the answer's JSON is not of the type {output_type.__name__}")
