"""The alignment of an actor's calls in two runs: identical requests in any order, then the others."""

from __future__ import annotations

import sys
from bisect import bisect
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from difflib import SequenceMatcher
from functools import cached_property

from ..keys.keys import key_of
from ..keys.request import Data, messages_of, strings_in, system_text
from ..stores.differences import canonical_text, likeness
from ..stores.record import Record

MAX_COMPARED = 20_000  # pairs of calls whose words are compared; with more, the order alone decides
ALIKE = 0.5  # two prompts, or two system messages, that are at least this alike are versions of one
# The gain in likeness, per call that moves, above which words overrule the order; and where one run has more calls.
CLEARLY, CLEARLY_IF_MORE = 0.25, 0.05

Words = Set[str]
Places = dict[int, int]  # of each matched call: the place in the first run → the place in the other


class PlacedCall:
    """One call of an actor, and what it may have in common with the same call of another run.

    :param place: its place among the actor's calls, from 0.
    :param records: those of all these calls.
    :ivar request: the request's key, the same for all draws.
    :ivar kind: of the record, with the function's name or the path.
    :ivar system: the system message.
    """

    def __init__(self, place: int, records: Sequence[Record]) -> None:
        record = records[place]
        self._records = records
        self.place = place
        self.draw = (record.sample or "").partition("#")[2]
        self.caller = record.caller
        self.request = key_of(record.kind, record.request, None)
        self.kind = record.kind, record.request.get("function"), record.request.get("path")
        self.system = sys.intern(system_text(record.request))  # one object for all calls with it

    @cached_property
    def content(self) -> tuple[object, ...]:
        """Return the request without parameters."""
        return *self.kind, canonical_text(self._messages)

    @cached_property
    def prompt(self) -> Words:
        """Return the words of the last message."""
        return words_of(self._records[self.place].prompt)

    @cached_property
    def words(self) -> Words:
        """Return those of all messages: a history says at which turn of a conversation a call was made."""
        return words_of(" ".join(strings_in(self._messages)))

    @property
    def _messages(self) -> list[Data]:
        return messages_of(self._records[self.place].request)


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
    """Return what those of one caller have in common."""
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
        [PlacedCall(place, side) for place in range(len(side))] for side in (records, other_records)
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
