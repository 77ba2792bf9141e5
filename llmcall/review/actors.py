"""The actors of two runs, matched by their scopes and, if these differ, by their first prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from functools import reduce
from itertools import pairwise, product
from operator import and_
from typing import NamedTuple

from ..requests.contents import strings_in
from ..types import Record
from .pairs import request_key
from .repeats import PROMPT_FIELDS
from .runs import RecordedRun, first_level, relative
from .texts import text_of

Align = Callable[[str], str] | Mapping[str, str]

LEAST_LIKENESS = 0.5  # the share of their words that the first prompts of one actor have in common
FEW_ACTORS = 20  # actors whose prompts are all compared with that of another


class MatchedActors(NamedTuple):
    """The actors of two runs, by the names that the first run gives them.

    :param actors: the records of each actor of the first run.
    :param other_actors: likewise of the other one.
    :param renamed: the actors that were matched by their first prompt: the other run's scope to the
        first one's.
    :param edited: those of them whose first prompts are alike, but not the same.
    """

    actors: dict[str, list[Record]]
    other_actors: dict[str, list[Record]]
    renamed: dict[str, str]
    edited: dict[str, str]


def matched_actors(run: RecordedRun, other: RecordedRun, align: Align | None) -> MatchedActors:
    """Return the actors of two runs, each of the other run's by its name in the first.

    :param align: see :func:`~llmcall.compare`.
    """
    actors, other_actors = _actors(run, other, align)
    renamed = _renamed_actors(actors, other_actors)
    edited: dict[str, str] = {}
    if run.names_by_system or other.names_by_system:
        missing = {
            scope: actors[scope]
            for scope in actors
            if scope not in {*other_actors, *renamed.values()}
        }
        added = {
            scope: other_actors[scope] for scope in other_actors if scope not in {*actors, *renamed}
        }
        edited = _edited_actors(missing, added)
    renamed |= edited
    for other_scope, scope in renamed.items():
        other_actors[scope] = other_actors.pop(other_scope)
    return MatchedActors(actors, other_actors, renamed, edited)


def _actors(
    run: RecordedRun, other: RecordedRun, align: Align | None
) -> tuple[dict[str, list[Record]], dict[str, list[Record]]]:
    """Return the records of each actor, of both runs, by the names under which they have most
    actors in common.
    """
    name_of = align.get if isinstance(align, Mapping) else align or str
    actors, other_actors = run.by_actor(), other.by_actor()
    level, other_level = first_level(actors) or "", first_level(other_actors) or ""
    # The scopes above the actors of both runs; of choices with as many actors in common, the first.
    preferred = (run.scope, other.scope), (level, other_level)
    choices = [
        (ancestor, other_ancestor)
        for ancestor, other_ancestor in preferred
        if ancestor and other_ancestor and ancestor != other_ancestor
    ]
    choices += [("", ""), *product(("", level, run.scope), ("", other_level, other.scope))]
    namings = [
        (_by_name(actors, ancestor), _by_name(other_actors, other_ancestor, name_of))
        for ancestor, other_ancestor in dict.fromkeys(choices)
    ]
    return max(namings, key=lambda each: len(each[0].keys() & each[1].keys()))


def _by_name(
    actors: Mapping[str, list[Record]],
    ancestor: str,
    name_of: Callable[[str], str | None] = str,
) -> dict[str, list[Record]]:
    """Return the records of actors by their names, of several of one name one after the other.

    :param ancestor: the path of the scope above them, which is left out; may be empty.
    :param name_of: says what an actor is called, if it is called otherwise.
    """
    records_by_name: dict[str, list[Record]] = {}
    for scope, records in actors.items():
        name = relative(scope, ancestor)
        records_by_name.setdefault(name_of(name) or name, []).extend(records)
    return records_by_name


def _renamed_actors(
    actors: Mapping[str, list[Record]], other_actors: Mapping[str, list[Record]]
) -> dict[str, str]:
    """Return the actors of the other run that begin with the prompt of one actor of the first that
    it lacks.
    """
    missing, added = _by_first_prompt(actors, other_actors), _by_first_prompt(other_actors, actors)
    return {added[prompt]: missing[prompt] for prompt in added if prompt in missing}


def _by_first_prompt(run: Mapping[str, list[Record]], other: Container[str]) -> dict[str, str]:
    """Return the actors that another run lacks, by the first prompts that no two of them share."""
    scopes_by_prompt: dict[str, list[str]] = {}
    for scope, records in run.items():
        if scope not in other:
            scopes_by_prompt.setdefault(request_key(records[0]), []).append(scope)
    return {prompt: scopes[0] for prompt, scopes in scopes_by_prompt.items() if len(scopes) == 1}


def _edited_actors(
    missing: Mapping[str, list[Record]], added: Mapping[str, list[Record]]
) -> dict[str, str]:
    """Return the actors of the other run whose first prompts are most like those of actors of the
    first run that it lacks, by the words that not all of them have.
    """
    prompts, other_prompts = (
        {scope: FirstPrompt.of(records[0]) for scope, records in actors.items()}
        for actors in (missing, added)
    )
    common, other_common = _common_words(prompts), _common_words(other_prompts)
    if len(prompts) == 1:
        common = other_common
    if len(other_prompts) == 1:
        other_common = common
    likeness = [
        (
            _likeness(
                prompts[scope].words - common, other_prompts[other_scope].words - other_common
            ),
            _likeness(prompts[scope].neighbours, other_prompts[other_scope].neighbours),
            other_scope,
            scope,
        )
        for other_scope, scope in _candidates(prompts, other_prompts)
    ]
    matches: dict[str, str] = {}
    matched_scopes: set[str] = set()
    likeness.sort(key=lambda each: (-each[0], -each[1], each[2:]))
    for share, _, other_scope, scope in likeness:
        if share >= LEAST_LIKENESS and other_scope not in matches and scope not in matched_scopes:
            matches[other_scope] = scope
            matched_scopes.add(scope)
    return matches


class FirstPrompt(NamedTuple):
    """What the first call of an actor asked.

    :param words: how often it has each word.
    :param neighbours: how often it has each two words side by side.
    """

    words: Counter[str]
    neighbours: Counter[str]

    @classmethod
    def of(cls, record: Record) -> FirstPrompt:
        """Return what a call asked."""
        fields = [record.request.get(name) for name in PROMPT_FIELDS]
        words = [word for text in strings_in(fields) for word in text_of(text).words]
        return cls(Counter(words), Counter(map(" ".join, pairwise(words))))


def _common_words(prompts: Mapping[str, FirstPrompt]) -> Counter[str]:
    """Return the words that all of several prompts have: they tell no actor from another."""
    if len(prompts) < 2:
        return Counter()
    return reduce(and_, (prompt.words for prompt in prompts.values()))


def _likeness(words: Counter[str], other_words: Counter[str]) -> float:
    """Return which share of their words two texts have in common."""
    return 2 * (words & other_words).total() / ((words + other_words).total() or 1)


def _candidates(
    prompts: Mapping[str, FirstPrompt], other_prompts: Mapping[str, FirstPrompt]
) -> Iterator[tuple[str, str]]:
    """Yield pairs of actors whose prompts may be alike: the other run's, and the first one's.

    If actors are many, those are sought that have the rarest words of a prompt.
    """
    holders: dict[str, set[str]] = {}
    for scope, prompt in prompts.items():
        for words in (*prompt.words, *prompt.neighbours):
            holders.setdefault(words, set()).add(scope)
    other_counts = Counter(
        words for prompt in other_prompts.values() for words in (*prompt.words, *prompt.neighbours)
    )
    for other_scope, prompt in other_prompts.items():
        candidates = set(prompts)
        shared = [words for words in (*prompt.words, *prompt.neighbours) if words in holders]
        for words in sorted(shared, key=lambda words: (len(holders[words]), words)):
            if len(candidates) <= FEW_ACTORS:
                break
            if other_counts[words] < len(other_prompts):  # what all of them have may be the edit
                candidates = candidates & holders[words] or candidates
        yield from ((other_scope, scope) for scope in candidates)
