"""Which short answers a program repeats at one place of its prompts, call by call.

A short answer, such as "yes" or "3", may stand in a prompt by chance. So it counts only if the program
repeats such answers: in the actor's other prompts, the same words must stand before the answer that
the same speaker gave then.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from ..requests.contents import strings_in
from ..types import Record
from .changes import Part, Parts, Turn
from .forms import Form
from .texts import padded, padded_words_of, text_of

PROMPT_FIELDS = ("messages", "input", "arguments", "body")  # the fields that contain what was said
CONTEXTS = (2, 1)  # words before a quote by which the same place of other prompts is known

Calls = Sequence[tuple[Record | None, Record | None]]  # of an actor, in both runs
FormsOf = Callable[[Record, int], Mapping[Hashable, Form]]
# A set of actors: the bit of each is 1, so that many large sets are intersected fast.
ActorSet = int


class Repeats:
    """What the prompts of two runs repeat of short answers.

    :param actors: the calls of each actor.
    :param sources: the actors whose answers differ.
    :param forms_of: returns the parts of an answer in a run.
    """

    def __init__(
        self, actors: Mapping[str, Calls], sources: Iterable[str], forms_of: FormsOf
    ) -> None:
        self._actors = actors
        self._sources = list(sources)
        self._forms_of = forms_of
        self._calls_with: dict[str, dict[tuple[str, ...], tuple[int, int]]] = {}
        self._continuations: dict[tuple[str, tuple[str, ...]], list[Continuation]] = {}
        self._answers_by_turn: dict[tuple[int, int], AnswersOfTurn] = {}
        self._groups: dict[Parts, list[Group]] = {}

    @cached_property
    def _actor_numbers(self) -> dict[str, int]:
        return {scope: number for number, scope in enumerate(self._sources)}

    def is_in_other_prompt(self, scope: str, place: int, context: tuple[str, ...]) -> bool:
        """Return whether any other prompt of an actor contains some words.

        :param place: the place of this prompt among the actor's calls, from 0.
        :param context: the words; every prompt contains an empty context.
        """
        calls = self._actors[scope]
        if len(calls) == 1 or not context:
            return len(calls) > 1
        if scope not in self._calls_with:
            self._calls_with[scope] = _calls_with(calls)
        return any(each != place for each in self._calls_with[scope].get(context, ()))

    def groups_of(self, parts: Parts) -> list[Group]:
        """Return parts in groups that share their turn and their location in the answers."""
        if parts not in self._groups:
            by_turn_and_location: dict[tuple[Turn, Hashable], dict[int, Part]] = {}
            for turn, turn_parts in parts.by_turn.items():
                for part in turn_parts:
                    actor = self._actor_numbers[part.change.scope]
                    by_turn_and_location.setdefault((turn, part.location), {})[actor] = part
            self._groups[parts] = [
                Group(*key, by_actor, _set_of(by_actor))
                for key, by_actor in by_turn_and_location.items()
            ]
        return self._groups[parts]

    def repeated(
        self, scope: str, place: int, context: tuple[str, ...], form: Form, group: Group
    ) -> Iterator[Part]:
        """Yield the parts that the program seems to repeat behind the context.

        It repeats a part if an answer of the same actor follows the context in all other prompts
        that contain it. This is the answer from as many calls before; if there is none, the prompt
        does not count. At least one of these answers must have other words than the quote: else the
        words may be the program's own.

        :param scope: the actor whose prompt it is.
        :param place: the place of the prompt among that actor's calls, from 0.
        :param context: the words right before the quote.
        :param form: what is quoted.
        :param group: the parts that may be quoted.
        """
        words = padded(form.words)
        lag = place - group.turn.place
        fitting_actors, differing_actors = group.actors, 0
        for continuation in self._continuations_of(scope, context):
            if continuation.place == place or continuation.place < lag:
                continue
            answers = self._answers_of_turn(continuation.place - lag, continuation.run)
            same_actors, other_actors = answers.quoted_actors(group.location, continuation, words)
            fitting_actors &= same_actors | other_actors | ~answers.actors_at(group.location)
            differing_actors |= other_actors
            if not fitting_actors:
                return
        for actor in _members(fitting_actors & differing_actors):
            yield group.parts[actor]

    def _continuations_of(self, scope: str, context: tuple[str, ...]) -> list[Continuation]:
        """Return what follows some words in the prompts of an actor."""
        if (scope, context) not in self._continuations:
            sought = padded(context) if context else ""
            continuations = (
                Continuation(place, run, list(_texts_after(record, sought)))
                for place, call in enumerate(self._actors[scope])
                for run, record in enumerate(call)
                if record
            )
            self._continuations[scope, context] = [each for each in continuations if each.texts]
        return self._continuations[scope, context]

    def _answers_of_turn(self, place: int, run: int) -> AnswersOfTurn:
        """Return the answers of all actors to their calls at one place."""
        if (place, run) not in self._answers_by_turn:
            answers = self._answers_by_turn[place, run] = AnswersOfTurn()
            for actor, scope in enumerate(self._sources):
                calls = self._actors[scope]
                record = calls[place][run] if place < len(calls) else None
                if record:
                    answers.add(actor, self._forms_of(record, run))
        return self._answers_by_turn[place, run]


class Group(NamedTuple):
    """Parts with the same words that stand at one location in their answers.

    :param turn: the turn of these answers.
    :param location: where they stand in these answers.
    :param parts: the parts by the numbers of their actors, in their order.
    :param actors: these actors.
    """

    turn: Turn
    location: Hashable
    parts: dict[int, Part]
    actors: ActorSet


class Continuation(NamedTuple):
    """What follows some words in a prompt.

    :param place: the place of the prompt among its actor's calls, from 0.
    :param run: 0 or 1.
    :param texts: the texts of the prompt, and from which character on they follow.
    """

    place: int
    run: int
    texts: list[tuple[str, int]]


class AnswersOfTurn:
    """The answers of all actors to their calls at one place, such as the second call of each."""

    def __init__(self) -> None:
        self._by_words: dict[Hashable, dict[str, list[int]]] = {}
        self._lengths: dict[Hashable, set[int]] = {}
        self._sets: dict[tuple[Hashable, str], ActorSet] = {}

    def add(self, actor: int, forms: Mapping[Hashable, Form]) -> None:
        """Add an actor's answer."""
        for location, form in forms.items():
            if form.words:
                words = padded(form.words)
                by_words = self._by_words.setdefault(location, {})
                by_words.setdefault(words, []).append(actor)
                self._lengths.setdefault(location, set()).add(len(words))

    def actors_at(self, location: Hashable) -> ActorSet:
        """Return the actors whose answers have any words at a location."""
        if (location, "") not in self._sets:
            actors_by_words = self._by_words.get(location, {}).values()
            self._sets[location, ""] = _set_of(actor for each in actors_by_words for actor in each)
        return self._sets[location, ""]

    def quoted_actors(
        self, location: Hashable, continuation: Continuation, words: str
    ) -> tuple[ActorSet, ActorSet]:
        """Return the actors whose answers a continuation begins with: those that said the words, and
        those that said others.

        :param words: padded with blanks.
        """
        same_actors, other_actors = 0, 0
        by_words = self._by_words.get(location, {})
        for text, begin in continuation.texts:
            for length in self._lengths.get(location, ()):
                beginning = text[begin : begin + length]
                if beginning not in by_words:
                    continue
                if (location, beginning) not in self._sets:
                    self._sets[location, beginning] = _set_of(by_words[beginning])
                if beginning == words:
                    same_actors |= self._sets[location, beginning]
                else:
                    other_actors |= self._sets[location, beginning]
        return same_actors, other_actors


def _set_of(actors: Iterable[int]) -> ActorSet:
    bits = bytearray()
    for actor in actors:
        byte, bit = divmod(actor, 8)
        if byte >= len(bits):
            bits.extend(bytes(byte + 1 - len(bits)))
        bits[byte] |= 1 << bit
    return int.from_bytes(bits, "little")


def _members(actors: ActorSet) -> Iterator[int]:
    """Yield the numbers of the actors in a set, in their order."""
    while actors:
        lowest = actors & -actors
        yield lowest.bit_length() - 1
        actors ^= lowest


def prompt_texts(record: Record) -> Iterable[str]:
    """Return the texts of what was asked."""
    return strings_in([record.request.get(name) for name in PROMPT_FIELDS])


def _calls_with(calls: Calls) -> dict[tuple[str, ...], tuple[int, int]]:
    """Return the places of the first and the last call whose prompts contain each context."""
    calls_by_context: dict[tuple[str, ...], tuple[int, int]] = {}
    for place, call in enumerate(calls):
        for record in filter(None, call):
            for text in prompt_texts(record):
                words = text_of(text).words
                for length in CONTEXTS:
                    for end in range(length, len(words) + 1):
                        context = words[end - length : end]
                        first, _ = calls_by_context.get(context, (place, place))
                        calls_by_context[context] = first, place
    return calls_by_context


def _texts_after(record: Record, context: str) -> Iterator[tuple[str, int]]:
    """Yield each text of a prompt that contains the context, and the index at which the context ends.

    An empty context ends at the beginning of each text.

    :param context: its words, padded with blanks; may be empty.
    """
    for text in prompt_texts(record):
        words = padded_words_of(text)
        index = words.find(context)
        while index >= 0:
            yield words, max(0, index + len(context) - 1)
            index = words.find(context, index + 1) if context else -1
