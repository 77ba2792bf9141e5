"""The JSON objects and arrays in an answer, read also with comments, trailing commas and Python's
quotes and names.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from ..errors import OutputError

_FENCED = re.compile(
    r"^[ \t>]*(`{3,}|~{3,}(?!~))[^`\n]*\n(.*?)(?:^[ \t>]*\1[`~]*\s*?$|\Z)", re.MULTILINE | re.DOTALL
)
_OPENING = re.compile(r"[\[{]")
_TOKEN = re.compile(
    # each alternative matches where it begins, closed or not: no part of a text is looked through
    # twice
    r"""(?P<string>"(?:[^"\\]|\\.)*"?) | '(?P<quoted>(?:[^'\\\n]|\\.)*)(?P<closed>'?) | (?P<bracket>[\[{\]}])
      | (?P<skip>[\s\ufeff\u200b]+|//[^\n]*|\#[^\n]*|/\*.*?(?:\*/|\Z)) | (?P<comma>,)
      | (?P<other>:|[^\s"'\[\]{},:/\#]+|.)""",
    re.VERBOSE | re.DOTALL,
)
_NAMES = {"True": "true", "False": "false", "None": "null"}
# A bracket that begins JSON and is not one of the prose.
_JSON_START = re.compile(r"""\{\s*(?:"[^"\n]*"|'[^'\n]*'|\w+)\s*:|\[\s*[\[{]""")
_ARRAY_START = re.compile(r"""\[\s*(?:"|'|-?\d|(?:true|false|null|True|False|None)\b)""")


def containers(text: str, brackets: str = "{[") -> list[Any]:
    """Return the outermost JSON objects and arrays in a text.

    If fenced blocks hold a wanted value, only they are read.

    :param text: the answer.
    :param brackets: those that the caller can use: ``"{"``, ``"["`` or both.
    :returns: the values that begin with a wanted bracket, in the order of the text.
    :raises OutputError: if JSON is broken or cut off; the message names line and column.
    """
    try:
        fenced_values = [
            value for block in _FENCED.finditer(text) for value in _values_in(block[2], brackets)
        ]
        values = fenced_values or _values_in(text, brackets)
        if "\\" in text or not text.isascii():
            json.dumps(values, ensure_ascii=False).encode()
    except ValueError:
        raise OutputError(
            "its JSON holds NaN, a number too large to read, or half of a surrogate pair"
        ) from None
    return values


def scalar(text: str) -> Any:
    """Return the value of a text that is JSON as a whole, or one of Python's names.

    :raises ValueError: for any other text.
    """
    return _decoder.decode(_NAMES.get(text, text))


def _values_in(text: str, brackets: str) -> list[Any]:
    """Return the outermost values that begin with a wanted bracket."""
    values, position = [], 0
    while match := _OPENING.search(text, position):
        start = match.start()
        try:
            value, position = _decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            if not _begins_json(text, start, brackets):
                position = max(error.pos, match.end())
                continue
            value, position = _lenient_value_at(text, start, error)
        if match[0] in brackets:
            values.append(value)
    return values


def _begins_json(text: str, start: int, brackets: str) -> bool:
    """Return whether a bracket in a text seems to begin JSON."""
    if _JSON_START.match(text, start):
        return True
    return "[" in brackets and _ARRAY_START.match(text, start) is not None


def _lenient_value_at(text: str, start: int, problem: json.JSONDecodeError) -> tuple[Any, int]:
    """Return a value and where it ends, read without comments and trailing commas, and with Python's
    quotes and names.

    :param problem: why it is not JSON.
    :raises OutputError: if it cannot be read this way either; the message names line and column.
    """
    pieces: list[str] = []
    depth = 0
    for token in _TOKEN.finditer(text, start):
        if token.lastgroup == "skip":
            continue
        if token.lastgroup == "bracket":
            depth += 1 if token[0] in "{[" else -1
            if token[0] in "}]" and _has_trailing_comma(pieces):
                pieces.pop()
        pieces.append(_as_json(token))
        if depth == 0:
            break
    try:
        return _decoder.decode(" ".join(pieces)), token.end()
    except json.JSONDecodeError:
        if not text[problem.pos :].strip() or "Unterminated" in problem.msg:
            raise OutputError("its JSON is cut off before its end") from None
        # the rest of the message differs between versions of Python
        position = f"line {problem.lineno}, column {problem.colno}"
        raise OutputError(f"its JSON is broken at {position}") from None


def _has_trailing_comma(pieces: list[str]) -> bool:
    """Return whether the last of some tokens is a comma behind an element."""
    return pieces[-1] == "," and pieces[-2] not in ("[", "{", ",")


def _as_json(token: re.Match[str]) -> str:
    """Return a token as JSON writes it."""
    if token.lastgroup == "closed" and token["closed"]:
        return _requoted(token["quoted"])
    return _NAMES.get(token[0], token[0])


def _requoted(content: str) -> str:
    """Return a string in double quotes.

    :param content: what stands between its single quotes.
    """
    return '"' + re.sub(r"\\'|\"", lambda match: r"\"" if match[0] == '"' else "'", content) + '"'


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of some pairs; two different values of one key are refused."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values and values[name] != value:
            raise OutputError(f"its JSON holds two values of the key {name!r}")
        values[name] = value
    return values


def _finite(text: str) -> float:
    """Return a number as JSON writes it; one that is too large, or no number, is refused."""
    value = float(text)  # also "NaN" and "-Infinity"
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no number of JSON")
    return value


_decoder = json.JSONDecoder(
    strict=False, object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite
)
