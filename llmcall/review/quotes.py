"""The answers that two texts quote.

A program quotes an answer whole, stripped or cut; one field of its JSON; in a printed list or dict;
or joined with others. So an answer is sought by its words: blanks, quotation marks and escapes never
count, nor do punctuation marks inside it. All else must be the same in both texts, to the character.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import product
from operator import or_
from typing import NamedTuple

from .changes import Change, Part, Parts
from .forms import Form
from .texts import Text

LONG = 12  # characters of the words of an answer that no prompt holds by chance
CUT_WORDS = 4  # so many words of an answer must be there to know it by its beginning
CUT_SLACK = 24  # characters by which two cuts of one rule may differ
ELLIPSES = (("…",), (".", ".", "."), ("[", ".", ".", ".", "]"))  # at the end of what was cut
KEY_WORDS = 6  # with which answers are looked up

FormPair = tuple[Form, Form]  # a part of an answer in both runs
Admits = Callable[[Parts, FormPair, Text, int], Part | None]
Table = dict[tuple[str, ...], dict[tuple[str, ...], list[tuple[FormPair, Parts]]]]


class ChangedAnswers:
    """The answers that two runs gave differently, by the words with which they begin in both runs."""

    def __init__(self, changes: Iterable[Change]) -> None:
        self.by_words: Table = {}
        self.by_beginning: Table = {}
        self.longest = 0
        self._by_call: dict[tuple[str, int], list[tuple[Parts, Part]]] = {}
        self._parts: dict[FormPair, Parts] = {}
        for change in changes:
            for location, ours in change.ours.items():
                theirs = change.theirs.get(location, ours)
                if ours != theirs:
                    self._add((ours, theirs), change, location)

    def _add(self, pair: FormPair, change: Change, location: Hashable) -> None:
        parts = self._parts.get(pair)
        if parts is None:
            parts = self._parts[pair] = Parts(len(self._parts))
            self._add_words(pair, parts)
        self.watch(parts, parts.add(change, location))

    def _add_words(self, pair: FormPair, parts: Parts) -> None:
        """Add an answer to the tables by its first words."""
        tables = [(self.by_words, KEY_WORDS)]
        if any(len(form.words) > CUT_WORDS and form.size > LONG for form in pair):
            tables.append((self.by_beginning, CUT_WORDS))
        for table, length in tables:
            table.setdefault(pair[0].words[:1], {})
            others = table.setdefault(pair[0].words[:length], {})
            others.setdefault(pair[1].words[:length], []).append((pair, parts))
        self.longest = max(self.longest, *(len(form.words) for form in pair))

    def watch(self, parts: Parts, part: Part) -> None:
        """Note in some parts when the call of one of them is passed."""
        call = part.change.scope, part.change.number
        self._by_call.setdefault(call, []).append((parts, part))

    def note_passed(self, scope: str, number: int) -> None:
        """Note that a call was passed."""
        for parts, part in self._by_call.get((scope, number), ()):
            parts.note_passed(part)

    def __bool__(self) -> bool:
        return bool(self.by_words)

    def quoted(self, one: Text, p: int, other: Text, q: int, admits: Admits) -> Iterator[Quote]:
        """Yield the answers that two texts quote from a token of each on.

        :param p: the token of the first text.
        :param q: the token of the other one.
        :param admits: returns the part of an answer that is quoted there, or ``None``.
        """
        yield from self._quoted_whole(one, p, other, q, admits)
        yield from self._quoted_cut(one, p, other, q, admits)

    def _quoted_whole(
        self, one: Text, p: int, other: Text, q: int, admits: Admits
    ) -> Iterator[Quote]:
        for pair, parts in _beginning_with(
            _next_words(one, p), _next_words(other, q), self.by_words
        ):
            if ends := _whole_ends(one, p, other, q, pair):
                part = admits(parts, pair, one, p)
                if part is not None:
                    yield from (Quote(part, pair, p, *each) for each in ends)

    def _quoted_cut(
        self, one: Text, p: int, other: Text, q: int, admits: Admits
    ) -> Iterator[Quote]:
        words, other_words = _next_words(one, p), _next_words(other, q)
        cut = list(_beginning_with(words, other_words, self.by_beginning))
        if not cut:
            return
        same = _in_common(one.words, one.ranks[p], other.words, other.ranks[q])
        for pair, parts in cut:
            if not _may_differ(one, p, other, q, pair, same):
                continue
            if ends := _cut_ends(one, p, other, q, pair):
                part = admits(parts, pair, one, p)
                if part is not None:
                    yield from (Quote(part, pair, p, *each) for each in ends)


def _next_words(text: Text, at: int) -> tuple[str, ...]:
    """Return the words from a token on with which answers are looked up."""
    first = text.ranks[at]
    return text.words[first : first + KEY_WORDS]


def _beginning_with(
    words: tuple[str, ...], other_words: tuple[str, ...], table: Table
) -> Iterator[tuple[FormPair, Parts]]:
    """Yield what a table has of answers that begin with some words in each run.

    Each first word alone is a key of the table, too.
    """
    is_first_word = words[:1] in table
    for length in range(len(words) + 1 if is_first_word else 1):
        others = table.get(words[:length])
        if not others:
            continue
        found = [
            each
            for other_length in range(len(other_words) + 1)
            for each in others.get(other_words[:other_length], ())
        ]
        yield from sorted(found, key=lambda each: each[1].index)


class Quote(NamedTuple):
    """An answer that two texts quote.

    :param part: what is quoted.
    :param pair: its words in both runs.
    :param at: the token of the first text at which it begins.
    :param end: the token after it.
    :param other_end: the token after it in the other text.
    """

    part: Part
    pair: FormPair
    at: int
    end: int
    other_end: int


def _in_common(one: Sequence[str], p: int, other: Sequence[str], q: int) -> int:
    """Return how many words two sequences have in common from two places on."""
    most = min(len(one) - p, len(other) - q)
    return next((number for number in range(most) if one[p + number] != other[q + number]), most)


def _may_differ(one: Text, p: int, other: Text, q: int, pair: FormPair, same: int) -> bool:
    """Return whether two texts may quote an answer beyond the words that they have in common: what is
    the same needs no explanation.

    :param same: how many words they have in common.
    """
    is_over = [len(form.words) <= same for form in pair]
    goes_on = [
        _goes_on(text.words, text.ranks[at], form, same)
        for text, at, form in ((one, p, pair[0]), (other, q, pair[1]))
    ]
    return any(goes_on) and all(map(or_, is_over, goes_on))


def _goes_on(words: tuple[str, ...], first: int, form: Form, same: int) -> bool:
    """Return whether an answer goes on in a text after so many words; the next word may be cut."""
    at = first + same
    return (
        same < len(form.words)
        and at < len(words)
        and form.words[same].startswith(words[at])
        and words[first:at] == form.words[:same]
    )


def _skipped(text: Text, at: int, marks: Sequence[str]) -> int:
    """Return the next token that is neither blank nor one of some marks, in their order."""
    left = list(marks)
    while at < len(text.tokens):
        if left and text.tokens[at] == left[0]:
            del left[0]
        elif not text.blanks[at]:
            break
        at += 1
    return at


def _ends(text: Text, at: int, form: Form) -> set[int]:
    """Return where an answer may end that begins at a token: a program may have stripped its last
    marks; empty if other words are there.
    """
    first, count = text.ranks[at], len(form.words)
    if text.words[first : first + count] != form.words:
        return set()
    at = _skipped(text, at, form.lead)
    if count:
        if text.word_tokens[first] != at:
            return set()
        at = text.word_tokens[first + count - 1] + 1
    return {_skipped(text, at, ()), _skipped(text, at, form.trail)}


def _cut(text: Text, at: int, form: Form) -> tuple[set[int], int]:
    """Return where the beginning of an answer may end, and how many characters of words it has."""
    whole = _ends(text, at, form)
    if whole:
        return whole, form.size
    first = text.ranks[at]
    there = text.words[first : first + len(form.words)]
    if there[:CUT_WORDS] != form.words[:CUT_WORDS]:
        return set(), 0
    same = _in_common(there, 0, form.words, 0)
    size = sum(map(len, there[:same]))
    if same < len(there) and form.words[same].startswith(there[same]):  # a word that was cut
        size += len(there[same])
        same += 1
    if size < LONG or text.word_tokens[first] != _skipped(text, at, form.lead):
        return set(), 0
    end = text.word_tokens[first + same - 1] + 1
    return {_skipped(text, end, marks) for marks in ((), *ELLIPSES)}, size


def _whole_ends(one: Text, p: int, other: Text, q: int, pair: FormPair) -> list[tuple[int, int]]:
    """Return where an answer may end in two texts that hold all its words."""
    return list(product(_ends(one, p, pair[0]), _ends(other, q, pair[1])))


def _cut_ends(one: Text, p: int, other: Text, q: int, pair: FormPair) -> list[tuple[int, int]]:
    """Return where an answer may end in two texts that one rule cuts."""
    (ends, size), (other_ends, other_size) = _cut(one, p, pair[0]), _cut(other, q, pair[1])
    if not ends or not other_ends:
        return []
    is_whole, is_other_whole = size == pair[0].size, other_size == pair[1].size
    if is_whole and is_other_whole:
        return []  # found by all its words
    is_longer = size > other_size + CUT_SLACK and not is_other_whole
    is_shorter = other_size > size + CUT_SLACK and not is_whole
    return [] if is_longer or is_shorter else list(product(ends, other_ends))
