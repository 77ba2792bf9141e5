"""The alignment of an actor's calls in two runs: identical requests in any order, then the others."""

from __future__ import annotations

from bisect import bisect
from collections.abc import (
    Callable,
    Collection,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Set,
)
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple

from ..keys.keys import key_of
from ..keys.request import messages_of, system_text
from ..stores.differences import canonical_text, likeness
from ..stores.record import Record

MAX_COMPARED = 20_000  # pairs of calls whose words are compared; with more, the order alone decides
ALIKE = 0.5  # two calls, or two system messages, that are at least this alike are versions of one
LEAST = 1e-3  # the value of a pair of unlike calls, relative to a pair of like ones
BEYOND_DOUBT = 0.25  # the same gain, where the system message did not change
CLEARLY = 0.1  # the gain in likeness, per pair that changes, above which words overrule the order

Words = Set[str]
Places = dict[int, int]  # of each matched call: the place in the first run → the place in the other
NOWHERE: Mapping[int, int] = {}


class PlacedCall:
    """One call of an actor, and what it may have in common with the same call of another run.

    :param place: its place among the actor's calls, from 0.
    """

    def __init__(self, place: int, record: Record) -> None:
        self.place = place
        self.record = record
        self.draw = (record.sample or "").partition("#")[2]
        self.request = key_of(record.kind, record.request, None)  # the same for all draws
        self.kind = record.kind, record.request.get("function"), record.request.get("path")

    @cached_property
    def texts(self) -> Texts:
        """Return its texts, all at once: to read them, a record from a file has to be parsed."""
        request = self.record.request
        content = *self.kind, canonical_text(messages_of(request))
        return Texts(content, system_text(request), words_of(self.record.prompt))


class Texts(NamedTuple):
    """The texts of a request.

    :param content: the request, without parameters.
    :param system: the system message.
    :param words: the words of the last message.
    """

    content: tuple[object, ...]
    system: str
    words: Words


def words_of(text: str) -> Words:
    """Return the words of a text, each once."""
    return {*text.split()}


Calls = Sequence[PlacedCall]
Feature = Callable[[PlacedCall], Hashable]
# What the same call may have in common in both runs, surest first. Order does not count.
IDENTITIES: tuple[Feature, ...] = (
    lambda call: (call.request, call.draw),
    lambda call: (call.request, call.record.caller),
    lambda call: call.request,
    lambda call: (call.texts.content, call.draw),
    lambda call: call.texts.content,
)
# What successive calls of one speaker have in common.
SPEAKERS: tuple[Feature, ...] = (
    lambda call: (call.kind, call.texts.system, call.record.caller),
    lambda call: (call.kind, call.texts.system),
)


def align_calls(records: Iterable[Record], other_records: Iterable[Record]) -> Places:
    """Return the places of the same calls of an actor in two runs.

    The same calls have identical requests, preferably of the same draw or else of the same caller, or requests in
    which only parameters differ. Other calls of one caller, or with one system message, are the same if they
    stand between the same calls, in order. If one run has more of them there, their words decide. Calls that are alike
    but stand elsewhere are the same, too. In the remaining calls, the system message changed. Their order decides,
    unless their words clearly say otherwise: threads make calls in any order.
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
    for speaker in SPEAKERS:
        for some, their_others in _groups(calls, others, speaker):
            same |= _in_order(some, their_others, same)
    for speaker in SPEAKERS:
        for some, their_others in _groups(*_rest(calls, others, same), speaker):
            same |= _alike(some, their_others)
    systems, other_systems = ({call.texts.system for call in side} for side in (calls, others))
    rest, other_rest = _rest(calls, others, same)
    for some, their_others in _groups(
        [call for call in rest if call.texts.system not in other_systems],
        [call for call in other_rest if call.texts.system not in systems],
        lambda call: call.kind,
    ):
        same |= _changed_systems(some, their_others)
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


def _in_order(calls: Calls, others: Calls, same: Mapping[int, int] = NOWHERE) -> Places:
    """Return the places of calls that stand between the same calls in both runs.

    :param same: the calls that are known to be the same; those in another order are skipped.
    """
    other_places = {other.place for other in others}
    known = [
        (call.place, same[call.place]) for call in calls if same.get(call.place) in other_places
    ]
    run = longest_rising_run(known)
    gaps: dict[int, tuple[list[PlacedCall], list[PlacedCall]]] = {}
    for side, some in enumerate(_rest(calls, others, same)):
        bounds = [pair[side] for pair in run]
        for call in some:
            gaps.setdefault(bisect(bounds, call.place), ([], []))[side].append(call)
    return {
        some[index].place: their_others[other].place
        for some, their_others in gaps.values()
        for index, other in _best(
            *([call.texts.words for call in side] for side in (some, their_others))
        )
    }


def _best(texts: Sequence[Words], others: Sequence[Words]) -> Collection[tuple[int, int]]:
    """Return pairs of indexes: in order, unless the words say that threads made the calls in another one."""
    in_order, by_words = {*best_in_order(texts, others)}, {*most_alike(texts, others)}
    moved = by_words - in_order
    if not moved:
        return in_order
    alike = _table(texts, others)
    gain = sum(alike[a][b] for a, b in moved) - sum(alike[a][b] for a, b in in_order - by_words)
    return by_words if gain > BEYOND_DOUBT * len(moved) else in_order


def _alike(calls: Calls, others: Calls) -> Places:
    """Return the places of calls that are alike, whatever their order: threads make calls in any."""
    words, other_words = ([call.texts.words for call in side] for side in (calls, others))
    return {
        calls[index].place: others[other].place
        for index, other in most_alike(words, other_words, ALIKE)
    }


def _changed_systems(calls: Calls, others: Calls) -> Places:
    """Return the places of the same calls among those of one kind whose system messages changed.

    Either all are matched in order, as for an actor whose system message says what it remembers, or system
    message by system message, as for several actors in threads.
    """
    systems, other_systems = (
        list(dict.fromkeys(call.texts.system for call in side)) for side in (calls, others)
    )
    words, other_words = (list(map(words_of, side)) for side in (systems, other_systems))
    by_words: Places = {}
    for index, other in most_alike(words, other_words):
        some = [call for call in calls if call.texts.system == systems[index]]
        their_others = [call for call in others if call.texts.system == other_systems[other]]
        same: Places = {}
        for equal, other_equal in _groups(some, their_others, lambda call: call.record.prompt):
            same |= _zipped(equal, other_equal)
        same |= _in_order(some, their_others, same)
        by_words |= same | _alike(*_rest(some, their_others, same))
    in_order = _in_order(calls, others)
    alike = _table(words, other_words)
    rows, columns = (
        {call.place: names.index(call.texts.system) for call in side}
        for side, names in ((calls, systems), (others, other_systems))
    )

    def total(places: Iterable[tuple[int, int]]) -> float:
        return sum(alike[rows[place]][columns[other]] for place, other in places)

    def systems_of(places: Places) -> set[tuple[int, int]]:
        return {(rows[place], columns[other]) for place, other in places.items()}

    if systems_of(by_words) <= systems_of(in_order):
        return by_words  # in which identical questions take precedence over order
    moved = by_words.items() - in_order.items()
    gain = total(moved) - total(in_order.items() - by_words.items())
    return by_words if gain > CLEARLY * len(moved) else in_order


def longest_rising_run(pairs: Collection[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return as many pairs as possible whose second numbers rise, too.

    :param pairs: pairs of numbers whose first numbers rise.
    """
    # By length: the pair at which the best run of that length ends
    ends: list[tuple[int, int]] = []
    before: dict[tuple[int, int], tuple[int, int] | None] = {}
    for pair in pairs:
        length = bisect(ends, pair[1], key=itemgetter(1))
        before[pair] = ends[length - 1] if length else None
        ends[length : length + 1] = [pair]
    run = []
    last = ends[-1] if ends else None
    while last is not None:
        run.append(last)
        last = before[last]
    return run[::-1]


def best_in_order(texts: Sequence[Words], others: Sequence[Words]) -> list[tuple[int, int]]:
    """Return pairs of indexes, both rising: as many as there can be, and of these the most alike."""
    if len(texts) * len(others) > MAX_COMPARED:
        return list(zip(range(len(texts)), range(len(others)), strict=False))
    gains = [
        [max(alike - ALIKE, 0) + LEAST * (1 + alike) for alike in row]
        for row in _table(texts, others)
    ]
    best = [[0.0] * (len(others) + 1) for _ in range(len(texts) + 1)]  # of the texts from there on
    for one in reversed(range(len(texts))):
        for other in reversed(range(len(others))):
            best[one][other] = max(
                gains[one][other] + best[one + 1][other + 1],
                best[one + 1][other],
                best[one][other + 1],
            )
    pairs, one, other = [], 0, 0
    while one < len(texts) and other < len(others):
        if best[one][other] == gains[one][other] + best[one + 1][other + 1]:
            pairs.append((one, other))
            one, other = one + 1, other + 1
        elif best[one][other] == best[one + 1][other]:
            one += 1
        else:
            other += 1
    return pairs


def _table(texts: Sequence[Words], others: Sequence[Words]) -> list[list[float]]:
    """Return how alike each text is to each of the others, by the words that not all of them share."""
    shared = frozenset().union(*texts, *others).intersection(*texts, *others)
    return [[likeness(one - shared, other - shared) for other in others] for one in texts]


def most_alike(
    texts: Sequence[Words], others: Sequence[Words], least: float = 0.0
) -> list[tuple[int, int]]:
    """Return pairs of indexes, in any order: the most alike are paired first and, if equally alike, the nearest.

    :param least: how alike they must be.
    """
    if not texts or len(texts) * len(others) > MAX_COMPARED:
        return []
    ranked = sorted(
        (-alike, abs(index - number), index, number)
        for index, row in enumerate(_table(texts, others))
        for number, alike in enumerate(row)
        if likeness(texts[index], others[number]) >= least
    )
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, _, index, number in ranked:
        if index not in pairs and number not in taken:
            pairs[index] = number
            taken.add(number)
    return sorted(pairs.items())
