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
from .pairs import asked_key
from .repeats import PROMPT
from .runs import RecordedRun, first_level, relative
from .texts import text_of

Align = Callable[[str], str] | Mapping[str, str]

ALIKE = 0.5  # the share of their words that the first prompts of one actor have in common
FEW = 20  # actors whose prompts are all compared with that of another


class MatchedActors(NamedTuple):
    """The actors of two runs, by the names that the first run gives them.

    :param ours: the records of each actor of the first run.
    :param theirs: those of the other one.
    :param renamed: the actors that were matched by their first prompt: the other run's scope to the
        first one's.
    :param edited: those of them whose first prompts are alike, but not the same.
    """

    ours: dict[str, list[Record]]
    theirs: dict[str, list[Record]]
    renamed: dict[str, str]
    edited: dict[str, str]


def matched_actors(run: RecordedRun, other: RecordedRun, align: Align | None) -> MatchedActors:
    """Return the actors of two runs, each of the other run's by its name in the first.

    :param align: see :func:`~llmcall.compare`.
    """
    ours, theirs = _actors(run, other, align)
    renamed = _renamed(ours, theirs)
    edited: dict[str, str] = {}
    if run.names_by_system or other.names_by_system:
        left = {scope: ours[scope] for scope in ours if scope not in {*theirs, *renamed.values()}}
        new = {scope: theirs[scope] for scope in theirs if scope not in {*ours, *renamed}}
        edited = _edited(left, new)
    renamed |= edited
    for before, after in renamed.items():
        theirs[after] = theirs.pop(before)
    return MatchedActors(ours, theirs, renamed, edited)


def _actors(
    run: RecordedRun, other: RecordedRun, align: Align | None
) -> tuple[dict[str, list[Record]], dict[str, list[Record]]]:
    """Return the records of each actor, of both runs, by the names under which they have most
    actors in common.
    """
    given = align.get if isinstance(align, Mapping) else align or str
    ours, theirs = run.by_actor(), other.by_actor()
    one, two = first_level(ours) or "", first_level(theirs) or ""
    # The scopes above the actors of both runs; of choices with as many actors in common, the first.
    preferred = (run.scope, other.scope), (one, two)
    choices = [(mine, others) for mine, others in preferred if mine and others and mine != others]
    choices += [("", ""), *product(("", one, run.scope), ("", two, other.scope))]
    found = [
        (_called(ours, mine), _called(theirs, others, given))
        for mine, others in dict.fromkeys(choices)
    ]
    return max(found, key=lambda each: len(each[0].keys() & each[1].keys()))


def _called(
    actors: Mapping[str, list[Record]],
    above: str,
    given: Callable[[str], str | None] = str,
) -> dict[str, list[Record]]:
    """Return the records of actors by their names, of several of one name one after the other.

    :param above: the path of the scope above them, which is left out; may be empty.
    :param given: says what an actor is called, if it is called otherwise.
    """
    found: dict[str, list[Record]] = {}
    for scope, records in actors.items():
        name = relative(scope, above)
        found.setdefault(given(name) or name, []).extend(records)
    return found


def _renamed(
    ours: Mapping[str, list[Record]], theirs: Mapping[str, list[Record]]
) -> dict[str, str]:
    """Return the actors of the other run that begin with the prompt of one actor of the first that
    it lacks.
    """
    left, new = _by_first_prompt(ours, theirs), _by_first_prompt(theirs, ours)
    return {new[prompt]: left[prompt] for prompt in new if prompt in left}


def _by_first_prompt(run: Mapping[str, list[Record]], other: Container[str]) -> dict[str, str]:
    """Return the actors that another run lacks, by the first prompts that no two of them share."""
    found: dict[str, list[str]] = {}
    for scope, records in run.items():
        if scope not in other:
            found.setdefault(asked_key(records[0]), []).append(scope)
    return {prompt: scopes[0] for prompt, scopes in found.items() if len(scopes) == 1}


def _edited(left: Mapping[str, list[Record]], new: Mapping[str, list[Record]]) -> dict[str, str]:
    """Return the actors of the other run whose first prompts are most like those of actors of the
    first run that it lacks, by the words that not all of them have.
    """
    asked, others = (
        {scope: FirstPrompt.of(records[0]) for scope, records in actors.items()}
        for actors in (left, new)
    )
    common, others_common = _in_common(asked), _in_common(others)
    if len(asked) == 1:
        common = others_common
    if len(others) == 1:
        others_common = common
    likeness = [
        (
            _likeness(asked[one].words - common, others[other].words - others_common),
            _likeness(asked[one].neighbours, others[other].neighbours),
            other,
            one,
        )
        for other, one in _candidates(asked, others)
    ]
    found: dict[str, str] = {}
    taken: set[str] = set()
    for share, _, other, one in sorted(likeness, key=lambda each: (-each[0], -each[1], each[2:])):
        if share >= ALIKE and other not in found and one not in taken:
            found[other] = one
            taken.add(one)
    return found


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
        asked = [record.request.get(name) for name in PROMPT]
        words = [word for text in strings_in(asked) for word in text_of(text).words]
        return cls(Counter(words), Counter(map(" ".join, pairwise(words))))


def _in_common(prompts: Mapping[str, FirstPrompt]) -> Counter[str]:
    """Return the words that all of several prompts have: they tell no actor from another."""
    if len(prompts) < 2:
        return Counter()
    return reduce(and_, (prompt.words for prompt in prompts.values()))


def _likeness(one: Counter[str], other: Counter[str]) -> float:
    """Return which share of their words two texts have in common."""
    return 2 * (one & other).total() / ((one + other).total() or 1)


def _candidates(
    asked: Mapping[str, FirstPrompt], others: Mapping[str, FirstPrompt]
) -> Iterator[tuple[str, str]]:
    """Yield pairs of actors whose prompts may be alike: the other run's, and the first one's.

    If actors are many, those are sought that have the rarest words of a prompt.
    """
    holders: dict[str, set[str]] = {}
    for scope, prompt in asked.items():
        for words in (*prompt.words, *prompt.neighbours):
            holders.setdefault(words, set()).add(scope)
    held = Counter(words for each in others.values() for words in (*each.words, *each.neighbours))
    for other, prompt in others.items():
        found = set(asked)
        known = [words for words in (*prompt.words, *prompt.neighbours) if words in holders]
        for words in sorted(known, key=lambda words: (len(holders[words]), words)):
            if len(found) <= FEW:
                break
            if held[words] < len(others):  # what all of them have may be the edit
                found = found & holders[words] or found
        yield from ((other, one) for one in found)
