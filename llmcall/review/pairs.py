"""Pairs of calls of two runs: actors are matched by scope, and an actor's calls by request."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product, zip_longest
from typing import NamedTuple

from ..keys.keys import key_of
from ..stores.record import Record
from ..stores.records.answers import shared_answer_parts
from ..stores.records.combining import merged_order
from .runs import RecordedRun, first_level, relative_scope

Align = Callable[[str], str] | Mapping[str, str]
Actors = dict[str, list[Record]]


class Pair(NamedTuple):
    """A call of the first run and the matching call of the other; either may be missing.

    :param status: as in a :class:`.Row`, like scope, place and run; empty for a run that is not
        compared.
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
    actors, other_actors = _named_actors(run, other, align)
    for scope in merged_order(actors, other_actors):
        records, other_records = actors.get(scope, []), other_actors.get(scope, [])
        yield list(_pair_calls(scope, run_number, records, other_records))


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
    namings = [
        (_by_name(actors, one_level), _by_name(other_actors, other_level, name_of))
        for one_level, other_level in choices
    ]
    return max(namings, key=lambda naming: len(naming[0].keys() & naming[1].keys()))


def _by_name(
    actors: Actors, ancestor: str, name_of: Callable[[str], str | None] = str
) -> dict[str, list[Record]]:
    """Return the records of actors by name; those of actors with the same name one after the other.

    :param ancestor: the path of the scope above them, which is left out; may be empty.
    :param name_of: returns another name for an actor, or ``None``.
    """
    records_by_name: Actors = {}
    # Calls outside any scope are another actor's, but embeddings never have a scope.
    has_others = any(record.kind != "embedding" for record in actors.get("", ()))
    for scope, records in actors.items():
        name = scope if has_others and scope == ancestor else relative_scope(scope, ancestor)
        namesakes = records_by_name.setdefault(name_of(name) or name, [])
        # A call's place is the one in its scope, whatever embeddings stand before it in the file.
        end = 0 if scope == ancestor else len(namesakes)
        namesakes[end:end] = records
    return records_by_name


class _PlacedCall(NamedTuple):
    """A call of an actor.

    :param place: its place among the actor's calls, from 0.
    :param request: a key that equal requests share, whatever their draws.
    """

    place: int
    record: Record
    request: str


def _pair_calls(
    scope: str, run_number: int, records: Sequence[Record], other_records: Sequence[Record]
) -> Iterator[Pair]:
    """Yield the calls of one actor in pairs: by equal requests, and between these by their last messages."""
    calls, other_calls = (
        [
            _PlacedCall(place, record, key_of(record.kind, record.request, None))
            for place, record in enumerate(side)
        ]
        for side in (records, other_records)
    )
    for one, other in _match(calls, other_calls):
        if one and other and _are_alike(one.record, other.record):
            answer, other_answer = shared_answer_parts(one.record, other.record)
            is_same = one.request == other.request and answer == other_answer
            status = "same" if is_same else "changed"
            yield Pair(scope, one.place, one.record, other.record, status, run_number)
            continue
        if one:
            yield Pair(scope, one.place, one.record, None, "missing", run_number)
        if other:
            yield Pair(scope, other.place, None, other.record, "added", run_number)


def _match(
    calls: Sequence[_PlacedCall], other_calls: Sequence[_PlacedCall]
) -> Iterator[tuple[_PlacedCall | None, _PlacedCall | None]]:
    """Yield calls in pairs, matched by request."""
    requests, other_requests = ([call.request for call in side] for side in (calls, other_calls))
    matcher = difflib.SequenceMatcher(None, requests, other_requests, autojunk=False)
    for kind, begin, end, other_begin, other_end in matcher.get_opcodes():
        match = zip_longest if kind == "equal" else _match_changed
        yield from match(calls[begin:end], other_calls[other_begin:other_end])


def _match_changed(
    calls: Sequence[_PlacedCall], other_calls: Sequence[_PlacedCall]
) -> Iterator[tuple[_PlacedCall | None, _PlacedCall | None]]:
    """Yield calls with different requests in pairs: in order, unless a common sequence of their last
    messages pairs more equal ones.

    An actor who is told "Go on." in each round has many equal last messages. If one of them changes,
    their longest common sequence would pair all rounds with the rounds before.
    """
    prompts, other_prompts = (
        [call.record.prompt for call in side] for side in (calls, other_calls)
    )
    matcher = difflib.SequenceMatcher(None, prompts, other_prompts, autojunk=False)
    matched = sum(block.size for block in matcher.get_matching_blocks())
    if sum(map(operator.eq, prompts, other_prompts)) >= matched:
        yield from zip_longest(calls, other_calls)
        return
    for _, begin, end, other_begin, other_end in matcher.get_opcodes():
        yield from zip_longest(calls[begin:end], other_calls[other_begin:other_end])


def _are_alike(record: Record, other: Record) -> bool:
    is_same_kind = record.kind == other.kind
    return is_same_kind and record.request.get("function") == other.request.get("function")
