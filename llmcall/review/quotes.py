"""Two texts of one program that are the same but for the answers that they quote.

A program quotes an answer whole, stripped or cut; one field of its JSON; in a printed list or dict;
or joined with others. So an answer is sought by its words: blanks, quotation marks and escapes never
count, nor do punctuation marks inside it. All else must be the same in both texts, to the character.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import insort
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product
from operator import or_
from typing import Any, NamedTuple

from ..display.formatting import as_json
from ..errors import OutputError
from ..outputs import containers
from ..types import Record

LONG = 12  # characters of the words of an answer that no prompt holds by chance
CUT_WORDS = 4  # so many words of an answer must be there to know it by its beginning
CUT_SLACK = 24  # characters by which two cuts of one rule may differ
ELLIPSES = (("…",), (".", ".", "."), ("[", ".", ".", ".", "]"))  # at the end of what was cut
KEY_WORDS = 6  # with which answers are looked up
EDITS = 200  # tokens that are inserted or deleted; beyond them, texts differ as a whole

_WIDE = "[\u2e80-\U0003ffff]"  # scripts that are written without blanks
_ESCAPED = r"\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}"
_TOKEN = re.compile(
    r"(?P<blank>\s+|[\"'`´‘’“”«»]|\\[\"'\\/nrtbf])"
    rf"|(?P<word>(?=\w){_WIDE}|(?:(?!{_WIDE})\w|{_ESCAPED})+(?:(?<=\d)\.\d+)*)"
    r"|.",
    re.DOTALL,
)
_ESCAPE = re.compile(_ESCAPED)
_SENTENCE = re.compile(r"[^.!?]*[.!?]")
_LABELLED = re.compile(r"\W*(\w[\w ]{0,30}):\s*(\S.*)")


# Texts


class Text(NamedTuple):
    """A text in tokens: words, marks and blanks; together they are the text.

    :param tokens: as they are written.
    :param blanks: whether each token does not count.
    :param words: as they are compared.
    :param places: of each word, its number among the tokens.
    :param ranks: of each token, how many words come before it.
    """

    tokens: list[str]
    blanks: list[bool]
    words: tuple[str, ...]
    places: list[int]
    ranks: list[int]

    def words_before(self, at: int, count: int) -> tuple[str, ...]:
        """Return the last words before a token."""
        end = self.ranks[at]
        return self.words[max(0, end - count) : end]

    def is_word(self, at: int) -> bool:
        """Tell whether a token is a word."""
        return self.ranks[at] < self.ranks[at + 1]


@lru_cache(maxsize=4096)
def text_of(text: str) -> Text:
    """Return a text in tokens."""
    tokens: list[str] = []
    blanks: list[bool] = []
    words: list[str] = []
    places: list[int] = []
    ranks: list[int] = []
    for match in _TOKEN.finditer(text):
        token, kind = match[0], match.lastgroup
        ranks.append(len(words))
        if kind == "word" or (kind is None and _is_symbol(token)):
            places.append(len(tokens))
            words.append(_compared(token))
        tokens.append(token)
        blanks.append(kind == "blank")
    return Text(tokens, blanks, tuple(words), places, [*ranks, len(words)])


@lru_cache(maxsize=4096)
def spoken(text: str) -> str:
    """Return the words of a text, as they are compared, with blanks between and around them."""
    return f" {' '.join(text_of(text).words)} "


def _is_symbol(character: str) -> bool:
    """Tell whether a character says something by itself, as an emoji does."""
    return not character.isascii() and unicodedata.category(character)[0] not in "PZC"


def _compared(word: str) -> str:
    if "\\" in word:
        decoded = _ESCAPE.sub(lambda match: chr(int(match[0][2:], 16)), word)
        word = decoded.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    word = word.casefold()
    return "null" if word == "none" else word


# Answers


class Form(NamedTuple):
    """The words of an answer, or of a part of it.

    :param text: as it is written.
    :param words: as they are compared.
    :param lead: the marks before the first word, which a program may strip.
    :param trail: the marks after the last one.
    :param size: the characters of the words.
    """

    text: str
    words: tuple[str, ...]
    lead: tuple[str, ...]
    trail: tuple[str, ...]
    size: int


@lru_cache(maxsize=4096)
def form_of(text: str) -> Form:
    """Return the words of a text."""
    read = text_of(text)
    first = read.places[0] if read.places else len(read.tokens)
    last = read.places[-1] if read.places else len(read.tokens)

    def marks(begin: int, end: int) -> tuple[str, ...]:
        return tuple(read.tokens[at] for at in range(begin, end) if not read.blanks[at])

    lead, trail = marks(0, first), marks(last + 1, len(read.tokens))
    return Form(text, read.words, lead, trail, sum(map(len, read.words)))


def forms(record: Record, normalize: Callable[[str], str] | None) -> dict[Hashable, Form]:
    """Return what a program may quote of an answer: the whole, its lines, the fields of its JSON.

    :param normalize: what the recording takes out of the texts of requests, or ``None``.
    :returns: the parts by their places.
    """
    response = record.response
    if record.kind == "chat":
        choices = response.get("choices") or ()
        said: Any = [choice.get("message") for choice in choices]
    elif record.kind == "function":
        said = response.get("value")
    else:
        # The events of a stream hold pieces; the answer is their text.
        said = [record.answer, response] if record.kind == "http" else None
    return {
        place: form_of(normalize(text) if normalize else text) for place, text in _parts(said, ())
    }


def _parts(value: Any, place: tuple[Hashable, ...]) -> Iterator[tuple[Hashable, str]]:
    if isinstance(value, str):
        yield place, value
        yield from _parts_of_text(value, place)
        return
    if isinstance(value, bytes):
        return
    yield place, as_json(value)
    if isinstance(value, (dict, list)):
        items: Iterable[tuple[Hashable, Any]] = (
            value.items() if isinstance(value, dict) else enumerate(value)
        )
        for name, item in items:
            yield from _parts(item, (*place, name))


def _parts_of_text(text: str, place: tuple[Hashable, ...]) -> Iterator[tuple[Hashable, str]]:
    try:
        data = containers(text) if "{" in text or "[" in text else []
    except OutputError:
        data = []  # what is no JSON has no fields
    for number, value in enumerate(data):
        yield from _parts(value, (*place, "json", number))
    if data:
        return
    sentence = _SENTENCE.match(text)
    if sentence and sentence[0] != text:
        yield (*place, "sentence"), sentence[0]
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if len(lines) > 1:
            yield (*place, "line", number), line
        if label := _LABELLED.fullmatch(line):
            yield (*place, "label", label[1].casefold()), label[2]


class Change(NamedTuple):
    """One answer that two runs gave differently.

    :param scope: whose it is.
    :param number: its place among the calls of that scope.
    :param ours: the parts of the first run's answer.
    :param theirs: those of the other's.
    :param calls: the number of calls of that scope.
    """

    scope: str
    number: int
    ours: Mapping[Hashable, Form]
    theirs: Mapping[Hashable, Form]
    calls: int


class Part(NamedTuple):
    """One part of a changed answer, which prompts may quote.

    :param change: the answer.
    :param place: where it stands in the answer.
    :param order: its place among the parts with the same words.
    """

    change: Change
    place: Hashable
    order: int


Turn = tuple[int, int]  # the place of an answer in its actor's run, and the number of calls there


class Parts:
    """The parts of changed answers that have the same words in both runs.

    :ivar index: the place of these words among those of all parts.
    :ivar by_turn: the parts, in their order.
    :ivar passed: those of calls that were passed, in the same order.
    """

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.by_turn: dict[Turn, list[Part]] = {}
        self.passed: dict[Turn, list[Part]] = {}
        self._within: dict[str, list[Part]] = {}
        self._count = 0

    def add(self, change: Change, place: Hashable = ()) -> Part:
        """Add a part of an answer, and return it."""
        part = Part(change, place, self._count)
        self._count += 1
        self.by_turn.setdefault((change.number, change.calls), []).append(part)
        scope = change.scope
        self._within.setdefault(scope, []).append(part)
        while "/" in scope:
            scope = scope.rpartition("/")[0]
            self._within.setdefault(scope, []).append(part)
        return part

    def within(self, scope: str) -> list[Part]:
        """Return the parts of an actor, and of those whose scopes are in its scope."""
        return self._within.get(scope, [])

    def note_passed(self, part: Part) -> None:
        """Note that the call that gave a part was passed."""
        turn = part.change.number, part.change.calls
        insort(self.passed.setdefault(turn, []), part, key=order_of)


def order_of(part: Part) -> int:
    """Return the place of a part among those with the same words."""
    return part.order


Pair = tuple[Form, Form]  # a part of an answer in both runs
Admits = Callable[[Parts, Pair, Text, int], Part | None]
Table = dict[tuple[str, ...], dict[tuple[str, ...], dict[Pair, Parts]]]


class Answers:
    """The answers that two runs gave differently, by the words with which they begin in both runs."""

    def __init__(self, changes: Iterable[Change]) -> None:
        self.by_words: Table = {}
        self.by_beginning: Table = {}
        self.longest = 0
        self._by_call: dict[tuple[str, int], list[tuple[Parts, Part]]] = {}
        self._count = 0
        for change in changes:
            for place, ours in change.ours.items():
                theirs = change.theirs.get(place, ours)
                if ours != theirs:
                    self._add((ours, theirs), change, place)

    def _add(self, pair: Pair, change: Change, place: Hashable) -> None:
        tables = [(self.by_words, KEY_WORDS)]
        if any(len(form.words) > CUT_WORDS and form.size > LONG for form in pair):
            tables.append((self.by_beginning, CUT_WORDS))
        for table, length in tables:
            table.setdefault(pair[0].words[:1], {})
            others = table.setdefault(pair[0].words[:length], {})
            pairs = others.setdefault(pair[1].words[:length], {})
            if pair not in pairs:
                pairs[pair] = Parts(self._count)
                self._count += 1
            self.watch(pairs[pair], pairs[pair].add(change, place))
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
        """Yield the answers that two texts quote from two places on."""
        first, other_first = one.ranks[p], other.ranks[q]
        words = one.words[first : first + KEY_WORDS]
        other_words = other.words[other_first : other_first + KEY_WORDS]
        for pair, parts in _beginning_with(words, other_words, self.by_words):
            if ends := _whole_ends(one, p, other, q, pair):
                part = admits(parts, pair, one, p)
                if part is not None:
                    yield from (Quote(part, pair, p, *each) for each in ends)
        cut = list(_beginning_with(words, other_words, self.by_beginning))
        same = _in_common(one.words, first, other.words, other_first) if cut else 0
        for pair, parts in cut:
            if not _may_differ(one, p, other, q, pair, same):
                continue
            if ends := _cut_ends(one, p, other, q, pair):
                part = admits(parts, pair, one, p)
                if part is not None:
                    yield from (Quote(part, pair, p, *each) for each in ends)


def _beginning_with(
    words: tuple[str, ...], other_words: tuple[str, ...], table: Table
) -> Iterator[tuple[Pair, Parts]]:
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
            for each in others.get(other_words[:other_length], {}).items()
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
    pair: Pair
    at: int
    end: int
    other_end: int


def _in_common(one: Sequence[str], p: int, other: Sequence[str], q: int) -> int:
    """Return how many words two sequences have in common from two places on."""
    most = min(len(one) - p, len(other) - q)
    return next((number for number in range(most) if one[p + number] != other[q + number]), most)


def _may_differ(one: Text, p: int, other: Text, q: int, pair: Pair, same: int) -> bool:
    """Tell whether two texts may quote an answer beyond the words that they have in common: what is
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
    """Tell whether an answer goes on in a text after so many words; the next word may be cut."""
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
        if text.places[first] != at:
            return set()
        at = text.places[first + count - 1] + 1
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
    if size < LONG or text.places[first] != _skipped(text, at, form.lead):
        return set(), 0
    end = text.places[first + same - 1] + 1
    return {_skipped(text, end, marks) for marks in ((), *ELLIPSES)}, size


def _whole_ends(one: Text, p: int, other: Text, q: int, pair: Pair) -> list[tuple[int, int]]:
    """Return where an answer may end in two texts that hold all its words."""
    return list(product(_ends(one, p, pair[0]), _ends(other, q, pair[1])))


def _cut_ends(one: Text, p: int, other: Text, q: int, pair: Pair) -> list[tuple[int, int]]:
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


# Two texts


def quotes(before: str, after: str, answers: Answers, admits: Admits) -> list[Quote] | None:
    """Return the quotes but for which two texts are the same, or ``None`` if there is more."""
    steps = _steps(text_of(before), text_of(after), answers, admits, 0) if answers else None
    return None if steps is None else [step.quote for step in steps if step.quote]


def without_quotes(before: str, after: str, answers: Answers, admits: Admits) -> str:
    """Return the other text with the first one's answers in the place of its own."""
    one, other = text_of(before), text_of(after)
    steps = _steps(one, other, answers, admits, EDITS) if answers else None
    if steps is None:
        return after
    return "".join(
        "".join(one.tokens[step.at[0] : step.to[0]])
        if step.quote
        else "".join(other.tokens[step.at[1] : step.to[1]])
        for step in steps
    )


class Step(NamedTuple):
    """A step through two texts at once: from their tokens ``at`` to their tokens ``to``."""

    at: tuple[int, int]
    to: tuple[int, int]
    quote: Quote | None = None


def _steps(
    one: Text, other: Text, answers: Answers, admits: Admits, most: int
) -> list[Step] | None:
    """Return the way through two texts with the fewest words of their own.

    :param most: so many tokens that only one of them has are allowed.
    """
    goal = len(one.tokens), len(other.tokens)
    same = next((at for at in range(min(goal)) if one.tokens[at] != other.tokens[at]), min(goal))
    # No quote that contains a difference begins further before it.
    start = max(0, same - 4 * answers.longest - 8)
    came: dict[tuple[int, int], Step | None] = {(start, start): None}
    level = [(start, start)]
    for _ in range(most + 1):
        stuck = []
        while level:
            state = level.pop()
            if state == goal:
                return [Step((0, 0), (start, start)), *_way(came, state)]
            p, q = state
            is_same = p < goal[0] and q < goal[1] and one.tokens[p] == other.tokens[q]
            if is_same:
                _reach(came, level, Step(state, (p + 1, q + 1)))
            else:
                stuck.append(state)
            if not is_same or one.is_word(p):
                for quote in answers.quoted(one, p, other, q, admits):
                    _reach(came, level, Step(state, (quote.end, quote.other_end), quote))
        for p, q in stuck:
            if p < goal[0]:
                _reach(came, level, Step((p, q), (p + 1, q)))
            if q < goal[1]:
                _reach(came, level, Step((p, q), (p, q + 1)))
    return None


def _reach(
    came: dict[tuple[int, int], Step | None], level: list[tuple[int, int]], step: Step
) -> None:
    if step.to not in came:
        came[step.to] = step
        level.append(step.to)


def _way(came: Mapping[tuple[int, int], Step | None], state: tuple[int, int]) -> list[Step]:
    found = []
    while (step := came[state]) is not None:
        found.append(step)
        state = step.at
    return found[::-1]
