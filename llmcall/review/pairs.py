"""Pairs of calls of two runs: actors are matched by scope, and an actor's calls by request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from ..keys.request import naming_system_text
from ..scopes.position import without_repeats
from ..stores.differences import likeness
from ..stores.record import Record
from ..stores.records.answers import merged_order, shared_answer_parts
from .alignment import ALIKE, align_calls, most_alike, words_of
from .conversations import asked_of_item
from .runs import RecordedRun, first_level, relative_scope

Align = Callable[[str], str] | Mapping[str, str]
Actors = dict[str, list[Record]]


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
    def item(self) -> str:
        """Return its scope; of a repeat of a ``map``'s item, the item's."""
        return without_repeats(self.scope)[0]

    @property
    def is_alike(self) -> bool:
        """Return whether both runs make the call, in words that are alike."""
        if self.one is None or self.other is None:
            return False
        words, other_words = words_of(self.one.prompt), words_of(self.other.prompt)
        return words == other_words or likeness(words, other_words) >= ALIKE


def item_words(pairs: Iterable[Pair]) -> dict[str, str]:
    """Return the words of the items of a ``map``, which have digests for names, by their scopes; and, of calls in the
    scope that names the whole run, its name.
    """
    words: dict[str, str] = {}
    for pair in pairs:
        record = pair.one or pair.other
        if not pair.scope and record and record.scope:
            words.setdefault("", record.scope)
        elif pair.item not in words and (asked := asked_of_item(pair.item, pair.one or pair.other)):
            outer, slash, _ = pair.item.rpartition("/")
            words[pair.item] = f"{outer}{slash}{asked}"
    return words


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
    named, other_named = max(namings, key=lambda both: len(both[0].keys() & both[1].keys()))
    return named, _with_earlier_names(named, other_named)


def _with_earlier_names(actors: Actors, other_actors: Actors) -> Actors:
    """Return the actors of the other run; those whose changed system message names them have the names of
    their earlier selves, judged by the words of the messages.
    """
    lone, other_lone = (
        [
            (name, words_of(text))
            for name, (record, *_) in side.items()
            if name not in shared and (text := naming_system_text(record.scope, record.request))
        ]
        for side, shared in ((actors, other_actors), (other_actors, actors))
    )
    words, other_words = ([text for _, text in side] for side in (lone, other_lone))
    pairs = most_alike(
        words, other_words, lambda one, other: likeness(words[one], other_words[other]) >= ALIKE
    )
    earlier = {other_lone[other][0]: lone[one][0] for one, other in pairs.items()}
    return {earlier.get(name, name): records for name, records in other_actors.items()}


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


def _pair_calls(
    scope: str, run_number: int, records: Sequence[Record], other_records: Sequence[Record]
) -> Iterator[Pair]:
    """Yield the calls of one actor in pairs, in the order of the first run."""
    same = align_calls(records, other_records)
    places = {other: place for place, other in same.items()}
    # A call that only the other run has follows the one that precedes it there.
    rows = merged_order(
        [(0, place) for place in range(len(records))],
        [(0, places[n]) if n in places else (1, n) for n in range(len(other_records))],
    )
    for side, place in rows:
        if side:
            yield Pair(scope, place, None, other_records[place], "added", run_number)
        elif place not in same:
            yield Pair(scope, place, records[place], None, "missing", run_number)
        else:
            one, other = records[place], other_records[same[place]]
            is_same = one.request == other.request and _have_same_answer(one, other)
            yield Pair(scope, place, one, other, "same" if is_same else "changed", run_number)


def _have_same_answer(one: Record, other: Record) -> bool:
    if one.response == other.response:
        return True
    answer, other_answer = shared_answer_parts(one, other)
    return bool(answer == other_answer)
