"""What differs: the fields of two requests, and the words of two texts, found line by line, then word by word."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple
from unicodedata import is_normalized, name, normalize

from ..keys.plain_data import is_same
from ..keys.request import Data, text_with_placeholders
from ..keys.schemas import DASH
from ..support.display import as_json, printable, shortened
from ..support.secrets import masked

# A word with its inner punctuation (2026-11-04, 0.30000000000000004, /tmp/x, Lisa's), blanks, or any one
# other character.
WORD = re.compile(r"\s+|[\w'’.:/@+\\-]{0,200}\w|.", re.DOTALL)
TOKEN = re.compile(r"\w+|\W")
SPACE = re.compile(r"[^\S\t-\r\x1c-\x1f\x85]")  # of any width, but no line's end or tab
# What separates the parts of a text: lines, then sentences, then pieces.
SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)")
SEPARATORS = (re.compile(r"\n"), SENTENCE_END, re.compile(";"), re.compile(","))
LONGEST_LIKENESS = 12  # tokens in which two parts may begin or end alike
MOST_PAIRS = 250_000  # of lines or words; larger passages are not compared further
LARGEST_GAP = 3  # characters between two changes that count as one

ROW_NUMBER = re.compile(r"^\s*(?:\(?\d+[.):]|#\d+:?)\s+")  # before a part of a numbered list

CHANGES_SHOWN = 3
CHARACTERS = 60  # of a changed piece that is shown
LEAST_CONTEXT = 12  # characters around a change of blanks or marks alone


class WordChange(NamedTuple):
    """A place where words of a text changed.

    :param words: the changed words alone, as ``git diff --word-diff`` shows them: ``[-before-] {+after+}``.
    :param in_context: the same with the characters around them.
    """

    words: str
    in_context: str


def word_changes(before: str, after: str, context: int = 0) -> str:
    """Return where two texts differ, as ``git diff --word-diff`` shows it.

    :param context: how many characters around each change are shown.
    """
    changes, more = first_changes(before, after, context)
    shown = [change.in_context for change in changes]
    return " … ".join([*shown, f"and {more:,} more"] if more else shown)


@lru_cache(maxsize=4096)  # an edited prompt is often the same for all actors
def first_changes(before: str, after: str, context: int = 0) -> tuple[tuple[WordChange, ...], int]:
    """Return the first places where two texts differ, and the number of the others."""
    changes = []
    changed = passages(before, after)
    before, after = masked(before), masked(after)
    ends = [0, *(passage.end for passage in changed)]
    begins = [*(passage.begin for passage in changed[1:]), len(before)]
    for least, passage, most in zip(ends, changed[:CHANGES_SHOWN], begins, strict=False):
        gone, new = pieces(passage, before, after)
        around = context if re.search(r"\w", gone + new) else max(context, LEAST_CONTEXT)
        skipped = 0
        if max(len(gone), len(new)) > CHARACTERS:
            # Two long paths may differ in their last characters only, which would be cut off.
            skipped, _ = common_ends(gone, new)
        begin, end = passage.begin + skipped, passage.end
        marked = []
        marks = ("[-", "-]"), ("{+", "+}")
        for piece, other, (opening, closing) in zip((gone, new), (new, gone), marks, strict=True):
            shown = piece[skipped:] if around else piece[skipped:].strip()
            if shown:
                shown = shortened(printable(shown), CHARACTERS)
                marked.append(f"{opening}{shown}{closing}{look_alike_name(piece, other)}")
        left = before[max(least, begin - around) : begin]
        right = before[end : min(most, end + around)]
        before_left = "…" if around and begin - around > least else ""
        after_right = "…" if around and end + around < most else ""
        words = " ".join(marked)
        in_context = f"{before_left}{printable(left)}{words}{printable(right)}{after_right}"
        changes.append(WordChange(words, in_context))
    return tuple(changes), len(changed) - len(changes)


def look_alike_name(piece: str, other: str) -> str:
    """Return the difference of a piece from another that looks equal, by Unicode's names; for others, empty text."""
    if normalize("NFC", piece) == normalize("NFC", other):
        return f" ({'NFC' if is_normalized('NFC', piece) else 'NFD'})"
    if _as_it_looks(piece) != _as_it_looks(other):
        return ""
    return f" ({', '.join(name(character) for character in sorted({*piece} - {*other}))})"


def _as_it_looks(text: str) -> str:
    return DASH.sub("-", SPACE.sub(" ", text))


class Passage(NamedTuple):
    """A place where two texts or lists differ.

    ``recorded[begin:end]`` became ``requested[requested_begin:requested_end]``. Either piece may be empty.
    """

    begin: int
    end: int
    requested_begin: int
    requested_end: int


def passages(recorded: str, requested: str) -> tuple[Passage, ...]:
    """Return the passages in which two texts differ, in order; changes that almost touch are merged."""
    merged: list[Passage] = []
    for passage in text_diff(recorded, requested):
        if merged and passage.begin - merged[-1].end <= LARGEST_GAP:
            merged[-1] = merged[-1]._replace(end=passage.end, requested_end=passage.requested_end)
        else:
            merged.append(passage)
    return tuple(merged)


def text_diff(
    recorded: str, requested: str, token: re.Pattern[str] = WORD, most_pairs: int = MOST_PAIRS
) -> Iterator[Passage]:
    """Yield the passages in which two texts differ, in order: the tokens of the lines that differ.

    :param token: its matches cover a whole text.
    :param most_pairs: of tokens; a larger passage of lines is one difference.
    """
    for lines in _changes(recorded.splitlines(keepends=True), requested.splitlines(keepends=True)):
        before, after = pieces(lines, recorded, requested)
        for words in _changes(token.findall(before), token.findall(after), most_pairs):
            yield Passage(
                lines.begin + words.begin,
                lines.begin + words.end,
                lines.requested_begin + words.requested_begin,
                lines.requested_begin + words.requested_end,
            )


def pieces(passage: Passage, recorded: str, requested: str) -> tuple[str, str]:
    """Return the piece of each text that a passage covers."""
    return recorded[passage.begin : passage.end], requested[
        passage.requested_begin : passage.requested_end
    ]


def _changes(
    recorded: Sequence[str], requested: Sequence[str], most_pairs: int = MOST_PAIRS
) -> Iterator[Passage]:
    """Yield the passages in which two texts differ, from their pieces."""
    positions = list(accumulate(map(len, recorded), initial=0))
    requested_positions = list(accumulate(map(len, requested), initial=0))
    for begin, end, requested_begin, requested_end in differing(
        _distinct(recorded), _distinct(requested), most_pairs
    ):
        same, _ = common_ends(recorded[begin:end], requested[requested_begin:requested_end])
        yield Passage(
            positions[begin + same],
            positions[end],
            requested_positions[requested_begin + same],
            requested_positions[requested_end],
        )


def _distinct(pieces: Sequence[str]) -> list[str]:
    """Return pieces of a text, each blank with the piece after it: alone, it would match every other blank."""
    distinct, following = [], ""
    for piece in reversed(pieces):
        distinct.append(piece + following if piece.isspace() else piece)
        following = following if piece.isspace() else piece
    return distinct[::-1]


def differing(
    recorded: Sequence[str],
    requested: Sequence[str],
    most_pairs: int = MOST_PAIRS,
) -> Iterator[Passage]:
    """Yield where two lists of texts differ, as slices of both.

    :param most_pairs: of items; a larger passage is one difference.
    """
    before, after = common_ends(recorded, requested)
    recorded = recorded[before : len(recorded) - after]
    requested = requested[before : len(requested) - after]
    if len(recorded) * len(requested) > most_pairs:
        yield Passage(before, before + len(recorded), before, before + len(requested))
        return
    matcher = SequenceMatcher(None, recorded, requested, autojunk=False)
    for kind, *slices in matcher.get_opcodes():
        if kind != "equal":
            yield Passage(*(before + index for index in slices))


def likeness(words: Set[str], other_words: Set[str]) -> float:
    """Return the share of words that two texts have in common, from 0 to almost 1, since the same words may
    be in another order.
    """
    return 2 * len(words & other_words) / (len(words) + len(other_words) + 1)


def common_ends(items: Sequence[object], other_items: Sequence[object]) -> tuple[int, int]:
    """Return how many items two sequences share at the beginning, and how many of the rest at the end."""
    length = min(len(items), len(other_items))
    before = 0
    while before < length and items[before] == other_items[before]:
        before += 1
    after = 0
    while after < length - before and items[-1 - after] == other_items[-1 - after]:
        after += 1
    return before, after


def sorted_parts(text: str, separators: Sequence[re.Pattern[str]] = SEPARATORS) -> str:
    """Return a text with its parts sorted, so that their order does not matter: lines without numbers,
    sentences, and pieces between ``;`` and ``,``.
    """
    if not separators:
        return text.strip()
    first, *rest = separators
    parts = first.split(text)
    if separators is SEPARATORS and len(parts) > 1:
        parts = [ROW_NUMBER.sub("", line) for line in parts]
    return repr(sorted(sorted_parts(part, rest) for part in parts))


def have_same_parts(text: str, other: str) -> bool:
    """Return whether two texts have the same parts in another order. Each text or sentence may share a
    beginning and an end.
    """
    sentences, others = SENTENCE_END.split(text), SENTENCE_END.split(other)
    return _are_in_another_order(text, other) or (
        len(sentences) == len(others) and all(map(_are_in_another_order, sentences, others))
    )


def _are_in_another_order(text: str, other: str) -> bool:
    if sorted_parts(text) == sorted_parts(other):
        return True
    tokens, others = TOKEN.findall(text), TOKEN.findall(other)
    if sorted(tokens) != sorted(others):
        return False
    before, after = common_ends(tokens, others)
    end = len(tokens) - after
    # Two parts may begin or end alike, so the first part may begin a little before the first difference,
    # and the last part may end a little after the last one.
    begins = range(before - _part_length(tokens[:before][: -LONGEST_LIKENESS - 1 : -1]), before + 1)
    ends = range(end, end + _part_length(tokens[end : end + LONGEST_LIKENESS]) + 1)
    return any(
        sorted_parts("".join(tokens[begin:end])) == sorted_parts("".join(others[begin:end]))
        for begin in begins
        for end in ends
    )


def _part_length(tokens: Sequence[str]) -> int:
    """Return the number of tokens before the first possible separator."""
    return next((n for n, token in enumerate(tokens) if token in "\n.!?;,"), len(tokens))


CONTENTS = ("messages", "input", "arguments")  # the other fields are parameters
CONTEXT = 30  # characters around a change
LONGEST_VALUE = 80  # characters of a value
LONGEST_WHOLE = 40  # characters of a parameter that is shown whole


class Difference(NamedTuple):
    """One field in which a request differs from a record.

    :param place: the field, such as ``temperature`` or ``messages[1].content``.
    :param recorded: the record's value, or ``None`` if the record lacks the field.
    :param requested: the request's value, in the same form.
    :param role: the message's role, if the field belongs to a message.
    """

    place: str
    recorded: Data
    requested: Data
    role: str = ""

    @property
    def field(self) -> str:
        """Return the name of the request's top-level field."""
        return re.split(r"[.\[]", self.place)[0]

    def texts(self) -> tuple[str, str] | None:
        """Return both values if they are texts that are shown word by word."""
        recorded, requested = self.recorded, self.requested
        longest = LONGEST_WHOLE if not self.role and self.field not in CONTENTS else 0
        if not (isinstance(recorded, str) and isinstance(requested, str)):
            return None
        return (recorded, requested) if max(len(recorded), len(requested)) > longest else None

    def changed_words(self) -> list[str]:
        """Return the first words that changed, as ``[-before-] {+after+}``; none in what is shown whole."""
        texts = self.texts()
        return [change.words for change in first_changes(*texts, CONTEXT)[0]] if texts else []

    def __str__(self) -> str:
        place = f"{self.place} ({self.role})" if self.role else self.place
        if texts := self.texts():
            return f"{place}: {word_changes(*texts, CONTEXT)}"
        sides = [
            f"not {side}" if value is None else f"{side} {shown_value(value, LONGEST_VALUE)}"
            for side, value in (("recorded", self.recorded), ("requested", self.requested))
        ]
        return f"{place}: {', '.join(sides)}"

    def __repr__(self) -> str:
        recorded, requested = (
            shown_value(self.recorded, LONGEST_WHOLE),
            shown_value(self.requested, LONGEST_WHOLE),
        )
        return f"Difference({self.place!r}: {recorded} → {requested})"


def shown_value(value: Data, width: int) -> str:
    """Return a value on one line, without credentials.

    :param width: the most characters.
    """
    if isinstance(value, dict) and "role" in value:
        value = text_with_placeholders(value)
    text = value if isinstance(value, str) else as_json(value)
    text = shortened(printable(masked(text)), width - 2)
    return f'"{text}"' if isinstance(value, str) else text


def differences(
    recorded: Mapping[str, Data], requested: Mapping[str, Data]
) -> tuple[Difference, ...]:
    """Return the fields in which two requests differ: parameters first, the model foremost.

    :param recorded: a record's request.
    :param requested: the other request.
    """

    def order(name: str) -> tuple[bool, bool, str]:
        return name in CONTENTS, name != "model", name

    differing_fields: list[Difference] = []
    for field in sorted(recorded.keys() | requested.keys(), key=order):
        differing_fields += _compared(field, recorded.get(field), requested.get(field), "")
    return tuple(differing_fields)


def _compared(path: str, recorded: Data, requested: Data, role: str) -> Iterator[Difference]:
    if is_same(recorded, requested):
        return
    role = role or _role(recorded) or _role(requested)
    if isinstance(recorded, dict) and isinstance(requested, dict):
        for field in sorted(recorded.keys() | requested.keys()):
            yield from _compared(f"{path}.{field}", recorded.get(field), requested.get(field), role)
    elif isinstance(recorded, list) and isinstance(requested, list):
        for index, recorded_item, requested_item in _aligned(recorded, requested):
            yield from _compared(f"{path}[{index}]", recorded_item, requested_item, role)
    else:
        yield Difference(path, recorded, requested, role)


def _role(item: Data) -> str:
    """Return the role of a message; empty for other data."""
    return str(item["role"]) if isinstance(item, dict) and "role" in item else ""


def _aligned(
    recorded: Sequence[Data], requested: Sequence[Data]
) -> Iterator[tuple[int, Data, Data]]:
    """Yield the index, the recorded and the requested item of each pair that differs; a missing item is
    ``None``.

    The index is the request's, or the record's if only the record has the item.
    """
    texts, requested_texts = (list(map(canonical_text, side)) for side in (recorded, requested))
    for begin, end, requested_begin, requested_end in differing(texts, requested_texts):
        removed, added = end - begin, requested_end - requested_begin
        # Items are paired from the end: a conversation grows before its last message.
        for back in range(max(removed, added), 0, -1):
            recorded_item = recorded[end - back] if back <= removed else None
            if back <= added:
                yield requested_end - back, recorded_item, requested[requested_end - back]
            else:
                yield end - back, recorded_item, None


def canonical_text(data: Data) -> str:
    """Return plain data as a text that is the same for equal data."""
    return json.dumps(data, sort_keys=True, default=repr)
