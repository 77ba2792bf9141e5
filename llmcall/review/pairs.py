"""The calls of one actor in two runs, in pairs."""

from __future__ import annotations

import difflib
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..records.answers import says_the_same
from ..requests.keys import key_of
from ..types import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Pair(NamedTuple):
    """A call of the first run, and the call of the other one that belongs to it; either may be
    missing.

    :param status: as of a :class:`.Row`, as are scope, place and run;
        empty if nothing is compared.
    """

    scope: str
    place: int
    one: Record | None
    other: Record | None = None
    status: str = ""
    run: int = 1

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
    """Yield the calls of one actor in pairs, in the order of the first run.

    :param run_number: the number of the other run, from 1.
    :param records: those of the first run.
    :param other_records: those of the other one.
    """
    calls, other_calls = _calls(records), _calls(other_records)
    partners = _partners(calls, other_calls)
    places = {other_place: place for place, other_place in partners.items()}
    # An added call comes before the next one that both runs have.
    added: list[_Call] = []
    added_before: dict[int, list[_Call]] = {}
    for call in other_calls:
        if call.place in places:
            added_before[places[call.place]] = added
            added = []
        else:
            added.append(call)
    for call in calls:
        for other in added_before.get(call.place, ()):
            yield Pair(scope, other.place, None, other.record, "added", run_number)
        if call.place in partners:
            yield _pair(scope, run_number, call, other_calls[partners[call.place]])
        else:
            yield Pair(scope, call.place, call.record, None, "missing", run_number)
    for other in added:
        yield Pair(scope, other.place, None, other.record, "added", run_number)


def _calls(records: Sequence[Record]) -> list[_Call]:
    return [_Call(place, record, request_key(record)) for place, record in enumerate(records)]


def _pair(scope: str, run_number: int, call: _Call, other: _Call) -> Pair:
    is_same_request = call.request_key == other.request_key
    is_same = is_same_request and says_the_same(call.record, other.record)
    status = "same" if is_same else "changed"
    return Pair(scope, call.place, call.record, other.record, status, run_number)


def _partners(calls: Sequence[_Call], other_calls: Sequence[_Call]) -> dict[int, int]:
    """Return the places of the calls that belong together: by that in the first run, that in the
    other one.

    Equal draws of a request belong together, wherever they stand: of calls that are made at once,
    each run may record another one first. The other calls are matched between these, or all
    together if the order of these changed: by their requests, and then by their place.
    """
    partners: dict[int, int] = {}
    for draw_name in (_asker, _draw):
        partners |= _equal_draws(*_left(calls, other_calls, partners), draw_name)
    for block, other_block in _blocks(*_left(calls, other_calls, partners), partners):
        partners |= _matched(block, other_block)
    return partners


def _asker(call: _Call) -> str | None:
    """Return who asked, if several tasks or threads asked the same."""
    return call.record.asker


def _draw(call: _Call) -> str | None:
    """Return the name of a call's draw."""
    return (call.record.sample or "").partition("#")[2]


def _left(
    calls: Sequence[_Call], other_calls: Sequence[_Call], partners: Mapping[int, int]
) -> tuple[list[_Call], list[_Call]]:
    """Return the calls of both runs that have no partner."""
    other_places = set(partners.values())
    left = [call for call in calls if call.place not in partners]
    return left, [call for call in other_calls if call.place not in other_places]


def _equal_draws(
    calls: Sequence[_Call],
    other_calls: Sequence[_Call],
    draw_name: Callable[[_Call], str | None],
) -> dict[int, int]:
    """Return the places of equal requests whose draws have one name; of several, in their order."""
    other_places = _places_by_draw(other_calls, draw_name)
    partners: dict[int, int] = {}
    for draw, places in _places_by_draw(calls, draw_name).items():
        partners.update(zip(places, other_places.get(draw, ()), strict=False))
    return partners


def _places_by_draw(
    calls: Sequence[_Call], draw_name: Callable[[_Call], str | None]
) -> dict[tuple[str, str], list[int]]:
    """Return the places of calls by their requests and the names of their draws, if these have one."""
    places: dict[tuple[str, str], list[int]] = {}
    for call in calls:
        name = draw_name(call)
        if name is not None:
            places.setdefault((call.request_key, name), []).append(call.place)
    return places


def _blocks(
    calls: Sequence[_Call], other_calls: Sequence[_Call], partners: Mapping[int, int]
) -> list[tuple[list[_Call], list[_Call]]]:
    """Return calls without a partner in blocks: those between the same calls with a partner.

    If the order of these changed, there is one block, since nothing tells between which ones a call
    would stand.
    """
    places = sorted(partners)
    other_places = [partners[place] for place in places]
    if other_places != sorted(other_places):
        return [(list(calls), list(other_calls))]
    blocks: defaultdict[int, tuple[list[_Call], list[_Call]]] = defaultdict(lambda: ([], []))
    for call in calls:
        blocks[bisect(places, call.place)][0].append(call)
    for call in other_calls:
        blocks[bisect(other_places, call.place)][1].append(call)
    return list(blocks.values())


def _matched(calls: Sequence[_Call], other_calls: Sequence[_Call]) -> dict[int, int]:
    """Return the places of calls that belong together by their requests, and then by their place."""
    keys = [call.request_key for call in calls]
    other_keys = [call.request_key for call in other_calls]
    matcher = difflib.SequenceMatcher(None, keys, other_keys, autojunk=False)
    partners = {}
    for kind, index, end, other_index, other_end in matcher.get_opcodes():
        for call, other in zip(calls[index:end], other_calls[other_index:other_end], strict=False):
            if kind != "equal" and not _alike(call.record, other.record):
                break
            partners[call.place] = other.place
    return partners


def request_key(record: Record) -> str:
    """Return a text that is the same for equal requests only, whatever their draws."""
    return key_of(record.kind, record.request, None)


def _alike(record: Record, other: Record) -> bool:
    is_same_kind = record.kind == other.kind
    return is_same_kind and record.request.get("function") == other.request.get("function")
