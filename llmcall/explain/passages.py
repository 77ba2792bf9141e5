"""Where two texts differ, word by word, and how that is shown in the width of a terminal."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import secrets as credentials
from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Passage", "masked", "passages", "pieces", "shortened", "shown"]

# A word with what joins it (2026-11-04, 0.30000000000000004, /tmp/x, Lisa's), blanks, or one other character.
TOKEN = re.compile(r"\s+|[\w'’.:/@+\\-]{0,200}\w|.", re.DOTALL)
LARGEST = 250_000  # token pairs that are compared; what is larger is compared line by line, then taken whole
GAP = 3  # characters between two changes that are shown as one
LABELS = ("recorded  ", "asked     ")
MARKS = (("[-", "-]"), ("{+", "+}"))  # as git diff --word-diff has them
PIECE_SHARE = 0.6  # of a line that a changed piece may take


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
    tokens = TOKEN.findall(recorded), TOKEN.findall(asked)
    if _inner(*tokens) <= LARGEST:
        yield from _passages_of(*tokens)
        return
    lines = recorded.splitlines(keepends=True), asked.splitlines(keepends=True)
    if _inner(*lines) > LARGEST:
        yield Passage(0, len(recorded), 0, len(asked))
        return
    for passage in _passages_of(*lines):
        some = tuple(map(TOKEN.findall, pieces(passage, recorded, asked)))
        if _inner(*some) > LARGEST:
            yield passage
            continue
        for inside in _passages_of(*some):
            begin, asked_begin = passage.begin, passage.asked_begin
            yield Passage(
                begin + inside.begin,
                begin + inside.end,
                asked_begin + inside.asked_begin,
                asked_begin + inside.asked_end,
            )


def _inner(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many pairs are left to compare between what both begin and end with."""
    same = sum(_common(one, other))
    return (len(one) - same) * (len(other) - same)


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
    places, other_places = _offsets(inside, start), _offsets(other_inside, start)
    matcher = difflib.SequenceMatcher(str.isspace, inside, other_inside, autojunk=False)
    for kind, begin, end, asked_begin, asked_end in matcher.get_opcodes():
        if kind != "equal":
            yield Passage(places[begin], places[end], other_places[asked_begin], other_places[asked_end])


def _offsets(tokens: Sequence[str], start: int) -> list[int]:
    offsets = [start]
    for token in tokens:
        offsets.append(offsets[-1] + len(token))
    return offsets


def masked(text: str) -> str:
    """Return a text of the same length in which what looks like a credential is asterisks."""
    match = credentials.find(text)
    while match is not None:
        text = text[: match.start] + "*" * (match.end - match.start) + text[match.end :]
        match = credentials.find(text)
    return text


def shortened(text: str, width: int) -> str:
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
    piece = shortened(printable(text[begin:end]), int(width * PIECE_SHARE))
    room = width - len(piece) - sum(map(len, marks))
    before, after = printable(text[max(0, begin - width) : begin]), printable(text[end : end + width])
    left = max(room // 2, room - len(after))
    before = _end_of(before, left, cut=begin > width)
    after = _beginning_of(after, room - len(before), cut=end + width < len(text))
    return before + (marks[0] + piece + marks[1] if piece else "") + after


def _end_of(text: str, width: int, *, cut: bool) -> str:
    if len(text) <= width and not cut:
        return text
    return "…" + text[max(0, len(text) - width + 1) :]


def _beginning_of(text: str, width: int, *, cut: bool) -> str:
    if len(text) <= width and not cut:
        return text
    return text[: max(0, width - 1)] + "…"
