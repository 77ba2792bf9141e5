"""Consequences: which changed answers explain the words that changed in a prompt, stretch by stretch."""

from __future__ import annotations

import re
from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

from ..apis.message import as_text
from ..apis.shapes import CONTENT_FIELDS
from ..keys.request import strings_in
from ..scopes.position import is_reserved_name, path_before_items, without_repeats
from ..stores.differences import TOKEN, Difference, common_ends, differences, pieces, text_diff
from ..stores.record import Record
from ..stores.records.answers import answer_parts
from .pairs import Pair

MIN_CUT_WORDS = 3  # in a quote whose first and last word may be cut
MAX_WORD_PAIRS = 4_000_000  # to compare; all words of a larger passage count as changed
_WORD = re.compile(r"\w+")
_WORDS = re.compile(r"\w+(?:\s+\w+)*")
_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([nrt])|(.))")  # as JSON writes it into a prompt
PROMPT_FIELDS = ("messages", "input", "arguments", "body")


class Stretch(NamedTuple):
    """Words that follow one another in a text of one run.

    :param side: the run, 0 or 1.
    """

    side: int
    words: str


@lru_cache(maxsize=4096)  # actors often read the same
def stretches_of(before: str, after: str) -> frozenset[Stretch]:
    """Return the stretches of changed words, without punctuation, each with its side."""
    texts = _unescaped(before), _unescaped(after)
    return frozenset(
        Stretch(side, _search_text(words.split()))
        for passage in text_diff(*texts, TOKEN, MAX_WORD_PAIRS)
        for side, piece in enumerate(pieces(passage, *texts))
        for words in _WORDS.findall(piece)
    )


def _unescaped(text: str) -> str:
    """Return a text without JSON's escapes."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)) if match[1] else match[3] or " ", text)


def _search_text(words: list[str]) -> str:
    """Return the text by which a stretch is sought; a long quote may be cut within a word at its ends."""
    return _padded(words) if len(words) < MIN_CUT_WORDS else _padded(words).strip()


def _padded(words: Iterable[str]) -> str:
    """Return words with blanks between and around them, so that a search finds only whole words."""
    return f" {' '.join(words)} ".casefold()


def searchable(text: str) -> str:
    """Return the words of a text, without JSON's escapes, so that a search finds only whole words."""
    return _padded(_WORD.findall(_unescaped(text)))


class ChangedCall(NamedTuple):
    """A call that differs between two runs, or that only one of them has.

    :param place: its number in the actor's run.
    :param actor: the number of its actor in the file.
    :param answers: the words of its answer in each run; empty if they are the same.
    """

    place: int
    actor: int
    pair: Pair
    answers: tuple[str, str]


def _changed_call(actor: int, pair: Pair) -> ChangedCall:
    answer, other_answer = _answer_words(pair.one), _answer_words(pair.other)
    answers = ("", "") if answer == other_answer else (answer, other_answer)
    return ChangedCall(pair.index, actor, pair, answers)


# For a stretch, and all that changed beside it, in order: the answers with its words that explain it; those whose own
# prompts have all of these changes, which explain it in later places if they are consequences; and those not looked at.
Candidates = tuple[list[int], deque[int], Iterator[int]]


class Changes:
    """The calls that differ between two runs, by place, then in the order of the file.

    A change may be a consequence by two rules: each changed stretch of words in a prompt stands in a changed answer
    that the actor could have read; and that answer's own prompt had not all these changes already, unless they are a
    consequence there. A model may repeat words of its question.
    """

    def __init__(self, actors: Sequence[Sequence[Pair]]) -> None:
        changed = (
            _changed_call(actor, pair)
            for actor, pairs in enumerate(actors)
            for pair in pairs
            if pair.status != "same"
        )
        self._calls = sorted(changed, key=lambda call: (call.place, call.actor))
        self._changed_words: dict[int, frozenset[Stretch]] = {}
        self._causes: dict[tuple[int, frozenset[Stretch]], int | None] = {}
        # Of many rows that changed alike, each would look at the answers of all others.
        self._candidates = lru_cache(4096)(self._new_candidates)

    def first_of_each_actor(self) -> list[int]:
        """Return the index of the first change of each actor, in the order of the file."""
        firsts: dict[int, int] = {}
        for index, call in enumerate(self._calls):
            firsts.setdefault(call.actor, index)
        return [firsts[actor] for actor in sorted(firsts)]

    def pair(self, index: int) -> Pair:
        """Return the records of a change."""
        return self._calls[index].pair

    def first_source(self, difference: Difference, index: int) -> int | None:
        """Return the index of the first answer that explains a difference in a prompt, or ``None``.

        :param index: of the change that has the difference.
        """
        return self._cause(index, _stretches_in(difference))

    def _cause(self, index: int, stretches: frozenset[Stretch]) -> int | None:
        """Return the first of the answers that explain all stretches, or ``None``."""
        key = index, stretches
        if key not in self._causes:
            found = [self._first_explaining(index, it, stretches) for it in stretches]
            known = [source for source in found if source is not None]
            self._causes[key] = min(known) if known and len(known) == len(found) else None
        return self._causes[key]

    def _first_explaining(
        self, index: int, stretch: Stretch, stretches: frozenset[Stretch]
    ) -> int | None:
        """Return the first answer that has the words of a stretch, and explains it, or ``None``."""
        place = self._calls[index].place
        explaining, repeating, rest = self._candidates(stretch, stretches)
        looked_at = 0
        while True:
            while repeating and self._calls[repeating[0]].place < place:
                number = repeating.popleft()
                if self._cause(number, self._words_changed_in(number)) is not None:
                    insort(explaining, number)
                    looked_at = 0
            while looked_at < len(explaining):
                number = explaining[looked_at]
                if self._calls[number].place > place:
                    return None
                if number != index and _could_read(
                    self._calls[index].pair, self._calls[number].pair, stretch.side
                ):
                    return number
                looked_at += 1
            number = next(rest, -1)
            if number < 0:
                return None
            is_repeating = stretches <= self._words_changed_in(number)
            (repeating if is_repeating else explaining).append(number)
            if self._calls[number].place > place:
                return None

    def _new_candidates(self, stretch: Stretch, _: frozenset[Stretch]) -> Candidates:
        return [], deque(), self._with_words(stretch)

    def _with_words(self, stretch: Stretch) -> Iterator[int]:
        """Yield the changed answers that have the words of a stretch."""
        words = stretch.words.split()
        whole = words if stretch.words.startswith(" ") else words[1:-1]  # the others may be cut
        by_word = self._answers_by_word[stretch.side]
        for index in min((by_word.get(word, []) for word in whole), key=len):
            if stretch.words in self._calls[index].answers[stretch.side]:
                yield index

    def _words_changed_in(self, index: int) -> frozenset[Stretch]:
        """Return the stretches of words that changed in the prompt of a call, if both runs have it."""
        if index not in self._changed_words:
            one, other = self.pair(index).one, self.pair(index).other
            fields = differences(one.request, other.request) if one and other else ()
            found = (_stretches_in(field) for field in fields if is_in_prompt(field))
            self._changed_words[index] = frozenset().union(*found)
        return self._changed_words[index]

    @cached_property
    def _answers_by_word(self) -> tuple[dict[str, list[int]], ...]:
        """Return, by side and word, the indexes of the changed answers that have it."""
        by_word: tuple[dict[str, list[int]], ...] = {}, {}
        for index, call in enumerate(self._calls):
            for words, answer in zip(by_word, call.answers, strict=True):
                for word in {*answer.split()}:
                    words.setdefault(word, []).append(index)
        return by_word


def _stretches_in(difference: Difference) -> frozenset[Stretch]:
    return stretches_of(
        *(field_text(side) or "" for side in (difference.recorded, difference.requested))
    )


def _could_read(call: Pair, earlier: Pair, side: int) -> bool:
    """Return whether a call of a run could have read an earlier call's answer, judged by their scopes.

    The items of a map, and the repeats of an item, are sent at the same time. The repeats of
    ``arms``, and first levels with scopes below them, are independent. First levels without scopes
    below them are actors, who may read one another's answers.

    :param side: the run, 0 or 1.
    """
    reader, source = ((pair.one, pair.other)[side] for pair in (call, earlier))
    if reader is None or source is None:
        return True
    scopes = reader.scope, source.scope
    paths = [scope.split("/") for scope in scopes]
    shared, _ = common_ends(*paths)
    above, names = paths[0][:shared], ["".join(path[shared : shared + 1]) for path in paths]
    if call.index == earlier.index and (all(map(is_reserved_name, names)) or _is_repeat(*scopes)):
        return False
    if not above:
        return any("/" not in path_before_items(scope) for scope in scopes)
    # Agents may be numbered, too; only the first number below another level counts the repeats.
    are_repeats = all(map(str.isdecimal, names)) and not any(map(str.isdecimal, above[1:]))
    return not (are_repeats and reader.arms and source.arms)


def _is_repeat(scope: str, other: str) -> bool:
    """Return whether two scopes belong to different repeats of one item."""
    return scope != other and without_repeats(scope)[0] == without_repeats(other)[0]


def _answer_words(record: Record | None) -> str:
    """Return the words of an answer's text, and of all other texts in it."""
    texts = [] if record is None else [record.answer, *strings_in(answer_parts(record))]
    return "|".join(dict.fromkeys(map(searchable, texts)))


def is_in_prompt(difference: Difference) -> bool:
    """Return whether a field is part of the prompt, and not a parameter."""
    field = difference.place.removeprefix("body.")
    names: tuple[str, ...] = PROMPT_FIELDS if field == difference.place else CONTENT_FIELDS
    return re.split(r"[.\[]", field)[0] in names


def field_text(value: object) -> str | None:
    """Return a field's value as text: a message's content if it is text, other data as JSON."""
    content = value.get("content") if isinstance(value, dict) else None
    if isinstance(content, str) and content.strip():
        return content
    return None if value is None else as_text(value)
