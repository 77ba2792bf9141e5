"""The answers that two texts quote.

A program may quote an answer whole, stripped or cut. It may quote one field of its JSON, print it in a
list or a dict, or join it with others. So an answer is found by its words: blanks, quotation marks and
escapes never count, nor do punctuation marks inside it. All else must be the same in both texts, to
the character.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

from .changes import Change, Part, Parts
from .forms import Form
from .texts import Text

LONG_ANSWER = 12  # characters of the words of an answer that no prompt holds by chance
CUT_WORDS = 4  # so many words of an answer must be there to know it by its beginning
CUT_SLACK = 24  # characters by which two cuts of one rule may differ
ELLIPSES = (("…",), (".", ".", "."), ("[", ".", ".", ".", "]"))  # at the end of what was cut
KEY_WORDS = 6  # with which answers are looked up

FormPair = tuple[Form, Form]  # a part of an answer in both runs
Table = dict[tuple[str, ...], dict[tuple[str, ...], list[tuple[FormPair, Parts]]]]


class Rest(NamedTuple):
    """The rest of a text, from one of its tokens on.

    :param text: the whole text.
    :param begin: the number of the token.
    """

    text: Text
    begin: int

    @property
    def first_word(self) -> int:
        """Return the number of the first word."""
        return self.text.ranks[self.begin]

    def words(self, count: int) -> tuple[str, ...]:
        """Return the first words."""
        return self.text.words[self.first_word : self.first_word + count]


# Returns the part of an answer that the first run's text quotes, or ``None``.
Admits = Callable[[Parts, FormPair, Rest], Part | None]


class ChangedAnswerIndex:
    """The answers that two runs gave differently, by the words with which they begin in both runs."""

    def __init__(self, changes: Iterable[Change]) -> None:
        self.by_words: Table = {}
        self.by_beginning: Table = {}
        self.longest = 0
        self._by_call: dict[tuple[str, int], list[tuple[Parts, Part]]] = {}
        self._parts: dict[FormPair, Parts] = {}
        for change in changes:
            for location, form in change.forms.items():
                other_form = change.other_forms.get(location, form)
                if form != other_form:
                    self._add((form, other_form), change, location)

    def _add(self, pair: FormPair, change: Change, location: Hashable) -> None:
        parts = self._parts.get(pair)
        if parts is None:
            parts = self._parts[pair] = Parts(len(self._parts))
            self._add_words(pair, parts)
        self.watch(parts, parts.add(change, location))

    def _add_words(self, pair: FormPair, parts: Parts) -> None:
        """Add an answer to the tables by its first words."""
        tables = [(self.by_words, KEY_WORDS)]
        if any(len(form.words) > CUT_WORDS and form.size > LONG_ANSWER for form in pair):
            tables.append((self.by_beginning, CUT_WORDS))
        for table, length in tables:
            table.setdefault(pair[0].words[:1], {})
            by_other_words = table.setdefault(pair[0].words[:length], {})
            by_other_words.setdefault(pair[1].words[:length], []).append((pair, parts))
        self.longest = max(self.longest, *(len(form.words) for form in pair))

    def watch(self, parts: Parts, part: Part) -> None:
        """Note a part's call, so that :meth:`note_passed` tells its parts when the call is passed."""
        call = part.change.scope, part.change.place
        self._by_call.setdefault(call, []).append((parts, part))

    def note_passed(self, scope: str, place: int) -> None:
        """Note that a call was passed."""
        for parts, part in self._by_call.get((scope, place), ()):
            parts.note_passed(part)

    def __bool__(self) -> bool:
        return bool(self.by_words)

    def quoted(self, rest: Rest, other: Rest, admits: Admits) -> Iterator[Quote]:
        """Yield the quotes of answers with which the rests of two texts begin.

        :param rest: the rest of the first run's text.
        :param other: the rest of the other run's text.
        :param admits: returns the part of an answer that is quoted there, or ``None``.
        """
        words, other_words = rest.words(KEY_WORDS), other.words(KEY_WORDS)
        for pair, parts in _beginning_with(words, other_words, self.by_words):
            ends = _whole_ends(rest, other, pair)
            yield from _quotes(rest, ends, pair, parts, admits)
        candidates = list(_beginning_with(words, other_words, self.by_beginning))
        common = _words_in_common(rest, other) if candidates else 0
        for pair, parts in candidates:
            if _may_differ(rest, other, pair, common):
                ends = _cut_ends(rest, other, pair)
                yield from _quotes(rest, ends, pair, parts, admits)


def _beginning_with(
    words: tuple[str, ...], other_words: tuple[str, ...], table: Table
) -> Iterator[tuple[FormPair, Parts]]:
    """Yield the answers of a table that begin with the given words in each run.

    An answer of fewer words than these is found by all of its words. The table also has each first
    word as a key, so that other words need no further look.
    """
    most = len(words) if words[:1] in table else 0
    for length in range(most + 1):
        by_other_words = table.get(words[:length])
        if not by_other_words:
            continue
        matches = [
            each
            for other_length in range(len(other_words) + 1)
            for each in by_other_words.get(other_words[:other_length], ())
        ]
        yield from sorted(matches, key=lambda each: each[1].index)


class Quote(NamedTuple):
    """An answer that two texts quote.

    :param part: what is quoted.
    :param pair: its words in both runs.
    :param begin: the token of the first text at which it begins.
    :param end: the token after it.
    :param other_end: the token after it in the other text.
    """

    part: Part
    pair: FormPair
    begin: int
    end: int
    other_end: int


def _quotes(
    rest: Rest, ends: Sequence[tuple[int, int]], pair: FormPair, parts: Parts, admits: Admits
) -> Iterator[Quote]:
    """Yield a quote of an answer for each pair of ends, if the answer is admitted."""
    part = admits(parts, pair, rest) if ends else None
    if part is not None:
        for end, other_end in ends:
            yield Quote(part, pair, rest.begin, end, other_end)


def _words_in_common(rest: Rest, other: Rest) -> int:
    """Return the number of equal words with which two rests begin."""
    return common_length(rest.text.words, rest.first_word, other.text.words, other.first_word)


def common_length(
    tokens: Sequence[str], first: int, other_tokens: Sequence[str], other_first: int
) -> int:
    """Return how many words or tokens are the same in two sequences, from a position in each on."""
    most = min(len(tokens) - first, len(other_tokens) - other_first)
    for number in range(most):
        if tokens[first + number] != other_tokens[other_first + number]:
            return number
    return most


def _may_differ(rest: Rest, other: Rest, pair: FormPair, common: int) -> bool:
    """Return whether two texts may quote an answer beyond the words with which both begin.

    Words that are the same need no explanation.

    :param common: the number of these words.
    """
    form, other_form = pair
    goes_on = _goes_on(rest, form, common)
    other_goes_on = _goes_on(other, other_form, common)
    is_over = len(form.words) <= common
    is_other_over = len(other_form.words) <= common
    return (goes_on or other_goes_on) and (goes_on or is_over) and (other_goes_on or is_other_over)


def _goes_on(rest: Rest, form: Form, common: int) -> bool:
    """Return whether a text goes on with an answer after its first words; the next may be cut.

    :param common: the number of these first words.
    """
    words = rest.text.words
    first = rest.first_word
    next_word = first + common
    return (
        common < len(form.words)
        and next_word < len(words)
        and form.words[common].startswith(words[next_word])
        and words[first:next_word] == form.words[:common]
    )


def _skip(text: Text, position: int, marks: Sequence[str]) -> int:
    """Return the position of the next token that is neither blank nor the next of the marks."""
    remaining = list(marks)
    while position < len(text.tokens):
        if remaining and text.tokens[position] == remaining[0]:
            del remaining[0]
        elif not text.blanks[position]:
            break
        position += 1
    return position


def _ends(rest: Rest, form: Form) -> set[int]:
    """Return the positions at which an answer may end if a rest begins with it; empty if it does not.

    There may be two: a program may have stripped the marks at the answer's end.
    """
    count = len(form.words)
    if rest.words(count) != form.words:
        return set()
    text = rest.text
    first = rest.first_word
    position = _skip(text, rest.begin, form.lead)
    if count:
        if text.word_tokens[first] != position:
            return set()
        position = text.word_tokens[first + count - 1] + 1
    return {_skip(text, position, ()), _skip(text, position, form.trail)}


def _ends_of_cut(rest: Rest, form: Form) -> tuple[set[int], int]:
    """Return the positions at which a cut answer may end, and the size of the words that are left."""
    whole_ends = _ends(rest, form)
    if whole_ends:
        return whole_ends, form.size
    text = rest.text
    first = rest.first_word
    words = rest.words(len(form.words))
    if words[:CUT_WORDS] != form.words[:CUT_WORDS]:
        return set(), 0
    common = common_length(words, 0, form.words, 0)
    size = sum(map(len, words[:common]))
    if common < len(words) and form.words[common].startswith(words[common]):  # a word that was cut
        size += len(words[common])
        common += 1
    if size < LONG_ANSWER or text.word_tokens[first] != _skip(text, rest.begin, form.lead):
        return set(), 0
    end = text.word_tokens[first + common - 1] + 1
    return {_skip(text, end, marks) for marks in ((), *ELLIPSES)}, size


def _whole_ends(rest: Rest, other: Rest, pair: FormPair) -> list[tuple[int, int]]:
    """Return where an answer may end in two texts that contain all its words."""
    return list(product(_ends(rest, pair[0]), _ends(other, pair[1])))


def _cut_ends(rest: Rest, other: Rest, pair: FormPair) -> list[tuple[int, int]]:
    """Return where an answer may end in two texts if the program cuts it by the same rule in both."""
    ends, size = _ends_of_cut(rest, pair[0])
    other_ends, other_size = _ends_of_cut(other, pair[1])
    if not ends or not other_ends:
        return []
    is_whole, is_other_whole = size == pair[0].size, other_size == pair[1].size
    if is_whole and is_other_whole:
        return []  # found by all its words
    is_longer = size > other_size + CUT_SLACK and not is_other_whole
    is_shorter = other_size > size + CUT_SLACK and not is_whole
    return [] if is_longer or is_shorter else list(product(ends, other_ends))
