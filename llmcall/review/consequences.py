"""Consequences: which changed answers explain the words that changed in a prompt, stretch by stretch."""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import SequenceMatcher
from functools import cached_property, lru_cache
from itertools import chain
from typing import NamedTuple

from ..apis.message import as_text
from ..apis.shapes import CONTENT_FIELDS
from ..keys.request import strings_in
from ..scopes.position import is_reserved_name, path_before_items, without_repeats
from ..stores.differences import TOKEN, Difference, common_ends, differences, pieces, text_diff
from ..stores.record import Record
from ..stores.records.answers import answer_parts
from ..support.display import as_json
from .pairs import Pair

MIN_CUT_WORDS = 3  # in a quote whose first and last word may be cut
MAX_WORD_PAIRS = 4_000_000  # to compare; all words of a larger passage count as changed
_WORD = re.compile(r"\w+")
_WORDS = re.compile(r"\w+(?:\s+\w+)*")
_BRACKET = re.compile(r"[\[{]")
_NUMBERS = re.compile(r"[\W\d_]*(?:T[\W\d_]*)?Z?")  # without words, or a date
_DECODER = json.JSONDecoder()
_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([nrt])|(.))")  # as JSON writes it into a prompt


class Stretch(NamedTuple):
    """Words that follow one another in a text of one run.

    :param side: the run, 0 or 1.
    """

    side: int
    words: str


@lru_cache(maxsize=4096)  # actors often read the same
def stretches_of(before: str, after: str) -> frozenset[Stretch]:
    """Return the stretches of changed words, without punctuation, each with its side; in a JSON text those of its
    values: the names of its fields are in no answer.
    """
    (text, values), (other_text, other_values) = map(_without_json, (before, after))
    return frozenset((*_changed_stretches(text, other_text), *_in_values(values, other_values)))


def _changed_stretches(before: str, after: str) -> Iterator[Stretch]:
    texts = _unescaped(before), _unescaped(after)
    for passage in text_diff(*texts, TOKEN, MAX_WORD_PAIRS):
        for side, piece in enumerate(pieces(passage, *texts)):
            yield from _stretches(side, piece)


def _stretches(side: int, text: str) -> Iterator[Stretch]:
    for words in _WORDS.findall(text):
        yield Stretch(side, _search_text(words.split()))


def _without_json(text: str) -> tuple[str, list[object]]:
    """Return a text without its JSON objects and arrays, and these."""
    found: list[object] = []
    outside, end = [], 0
    for match in _BRACKET.finditer(text):
        if match.start() >= end:
            with suppress(ValueError, RecursionError):
                value, value_end = _DECODER.raw_decode(text, match.start())
                found.append(value)
                outside.append(text[end : match.start()])
                end = value_end
    return " {} ".join((*outside, text[end:])), found


def _in_values(
    values: Sequence[object], others: Sequence[object], *, is_list: bool = False
) -> Iterator[Stretch]:
    """Yield the stretches that changed in JSON values.

    :param is_list: ``True`` if they are the elements of one list. Of these, an object that only one run has is one that
        was added or removed; others are compared in their order.
    """
    texts, other_texts = ([as_json(value) for value in side] for side in (values, others))
    matcher = SequenceMatcher(None, texts, other_texts, autojunk=False)
    for tag, begin, end, other_begin, other_end in matcher.get_opcodes():
        if tag == "equal":
            continue
        rest, other_rest = values[begin:end], list(others[other_begin:other_end])
        is_paired = not is_list and len(rest) == len(other_rest)
        whole: list[Stretch] = []
        for value in rest:
            alike = (n for n, other in enumerate(other_rest) if is_paired or _is_same(value, other))
            number = next(alike, None)
            if number is None:
                whole += _of_whole(0, value)
            else:
                yield from _in_value(value, other_rest.pop(number))
        for other in other_rest:
            whole += _of_whole(1, other)
        # What one that went and one that came both say, such as who wrote a post, did not change.
        sides = Counter(words for _, words in {*whole})
        yield from (stretch for stretch in whole if sides[stretch.words] == 1)


def _in_value(value: object, other: object) -> Iterator[Stretch]:
    """Yield the stretches that changed in one JSON value."""
    if isinstance(value, dict) and isinstance(other, dict):
        for name in {**value, **other}:
            if name in value and name in other:
                yield from _in_value(value[name], other[name])
            else:
                yield from _of_whole(int(name in other), value.get(name, other.get(name)))
    elif isinstance(value, list) and isinstance(other, list):
        yield from _in_values(value, other, is_list=True)
    elif value != other:
        yield from stretches_of(as_text(value), as_text(other))


def _is_same(value: object, other: object) -> bool:
    """Return whether two elements of a list are one thing that changed, such as a post with another number of likes."""
    if isinstance(value, dict) and isinstance(other, dict):
        return max(strings_in(value), key=len, default="") == max(
            strings_in(other), key=len, default=""
        )
    return isinstance(value, list) and isinstance(other, list)


def _of_whole(side: int, value: object) -> Iterator[Stretch]:
    """Yield the stretches of a value that only one run has: its texts. A world numbers and dates what it adds."""
    for text in strings_in(value):
        if not _NUMBERS.fullmatch(text):
            outside, values = _without_json(text)
            yield from _stretches(side, outside)
            yield from chain.from_iterable(_of_whole(side, inner) for inner in values)


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


PROMPT_FIELDS = ("messages", "input", "arguments", "body")


class ChangedCall(NamedTuple):
    """A call that differs between two runs, or that only one of them has.

    :param actor: the number of its actor in the file.
    :param scopes: its scope path in each run; ``None`` in one that lacks it.
    :param has_arms: for each run, ``True`` if it is an arm's.
    """

    place: int
    actor: int
    pair: Pair
    scopes: tuple[str | None, str | None]
    has_arms: tuple[bool, bool]


class Answers:
    """The words of answers by their numbers, in one piece of memory: two runs of a million may differ in each."""

    def __init__(self) -> None:
        self._words = bytearray()
        self._ends = array("Q", [0])

    def add(self, words: str) -> None:
        """Add the words of the next answer."""
        self._words += words.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._words))

    def __getitem__(self, number: int) -> str:
        words = self._words[self._ends[number] : self._ends[number + 1]]
        return words.decode("utf-8", "surrogatepass")

    def has(self, number: int, words: bytes) -> bool:
        """Return whether an answer has some words, encoded."""
        return self._words.find(words, self._ends[number], self._ends[number + 1]) >= 0


class Changes:
    """The calls that differ between two runs, by place, then in the order of the file."""

    def __init__(self, actors: Sequence[Sequence[Pair]]) -> None:
        changed = [
            (pair.index, number, pair)
            for number, pairs in enumerate(actors)
            for pair in pairs
            if pair.status != "same"
        ]
        changed.sort(key=lambda change: change[:2])
        self._pairs = [pair for *_, pair in changed]
        self._places = array("I", (place for place, *_ in changed))
        self._actors = array("I", (actor for _, actor, _ in changed))
        self._scopes: list[tuple[str | None, str | None]] = []
        self._has_arms = bytearray(), bytearray()
        self._answers = Answers(), Answers()  # of each run
        self._are_same = bytearray()  # then the words are only among the first run's
        met: dict[tuple[str | None, str | None], tuple[str | None, str | None]] = {}
        for pair in self._pairs:
            one, other = pair.one, pair.other
            scopes = (one.scope if one else None, other.scope if other else None)
            self._scopes.append(met.setdefault(scopes, scopes))
            words, other_words = _answer_words(one), _answer_words(other)
            is_same = words == other_words
            self._are_same.append(is_same)
            for side, (text, record) in enumerate(((words, one), (other_words, other))):
                self._answers[side].add("" if side and is_same else text)
                self._has_arms[side].append(bool(record and record.arms))
        self._settled: set[int] = set()  # their answers explain later ones of the same place
        self._changed_words: dict[int, frozenset[Stretch]] = {}
        self._holders: dict[Stretch, list[int]] = {}
        self._direct: set[Stretch] = set()  # in changes that are not consequences

    def __getitem__(self, index: int) -> ChangedCall:
        arms, other_arms = (bool(side[index]) for side in self._has_arms)
        return ChangedCall(
            self._places[index],
            self._actors[index],
            self._pairs[index],
            self._scopes[index],
            (arms, other_arms),
        )

    def _answers_of(self, index: int, side: int) -> Answers:
        """Return the answers among which is the one of a run."""
        return self._answers[0 if self._are_same[index] else side]

    def first_of_each_actor(self) -> dict[int, int]:
        """Return the index of the first change of each actor."""
        firsts: dict[int, int] = {}
        for index, actor in enumerate(self._actors):
            firsts.setdefault(actor, index)
        return firsts

    def causes_first(self, indexes: Iterable[int]) -> Iterator[set[int]]:
        """Yield the changes of one place in batches: first those that answers of smaller places
        explain, or that nothing explains, then those whose changed words are in the answers of
        batches before.

        Changes that would each follow from the other, in a circle, are one batch: none of them follows
        from the others.

        :param indexes: the changes to put in order. Those whose answers have their words come, too.
        """
        needs: dict[int, list[set[int]]] = {}
        found = set(indexes)
        while found:
            needs |= {index: self._needs(index) for index in found}
            found = {need for index in found for need in _all_of(needs[index])} - needs.keys()
        while needs:
            ready = {
                index
                for index, needed in needs.items()
                if not all(needed) or all(holders - needs.keys() for holders in needed)
            }
            ready = ready or _circles(needs)
            yield ready
            self._settled |= ready
            needs = {index: needed for index, needed in needs.items() if index not in ready}

    def _needs(self, index: int) -> list[set[int]]:
        """Return, for each stretch of words that changed in a prompt and is in no answer of a smaller
        place, the changes of the same place whose answers have it.

        An answer whose own question has all of these words does not count: it may only repeat them.
        """
        change = self[index]
        stretches, needs = self._words_changed_in(index), []
        for stretch in stretches:
            # The answers of smaller places come first; most of the same place only repeat their questions.
            needed: set[int] = set()
            for number in self._readable_answers(stretch, change, repeated=stretches):
                if self._places[number] < change.place:
                    break
                needed.add(number)
            else:
                needs.append(needed)
        return needs

    def _words_changed_in(self, index: int) -> frozenset[Stretch]:
        """Return the stretches of words that changed in the prompt of a call, computed once."""
        if index not in self._changed_words:
            self._changed_words[index] = _changed_words(self._pairs[index])
        return self._changed_words[index]

    def first_source(self, difference: Difference, index: int) -> int | None:
        """Return the first answer that explains a difference, or ``None``: for each changed stretch of
        words there must be a changed answer that the actor could have read.

        A model may repeat words of its question. So if a change has the words of an earlier change
        that is not a consequence, it is not a consequence, either.

        :param index: the call that differs.
        """
        sides = [field_text(side) or "" for side in sides_of(difference)]
        stretches = stretches_of(*sides)
        if stretches <= self._direct:
            return None
        found = {stretch: self._first_answer(stretch, index) for stretch in stretches}
        first = min((source for source in found.values() if source is not None), default=None)
        unexplained = {stretch for stretch, source in found.items() if source is None}
        if unexplained or any(
            self._is_beside_answers(stretch, sides) for stretch in stretches & self._direct
        ):
            self._direct |= unexplained
            return None
        return first

    def _is_beside_answers(self, stretch: Stretch, sides: Sequence[str]) -> bool:
        """Return whether a prompt has changed words outside quoted answers more often than the other run's."""
        words, counts = stretch.words, []
        for side, text in enumerate(sides):
            prompt = searchable(text)
            for index in self._answers_with(Stretch(side, words)):
                for answer in self._answers_of(index, side)[index].split("|"):
                    if words in answer and len(answer) > len(words):
                        prompt = prompt.replace(answer, "  ")
            counts.append(prompt.count(words))
        return counts[stretch.side] > counts[1 - stretch.side]

    def _first_answer(self, stretch: Stretch, index: int) -> int | None:
        """Return the first answer with given words that a call could have read, or ``None``."""
        change = self[index]
        for source in self._readable_answers(stretch, change):
            if source in self._settled or self._places[source] < change.place:
                return source
        return None

    def _readable_answers(
        self, stretch: Stretch, reader: ChangedCall, repeated: frozenset[Stretch] | None = None
    ) -> Iterator[int]:
        """Yield the answers that have given words and that a call could have read: those of a
        smaller place, and those of other actors at the same place.

        :param repeated: leaves out the answers of the same place whose own questions have all these words.
        """
        for index in self._answers_with(stretch):
            source = self[index]
            if source.place > reader.place:
                return
            if (
                repeated is not None
                and source.place == reader.place
                and repeated <= self._words_changed_in(index)
            ):
                continue
            is_own = (source.place, source.actor) == (reader.place, reader.actor)
            if not is_own and _could_read(reader, source, stretch.side):
                yield index

    def _answers_with(self, stretch: Stretch) -> list[int]:
        """Return the changed answers that have given words."""
        if stretch not in self._holders:
            words = stretch.words.split()
            whole = words if stretch.words.startswith(" ") else words[1:-1]  # the others may be cut
            by_word = self._answers_by_word[stretch.side]
            found = (by_word.get(word, ()) for word in whole)
            answers = min(((it,) if isinstance(it, int) else it for it in found), key=len)
            sought = stretch.words.encode("utf-8", "surrogatepass")
            self._holders[stretch] = [
                index
                for index in answers
                if self._answers_of(index, stretch.side).has(index, sought)
            ]
        return self._holders[stretch]

    @cached_property
    def _answers_by_word(self) -> tuple[dict[str, int | array[int]], ...]:
        """Return, by side and word, the changed answers that have it: one, or several."""
        by_word: tuple[dict[str, int | array[int]], ...] = {}, {}
        for index, is_same in enumerate(self._are_same):
            for side, answers in enumerate(self._answers) if not is_same else ():
                for word in {*answers[index].split()}:
                    known = by_word[side].setdefault(word, index)
                    if isinstance(known, array):
                        known.append(index)
                    elif known != index:
                        by_word[side][word] = array("I", (known, index))
        return by_word


def _circles(needs: Mapping[int, list[set[int]]]) -> set[int]:
    """Return the calls that need themselves through others."""
    circles = set()
    for index in needs:
        reached: set[int] = set()
        found = {index}
        while found:
            found = {need for one in found for need in _all_of(needs.get(one, []))} - reached
            reached |= found
        if index in reached:
            circles.add(index)
    return circles


def _all_of(sets: Iterable[set[int]]) -> set[int]:
    return set().union(*sets)


def _changed_words(pair: Pair) -> frozenset[Stretch]:
    """Return the stretches of words that changed in the prompt of a call that both runs have."""
    one, other = pair.one, pair.other
    if one is None or other is None:
        return frozenset()
    changed = differences(one.request, other.request)
    return frozenset().union(
        *(
            stretches_of(*(field_text(side) or "" for side in sides_of(field)))
            for field in changed
            if is_in_prompt(field)
        )
    )


def _could_read(call: ChangedCall, earlier: ChangedCall, side: int) -> bool:
    """Return whether a call of a run could have read an earlier call's answer, judged by their scopes.

    The items of a map, and the repeats of an item, are sent at the same time. The repeats of
    ``arms``, and first levels with scopes below them, are independent. First levels without scopes
    below them are actors, who may read one another's answers.

    :param side: the run, 0 or 1.
    """
    reader, source = call.scopes[side], earlier.scopes[side]
    if reader is None or source is None:
        return True
    paths = [scope.split("/") for scope in (reader, source)]
    shared, _ = common_ends(*paths)
    above, names = paths[0][:shared], ["".join(path[shared : shared + 1]) for path in paths]
    if call.place == earlier.place and (
        all(map(is_reserved_name, names)) or _is_repeat(reader, source)
    ):
        return False
    if not above:
        return any("/" not in path_before_items(scope) for scope in (reader, source))
    # Agents may be numbered, too; only the first number below another level counts the repeats.
    are_repeats = all(map(str.isdecimal, names)) and not any(map(str.isdecimal, above[1:]))
    return not (are_repeats and call.has_arms[side] and earlier.has_arms[side])


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


def sides_of(difference: Difference) -> tuple[object, object]:
    """Return a field's value in the first run and in the other one."""
    return difference.recorded, difference.requested


def field_text(value: object) -> str | None:
    """Return a field's value as text: a message's content if it is text, other data as JSON."""
    content = value.get("content") if isinstance(value, dict) else None
    if isinstance(content, str) and content.strip():
        return content
    return None if value is None else as_text(value)
