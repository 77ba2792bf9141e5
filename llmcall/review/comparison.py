"""Runs of one program compared: for each actor, the call at which two runs part, and why."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, reduce
from html import escape
from itertools import groupby, pairwise
from operator import and_
from typing import TYPE_CHECKING, Any, NamedTuple

from ..differences.words import Passage, passages, pieces
from ..display.data_frames import data_frame
from ..display.formatting import OUTSIDE_ANY_SCOPE, as_json, counted, one_line, shortened
from ..display.printable import printable
from ..errors import short_traceback
from ..records.answers import same_answer
from ..requests.contents import strings_in
from ..requests.keys import key_of
from ..types import Record
from .causes import Cause, Pair, causes
from .runs import Run, first_level, load, with_rounds
from .quotes import text_of
from .repeats import PROMPT
from .rounds import natural_order

if TYPE_CHECKING:
    import pandas

Align = Callable[[str], str] | Mapping[str, str]

WORDS = 60  # characters of a text in a line
ALIKE = 0.5  # the share of their words that the first prompts of one actor have in common
FEW = 20  # actors whose prompts are all compared with that of another
SCOPES_SHOWN = 4
CHANGES_SHOWN = 3
STRETCHES_SHOWN = 12  # of rounds
WORD = re.compile(r"\w")
WORD_AT_END = re.compile(r"\S*\w\S*\s*\Z")
WORD_AT_START = re.compile(r"\s*\S+")
WHY = {
    "prompt": "the prompt changed",
    "parameters": "the parameters changed",
    "model": "the model changed",
    "draw": "the same request has different answers",
    "missing": "the other run ends, or does not make this call",
    "added": "the other run has an additional call",
}


class Row(NamedTuple):
    """One call of the runs.

    :param scope: the actor's scope path, without the level that names the whole run.
    :param place: its place in the actor's run, from 0: in the first run, or in the other one if
        it was added there.
    :param status: ``"same"``, ``"changed"``, ``"added"`` or ``"missing"`` (of the other run).
    :param prompt: the last message that was asked, in the first run; ``None`` if it has no such
        call.
    :param answer: its answer, likewise.
    :param other_prompt: the same in the other run.
    :param other_answer: the same in the other run.
    :param run: which of the other runs it is, from 1.
    :param round: the name of its round, if a level of the scopes is the round; else empty.
    """

    scope: str
    place: int
    status: str
    prompt: str | None
    answer: str | None
    other_prompt: str | None
    other_answer: str | None
    run: int = 1
    round: str = ""


class Parting(NamedTuple):
    """The first call at which an actor's runs part.

    :param scope: the actor's scope path, without the level that names the whole run.
    :param place: the call's place in the actor's run, from 0.
    :param why: ``"prompt"``, ``"parameters"``, ``"model"``, ``"draw"``, ``"missing"`` or
        ``"added"``.
    :param before: what differs, as it is in the first run: the message, the parameters, the model,
        the answer, or the prompt of the call; ``None`` if there is none. An earlier answer that
        a message repeats is the first run's in both.
    :param after: the same in the other run.
    :param run: which of the other runs it is, from 1.
    :param doubt: why a changed prompt may be no cause but a consequence of earlier answers, if
        the recordings do not tell; else empty.
    :param round: the name of the call's round, as of its :class:`.Row`.
    :param served: of different answers to the same request, the models that gave them, by their own
        names, if these differ; else empty.
    """

    scope: str
    place: int
    why: str
    before: str | None
    after: str | None
    run: int = 1
    doubt: str = ""
    round: str = ""
    served: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """Return the status of the call, as of its :class:`.Row`."""
        return self.why if self.why in ("missing", "added") else "changed"

    @property
    def perhaps(self) -> str:
        """Return what stands at the end of a line: the doubt, or which models answered."""
        if self.served:
            return f" (answered by {' and '.join(map(printable, self.served))})"
        return f" ({self.doubt})" if self.doubt else ""

    def in_words(self) -> str:
        """Return what differs, in one line; the words of a prompt as ``git diff --word-diff`` shows
        them.
        """
        if self.why == "prompt":
            return _word_changes(self.before or "", self.after or "")
        shown = [
            f'"{printable(one_line(text, WORDS))}"'
            for text in (self.before, self.after)
            if text is not None
        ]
        return " → ".join(shown)


class Round(NamedTuple):
    """How many calls of one round changed.

    :param name: the round's name, or ``"call 3"`` for the third call of each actor if rounds are no
        level of the scopes.
    :param calls: the number of calls of this round that both runs have.
    :param changed: the number of them of which the request or the answer differs.
    :param run: which of the other runs it is, from 1.
    """

    name: str
    calls: int
    changed: int
    run: int = 1

    @property
    def share(self) -> float:
        """Return the share of changed calls, from 0 to 1."""
        return self.changed / self.calls


class Spread(NamedTuple):
    """The answers of several runs to one question.

    :param scope: the actor's scope path.
    :param place: the call's place in the actor's run, from 0.
    :param prompt: the last message that was asked.
    :param answers: how many runs gave each answer, the most frequent first.
    """

    scope: str
    place: int
    prompt: str | None
    answers: dict[str, int]


class Comparison:
    """What two or more runs have in common, and where they diverge; ``str()`` of it is a report.

    :ivar same: the number of calls with the same request and the same answer.
    :ivar changed: the number of calls of which the request or the answer differs.
    :ivar added: the number of calls that only the other run has.
    :ivar missing: the number of calls that only the first run has.
    :ivar parted: one :class:`.Parting` for each actor whose runs diverge.
    :ivar later: for each actor whose runs part by a draw, its first call after that in which the
        prompt, the parameters or the model changed, beyond what repeats an earlier answer; also as
        a :class:`.Parting`.
    :ivar renamed: the actors that were matched by their first prompt: the other run's scope to the
        first one's. Those that are named by their system message, which was edited, are matched by
        the likeness of these prompts.
    :ivar pairs: the records of each row.

    >>> comparison = llmcall.compare("examples/survey.jsonl", "examples/survey_need.jsonl")
    >>> comparison
    Comparison(same=0, changed=96, added=0, missing=384, parted=480)
    >>> sorted({parting.why for parting in comparison.parted})
    ['missing', 'prompt']
    """

    def __init__(self, run: Run, others: Sequence[Run], align: Align | None = None) -> None:
        self.pairs: list[Pair] = []
        self.parted: list[Parting] = []
        self.later: list[Parting] = []
        self.renamed: dict[str, str] = {}
        self._edited: dict[str, str] = {}
        self._names = [each.name for each in (run, *others)]
        self._served = [", ".join(each.served) for each in (run, *others)]
        for number, other in enumerate(others, 1):
            self._add(number, run, other, align)
        counts = Counter(pair.status for pair in self.pairs)
        self.same, self.changed = counts["same"], counts["changed"]
        self.added, self.missing = counts["added"], counts["missing"]

    def _add(self, number: int, run: Run, other: Run, align: Align | None) -> None:
        """Add the calls of one of the other runs."""
        ours, theirs = _actors(run, other, align)
        renamed = _renamed(ours, theirs)
        edited: dict[str, str] = {}
        if run.names_by_system or other.names_by_system:
            left = {
                scope: ours[scope] for scope in ours if scope not in {*theirs, *renamed.values()}
            }
            new = {scope: theirs[scope] for scope in theirs if scope not in {*ours, *renamed}}
            edited = _edited(left, new)
        for before, after in {**renamed, **edited}.items():
            theirs[after] = theirs.pop(before)
        self.renamed.update(renamed | edited)
        self._edited.update(edited)
        actors = {
            scope: list(_paired(scope, number, ours.get(scope, []), theirs.get(scope, [])))
            for scope in {**ours, **theirs}
        }
        found = causes(actors, run.normalize, other.normalize)
        for scope, pairs in actors.items():
            pairs = [pair._replace(round=_round(pair, run, other)) for pair in pairs]
            self.pairs += pairs
            parting, later = found[scope]
            self.parted += [_parting(parting, pairs)] if parting else []
            self.later += [_parting(later, pairs)] if later else []

    @cached_property
    def rows(self) -> list[Row]:
        """Return one :class:`.Row` for each call."""
        return [
            Row(
                pair.scope,
                pair.place,
                pair.status,
                *_told(pair.one),
                *_told(pair.other),
                pair.run,
                pair.round,
            )
            for pair in self.pairs
        ]

    @cached_property
    def rounds(self) -> list[Round]:
        """Return how many calls changed in each round: how a change spreads.

        If rounds are no level of the scopes, the n-th calls of all actors stand together.
        """
        found: dict[tuple[int, str], list[bool]] = {}
        for pair in self.pairs:
            if pair.one is not None and pair.other is not None:
                changes = found.setdefault((pair.run, _round_name(pair)), [])
                changes.append(pair.status == "changed")
        rounds = [Round(name, len(each), sum(each), run) for (run, name), each in found.items()]
        return sorted(rounds, key=lambda each: (each.run, natural_order(each.name)))

    @cached_property
    def spread(self) -> list[Spread]:
        """Return, for each question of the first run, how many runs gave each answer.

        JSON answers are counted by their value, texts as they are.
        """
        found: dict[
            int, tuple[Pair, Counter[str]]
        ] = {}  # by the record, whose scope is named for each run again
        for pair in self.pairs:
            if pair.one is not None:
                _, answers = found.setdefault(
                    id(pair.one), (pair, Counter([counted_value(pair.one.answer)]))
                )
                if pair.other is not None:
                    answers[counted_value(pair.other.answer)] += 1
        return [
            Spread(pair.scope, pair.place, _told(pair.one)[0], dict(answers.most_common()))
            for pair, answers in found.values()
        ]

    def to_frame(self) -> pandas.DataFrame:
        """Return the rows as a pandas DataFrame.

        The column ``changed_in_round`` has the share of changed calls in the call's round, from 0
        to 1; see :attr:`rounds`.
        """
        shares = {(each.run, each.name): each.share for each in self.rounds}
        rows = [
            (*row, shares.get((pair.run, _round_name(pair))))
            for row, pair in zip(self.rows, self.pairs, strict=True)
        ]
        return data_frame(rows, (*Row._fields, "changed_in_round"))

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain data, for JSON."""
        counts = {
            name: getattr(self, name) for name in ("same", "changed", "added", "missing", "renamed")
        }
        lists: dict[str, list[Any]] = {
            "parted": self.parted,
            "later": self.later,
            "rows": self.rows,
            "rounds": self.rounds,
        }
        return counts | {
            name: [each._asdict() for each in values] for name, values in lists.items()
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        return (
            f"Comparison(same={self.same}, changed={self.changed}, added={self.added}, missing={self.missing}, "
            f"parted={len(self.parted)})"
        )

    def _repr_html_(self) -> str:
        head, *rest = self._lines()
        items = "".join(f"<li>{escape(line.strip())}</li>" for line in rest)
        return f"<div><b>{escape(head)}</b><ul>{items}</ul></div>"

    def _lines(self) -> Iterator[str]:
        yield (
            f"{counted(len(self.pairs), 'call')}: {self.same:,} the same, {self.changed:,} changed, "
            f"{self.added:,} added, {self.missing:,} missing"
        )
        if not self.same and not self.changed:
            yield "The runs have no actor in common: their scopes and their prompts differ."
            return
        yield from self._by_round()
        for other, one in sorted(self.renamed.items()):
            how = (
                "its system message, which names it, was edited"
                if other in self._edited
                else "matched by its first prompt"
            )
            yield f"{_named(one)} is called {_named(other)} in the other run ({how})"
        if not self.parted:
            yield "The runs do not diverge."
        yield from self._in_words(self.parted, "")
        yield from self._in_words(self.later, ", after it had diverged")
        yield from self._answered_by()

    def _answered_by(self) -> Iterator[str]:
        """Yield a line for each run, with the models that answered and their days, if these differ."""
        if len(set(self._served)) == 1:
            return
        for name, served in zip(self._names, self._served, strict=True):
            yield f"{printable(name)}: answered by {served or 'no model'}"

    def _by_round(self) -> Iterator[str]:
        """Yield a line for each of the other runs in which some calls of some rounds changed."""
        for number, run in enumerate(self._names[1:], 1):
            rounds = [each for each in self.rounds if each.run == number]
            if len(rounds) > 1 and 0 < sum(each.changed for each in rounds) < sum(
                each.calls for each in rounds
            ):
                which = f" of {run}" if len(self._names) > 2 else ""
                yield f"changed calls{which}: {', '.join(_shares(rounds))}"

    def _in_words(self, partings: Iterable[Parting], when: str) -> Iterator[str]:
        """Yield a line for each change, however many scopes it is in: certain causes, then doubtful
        ones, then whole calls.
        """
        alike: dict[tuple[bool, bool, int, str, str, str], list[Parting]] = {}
        for parting in partings:
            is_call = parting.why in ("missing", "added")
            words = "" if is_call else parting.in_words()
            kind = is_call, bool(parting.doubt), parting.run, parting.why, words, parting.perhaps
            alike.setdefault(kind, []).append(parting)
        for (is_call, _, run, why, words, _), same in sorted(
            alike.items(), key=lambda each: each[0][:2]
        ):
            which = f" of {self._names[run]}" if len(self._names) > 2 else ""
            scopes = ", ".join(_named(parting.scope) for parting in same[:SCOPES_SHOWN])
            if len(same) > 1:
                more = f" and {len(same) - SCOPES_SHOWN:,} more" if len(same) > SCOPES_SHOWN else ""
                where = f"the same change in {len(same):,} scopes{which} ({scopes}{more})"
                what = "" if is_call else f": {words}"
            else:
                where = f"{scopes}, {_call(same[0])}{which}"
                what = f": {same[0].in_words()}"
            yield f"{where}{when}: {WHY[why]}{what}{same[0].perhaps}"


@short_traceback
def compare(
    run: Any, *others: Any, align: Align | None = None, round: str | int | None = None
) -> Comparison:
    """Compare a run with others of the same program.

    Actors are matched by their scope paths, without a first level that names the whole run. An
    actor's calls are matched by the longest common sequence of equal requests, or, if requests
    differ, by their place. If a change only repeats an earlier answer in the history, the runs do
    not count as diverging there.

    :param run: a cassette (its path or a :class:`~llmcall.Cassette`), an exported file, a cache or
        its directory; or a tuple of one of them and a scope: ``(cache, "rep-1")``.
    :param others: the other runs, at least one.
    :param align: says what an actor of another run is called in the first: a dict of scope paths,
        or a function.
    :param round: which level of the scopes is the round, in ``rep/round/agent`` for example: its
        number in the path, from 1, or the word that its names have in common (``"round"`` in
        ``round-1``). The calls of an actor in all rounds are compared as its run. ``None`` finds a
        level that has a word of time, such as ``round`` or ``day``.
    :returns: the comparison.
    :raises CacheError: if a run has no record.
    :raises FileNotFoundError: if a run's file does not exist.
    :raises TypeError: if there is no other run, or an argument is not a run.
    :raises ValueError: if no run has such a level; the message lists the known ones.

    >>> comparison = llmcall.compare("examples/survey.jsonl", "examples/survey_need.jsonl")
    >>> print(comparison)  # doctest: +ELLIPSIS
    480 calls: 0 the same, 96 changed, 0 added, 384 missing
    the same change in 96 scopes (village/~072c86d9f30d3d75, ...): the prompt changed: [-do you want-] {+does it need+}
    the same change in 384 scopes (village/~04ad2bfcc8483d89, ...): the other run ends, or does not make this call
    """
    if not others:
        raise TypeError("compare() takes at least two runs")
    first, *rest = with_rounds([load(each) for each in (run, *others)], round)
    return Comparison(first, rest, align)


# Actors


def _actors(
    run: Run, other: Run, align: Align | None
) -> tuple[dict[str, list[Record]], dict[str, list[Record]]]:
    """Return the records of each actor, of both runs, by the names under which they have most
    actors in common.
    """
    given = align.get if isinstance(align, Mapping) else align or str
    ours, theirs = run.by_actor(), other.by_actor()
    one, two = first_level(ours), first_level(theirs)
    choices = [(False, False)]
    if one is not None and two is not None and one != two:
        choices = [(True, True), *choices]
    choices += [(True, False)] * (one is not None) + [(False, True)] * (two is not None)
    found = [(_called(ours, first), _called(theirs, second, given)) for first, second in choices]
    return max(found, key=lambda each: len(each[0].keys() & each[1].keys()))


def _called(
    actors: Mapping[str, list[Record]],
    without_first: bool,
    given: Callable[[str], str | None] = str,
) -> dict[str, list[Record]]:
    """Return the records of actors by their names, of several of one name one after the other.

    :param without_first: whether the first level of the scope paths is left out.
    :param given: says what an actor is called, if it is called otherwise.
    """
    found: dict[str, list[Record]] = {}
    for scope, records in actors.items():
        name = scope.partition("/")[2] if without_first else scope
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
            found.setdefault(_asked(records[0]), []).append(scope)
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


# Calls


def _paired(
    scope: str, run: int, ours: Sequence[Record], theirs: Sequence[Record]
) -> Iterator[Pair]:
    """Yield the calls of one actor in pairs."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    begin = next(
        (place for place, pair in pairs if not _same_request(*pair)), min(len(ours), len(theirs))
    )
    one, other = (list(map(_asked, records[begin:])) for records in (ours, theirs))
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    for kind, *places in (("equal", -begin, 0, -begin, 0), *matcher.get_opcodes()):
        i, i_end, j, j_end = (begin + place for place in places)
        while i < i_end and j < j_end and (kind == "equal" or _alike(ours[i], theirs[j])):
            is_same = kind == "equal" and same_answer(ours[i], theirs[j])
            yield Pair(scope, i, ours[i], theirs[j], "same" if is_same else "changed", run)
            i, j = i + 1, j + 1
        yield from (
            Pair(scope, place, ours[place], None, "missing", run) for place in range(i, i_end)
        )
        yield from (
            Pair(scope, place, None, theirs[place], "added", run) for place in range(j, j_end)
        )


def _asked(record: Record) -> str:
    """Return a text that is the same for equal requests only, whatever their draws."""
    return key_of(record.kind, record.request, None)


def _same_request(one: Record, other: Record) -> bool:
    return one.kind == other.kind and one.request == other.request


def _alike(one: Record, other: Record) -> bool:
    return one.kind == other.kind and one.request.get("function") == other.request.get("function")


def _round(pair: Pair, run: Run, other: Run) -> str:
    """Return the name of the round that a call is in, in the first run if that has the call."""
    if pair.one is not None:
        return run.round_of(pair.one)
    return "" if pair.other is None else other.round_of(pair.other)


def _round_name(pair: Pair) -> str:
    return pair.round or f"call {pair.place + 1}"


def _parting(cause: Cause, pairs: Sequence[Pair]) -> Parting:
    """Return a cause as it is told."""
    pair = pairs[cause.number]
    return Parting(
        pair.scope,
        pair.place,
        cause.why,
        cause.before,
        cause.after,
        pair.run,
        cause.doubt,
        pair.round,
        _served(pair) if cause.why == "draw" else (),
    )


def _served(pair: Pair) -> tuple[str, ...]:
    """Return the models that answered in both runs, if they differ."""
    names = [record.served for record in (pair.one, pair.other) if record and record.served]
    return tuple(names) if len(set(names)) > 1 else ()


def _told(record: Record | None) -> tuple[str | None, str | None]:
    return (None, None) if record is None else (record.prompt, record.answer)


# In words


def _call(parting: Parting) -> str:
    """Return which call of its actor a parting is at."""
    call = f"call {parting.place + 1}"
    return f"{call} ({printable(parting.round)})" if parting.round else call


def _shares(rounds: Sequence[Round]) -> Iterator[str]:
    """Yield the share of changed calls in each stretch of rounds that have the same; if these are
    many, in stretches of as many rounds each.
    """
    stretches = [list(same) for _, same in groupby(rounds, key=lambda each: _share([each]))]
    if len(stretches) > STRETCHES_SHOWN:
        length = -(-len(rounds) // STRETCHES_SHOWN)
        stretches = [
            list(rounds[begin : begin + length]) for begin in range(0, len(rounds), length)
        ]
    for same in stretches:
        first, last = same[0].name, same[-1].name
        yield f"{_share(same)} in {printable(_stretch(first, last))}"


def _stretch(first: str, last: str) -> str:
    """Return the names of the first and the last round of a stretch as one text."""
    if first == last:
        return first
    if first.startswith("call ") and last.startswith("call "):
        return f"calls {first.removeprefix('call ')} to {last.removeprefix('call ')}"
    return f"{first} to {last}"


def _share(rounds: Iterable[Round]) -> str:
    """Return the share of changed calls in some rounds together, in words."""
    calls, changed = 0, 0
    for each in rounds:
        calls += each.calls
        changed += each.changed
    if changed in (0, calls):
        return "all" if changed else "none"
    return f"{min(max(round(100 * changed / calls), 1), 99)}%"


def _word_changes(before: str, after: str) -> str:
    """Return where two texts differ, as ``git diff --word-diff`` shows it: ``[-before-]
    {+after+}``.

    Where only blanks or marks differ, the words beside them are shown as well.
    """
    found = []
    for passage in passages(before, after)[:CHANGES_SHOWN]:
        gone, new = (one_line(piece, WORDS) for piece in pieces(passage, before, after))
        if not WORD.search(gone + new):
            around = pieces(_with_words(passage, before), before, after)
            gone, new = (shortened(piece, WORDS) for piece in around)
        marked = [f"[-{printable(gone)}-]"] if gone.strip() else []
        marked += [f"{{+{printable(new)}+}}"] if new.strip() else []
        found.append(" ".join(marked))
    if not any(found):  # nothing but blanks
        return f"[-{as_json(before)}-] {{+{as_json(after)}+}}"
    return " … ".join(filter(None, found))


def _with_words(passage: Passage, before: str) -> Passage:
    """Return a passage with the words that stand beside it in both texts."""
    ahead = WORD_AT_END.search(before[: passage.begin])
    behind = WORD_AT_START.match(before[passage.end :])
    left = min(len(ahead[0]) if ahead else 0, passage.asked_begin)
    right = len(behind[0]) if behind else 0
    return Passage(
        passage.begin - left,
        passage.end + right,
        passage.asked_begin - left,
        passage.asked_end + right,
    )


def _named(scope: str) -> str:
    return printable(scope) or OUTSIDE_ANY_SCOPE


def counted_value(answer: str | None) -> str:
    """Return an answer as it is counted: JSON by its value, a text without the blanks around it."""
    text = (answer or "").strip()
    if text[:1] not in ("{", "[", '"'):
        return text
    try:
        return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)
    except ValueError:
        return text
