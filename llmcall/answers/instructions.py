"""Texts for the model: the expected form of the answer, and the request for another answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import get_args, get_origin
from unicodedata import normalize

from ..keys import schemas
from ..keys.request import Data
from ..keys.schemas import is_choice, labels

_ONE_OF_THEM = "exactly one of the options above"
_EXPECTED = {
    bool: "yes or no",
    int: "only a whole number",
    float: "only a number",
    str: "a text",
    list: "only a JSON array",
    dict: "only a JSON object",
}
_NUMBERS = {"integer": "only a whole number", "number": "only a number"}
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}
_ELEMENTS = {str: "strings", bool: "true or false", int: "whole numbers", float: "numbers"}
_UNQUOTED = re.compile(r"[^\s,\"'](?:[^,\"'\n]*[^\s,\"'])?")


def describe(output_type: object, prompt: str = "") -> str:
    """Return the sentence that requests an answer of a type; for ``str`` it is empty.

    :param prompt: the text before the sentence. If it names all options of a ``Literal`` or ``Enum``, or
        yes and no, they are not listed again, because models prefer the last list. A JSON schema must
        list them, and does so in the order of the prompt.
    """
    if output_type is str:
        return ""
    expected = _expected_words(output_type, prompt)
    return f"Answer with {expected}" if expected.endswith("}") else f"Answer with {expected}."


def correction(expected: str) -> str:
    """Return the correction, a user message. It never quotes the error, whose wording would change the
    request with a library's version.

    :param expected: the sentence of :func:`describe`.
    """
    return f"I cannot use that answer: it is not in the form that I asked for.\n{expected}".rstrip()


def _expected_words(output_type: object, prompt: str) -> str:
    """Return the expected answer in words, to follow "Answer with"."""
    if output_type is bool and _options_in(prompt, ["yes", "no"]):
        return _ONE_OF_THEM
    if isinstance(output_type, type) and output_type in _EXPECTED:
        return _EXPECTED[output_type]
    if is_choice(output_type):
        options = list(labels(output_type))
        if _options_in(prompt, options):
            return _ONE_OF_THEM
        if not all(_UNQUOTED.fullmatch(option) for option in options):
            options = [json.dumps(option, ensure_ascii=False) for option in options]
        return f"exactly one of: {', '.join(options)}"
    inner = schemas.optional_type(output_type)
    if inner is not None:
        return f"null, or with {_expected_words(inner, prompt)}"
    if get_origin(output_type) is list:
        element = get_args(output_type)[0]
        if element in _ELEMENTS:
            return f"only a JSON array of {_ELEMENTS[element]}"
        if is_choice(element) and _options_in(prompt, list(labels(element))):
            return "only a JSON array; each element is one of the options above"
    words: str = _in_own_order(output_type)
    if '"enum"' not in words:  # like most schemas: the prompt gives no order
        return words
    return _schema_words(output_type, _as_in_prompt(schemas.full_schema(output_type), prompt))


@schemas.once_per_type
def _in_own_order(output_type: object) -> str:
    return _schema_words(output_type, schemas.full_schema(output_type))


def _schema_words(output_type: object, schema: Mapping[str, Data]) -> str:
    """Return what fits a type's JSON schema, in words."""
    bounds = [name for name in BOUNDS if name in schema]
    if bounds and schema.keys() == {"type", *bounds} and schema["type"] in _NUMBERS:
        return _bounded(schema)
    is_text = schema.get("type") == "string" and "enum" not in schema and "format" not in schema
    kind = "text" if is_text else f"JSON {schemas.json_kind(output_type)}"
    return f"only a {kind} that fits this JSON schema: {json.dumps(schema, ensure_ascii=False)}"


def _bounded(schema: Mapping[str, Data]) -> str:
    """Return the number that a JSON schema takes, in words."""
    number = _NUMBERS[schema["type"]]
    if schema.keys() == {"type", "minimum", "maximum"}:
        return f"{number} from {schema['minimum']} to {schema['maximum']}"
    bounds = [f"{words} {schema[name]}" for name, words in BOUNDS.items() if name in schema]
    return f"{number} that is {' and '.join(bounds)}"


def _as_in_prompt(schema: object, prompt: str) -> Data:
    """Return a JSON schema with its options in the order of the prompt, if the prompt names them all."""
    if isinstance(schema, list):
        return [_as_in_prompt(element, prompt) for element in schema]
    if not isinstance(schema, dict):
        return schema
    ordered = {name: _as_in_prompt(item, prompt) for name, item in schema.items()}
    options = ordered.get("enum")
    if isinstance(options, list):
        by_text = {
            option if isinstance(option, str) else json.dumps(option): option for option in options
        }
        in_prompt = _options_in(prompt, list(by_text))
        if len(in_prompt) == len(options):  # the number 1 and the text "1" look the same
            ordered["enum"] = [by_text[text] for text in in_prompt]
    return ordered


def _options_in(text: str, options: list[str]) -> list[str]:
    """Return the options in the order in which a text first names them, or an empty list if one is missing.

    The search is for whole words and ignores case, except for single letters.
    """
    if text.isascii():  # most prompts name no options, and the pattern takes long to say so
        lowered, words = text.lower(), " ".join(options).lower().split()
        if not all(word in lowered for word in words if word.isascii()):
            return []
    text = normalize("NFC", text)
    longest_first = sorted(options, key=len, reverse=True)  # "very good" is not "good"
    phrases = "|".join(map(_phrase, longest_first))
    positions: dict[str, int] = {}
    for match in re.finditer(rf"(?<!\w)(?<!\w-)(?:{phrases})(?!\w|-\w)", text, re.IGNORECASE):
        for option in options:
            if re.fullmatch(_phrase(option), match[0], re.IGNORECASE):
                positions.setdefault(option, match.start())
    if len(positions) < len(options):
        return []
    return sorted(options, key=positions.__getitem__)


def _phrase(option: str) -> str:
    """Return the pattern of an option."""
    option = normalize("NFC", option)
    if len(option) == 1:
        return f"(?-i:{re.escape(option)})"
    return r"\s+".join(map(re.escape, option.split()))
