"""Pairs of calls of two runs: actors are matched by scope, and an actor's calls by request."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain, product
from typing import NamedTuple

from ..keys.request import naming_system_text
from ..scopes.position import without_repeats
from ..stores.differences import likeness
from ..stores.record import Record
from ..stores.records.answers import merged_order, shared_answer_parts
from ..stores.records.reader import Records
from .alignment import ALIKE, align_calls, most_alike, words_of
from .conversations import asked_of_item, is_item
from .runs import RecordedRun, first_level, relative_scope

# The scope of an actor whose name is the beginning of a longer text, and that text's digest (``--actor system``)
NAMED_BY_TEXT = re.compile(r"(.*\S)-[0-9a-f]{8}", re.DOTALL)
Align = Callable[[str], str] | Mapping[str, str]
Actors = dict[str, Records]
NO_RECORDS = Records.of(())
NO_CALL = -1


@lru_cache  # most pairs follow one of the same actor
def _item_of(scope: str) -> str:
    return without_repeats(scope)[0]


class Pair(NamedTuple):
    """A call of the first run and the matching call of the other; either may be missing.

    It holds where its records are among their actors', and reads them at each use.

    :param status: as in a :class:`.Row`, like scope, index and run; empty for a run that is not
        compared.
    """

    scope: str
    index: int  # type: ignore[assignment]
    records: Records
    number: int
    other_records: Records = NO_RECORDS
    other_number: int = NO_CALL
    status: str = ""
    run: int = 1

    @property
    def one(self) -> Record | None:
        """Return the record of the first run, if it has one."""
        return None if self.number == NO_CALL else self.records[self.number]

    @property
    def other(self) -> Record | None:
        """Return the record of the other run, if it has one."""
        return None if self.other_number == NO_CALL else self.other_records[self.other_number]

    @property
    def both(self) -> tuple[Records, Records]:
        """Return all records of its actor in both runs."""
        return self.records, self.other_records

    @property
    def places(self) -> tuple[int | None, int | None]:
        """Return where the records are in their runs."""
        return (
            None if self.number == NO_CALL else self.records.places[self.number],
            None if self.other_number == NO_CALL else self.other_records.places[self.other_number],
        )

    @property
    def path(self) -> str:
        """Return the whole scope path of its call in the first run that has it."""
        records, number = self.records, self.number
        if number == NO_CALL:
            records, number = self.other_records, self.other_number
        return next(records[number : number + 1].scopes())

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
        records = actors.get(scope, NO_RECORDS), other_actors.get(scope, NO_RECORDS)
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
    names, other_names = _Names(actors), _Names(other_actors, name_of)
    *_, level, other_level = max(
        (
            len({*names.below(level)} & {*other_names.below(other_level)}),
            -number,
            level,
            other_level,
        )
        for number, (level, other_level) in enumerate(choices)
    )
    named = names.actors_below(level)
    return named, _with_earlier_names(named, other_names.actors_below(other_level))


class _Names:
    """The names of a run's actors.

    :param actors: the records by scope path.
    :param name_of: returns another name for an actor, or ``None``.
    """

    def __init__(self, actors: Actors, name_of: Callable[[str], str | None] = str) -> None:
        self._actors = actors
        self._name_of = name_of
        # Calls outside any scope are another actor's, but embeddings never have a scope.
        self._has_others = any(record.kind != "embedding" for record in actors.get("", ()))

    def below(self, ancestor: str) -> Iterator[str]:
        """Yield the name of each actor, without the path of the scope above all; that may be empty."""
        for scope in self._actors:
            is_other = self._has_others and scope == ancestor
            name = scope if is_other else relative_scope(scope, ancestor)
            yield self._name_of(name) or name

    def actors_below(self, ancestor: str) -> Actors:
        """Return the records by name; those of actors with the same name one after the other."""
        by_name: dict[str, list[Records]] = {}
        for scope, name in zip(self._actors, self.below(ancestor), strict=True):
            namesakes = by_name.setdefault(name, [])
            # A call's place is the one in its scope, whatever embeddings stand before it in the file.
            namesakes.insert(0 if scope == ancestor else len(namesakes), self._actors[scope])
        return {
            name: some.moved(chain(some.places, *(records.places for records in others)))
            if others
            else some
            for name, (some, *others) in by_name.items()
        }


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
    scope: str, run_number: int, records: Records, other_records: Records
) -> Iterator[Pair]:
    """Yield the calls of one actor in pairs, in the order of the first run."""

    def pair(status: str, number: int, other_number: int) -> Pair:
        index = other_number if number == NO_CALL else number
        return Pair(scope, index, records, number, other_records, other_number, status, run_number)

    # Most lines of two runs are equal; then no record is read.
    are_same = [
        line is not None and line == other
        for line, other in zip(records.lines(), other_records.lines(), strict=False)
    ]
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


def _have_same_answer(one: Record, other: Record) -> bool:
    if one.response == other.response:
        return True
    answer, other_answer = shared_answer_parts(one, other)
    return bool(answer == other_answer)
