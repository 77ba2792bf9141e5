"""Pairs of calls of two runs: actors are matched by scope, and an actor's calls by request: identical ones in any
order, then the others.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from difflib import SequenceMatcher
from functools import cached_property, lru_cache
from itertools import chain, product
from typing import NamedTuple

from ..keys.keys import key_of
from ..keys.request import messages_of, naming_system_text, strings_in, system_text
from ..scopes.position import without_repeats
from ..stores.differences import canonical_text, likeness
from ..stores.record import Record
from ..stores.records.answers import merged_order, shared_answer_parts
from ..stores.records.reader import FileRecord
from .conversations import asked_of_item, is_item
from .runs import RecordedRun, first_level, relative_scope

# The scope of an actor whose name is the beginning of a longer text, and that text's digest (``--actor system``)
NAMED_BY_TEXT = re.compile(r"(.*\S)-[0-9a-f]{8}", re.DOTALL)
Align = Callable[[str], str] | Mapping[str, str]
Actors = dict[str, list[Record]]
NO_CALL = -1


@lru_cache  # most pairs follow one of the same actor
def _item_of(scope: str) -> str:
    return without_repeats(scope)[0]


class Pair(NamedTuple):
    """A call of the first run and the matching call of the other; either may be missing.

    :param status: as in a :class:`.Row`, like scope, index and run; empty for a run that is not
        compared.
    """

    scope: str
    index: int  # type: ignore[assignment]
    one: Record | None
    other: Record | None = None
    status: str = ""
    run: int = 1

    @property
    def keys(self) -> tuple[str | None, str | None]:
        """Return the keys of its records."""
        one, other = self.one, self.other
        return None if one is None else one.cache_key, None if other is None else other.cache_key

    @property
    def path(self) -> str:
        """Return the whole scope path of its call in the first run that has it."""
        record = self.one or self.other
        return record.scope if record else ""

    @property
    def item(self) -> str:
        """Return its scope; of a repeat of a ``map``'s item, the item's."""
        return _item_of(self.scope)


def item_words(pairs: Iterable[Pair]) -> dict[str, str]:
    """Return the words of the items of a ``map``, which have digests for names, by their scopes; of actors that a
    system message names, its first words, without the digest that no other one needs; and, of calls in the scope that
    names the whole run, its name.
    """
    words: dict[str, str] = {}
    named: dict[str, str] = {}  # first words by scope; empty if no message names it
    for pair in pairs:
        if not pair.scope:
            if "" not in words and (path := pair.path):
                words[""] = path
            continue
        item = pair.item
        if item not in named and (match := NAMED_BY_TEXT.fullmatch(item)):
            record = pair.one or pair.other
            text = naming_system_text(item, record.request) if record is not None else ""
            is_cut = len(text) > len(match[1].rpartition("/")[2])
            named[item] = f"{match[1]}{'…' if is_cut else ''}" if text else ""
        if item in words or not is_item(item):
            continue
        if asked := asked_of_item(item, pair.one or pair.other):
            outer, slash, _ = item.rpartition("/")
            words[item] = f"{outer}{slash}{asked}"
    counts = Counter(named.values())
    return words | {item: name for item, name in named.items() if name and counts[name] == 1}


def paired_runs(
    run: RecordedRun, other: RecordedRun, run_number: int, align: Align | None
) -> Iterator[list[Pair]]:
    """Yield the calls of each actor in pairs, in the order of the first run.

    :param run_number: the number of the other run, from 1.
    :param align: see :func:`~llmcall.compare`.
    """
    actors, other_actors = _named_actors(run, other, align)
    for scope in merged_order(actors, other_actors):
        records = actors.get(scope, []), other_actors.get(scope, [])
        yield list(_pair_calls(scope, run_number, *records))


def _named_actors(
    run: RecordedRun, other: RecordedRun, align: Align | None
) -> tuple[Actors, Actors]:
    """Return the records of each actor of both runs, without the level that names a whole run.

    A first name that all scopes of a run share may name the run, or its only actor. So the naming is
    chosen by which both runs have the most actors in common.
    """
    actors, other_actors = run.by_actor(), other.by_actor()
    level, other_level = first_level(actors), first_level(other_actors)
    above, other_above = run.scope or level, other.scope or other_level
    choices = list(dict.fromkeys(product((above, level, ""), (other_above, other_level, ""))))
    if above and {*actors, *other_actors} == {above}:
        del choices[0]
    name_of = align.get if isinstance(align, Mapping) else align or str
    *_, level, other_level = max(
        (
            len({*_names(actors, level, str)} & {*_names(other_actors, other_level, name_of)}),
            -number,
            level,
            other_level,
        )
        for number, (level, other_level) in enumerate(choices)
    )
    named = _by_name(actors, _names(actors, level, str), level)
    others = _by_name(other_actors, _names(other_actors, other_level, name_of), other_level)
    return named, _with_earlier_names(named, others)


def _names(actors: Actors, ancestor: str, name_of: Callable[[str], str | None]) -> Iterator[str]:
    """Yield the name of each actor, without the path of the scope above all; that may be empty.

    :param name_of: returns another name for an actor, or ``None``.
    """
    # Calls outside any scope are another actor's, but embeddings never have a scope.
    has_others = any(record.kind != "embedding" for record in actors.get("", ()))
    for scope in actors:
        is_other = has_others and scope == ancestor
        name = scope if is_other else relative_scope(scope, ancestor)
        yield name_of(name) or name


def _by_name(actors: Actors, names: Iterable[str], ancestor: str) -> Actors:
    """Return the records by name; those of actors with the same name one after the other."""
    by_name: dict[str, list[list[Record]]] = {}
    for (scope, records), name in zip(actors.items(), names, strict=True):
        namesakes = by_name.setdefault(name, [])
        # A call's place is the one in its scope, whatever embeddings stand before it in the file.
        namesakes.insert(0 if scope == ancestor else len(namesakes), records)
    return {name: [*chain(*lists)] for name, lists in by_name.items()}


def _with_earlier_names(actors: Actors, other_actors: Actors) -> Actors:
    """Return the other run's actors. Those named by a system message that changed get the names of their
    earlier selves, judged by the messages' words.
    """
    lone, other_lone = (
        [
            (name, words_of(text))
            for name, records in side.items()
            if name not in shared
            and (text := naming_system_text(records[0].scope, records[0].request))
        ]
        for side, shared in ((actors, other_actors), (other_actors, actors))
    )
    words, other_words = ([text for _, text in side] for side in (lone, other_lone))
    pairs = most_alike(
        words, other_words, lambda one, other: likeness(words[one], other_words[other]) >= ALIKE
    )
    earlier = {other_lone[other][0]: lone[one][0] for one, other in pairs.items()}
    return {earlier.get(name, name): records for name, records in other_actors.items()}


def _pair_calls(
    scope: str, run_number: int, records: Sequence[Record], other_records: Sequence[Record]
) -> Iterator[Pair]:
    """Yield the calls of one actor in pairs, in the order of the first run."""

    def pair(status: str, number: int, other_number: int) -> Pair:
        index = other_number if number == NO_CALL else number
        one = None if number == NO_CALL else records[number]
        other = None if other_number == NO_CALL else other_records[other_number]
        return Pair(scope, index, one, other, status, run_number)

    # Most lines of two runs are equal; then no record is read.
    are_same = [*map(_have_same_line, records, other_records)]
    if len(records) == len(other_records) and all(are_same):
        yield from (pair("same", number, number) for number in range(len(records)))
        return
    same = align_calls(records, other_records)
    places = {other: place for place, other in same.items()}
    # A call that only the other run has follows the one that precedes it there.
    rows = merged_order(
        [(0, place) for place in range(len(records))],
        [(0, places[n]) if n in places else (1, n) for n in range(len(other_records))],
    )
    for side, place in rows:
        if side:
            yield pair("added", NO_CALL, place)
        elif place not in same:
            yield pair("missing", place, NO_CALL)
        elif place == same[place] and are_same[place]:
            yield pair("same", place, place)
        else:
            one, other = records[place], other_records[same[place]]
            is_same = one.request == other.request and _have_same_answer(one, other)
            yield pair("same" if is_same else "changed", place, same[place])


def _have_same_line(one: Record, other: Record) -> bool:
    return isinstance(one, FileRecord) and isinstance(other, FileRecord) and one.line == other.line


def _have_same_answer(one: Record, other: Record) -> bool:
    if one.response == other.response:
        return True
    answer, other_answer = shared_answer_parts(one, other)
    return bool(answer == other_answer)


MAX_COMPARED = 20_000  # pairs of calls whose words are compared; with more, the order alone decides
ALIKE = 0.5  # two prompts, or two system messages, that are at least this alike are versions of one
# The gain in likeness, per call that moves, above which words overrule the order; and where one run has more calls.
CLEARLY, CLEARLY_IF_MORE = 0.25, 0.05

Words = Set[str]
Places = dict[int, int]  # of each matched call: the place in the first run → the place in the other


class PlacedCall:
    """One call of an actor, and what it may have in common with the same call of another run.

    :param place: its place among the actor's calls, from 0.
    :ivar request: the request's key, the same for all draws.
    :ivar kind: of the record, with the function's name or the path.
    :ivar system: the system message.
    """

    def __init__(self, place: int, record: Record) -> None:
        self.place = place
        self._record = record
        self.draw = (record.sample or "").partition("#")[2]
        self.caller = record.caller
        self.request = key_of(record.kind, record.request, None)
        self.kind = record.kind, record.request.get("function"), record.request.get("path")
        self.system = sys.intern(system_text(record.request))  # one object for all calls with it

    @cached_property
    def content(self) -> tuple[object, ...]:
        """Return the request without parameters."""
        return *self.kind, canonical_text(messages_of(self._record.request))

    @cached_property
    def prompt(self) -> Words:
        """Return the words of the last message."""
        return words_of(self._record.prompt)

    @cached_property
    def words(self) -> Words:
        """Return those of all messages: a history says at which turn of a conversation a call was made."""
        return words_of(" ".join(strings_in(messages_of(self._record.request))))


def words_of(text: str) -> Words:
    """Return the words of a text, each once."""
    return {*text.split()}


Calls = Sequence[PlacedCall]
Feature = Callable[[PlacedCall], Hashable]
# What the same call may have in common in both runs, surest first. Order does not count.
IDENTITIES: tuple[Feature, ...] = (
    lambda call: (call.request, call.draw),
    lambda call: (call.request, call.caller),
    lambda call: call.request,
    lambda call: (call.content, call.draw),
    lambda call: call.content,
)


def _speaker(call: PlacedCall) -> Hashable:
    """Return what successive calls of one speaker have in common."""
    return call.kind, call.system


def _caller(call: PlacedCall) -> Hashable:
    """Return what one caller's calls have in common."""
    return call.kind, call.system, call.caller


def align_calls(records: Sequence[Record], other_records: Sequence[Record]) -> Places:
    """Return the places of the same calls of an actor in two runs.

    The same calls have identical requests, preferably of the same draw or else of the same caller, or requests in
    which only parameters differ. Other calls of one caller, or with one system message, are the same if they
    stand between the same calls: in order, unless their words clearly say otherwise, as after threads, which make calls
    in any order. Calls that are alike but stand elsewhere are the same, too. In the remaining calls, the system message
    changed.
    """
    calls, others = (
        [PlacedCall(place, record) for place, record in enumerate(side)]
        for side in (records, other_records)
    )
    same: Places = {}
    for identity in IDENTITIES:
        for some, their_others in _groups(*_rest(calls, others, same), identity):
            same |= _zipped(some, their_others)
    if len(same) == len(calls) == len(others):
        return same
    for feature in (_caller, _speaker):
        for some, their_others in _groups(calls, others, feature):
            same |= _in_order(some, their_others, same)
    for some, their_others in _groups(*_rest(calls, others, same), _speaker):
        same |= _alike(some, their_others, ALIKE)
    systems, other_systems = ({call.system for call in side} for side in (calls, others))
    rest, other_rest = _rest(calls, others, same)
    for some, their_others in _groups(
        [call for call in rest if call.system not in other_systems],
        [call for call in other_rest if call.system not in systems],
        lambda call: call.kind,
    ):
        same |= _alike(some, their_others)
    return same


def _rest(calls: Calls, others: Calls, same: Mapping[int, int]) -> tuple[Calls, Calls]:
    """Return the calls that are not known to be the same."""
    taken = {*same.values()}
    return (
        [call for call in calls if call.place not in same],
        [call for call in others if call.place not in taken],
    )


def _groups(calls: Calls, others: Calls, feature: Feature) -> Iterator[tuple[Calls, Calls]]:
    """Yield the calls of both runs that have a feature in common."""
    groups: dict[Hashable, tuple[list[PlacedCall], list[PlacedCall]]] = {}
    for side, some in enumerate((calls, others)):
        for call in some:
            groups.setdefault(feature(call), ([], []))[side].append(call)
    yield from (group for group in groups.values() if all(group))


def _zipped(calls: Calls, others: Calls) -> Places:
    """Return the places of calls in their order, whatever is between them."""
    return {call.place: other.place for call, other in zip(calls, others, strict=False)}


def _in_order(calls: Calls, others: Calls, same: Mapping[int, int]) -> Places:
    """Return the places of calls that stand between the same calls in both runs.

    :param same: the calls that are known to be the same; those in another order are skipped.
    """
    matched = {other: place for place, other in same.items()}
    one = [call.place for call in calls if call.place in same]
    other = [matched[call.place] for call in others if call.place in matched]
    blocks = SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    common = [place for start, _, size in blocks for place in one[start : start + size]]
    run = [(place, same[place]) for place in common]
    gaps: dict[int, tuple[list[PlacedCall], list[PlacedCall]]] = {}
    for side, some in enumerate(_rest(calls, others, same)):
        bounds = [pair[side] for pair in run]
        for call in some:
            gaps.setdefault(bisect(bounds, call.place), ([], []))[side].append(call)
    places: Places = {}
    for some, their_others in gaps.values():
        places |= _alike(some, their_others)
    return places


def _alike(calls: Calls, others: Calls, least: float = 0.0) -> Places:
    """Return the places of calls, the most alike first; of one speaker's in order, unless their words clearly say
    otherwise.

    :param least: how alike their last messages must be, wherever they stand.
    """
    if not least and len(calls) * len(others) > MAX_COMPARED:
        return _zipped(calls, others)
    words, other_words = ([call.words for call in side] for side in (calls, others))
    pairs = most_alike(
        words,
        other_words,
        lambda one, other: likeness(calls[one].prompt, others[other].prompt) >= least,
    )
    # One speaker has one system message, or, with a memory in it, another one at each call; several have no order.
    has_order = len({call.system for call in calls}) in (1, len(calls))
    if has_order and not least:
        alike = _likenesses(words, other_words)
        in_order = {one: one for one in range(min(len(calls), len(others)))}
        moved, left = pairs.items() - in_order.items(), in_order.items() - pairs.items()
        gain = sum(alike(*pair) for pair in moved) - sum(alike(*pair) for pair in left)
        clearly = CLEARLY if len(calls) == len(others) else CLEARLY_IF_MORE
        if gain <= clearly * len(moved):
            return _zipped(calls, others)
    return {calls[one].place: others[other].place for one, other in pairs.items()}


def most_alike(
    texts: Sequence[Words], others: Sequence[Words], may_pair: Callable[[int, int], bool]
) -> dict[int, int]:
    """Return pairs of indexes: by the words that not all texts share, the most alike first and, if equally alike,
    the nearest.

    :param may_pair: returns whether two indexes may be a pair.
    :returns: nothing, if the texts are too many to compare.
    """
    if len(texts) * len(others) > MAX_COMPARED:
        return {}
    alike = _likenesses(texts, others)
    ranked = sorted(
        (-alike(index, number), abs(index - number), index, number)
        for index in range(len(texts))
        for number in range(len(others))
        if may_pair(index, number)
    )
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, _, index, number in ranked:
        if index not in pairs and number not in taken:
            pairs[index] = number
            taken.add(number)
    return pairs


def _likenesses(texts: Sequence[Words], others: Sequence[Words]) -> Callable[[int, int], float]:
    """Return a function that returns how alike two of the texts are, by the words that not all of them share."""
    shared = frozenset().union(*texts, *others).intersection(*texts, *others)
    own, other_own = ([text - shared for text in side] for side in (texts, others))
    return lambda one, other: likeness(own[one], other_own[other])
