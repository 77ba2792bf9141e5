"""The form of answer that a request demands, and whether an answer has it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from ..errors import OutputError
from .instructions import BOUNDS
from .lettered_options import listed_options, option_position
from .reading import json_values, read, without_reasoning

if TYPE_CHECKING:
    from ..keys.request import Data

_SENTENCE = re.compile(r"(?:\A|\n)Answer with (?P<null>null, or with )?(?P<words>.+?)\.?\Z")
_SCHEMA = " that fits this JSON schema: "
_WORDS = {
    "yes or no": bool,
    "only a whole number": int,
    "only a number": float,
    "only a JSON array": list,
    "only a JSON object": dict,
}
_TYPES = {"boolean": bool, "integer": int, "number": float}
_NUMBER = r"(-?[0-9.]+(?:e[-+]?[0-9]+)?)"
_RANGE = re.compile(rf" from {_NUMBER} to {_NUMBER}")
_BOUND = {name: re.compile(rf" {words} {_NUMBER}") for name, words in BOUNDS.items()}


def is_unread(request: Mapping[str, Data], answer: str) -> bool:
    """Return whether an answer lacks the form that a chat request demands: one of the options
    that it lists, JSON of its ``response_format``, or the type in llmcall's own closing sentence. A
    request that names no form, or names it in other words, accepts any answer.
    """
    messages = request.get("messages") or [{}]
    options = listed_options(messages)
    if options:
        return option_position(without_reasoning(answer), options) is None
    output_format = request.get("response_format")
    if isinstance(output_format, dict) and output_format.get("type") in (
        "json_schema",
        "json_object",
    ):
        schema = (output_format.get("json_schema") or {}).get("schema")
        return not _fits_schema(answer, schema or {})
    sentence = _SENTENCE.search(str(messages[-1].get("content")))
    if sentence is None or (sentence["null"] and answer.strip().strip(".").lower() == "null"):
        return False
    return not _fits_words(answer, sentence["words"])


def _fits_words(answer: str, words: str) -> bool:
    """Return whether an answer fits an instruction; instructions that llmcall does not write accept any."""
    words, _, schema = words.partition(_SCHEMA)
    if schema:
        return _fits_schema(answer, json.loads(schema))
    listed = words.removeprefix("exactly one of: ")
    output_type: object
    if listed != words:
        options = json.loads(f"[{listed}]") if listed.startswith('"') else listed.split(", ")
        output_type = Literal[tuple(options)]
    else:
        name = next((name for name in _WORDS if words.startswith(name)), None)
        if name is None:
            return True
        output_type = _WORDS[name]
    return _fits_type(answer, output_type, _bounds(words))


def _fits_type(answer: str, output_type: object, schema: Mapping[str, object]) -> bool:
    """Return whether an answer is read as a type, with a value that fits a schema."""
    try:
        return _is_valid(read(answer, output_type), schema)
    except OutputError:
        return False


def _bounds(words: str) -> dict[str, float]:
    """Return the bounds of a number in words, as in a JSON schema."""
    if match := _RANGE.search(words):
        return {"minimum": float(match[1]), "maximum": float(match[2])}
    matches = {name: pattern.search(words) for name, pattern in _BOUND.items()}
    return {name: float(match[1]) for name, match in matches.items() if match}


def _fits_schema(answer: str, schema: Mapping[str, Data]) -> bool:
    """Return whether an answer's JSON fits a schema. A value that a strict schema wraps in an
    object may also stand alone, or be in plain words.
    """
    values = [value for _, value in json_values(answer)]
    if any(_is_valid(value, schema) for value in values):
        return True
    properties = schema.get("properties", {})
    wrapped = properties.get("value")
    if len(properties) != 1 or not isinstance(wrapped, dict):
        return False
    if any(_is_valid(value, wrapped) for value in values):
        return True
    options = wrapped.get("enum", [])
    if all(isinstance(option, (str, int)) for option in options):
        output_type: object = (
            Literal[tuple(options)] if options else _TYPES.get(str(wrapped.get("type")))
        )
        return output_type is not None and _fits_type(answer, output_type, wrapped)
    return False


def _is_valid(value: object, schema: Mapping[str, object]) -> bool:
    """Return whether a value fits a schema. A schema that cannot be applied here takes anything."""
    from ..support.libraries import referencing

    validator = _validator(json.dumps(schema))
    try:
        return validator is None or validator.is_valid(value)
    except (re.error, referencing.exceptions.Unresolvable):
        return True


@lru_cache(64)
def _validator(schema_text: str) -> Any:
    """Return the validator of a schema, or ``None`` if it is not a JSON Schema."""
    from ..support.libraries import jsonschema

    schema = json.loads(schema_text)
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.exceptions.SchemaError:
        return None
    return jsonschema.Draft202012Validator(schema)
