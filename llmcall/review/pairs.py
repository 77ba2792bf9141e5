"""The calls of two runs in pairs: actors by their scopes, an actor's calls by their requests."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product, zip_longest
from typing import NamedTuple

from ..records.answers import says_the_same
from ..requests.keys import key_of
from ..types import Record
from .runs import RecordedRun, first_level, relative

Align = Callable[[str], str] | Mapping[str, str]
Actors = dict[str, list[Record]]


class Pair(NamedTuple):
    """A call of the first run, and the call of the other one that belongs to it; either may be
    missing.

    :param status: as of a :class:`.Row`, as are scope, place and run; empty if nothing is compared.
    """

    scope: str
    place: int
    one: Record | None
    other: Record | None = None
    status: str = ""
    run: int = 1


def paired_runs(
    run: RecordedRun, other: RecordedRun, run_number: int, align: Align | None
) -> Iterator[list[Pair]]:
    """Yield the calls of each actor in pairs, in the order of the first run.

    :param run_number: the number of the other run, from 1.
    :param align: see :func:`~llmcall.compare`.
    """
    actors, other_actors = _actors(run, other, align)
    for scope in _in_order(actors, other_actors):
        records, other_records = actors.get(scope, []), other_actors.get(scope, [])
        yield list(_paired(scope, run_number, records, other_records))


def _in_order(actors: Actors, other_actors: Actors) -> list[str]:
    """Return the actors of both runs: one that only the other run has behind that before it there."""
    order = {scope: (number, 0) for number, scope in enumerate(actors)}
    last = -1
    for number, scope in enumerate(other_actors, 1):
        last = order.setdefault(scope, (last, number))[0]
    return sorted(order, key=order.__getitem__)


def _actors(run: RecordedRun, other: RecordedRun, align: Align | None) -> tuple[Actors, Actors]:
    """Return the records of each actor of both runs, without the level that names a whole run.

    A first name that all scopes of a run share may be that of its only actor. So the names are those
    by which both runs have most actors in common.
    """
    actors, other_actors = run.by_actor(), other.by_actor()
    level, other_level = first_level(actors), first_level(other_actors)
    above, other_above = run.scope or level, other.scope or other_level
    choices = list(dict.fromkeys(product((above, level, ""), (other_above, other_level, ""))))
    if above and {*actors, *other_actors} == {above}:
        del choices[0]
    name_of = align.get if isinstance(align, Mapping) else align or str
    namings = [
        (_by_name(actors, one_level), _by_name(other_actors, other_level, name_of))
        for one_level, other_level in choices
    ]
    return max(namings, key=lambda each: len(each[0].keys() & each[1].keys()))


def _by_name(
    actors: Actors, ancestor: str, name_of: Callable[[str], str | None] = str
) -> dict[str, list[Record]]:
    """Return the records of actors by their names, of several of one name one after the other.

    :param ancestor: the path of the scope above them, which is left out; may be empty.
    :param name_of: returns what an actor is called, if it is called otherwise.
    """
    records_by_name: Actors = {}
    for scope, records in actors.items():
        name = relative(scope, ancestor)
        records_by_name.setdefault(name_of(name) or name, []).extend(records)
    return records_by_name


def _paired(
    scope: str, run_number: int, records: Sequence[Record], other_records: Sequence[Record]
) -> Iterator[Pair]:
    """Yield the calls of one actor in pairs, by the longest common run of equal requests; those
    between them by their order.
    """
    keys, other_keys = (
        [key_of(each.kind, each.request, None) for each in side]
        for side in (records, other_records)
    )
    matcher = difflib.SequenceMatcher(None, keys, other_keys, autojunk=False)
    for kind, begin, end, other_begin, other_end in matcher.get_opcodes():
        for place, other_place in zip_longest(range(begin, end), range(other_begin, other_end)):
            one = None if place is None else records[place]
            other = None if other_place is None else other_records[other_place]
            if one and other and _are_alike(one, other):
                is_same = kind == "equal" and says_the_same(one, other)
                yield Pair(scope, place, one, other, "same" if is_same else "changed", run_number)
                continue
            if one:
                yield Pair(scope, place, one, None, "missing", run_number)
            if other:
                yield Pair(scope, other_place, None, other, "added", run_number)


def _are_alike(record: Record, other: Record) -> bool:
    is_same_kind = record.kind == other.kind
    return is_same_kind and record.request.get("function") == other.request.get("function")
