"""What differs between two requests, field by field and word by word, in the width of a terminal."""

from __future__ import annotations

import difflib
import json
import re
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import secrets as credentials
from ..text import printable, shortened
from .nearest import said

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..types import Data

__all__ = ["Difference", "brief", "differences", "masked", "passages", "pieces"]

LAST = ("messages", "input", "arguments")  # the fields that hold what was said; the parameters come before them
SHOWN_PASSAGES = 3
SHORT = 40  # characters of a parameter that is shown whole
INDENT = "  "
# A word with what joins it (2026-11-04, 0.30000000000000004, /tmp/x, Lisa's), blanks, or one other character.
TOKEN = re.compile(r"\s+|[\w'’.:/@+\\-]{0,200}\w|.", re.DOTALL)
LARGEST = 250_000  # pairs of lines or words that are compared; what is larger is taken whole
GAP = 3  # characters between two changes that are shown as one
LABELS = ("recorded  ", "asked     ")
MARKS = (("[-", "-]"), ("{+", "+}"))  # as git diff --word-diff has them
PIECE_SHARE = 0.6  # of a line that a changed piece may take


# Fields


class Difference(NamedTuple):
    """Say how one field of a request differs from that of a record.

    :param place: the field, such as ``temperature`` or ``messages[1].content``.
    :param recorded: its value in the record, or ``None`` where it is not there.
    :param asked: its value in the request, likewise.
    :param role: of a message's field, the message's role.
    :param passages: of two texts, where they differ.
    """

    place: str
    recorded: Data
    asked: Data
    role: str = ""
    passages: tuple[Passage, ...] = ()

    def lines(self, width: int) -> list[str]:
        """Return the difference as lines for a terminal.

        :param width: characters of a line.
        """
        name = f"{self.place} ({self.role})" if self.role else self.place
        if not self.passages:
            sides = 1 if self.recorded is None or self.asked is None else 2
            room = max(20, (width - len(name) - len(": recorded , not asked")) // sides)
            return [f"{name}: {_side('recorded', self.recorded, room)}, {_side('asked', self.asked, room)}"]
        lines = [f"{name}:"]
        for passage in self.passages[:SHOWN_PASSAGES]:
            lines += [INDENT + line for line in shown(passage, self.recorded, self.asked, width - len(INDENT))]
        more = len(self.passages) - SHOWN_PASSAGES
        return [*lines, f"{INDENT}… and {more} more"] if more > 0 else lines

    def __str__(self) -> str:
        return "\n".join(self.lines(100))

    def __repr__(self) -> str:
        return f"Difference({self.place!r}: {brief(self.recorded, 40)} → {brief(self.asked, 40)})"


def _side(name: str, value: Data, width: int) -> str:
    return f"not {name}" if value is None else f"{name} {brief(value, width)}"


def brief(value: Data, width: int) -> str:
    """Return a value in one line of at most a width, without credentials."""
    value = said(value) if isinstance(value, dict) and "role" in value else value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_of_bytes)
    shortening = without_middle(printable(masked(text)), width - 2)
    return f'"{shortening}"' if isinstance(value, str) else shortening


def _of_bytes(value: Any) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)


def differences(recorded: Mapping[str, Data], asked: Mapping[str, Data]) -> tuple[Difference, ...]:
    """Return the fields in which a stored request and another one differ: parameters first, then messages."""
    names = sorted(recorded.keys() | asked.keys(), key=lambda name: (name in LAST, name != "model", name))
    return tuple(found for name in names for found in _compared(name, recorded.get(name), asked.get(name), ""))


def _compared(place: str, recorded: Data, asked: Data, role: str) -> Iterator[Difference]:
    if recorded == asked and _written(recorded) == _written(asked):  # True equals 1, and is another value in JSON
        return
    if isinstance(recorded, str) and isinstance(asked, str):
        whole = not role and max(len(recorded), len(asked)) <= SHORT and not place.startswith(LAST)
        yield Difference(place, recorded, asked, role, () if whole else passages(recorded, asked))
    elif isinstance(recorded, dict) and isinstance(asked, dict):
        role = role or _role(recorded, asked)
        for name in sorted(recorded.keys() | asked.keys()):
            yield from _compared(f"{place}.{name}", recorded.get(name), asked.get(name), role)
    elif isinstance(recorded, list) and isinstance(asked, list):
        for index, one, other in _aligned(recorded, asked):
            yield from _compared(f"{place}[{index}]", one, other, role)
    else:
        yield Difference(place, recorded, asked, role or _role(recorded, asked))


def _written(value: Data) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def _role(*items: Data) -> str:
    return next((str(item["role"]) for item in items if isinstance(item, dict) and "role" in item), "")


def _aligned(recorded: Sequence[Data], asked: Sequence[Data]) -> Iterator[tuple[int, Data, Data]]:
    """Yield index, recorded and asked item of each pair that differs; ``None`` stands for a missing one.

    The index is that in the request, and of an item that only the record has, that in the record.
    """
    one, other = (list(map(_written, items)) for items in (recorded, asked))
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    for kind, begin, end, asked_begin, asked_end in matcher.get_opcodes():
        gone, new = end - begin, asked_end - asked_begin
        # The last ones belong together: a conversation grows before its end.
        for back in range(max(gone, new) if kind != "equal" else 0, 0, -1):
            here = recorded[end - back] if back <= gone else None
            there = asked[asked_end - back] if back <= new else None
            yield (asked_end if back <= new else end) - back, here, there


# Words


class Passage(NamedTuple):
    """Say where one text differs from another: the pieces ``recorded[begin:end]`` and ``asked[asked_begin:asked_end]``.

    Each may be empty.
    """

    begin: int
    end: int
    asked_begin: int
    asked_end: int


def passages(recorded: str, asked: str) -> tuple[Passage, ...]:
    """Return where two texts differ, in order; changes that are close to one another are one."""
    found: list[Passage] = []
    for passage in _changed(recorded, asked):
        if found and passage.begin - found[-1].end <= GAP:
            passage = Passage(found[-1].begin, passage.end, found[-1].asked_begin, passage.asked_end)
            found.pop()
        found.append(passage)
    return tuple(found)


def pieces(passage: Passage, recorded: str, asked: str) -> tuple[str, str]:
    """Return the two pieces of a passage."""
    return recorded[passage.begin : passage.end], asked[passage.asked_begin : passage.asked_end]


def _changed(recorded: str, asked: str) -> Iterator[Passage]:
    """Yield where two texts differ: within the lines that do, word by word."""
    for lines in _passages_of(recorded.splitlines(keepends=True), asked.splitlines(keepends=True)):
        for words in _passages_of(*map(TOKEN.findall, pieces(lines, recorded, asked))):
            yield Passage(
                lines.begin + words.begin,
                lines.begin + words.end,
                lines.asked_begin + words.asked_begin,
                lines.asked_begin + words.asked_end,
            )


def _common(one: Sequence[str], other: Sequence[str]) -> tuple[int, int]:
    """Return how many items two sequences begin with together, and of the rest, how many they end with."""
    most = min(len(one), len(other))
    begin = next((index for index in range(most) if one[index] != other[index]), most)
    most -= begin
    end = next((index for index in range(most) if one[-1 - index] != other[-1 - index]), most)
    return begin, end


def _passages_of(one: Sequence[str], other: Sequence[str]) -> Iterator[Passage]:
    """Yield where two sequences of pieces of text differ."""
    same, ending = _common(one, other)
    start = sum(map(len, one[:same]))
    inside, other_inside = one[same : len(one) - ending], other[same : len(other) - ending]
    places, other_places = (list(accumulate(map(len, each), initial=start)) for each in (inside, other_inside))
    if len(inside) * len(other_inside) > LARGEST:
        yield Passage(start, places[-1], start, other_places[-1])
        return
    matcher = difflib.SequenceMatcher(str.isspace, inside, other_inside, autojunk=False)
    for kind, begin, end, asked_begin, asked_end in matcher.get_opcodes():
        if kind != "equal":
            yield Passage(places[begin], places[end], other_places[asked_begin], other_places[asked_end])


def masked(text: str) -> str:
    """Return a text of the same length in which what looks like a credential is asterisks."""
    match = credentials.find(text)
    while match is not None:
        text = text[: match.start] + "*" * (match.end - match.start) + text[match.end :]
        match = credentials.find(text)
    return text


def without_middle(text: str, width: int) -> str:
    """Return a text of at most a width, its middle left out where it is longer."""
    if len(text) <= width:
        return text
    half = max(width - 1, 0) // 2
    return f"{text[: width - 1 - half]}…{text[len(text) - half :]}"


def shown(passage: Passage, recorded: str, asked: str, width: int) -> list[str]:
    """Return a passage as two lines, with as much of what stands around it as fits.

    :param width: characters of a line.
    """
    sides: Any = ((recorded, passage.begin, passage.end), (asked, passage.asked_begin, passage.asked_end))
    return [
        label + _line(masked(text), begin, end, marks, width - len(label))
        for label, (text, begin, end), marks in zip(LABELS, sides, MARKS, strict=True)
    ]


def _line(text: str, begin: int, end: int, marks: tuple[str, str], width: int) -> str:
    piece = without_middle(printable(text[begin:end]), int(width * PIECE_SHARE))
    room = width - len(piece) - sum(map(len, marks))
    before, after = printable(text[max(0, begin - width) : begin]), printable(text[end : end + width])
    left = max(room // 2, room - len(after))
    if len(before) > left:
        before = "…" + before[len(before) - left + 1 :]
    return before + (marks[0] + piece + marks[1] if piece else "") + shortened(after, room - len(before))
