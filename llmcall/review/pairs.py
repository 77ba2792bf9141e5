"""The calls of one actor in two runs, in pairs."""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..records.answers import says_the_same
from ..requests.keys import key_of
from ..types import Record

# A request, the name of its draw, and how many calls before it had both.
_Draw = tuple[str, str, int]


class Pair(NamedTuple):
    """A call of the first run, and the call of the other one that belongs to it; either may be
    missing.

    :param status: as of a :class:`.Row`, as are scope, place, run and round;
        empty if nothing is compared.
    """

    scope: str
    place: int
    one: Record | None
    other: Record | None = None
    status: str = ""
    run: int = 1
    round: str = ""

    @property
    def is_same_request(self) -> bool:
        """Return whether both runs asked the same."""
        one, other = self.one, self.other
        return bool(one and other and one.kind == other.kind and one.request == other.request)


class _Call(NamedTuple):
    """A call of an actor.

    :param place: its place among the actor's calls, from 0.
    :param request_key: see :func:`request_key`.
    """

    place: int
    record: Record
    request_key: str


def paired(
    scope: str, run_number: int, records: Sequence[Record], other_records: Sequence[Record]
) -> Iterator[Pair]:
    """Yield the calls of one actor in pairs.

    Equal draws of a request make a pair, unless their order changed. What is left between two such
    pairs is matched by its requests, and then by its place.

    :param run_number: the number of the other run, from 1.
    :param records: those of the first run.
    :param other_records: those of the other one.
    """
    calls, other_calls = _calls(records), _calls(other_records)
    begin = other_begin = 0
    for end, other_end in _equal_draws(calls, other_calls):
        yield from _matched(scope, run_number, calls[begin:end], other_calls[other_begin:other_end])
        yield _pair(scope, run_number, calls[end], other_calls[other_end])
        begin, other_begin = end + 1, other_end + 1
    yield from _matched(scope, run_number, calls[begin:], other_calls[other_begin:])


def _calls(records: Sequence[Record]) -> list[_Call]:
    return [_Call(place, record, request_key(record)) for place, record in enumerate(records)]


def _pair(scope: str, run_number: int, call: _Call, other: _Call) -> Pair:
    is_same_request = call.request_key == other.request_key
    is_same = is_same_request and says_the_same(call.record, other.record)
    status = "same" if is_same else "changed"
    return Pair(scope, call.place, call.record, other.record, status, run_number)


def _equal_draws(calls: Sequence[_Call], other_calls: Sequence[_Call]) -> list[tuple[int, int]]:
    """Return the places of equal draws in both runs: as many as have the same order in both."""
    other_places = {draw: place for place, draw in enumerate(_draws(other_calls))}
    places = [
        (place, other_places[draw])
        for place, draw in enumerate(_draws(calls))
        if draw in other_places
    ]
    return _longest_increasing(places)


def _draws(calls: Sequence[_Call]) -> list[_Draw]:
    """Return what names each call's draw among those of its actor."""
    counts: Counter[tuple[str, str]] = Counter()
    draws = []
    for call in calls:
        name = (call.record.sample or "").partition("#")[2]
        draws.append((call.request_key, name, counts[call.request_key, name]))
        counts[call.request_key, name] += 1
    return draws


def _longest_increasing(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return as many of some pairs of numbers as possible whose second numbers increase.

    :param pairs: sorted by their first numbers. This sorts them by patience (Fredman 1975, "On
        computing the length of longest increasing subsequences").
    """
    lowest_ends: list[int] = []  # by length: the lowest number that ends a sequence
    indices: list[int] = []  # of the pairs with these numbers
    previous: list[int | None] = []  # by pair: the index of the one before it
    for index, (_, number) in enumerate(pairs):
        length = bisect_left(lowest_ends, number)
        lowest_ends[length : length + 1] = [number]
        indices[length : length + 1] = [index]
        previous.append(indices[length - 1] if length else None)
    longest = []
    last = indices[-1] if indices else None
    while last is not None:
        longest.append(pairs[last])
        last = previous[last]
    return longest[::-1]


def _matched(
    scope: str, run_number: int, calls: Sequence[_Call], other_calls: Sequence[_Call]
) -> Iterator[Pair]:
    """Yield calls in pairs by their requests, and then by their place."""
    keys = [call.request_key for call in calls]
    other_keys = [call.request_key for call in other_calls]
    matcher = difflib.SequenceMatcher(None, keys, other_keys, autojunk=False)
    for kind, index, end, other_index, other_end in matcher.get_opcodes():
        while (
            index < end
            and other_index < other_end
            and (kind == "equal" or _alike(calls[index].record, other_calls[other_index].record))
        ):
            yield _pair(scope, run_number, calls[index], other_calls[other_index])
            index, other_index = index + 1, other_index + 1
        for call in calls[index:end]:
            yield Pair(scope, call.place, call.record, None, "missing", run_number)
        for call in other_calls[other_index:other_end]:
            yield Pair(scope, call.place, None, call.record, "added", run_number)


def request_key(record: Record) -> str:
    """Return a text that is the same for equal requests only, whatever their draws."""
    return key_of(record.kind, record.request, None)


def _alike(record: Record, other: Record) -> bool:
    is_same_kind = record.kind == other.kind
    return is_same_kind and record.request.get("function") == other.request.get("function")
