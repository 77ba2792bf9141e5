"""Which differences between two prompts are explained: they only repeat answers that differ.

A short answer, such as "yes" or "3", may stand in a prompt by chance. So it counts only if it is a
message of its own, or if the program repeats such answers in other prompts, too (see :mod:`.repeats`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from heapq import merge
from itertools import accumulate
from typing import Any

from ..differences.fields import Difference, differences
from ..differences.words import passages, pieces
from ..display.formatting import as_json
from ..records.answers import says_the_same
from ..types import Data, Record
from .changes import Change, Part, Parts, order_of
from .forms import Form, forms
from .order import AFTER, CameBefore, Order
from .progress import Actor
from .quotes import LONG_ANSWER, Admits, ChangedAnswerIndex, FormPair, Quote, Rest
from .repeats import CONTEXTS, PROMPT_FIELDS, Repeats
from .texts import padded, text_of
from .unquoted import quotes_between, without_quotes

Normalize = Callable[[str], str] | None
# The words of changed passages, in both runs.
ChangedWords = tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]

QUOTING_ROLES = ("assistant", "tool", "function")  # roles of messages that repeat a whole answer


class Explanations:
    """Explains how actors' next calls differ, by the answers that differ.

    :param actors: the actors by scope path; they advance while this is used.
    :param order: the order of their calls.
    :param normalizers: each run's function that takes out of texts what does not count, or ``None``.
    """

    def __init__(
        self,
        actors: Mapping[str, Actor],
        order: Order,
        normalizers: tuple[Normalize, Normalize],
    ) -> None:
        self._actors = actors
        self._order = order
        self._normalizers = normalizers
        self._forms: dict[int, dict[Hashable, Form]] = {}
        self._explained: set[tuple[str, str, str]] = set()
        self._unquotable: set[tuple[str, str]] = set()
        self._parts_by_words: dict[ChangedWords, Parts] = {}
        self._moved: list[Actor] = []

    def note_moved(self, actor: Actor) -> None:
        """Note that some of an actor's calls were passed."""
        self._moved.append(actor)

    def without_quotes(self, actor: Actor, difference: Difference) -> str:
        """Return the other run's text of a difference, with each answer that it quotes replaced by
        the first run's.
        """
        admits = self._admits(actor, difference, self._order.may_come)
        return without_quotes(difference.recorded, difference.asked, self._answers, admits)

    @cached_property
    def _changes(self) -> list[Change]:
        """The answers that differ."""
        return [
            Change(
                scope,
                place,
                self._forms_of(call.one, 0),
                self._forms_of(call.other, 1),
                len(actor.calls),
            )
            for scope, actor in self._actors.items()
            for place, call in enumerate(actor.calls)
            if call.one and call.other and call.status == "changed"
            if not says_the_same(call.one, call.other)
        ]

    @cached_property
    def _repeats(self) -> Repeats:
        calls = {
            scope: [(call.one, call.other) for call in actor.calls]
            for scope, actor in self._actors.items()
        }
        sources = dict.fromkeys(change.scope for change in self._changes)
        return Repeats(calls, sources, self._forms_of)

    @cached_property
    def _index(self) -> ChangedAnswerIndex:
        return ChangedAnswerIndex(self._changes)

    @property
    def _answers(self) -> ChangedAnswerIndex:
        """The answers that differ, by their words; they know which calls were passed."""
        while self._moved:
            actor = self._moved.pop()
            for place in range(actor.indexed, actor.next_place):
                self._index.note_passed(actor.scope, place)
            actor.indexed = actor.next_place
        return self._index

    @cached_property
    def _earliest_shares(self) -> list[float]:
        """For each place, the smallest share of any changed answer at that place or before."""
        shares: dict[int, float] = {}
        for change in self._changes:
            shares[change.place] = min(change.turn.share, shares.get(change.place, 1))
        places = range(max(shares, default=-1) + 1)
        return list(accumulate((shares.get(place, 1) for place in places), min))

    def any_before(self, actor: Actor) -> bool:
        """Return whether any changed answer came before an actor's next call."""
        turn = actor.next_turn
        last = min(turn.place, len(self._earliest_shares)) - 1
        return last >= 0 and self._earliest_shares[last] < turn.share

    @cached_property
    def _by_word(self) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        """The indexes of the changes whose answers have a word, in each run."""
        indexes: tuple[dict[str, list[int]], dict[str, list[int]]] = {}, {}
        for index, change in enumerate(self._changes):
            for by_word, answer_forms in zip(
                indexes, (change.forms, change.other_forms), strict=True
            ):
                for word in {word for form in answer_forms.values() for word in form.words}:
                    by_word.setdefault(word, []).append(index)
        return indexes

    def _parts_with(self, changed_words: ChangedWords) -> Parts:
        """Return the changed answers that contain the words that changed in a prompt."""
        if changed_words in self._parts_by_words:
            return self._parts_by_words[changed_words]
        parts = self._parts_by_words[changed_words] = Parts()
        if not changed_words or not all(gone and new for gone, new in changed_words):
            return parts
        candidates = [
            by_word.get(word, [])
            for piece in changed_words
            for by_word, words in zip(self._by_word, piece, strict=True)
            for word in words
        ]
        for index in min(candidates, key=len):
            change = self._changes[index]
            if all(
                _has_words(change.forms, gone) and _has_words(change.other_forms, new)
                for gone, new in changed_words
            ):
                part = parts.add(change)
                self._answers.watch(parts, part)
                if change.place < self._actors[change.scope].next_place:
                    parts.note_passed(part)
        return parts

    def _forms_of(self, record: Record, run: int) -> dict[Hashable, Form]:
        if id(record) not in self._forms:
            self._forms[id(record)] = forms(record, self._normalizers[run])
        return self._forms[id(record)]

    def differences_of(self, actor: Actor) -> list[Difference]:
        """Return what differs in an actor's next call."""
        call = actor.calls[actor.next_place]
        assert call.one is not None and call.other is not None
        return list(differences(call.one.request, call.other.request))

    def unexplained(self, actor: Actor, came_before: CameBefore) -> list[Difference]:
        """Return what differs in an actor's next call beyond the answers that it repeats."""
        return [
            difference
            for difference in self.differences_of(actor)
            if not self._is_explained(actor, difference, came_before)
        ]

    def _is_explained(self, actor: Actor, difference: Difference, came_before: CameBefore) -> bool:
        before, after = map(_plain_text, sides(difference))
        key = actor.scope, before, after
        if key in self._explained:
            return True
        quotes = self.quotes_in(actor, difference, came_before)
        if quotes and all(self._order.has_come(actor, quote.part.change) for quote in quotes):
            self._explained.add(key)
        return bool(quotes)

    def quotes_in(
        self, actor: Actor, difference: Difference, came_before: CameBefore
    ) -> list[Quote] | None:
        """Return the quoted answers that explain a difference in an actor's next call; ``None`` if
        they do not explain all of it.
        """
        return self._quotes(difference, self._admits(actor, difference, came_before))

    def _quotes(self, difference: Difference, admits: Admits) -> list[Quote] | None:
        if difference.field not in PROMPT_FIELDS:
            return None
        before, after = map(_plain_text, sides(difference))
        if (before, after) in self._unquotable:
            return None
        quotes = quotes_between(before, after, self._answers, admits)
        if quotes is None and quotes_between(before, after, self._answers, _admit_any) is None:
            self._unquotable.add((before, after))
        return quotes

    def _admits(self, actor: Actor, difference: Difference, came_before: CameBefore) -> Admits:
        """Return a function that returns the part that an actor's next call repeats, or ``None``."""

        def admit(parts: Parts, pair: FormPair, rest: Rest) -> Part | None:
            return self._first_repeated(actor, difference, parts, came_before, pair, rest)

        return admit

    def _first_repeated(
        self,
        actor: Actor,
        difference: Difference,
        parts: Parts,
        came_before: CameBefore,
        pair: FormPair,
        rest: Rest,
    ) -> Part | None:
        """Return the first part that a text repeats, unless it may have the words by chance."""
        text = rest.text
        if max(pair[0].size, pair[1].size) >= LONG_ANSWER or pair[0].words == pair[1].words:
            return next(self._order.parts_before(actor, parts, came_before), None)
        candidates: list[Iterable[Part]] = [
            repeated
            for words in CONTEXTS
            for repeated in self._repeated(
                actor, text.words_before(rest.begin, words), pair[0], parts
            )
        ]
        if difference.role in QUOTING_ROLES and text.words == pair[0].words:
            candidates.append(parts.in_scope(actor.scope))
        in_order = merge(*candidates, key=order_of)
        return next((part for part in in_order if came_before(actor, part.change)), None)

    def _repeated(
        self, actor: Actor, context: tuple[str, ...], form: Form, parts: Parts
    ) -> Iterator[Iterator[Part]]:
        """Yield for each turn the parts that the program seems to repeat behind the context."""
        if self._repeats.is_in_other_prompt(actor.scope, actor.next_place, context):
            for group in self._repeats.groups_of(parts):
                if self._order.turn_order(actor, group.turn) != AFTER:
                    yield self._repeats.repeated(
                        actor.scope, actor.next_place, context, form, group
                    )

    def quoted_answer(
        self, actor: Actor, difference: Difference, came_before: CameBefore
    ) -> Change | None:
        """Return an answer that contains the words that changed in a prompt, perhaps by chance."""
        if difference.field not in PROMPT_FIELDS:
            return None

        def admit(parts: Parts, *_: object) -> Part | None:
            return next(self._order.parts_before(actor, parts, came_before), None)

        quotes = self._quotes(difference, admit)
        if quotes:
            return quotes[0].part.change
        before, after = map(_plain_text, sides(difference))
        changed_words = _changed_words(before, after)
        part = next(
            self._order.parts_before(actor, self._parts_with(changed_words), came_before), None
        )
        return None if part is None else part.change


def sides(difference: Difference) -> tuple[Data, Data]:
    """Return a field's value in the first run's request, and in the other run's."""
    return difference.recorded, difference.asked


def _admit_any(parts: Parts, *_: object) -> Part | None:
    """Return the first of some parts."""
    return next(part for each in parts.by_turn.values() for part in each)


@lru_cache(maxsize=4096)
def _changed_words(before: str, after: str) -> ChangedWords:
    """Return both texts' words in each passage in which they differ."""
    return tuple(
        (text_of(gone).words, text_of(new).words)
        for gone, new in (pieces(each, before, after) for each in passages(before, after))
    )


def _has_words(answer_forms: Mapping[Hashable, Form], words: tuple[str, ...]) -> bool:
    """Return whether an answer contains some words in a row."""
    sought = padded(words)
    return bool(words) and any(sought in padded(form.words) for form in answer_forms.values())


def _plain_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else as_json(value)
