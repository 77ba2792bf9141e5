"""JSON as models write it: in fences, between words, with comments, trailing commas and Python's names.

What is read has one meaning only; anything else that can only be meant as JSON is refused, also where it is cut off:
asking again is cheaper than a wrong reading.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ..errors import OutputError
from ..requests.plain_data import DEPTH, is_deep, leaves

__all__ = ["containers", "fenced_blocks", "scalar"]

_FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,}(?!~))([^`]*)$")
_SURROGATE = re.compile("[\ud800-\udfff]")
_OPENING = re.compile(r"[\[{]")
_TOKEN = re.compile(
    # each alternative matches where it begins, closed or not: no part of a text is looked through twice
    r"""(?P<string>"(?:[^"\\]|\\.)*"?) | '(?P<quoted>(?:[^'\\\n]|\\.)*)(?P<closed>'?) | (?P<bracket>[\[{\]}])
      | (?P<skip>[\s\ufeff\u200b]+|//[^\n]*|\#[^\n]*|/\*.*?(?:\*/|\Z)) | (?P<comma>,)
      | (?P<other>:|[^\s"'\[\]{},:/\#]+|.)""",
    re.VERBOSE | re.DOTALL,
)
_NAMES = {"True": "true", "False": "false", "None": "null"}
_POSSIBLE = re.compile(r"""\{\s*["}]|\[\s*["\[{\]\-\dtfn]""")  # the beginning of strict JSON
_MEANT = re.compile(r"""\{\s*(?:"[^"\n]*"|'[^'\n]*'|\w+)\s*:|\[\s*[\[{]""")  # and no bracket of the prose
_MEANT_ARRAY = re.compile(r"""\[\s*(?:"|'|-?\d|(?:true|false|null|True|False|None)\b)""")


def containers(text: str, wanted: str = "{[") -> list[Any]:
    """Find the outermost JSON objects and arrays in a text.

    Fenced blocks go before the words around them: where they hold a wanted value, only they are read.

    :param text: the answer.
    :param wanted: the brackets that the caller can use: ``"{"``, ``"["`` or both.
    :returns: the values that begin with a wanted bracket, in the order of the text.
    :raises OutputError: for JSON that is broken or cut off, with the line and column.
    """
    inside = [value for block in fenced_blocks(text) for value in _values_in(block, wanted)]
    return inside or _values_in(text, wanted)


def scalar(text: str) -> Any:
    """Read a text that is one JSON scalar; any other text is a string as it stands."""
    text = text.strip()
    try:
        value = _decoder.decode(_NAMES.get(text, text))
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, (dict, list)) else value


def fenced_blocks(text: str) -> list[str]:
    """Return the contents of the Markdown code fences in a text; one that is never closed goes to the end."""
    blocks: list[list[str]] = []
    fence = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line.rstrip("\r"))
        if fence and mark and mark[1].startswith(fence) and not mark[2].strip():
            fence = ""
        elif fence:
            blocks[-1].append(line)
        elif mark:
            fence = mark[1]
            blocks.append([])
    return ["\n".join(lines) for lines in blocks]


def _values_in(text: str, wanted: str) -> list[Any]:
    values, position = [], 0
    while match := _OPENING.search(text, position):
        start = match.start()
        is_meant = _MEANT.match(text, start) or ("[" in wanted and _MEANT_ARRAY.match(text, start))
        if not is_meant and not _POSSIBLE.match(text, start):
            position = match.end()
            continue
        try:
            value, position = _value_at(text, start, lenient=bool(is_meant))
        except json.JSONDecodeError as error:
            if is_meant:
                raise OutputError(_described(text, error)) from None
            position = max(error.pos, match.end())
            continue
        if match[0] in wanted:
            values.append(value)
    return values


def _value_at(text: str, start: int, *, lenient: bool) -> tuple[Any, int]:
    """Return the value that begins at a place, and where it ends.

    :raises json.JSONDecodeError: with the place in the text.
    :raises OutputError: for what no reading can mend.
    """
    try:
        try:
            value, end = _decoder.raw_decode(text, start)
        except json.JSONDecodeError:
            if not lenient:
                raise
            value, end = _lenient_value_at(text, start)
    except RecursionError:
        raise OutputError(f"its JSON has more than {DEPTH} levels") from None
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError):
            raise
        raise OutputError(f"its JSON holds {error}") from None
    if is_deep(value):
        raise OutputError(f"its JSON has more than {DEPTH} levels")
    if any(_SURROGATE.search(leaf) for _, leaf in leaves(value) if isinstance(leaf, str)):
        raise OutputError("its JSON holds half of a surrogate pair")
    return value, end


def _lenient_value_at(text: str, start: int) -> tuple[Any, int]:
    """Read a value without its comments and trailing commas, and with Python's quotes and names."""
    pieces: list[str] = []
    places: list[int] = []  # in the text, of each piece
    depth = 0
    for token in _TOKEN.finditer(text, start):
        kind, piece = token.lastgroup, token[0]
        if kind == "skip":
            continue
        if kind == "closed":
            piece = _requoted(token["quoted"]) if token["closed"] else piece
        elif kind == "bracket":
            depth += 1 if piece in "{[" else -1
            if piece in "}]" and pieces[-1] == "," and pieces[-2] not in ("[", "{", ","):
                pieces[-1] = " "
        pieces.append(_NAMES.get(piece, piece) if kind == "other" else piece)
        places.append(token.start())
        if depth == 0:
            break
    try:
        return _decoder.decode("".join(pieces)), token.end()
    except json.JSONDecodeError as error:
        at = 0
        for piece, place in zip(pieces, places, strict=True):
            if at <= error.pos < at + len(piece):
                raise json.JSONDecodeError(error.msg, text, place + error.pos - at) from None
            at += len(piece)
        raise json.JSONDecodeError(error.msg, text, len(text)) from None


def _requoted(inside: str) -> str:
    return '"' + re.sub(r"\\'|\"", lambda found: "'" if found[0] != '"' else r"\"", inside) + '"'


def _described(text: str, error: json.JSONDecodeError) -> str:
    if not text[error.pos :].strip() or "Unterminated" in error.msg:
        return "its JSON is cut off before its end"
    return f"its JSON is broken at line {error.lineno}, column {error.colno}"  # the rest differs between Pythons


def _checked_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if found.setdefault(name, value) != value:
            raise ValueError(f"two values of the key {name!r}")
    return found


def _real(text: str) -> float:
    if abs(float(text)) == float("inf"):
        raise ValueError("a number too large")
    return float(text)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # more digits than Python converts
        raise ValueError("a number of too many digits") from None


def _refused(name: str) -> Any:
    raise ValueError(f"{name}, which is no JSON")


_decoder = json.JSONDecoder(
    strict=False, object_pairs_hook=_checked_object, parse_float=_real, parse_int=_whole, parse_constant=_refused
)
