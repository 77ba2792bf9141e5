"""JSON as models write it: between words, in fences, with comments, trailing commas, single quotes and Python's names.

Every repair here is of something that has one meaning only. What has two, or is cut off, is refused. One pass over
the text, no recursion: an answer of any length or depth costs time in proportion to its length.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import OutputError

__all__ = ["MAX_DEPTH", "containers", "fenced_blocks", "scalar"]

MAX_DEPTH = 200  # of nested objects and arrays; what pydantic's own JSON parser (jiter) allows

_BLANK = re.compile(r"(?:[\s\ufeff\u200b]+|//[^\n]*|\#[^\n]*|/\*.*?\*/)*", re.DOTALL)
_BLANK_ONLY = re.compile(r"(?:[\s\ufeff\u200b]+|//[^\n]*|\#[^\n]*)*")  # where no comment can end any more
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<real>(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?![\w.])", re.ASCII)
_NAME = re.compile(r"(?:true|false|null|True|False|None)(?!\w)")
_NAMES = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_BARE_KEY = re.compile(r"(?:[A-Za-z_$][\w$]*|[0-9]+)(?=\s*:)")
_CLOSING = {'"': '"', "'": "'", "‘": "’", "’": "’", "“": "”", "”": "”", "„": "“”"}
_CHUNK = {quote: re.compile(rf"[^\\{closing}]*") for quote, closing in _CLOSING.items()}
_ESCAPES = {'"': '"', "'": "'", "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX = re.compile(r"u([0-9a-fA-F]{4})")
_OPENING = re.compile(r"[\[{]")
_FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,}(?!~))([^`]*)$")


def containers(text: str, wanted: str = "{[") -> list[Any]:
    """Find the outermost JSON objects and arrays in a text.

    Fenced blocks go before the words around them: where they hold a wanted value, only they are read.

    :param text: the answer.
    :param wanted: the brackets that the caller can use: ``"{"``, ``"["`` or both.
    :returns: the values that begin with a wanted bracket, in the order of the text.
    :raises OutputError: for JSON that is broken or cut off, with the line and column.
    """
    blocks = fenced_blocks(text)
    inside = [value for block in blocks for value in _scan_all(block, wanted)]
    return inside or _scan_all(text, wanted)


def scalar(text: str) -> Any:
    """Read a text that is one JSON scalar; any other text is a string as it stands."""
    text = text.strip()
    scanner = _Scanner(text, 0, "")
    if text and (text[0] in _CLOSING or _NUMBER.fullmatch(text) or _NAME.fullmatch(text)):
        try:
            value = scanner.scalar()
        except _Broken:
            return text
        return value if scanner.position == len(text) else text
    return text


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


def _scan_all(text: str, wanted: str) -> list[Any]:
    values, position, last = [], 0, text.rfind("*/")
    while match := _OPENING.search(text, position):
        scanner = _Scanner(text, match.start(), wanted, last)
        try:
            value = scanner.container()
        except _Broken as broken:
            if scanner.is_json:
                raise OutputError(broken.describe(text)) from None
            position = max(broken.position, match.end())  # a bracket of the prose
            continue
        position = scanner.position
        if match[0] in wanted:
            values.append(value)
    return values


class _Broken(Exception):
    def __init__(self, position: int, problem: str) -> None:
        super().__init__(problem)
        self.position = position
        self.problem = problem

    def describe(self, text: str) -> str:
        """Return what is wrong with a text, and where."""
        line = text.count("\n", 0, self.position) + 1
        column = self.position - text.rfind("\n", 0, self.position)
        return f"its JSON is broken at line {line}, column {column}: {self.problem}"


class _Frame:
    """Hold an open object or array: its key that waits for a value, and whether a comma must come next."""

    __slots__ = ("closing", "complete", "items", "key")

    def __init__(self, bracket: str) -> None:
        self.items: dict[str, Any] | list[Any] = {} if bracket == "{" else []
        self.closing = "}" if bracket == "{" else "]"
        self.key: str | None = None
        self.complete = False


class _Scanner:
    """Read one value from a position on; ``is_json`` tells whether what was read so far can only be meant as JSON."""

    def __init__(self, text: str, position: int, wanted: str, last_comment_end: int = -1) -> None:
        self.text = text
        self.position = position
        self.wanted = wanted
        self.last_comment_end = last_comment_end
        self.is_json = False
        self.frames: list[_Frame] = []

    def container(self) -> Any:
        """Read the object or array that opens at the position."""
        self._open()
        result: Any = None
        while self.frames:
            self._skip_blank()
            result = self._step()
        return result

    def scalar(self) -> Any:
        """Read the string, number or name at the position."""
        if self.text[self.position] in _CLOSING:
            self.is_json = self.is_json or self.text[self.position] == '"'
            return self._string()
        if match := _NAME.match(self.text, self.position):
            self.position = match.end()
            return _NAMES[match[0]]
        if match := _NUMBER.match(self.text, self.position):
            return self._number(match)
        raise self._broken("a value is expected")

    def _step(self) -> Any:
        """Read the next piece of the innermost container; return the container itself when it closes."""
        frame, char = self.frames[-1], self.text[self.position]
        if char == frame.closing and frame.key is None:
            return self._close()
        if frame.complete:
            self._expect(",", f"a comma or {frame.closing} is expected")
            frame.complete = False
        elif frame.closing == "}" and frame.key is None:
            self._read_key(frame)
        elif char in "{[":
            self._open()
        else:
            self._add(self.scalar())
        return None

    def _open(self) -> None:
        if len(self.frames) == MAX_DEPTH:
            self.is_json = True
            raise self._broken(f"more than {MAX_DEPTH} levels")
        self.frames.append(_Frame(self.text[self.position]))
        self.position += 1

    def _close(self) -> Any:
        items = self.frames.pop().items
        self.position += 1
        if self.frames:
            self._add(items)
        return items

    def _read_key(self, frame: _Frame) -> None:
        if match := _BARE_KEY.match(self.text, self.position):
            frame.key, self.position = match[0], match.end()
        elif self.text[self.position] in _CLOSING:
            frame.key = self._string()
        else:
            raise self._broken("a key is expected")
        self._skip_blank()
        self._expect(":", "a colon is expected")
        self.is_json = True

    def _add(self, value: Any) -> None:
        frame = self.frames[-1]
        # a number alone in brackets may be a citation or a time, where an object is wanted
        self.is_json = self.is_json or "[" in self.wanted or isinstance(value, (dict, list))
        if isinstance(frame.items, list):
            frame.items.append(value)
        elif frame.key is not None:
            if frame.key in frame.items and frame.items[frame.key] != value:
                raise self._broken(f"the key {frame.key!r} has two values")
            frame.items[frame.key] = value
        frame.key, frame.complete = None, True

    def _number(self, match: re.Match[str]) -> int | float:
        try:
            value = float(match[0]) if match["real"] else int(match[0])
        except ValueError:  # more digits than Python converts (sys.set_int_max_str_digits)
            self.is_json = True
            raise self._broken("a number with too many digits") from None
        if value in (float("inf"), float("-inf")):
            self.is_json = True
            raise self._broken("a number too large")
        self.position = match.end()
        return value

    def _string(self) -> str:
        quote, parts = self.text[self.position], []
        self.position += 1
        while True:
            chunk = _CHUNK[quote].match(self.text, self.position)
            assert chunk is not None  # the pattern matches the empty string
            parts.append(chunk[0])
            self.position = chunk.end()
            if self._at_end("inside a string") == "\\":
                parts.append(self._escape())
            elif quote in "'‘’" and self._is_apostrophe():
                parts.append(self.text[self.position])
                self.position += 1
            else:
                self.position += 1
                return "".join(parts)

    def _is_apostrophe(self) -> bool:
        # nothing in JSON or Python can follow a closing quote directly with a letter
        before, after = self.text[self.position - 1], self.text[self.position + 1 : self.position + 2]
        return before.isalnum() and after.isalnum()

    def _escape(self) -> str:
        self.position += 1
        char = self._at_end("inside a string")
        if char == "u":
            return self._unicode_escape()
        if char not in _ESCAPES:
            raise self._broken(f"\\{char} is no escape")
        self.position += 1
        return _ESCAPES[char]

    def _unicode_escape(self) -> str:
        code = self._hex()
        if 0xD800 <= code < 0xDC00 and self.text.startswith("\\u", self.position):
            self.position += 1
            low = self._hex()
            if 0xDC00 <= low < 0xE000:
                return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00))
            code = low
        if 0xD800 <= code < 0xE000:
            raise self._broken("half of a surrogate pair")
        return chr(code)

    def _hex(self) -> int:
        match = _HEX.match(self.text, self.position)
        if match is None:
            raise self._broken("four hexadecimal digits are expected")
        self.position = match.end()
        return int(match[1], 16)

    def _expect(self, char: str, problem: str) -> None:
        if self._at_end("before its end") != char:
            raise self._broken(problem)
        self.position += 1

    def _skip_blank(self) -> None:
        # Where no comment ends any more, none need be sought from each place to the end of the text.
        pattern = _BLANK if self.position < self.last_comment_end else _BLANK_ONLY
        match = pattern.match(self.text, self.position)
        assert match is not None  # the pattern matches the empty string
        self.position = match.end()
        self._at_end("before its end")

    def _at_end(self, where: str) -> str:
        """Return the character at the position; the end of the text is refused as an answer that was cut off."""
        if self.position >= len(self.text):
            self.is_json = self.is_json or len(self.frames) > 1
            raise _Broken(len(self.text), f"it is cut off {where}")
        return self.text[self.position]

    def _broken(self, problem: str) -> _Broken:
        return _Broken(self.position, problem)
