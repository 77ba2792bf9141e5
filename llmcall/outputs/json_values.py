"""The JSON objects and arrays in an answer, read also with comments, trailing commas and Python's
quotes and names.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
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
_SKIPPED = r"(?:\s|//[^\n]*\n|\#[^\n]*\n|/\*[^*]*(?:\*(?!/)[^*]*)*\*/)*"  # blanks and comments
# A bracket that begins JSON and is not one of the prose.
_JSON_START = re.compile(rf"""\{{{_SKIPPED}(?:"[^"\n]*"|'[^'\n]*'|\w+)\s*:|\[{_SKIPPED}[\[{{]""")
_ARRAY_START = re.compile(rf"""\[{_SKIPPED}(?:"|'|-?\d|(?:true|false|null|True|False|None)\b)""")
_CHECK_BOX = re.compile(r"[ \t>]*(?:(?:[-*+]|\d+[.)])[ \t]+\[[ xX]?\]|\[[ xX]\])[ \t]+(?=\S)")
_MARKS = " \t*_`\"'"  # of emphasis and quotes, and blanks
_MOST_BEFORE = 40  # characters of its line that are looked at before a bracket


def containers(text: str, brackets: str = "{[") -> list[Any]:
    """Return the outermost JSON objects and arrays in a text.

    If fenced blocks hold a wanted value, the text before them is not read; what follows them is,
    since it may correct them.

    :param text: the answer.
    :param brackets: those that the caller can use: ``"{"``, ``"["`` or both.
    :returns: the values that begin with a wanted bracket, in the order of the text.
    :raises OutputError: if JSON is broken or cut off; the message names line and column.
    """
    try:
        values: list[Any] = []
        end_of_blocks = 0
        for block in _FENCED.finditer(text):
            values += _values_in(block[2], brackets)
            end_of_blocks = block.end()
        if not values:
            values = _values_in(text, brackets)
        else:
            with suppress(OutputError):  # broken JSON there may be prose
                values += _values_in(text[end_of_blocks:], brackets)
        if "\\" in text or not text.isascii():
            written = json.dumps(values, ensure_ascii=False)
            written.encode()
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
    """Return the outermost values that begin with a wanted bracket; none if all of them are
    references.
    """
    values: list[Any] = []
    position = 0
    is_answer = False
    braces = _OpenBraces(text)
    while match := _OPENING.search(text, position):
        start = match.start()
        if match[0] == "[" and _is_check_box(text, start):
            position = match.end()
            continue
        try:
            value, position = _decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            if not _begins_json(text, start, brackets):
                position = max(error.pos, match.end())
                braces.note_prose(start)
                continue
            value, position = _lenient_value_at(text, start, error)
        if match[0] in brackets:
            braces.refuse_part(start, position)
            values.append(value)
            is_answer = is_answer or not _is_reference(text, start, position, value)
    return values if is_answer else []


class _OpenBraces:
    """The braces of a text that were taken for prose and are not closed.

    :param text: the text.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._first: int | None = None  # where the first of them stands
        self._counted_to = 0
        self._depth = 0

    def note_prose(self, start: int) -> None:
        """Note a bracket that begins no JSON. A brace behind a word, as in LaTeX, is no object's, nor
        is the first one of a template's two.
        """
        is_brace = self._text[start] == "{" and self._text[start + 1 : start + 2] != "{"
        is_behind_word = self._text[start - 1 : start].isalnum()
        if is_brace and not is_behind_word and self._first is None:
            self._first = self._counted_to = start

    def refuse_part(self, start: int, end: int) -> None:
        """Refuse a value that is a part of an object that cannot be read."""
        if self._first is None:
            return
        self._depth += self._text.count("{", self._counted_to, start)
        self._depth -= self._text.count("}", self._counted_to, start)
        self._counted_to = end
        if self._depth > 0:
            line = self._text.count("\n", 0, self._first) + 1
            raise OutputError(
                f"its JSON is broken: the object that begins at line {line} cannot be read"
            )


def _before(text: str, start: int) -> str:
    """Return what stands before a bracket on its line, without what is far from it."""
    nearby = text[max(start - _MOST_BEFORE, 0) : start]
    return nearby.rpartition("\n")[2]


def _is_check_box(text: str, start: int) -> bool:
    """Return whether a bracket begins the box of a Markdown check list ("- [ ] Buy milk")."""
    line_start = start - len(_before(text, start))
    if line_start and text[line_start - 1] != "\n":
        return False
    match = _CHECK_BOX.match(text, line_start)
    return match is not None and start < match.end()


def _is_reference(text: str, start: int, end: int, value: Any) -> bool:
    """Return whether brackets in prose are no array: an index ("xs[1]"), a link ("[1](…)"), or a
    citation ("as shown [1]").
    """
    if not isinstance(value, list):
        return False
    if text[start - 1 : start].isalnum() or text[end : end + 1] == "(":
        return True
    is_one_number = len(value) == 1 and type(value[0]) is int
    before = _before(text, start).rstrip(_MARKS)
    return is_one_number and bool(before) and before[-1] not in ":=([>-+}]"


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
    if token.lastgroup == "string":
        return re.sub(r"\\(.)", lambda match: match[1] if match[1] == "'" else match[0], token[0])
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
        if name in values and _written(values[name]) != _written(value):
            raise OutputError(f"its JSON holds two values of the key {name!r}")
        values[name] = value
    return values


def _written(value: Any) -> str:
    """Return a value's JSON, which tells ``true`` from 1, with its keys in one order."""
    return json.dumps(value, sort_keys=True)


def _finite(text: str) -> float:
    """Return a number as JSON writes it; one that is too large, or no number, is refused."""
    value = float(text)  # also "NaN" and "-Infinity"
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no number of JSON")
    return value


_decoder = json.JSONDecoder(
    strict=False, object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite
)
