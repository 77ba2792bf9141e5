"""The calls that a cassette's records answered, in the order of the program."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ...config.values import FrozenDict
from ...keys.keys import identity, key_of
from ...scopes.active import PROGRAM_SCOPE
from ...scopes.draw_numbers import RecordedCallers, history_after, history_text
from ...scopes.position import CallOrder, Position, function_scope
from ...support.system import lock
from ..notes import HISTORY, Notes, merged_notes
from ..record import Record, draw_of, scope_of, sorted_scopes

if TYPE_CHECKING:
    from ..records.reader import RecordFile


# First the levels of the call's scope path, then the numbers of its order: one tuple, as a run has a million.
SortKey = tuple[Any, ...]
AFTER_ALL: SortKey = (["\U0010ffff"],)
NO_CALLS: Mapping[str, SortKey] = FrozenDict()


def sort_key_of(path: str, order: CallOrder) -> SortKey:
    """Return the sort key of a call.

    :param path: its scope path.
    """
    return _levels(path), *order


@lru_cache(2**14)  # the calls of a scope share it
def _levels(path: str) -> list[str]:
    return path.split("/") if path else []


class ReplayLog:
    """A log of the records that answered calls, each with its first call and its caller.

    The first call is the first one in the program's order, whichever thread was faster. The methods are
    thread-safe.

    :param stored: the records of the file.
    :param may_record: ``True`` if the file may be written, with the names of callers.
    :param earlier_calls: the first calls of records that earlier openings of this run used.
    """

    def __init__(
        self,
        stored: RecordFile,
        *,
        may_record: bool,
        earlier_calls: Mapping[str, SortKey],
    ) -> None:
        self._stored = stored
        self._may_record = may_record
        self._is_recording = may_record and not stored.header.is_complete  # it continues the file's
        self._no_callers = RecordedCallers(is_recording=self._is_recording)  # one for all requests
        self._earlier_calls = earlier_calls
        # By scope path and the request's key outside any scope; of the file, read at first use
        self._recorded: dict[tuple[str, str], RecordedCallers] | None = None
        # By a record's key: its first call, and the caller that got it first
        self._first_calls: dict[str, SortKey] = {}
        self._callers: dict[str, str] = {}
        self._told_apart: set[str] = set()  # those that callers told from identical ones
        self._arms: dict[str, dict[str, CallOrder]] = {}  # arm → its first call that it answered
        # Of the calls that made notes, the one that requested it first; and its notes
        self._noted_calls: dict[str, SortKey] = {}
        self._notes: dict[str, Notes] = {}
        self._later_notes: dict[str, Notes] = {}  # those about the answer
        # The scopes of recorded functions that were replayed, and so did not run → arm → its call of the function
        self._skipped_scopes: dict[str, dict[str, CallOrder]] = {}

    def note(self, record: Record, position: Position, *, is_replayed: bool = False) -> None:
        """Log a call and the record that answers it.

        :param is_replayed: ``True`` if the record existed before the call.
        """
        key, caller = record.cache_key, position.caller
        skipped: set[str] = set()
        if is_replayed and record.kind == "function" and not self.has_used(key):  # it did not run
            scope_name = function_scope(record.request, record.sample)
            if record.scope:
                skipped = {f"{record.scope}/{scope_name}"}
            else:  # also below the default scope of programs
                skipped = {scope_name, f"{PROGRAM_SCOPE}/{scope_name}"}
        with lock:
            for scope in skipped:
                self._skipped_scopes.setdefault(scope, {}).setdefault(position.arm, position.order)
            place = sort_key_of(position.path, position.order)
            self._first_calls[key] = min(place, self._first_calls.get(key, AFTER_ALL))
            if position.notes and place < self._noted_calls.get(key, AFTER_ALL):
                self._noted_calls[key], self._notes[key] = place, position.notes
            if arm := position.arm:
                orders = self._arms.setdefault(key, {})
                orders[arm] = min(position.order, orders.get(arm, position.order))
            if caller is not None and self._may_record:
                self._callers.setdefault(key, caller)
                if not position.is_in_order:
                    self._told_apart.add(key)

    def note_planned(self, key: str) -> None:
        """Log a record that a dry run looked up; it counts as used."""
        with lock:
            self._first_calls.setdefault(key, AFTER_ALL)

    def count_in(self, path: str, arm: str) -> int:
        """Return how many records answered calls in a scope; in an arm, calls of that arm."""
        levels, *_ = sort_key_of(path, ())
        with lock:
            return sum(
                place[0] == levels and (not arm or arm in self._arms.get(key, ()))
                for key, place in self._first_calls.items()
            )

    def has_used(self, key: str) -> bool:
        """Return whether a record answered a call."""
        return key in self._first_calls

    def first_call(self, key: str) -> SortKey:
        """Return the sort key of a record's first call; unused records come last."""
        earlier = self._earlier_calls.get(key, AFTER_ALL)
        return min(earlier, self._first_calls.get(key, AFTER_ALL))

    def first_calls(self) -> dict[str, SortKey]:
        """Return the sort keys of the first calls of all used records."""
        return {key: self.first_call(key) for key in {*self.used_keys(), *self._earlier_calls}}

    # An unused record has no place among this run's calls, so where a file keeps it is a decision. It
    # follows the record that preceded it in the file, the nearest one of its scope that this run used. So
    # the old wording of a changed prompt stands just before the new one, as in a diff, and a run of a part
    # of a program leaves the other part where it was: such a file changes by the changed lines alone.
    # An unused draw of a caller also follows those that this caller got: a replay gives a caller its draws
    # of a request in the file's order. Behind all others was rejected, since the next run would bring an
    # unused record back to its place, and every run of a part would move the rest; before the record that
    # followed it was rejected, since the file of a run that broke off would then end with its own calls.
    def in_order(self, stored: Sequence[Record], gained: Iterable[Record]) -> list[Record]:
        """Return records in the order of this run's calls, each scope's in turn.

        :param stored: the records that the file had and keeps, in its order.
        :param gained: those that this run recorded.
        """
        used: dict[str | None, list[Record]] = {}
        for record in gained:
            used.setdefault(scope_of(record), []).append(record)
        last_used: dict[str | None, Record] = {}
        unused: dict[str | None, list[tuple[Record, Record | None]]] = {}  # after the used one
        for record in stored:
            scope = scope_of(record)
            if self.first_call(record.cache_key) != AFTER_ALL:
                used.setdefault(scope, []).append(record)
                last_used[scope] = record
            else:
                unused.setdefault(scope, []).append((record, last_used.get(scope)))

        def place_of(record: Record) -> tuple[SortKey, str]:
            return self.first_call(record.cache_key), record.cache_key

        ordered: list[Record] = []
        for scope in sorted_scopes({*used, *unused}):
            records = sorted(used.get(scope, ()), key=place_of)
            followers: dict[str, list[Record]] = {}  # by the key of the used record before them
            last_own: dict[tuple[str, str, str], Record] = {}  # by scope, request and caller
            for record in records if scope in unused else ():
                caller = self._callers.get(record.cache_key) or record.caller
                if own := _own_draws(record, caller):
                    last_own[own] = record
            for record, before in unused.get(scope, ()):
                own = _own_draws(record, record.caller)
                after = last_own.get(own, before) if own else before
                if before and after and place_of(after)[0] < place_of(before)[0]:
                    after = before
                followers.setdefault(after.cache_key if after else "", []).append(record)
            ordered += followers.get("", ())
            for record in records:
                ordered += (record, *followers.get(record.cache_key, ()))
        return ordered

    def unused(self) -> list[Record]:
        """Return the file's records that answered no call and belong to no replayed function."""
        others = self._stored.others(self.has_used)
        return list(filter(self.unused_test(self._stored), others))

    def unused_test(self, records: Iterable[Record]) -> Callable[[Record], bool]:
        """Return a function that says whether a record answered no call and belongs to no replayed function.

        A record outside any scope, such as an embedding, may belong to any function. A function that
        was replayed outside any scope may own every record whose outermost scope this run did not
        enter.

        :param records: all that it will be asked about.
        """

        def has_used(record: Record) -> bool:
            return self.has_used(record.cache_key)

        with lock:
            skipped = [*self._skipped_scopes]
        if not skipped:
            return lambda record: not has_used(record)
        inside = tuple(f"{path}/" for path in skipped)
        entered = {_outermost_scope(record) for record in records if has_used(record)}
        is_any_outside = any("/" not in path for path in skipped)
        return lambda record: (
            not has_used(record)
            and record.sample is not None
            and not f"{record.scope}/".startswith(inside)
            and not (is_any_outside and _outermost_scope(record) not in entered)
        )

    def with_arms(self, record: Record, *, is_gained: bool, drops_unused: bool) -> Record:
        """Return a record with the names of the arms that used it, in the order of their first calls.

        An arm that this run did not use stays, unless the run drops what it did not use.

        :param is_gained: ``True`` if this run recorded it; then all its arms are of this run.
        """
        orders = self._arms.get(record.cache_key, {})
        if self._is_recording and self._skipped_scopes and record.arms:
            levels = record.scope.split("/")
            paths = ["/".join(levels[:depth]) for depth in range(1, len(levels) + 1)]
            # The arms in which the function around its scope was replayed, each with its call of the function.
            skipped = {
                arm: order
                for path in paths
                for arm, order in self._skipped_scopes.get(path, {}).items()
            }
            orders = {arm: skipped[arm] for arm in record.arms if arm in skipped} | orders
        arms = tuple(sorted(orders, key=orders.__getitem__))
        is_of_run = is_gained or (drops_unused and self.has_used(record.cache_key))
        if not is_of_run:
            both = (arms, record.arms) if self._is_recording else (record.arms, arms)
            arms = tuple(dict.fromkeys(name for names in both for name in names))
        return record if arms == record.arms else record.replace(arms=arms)

    def used_keys(self) -> list[str]:
        """Return the keys of the records that the run got."""
        with lock:
            return [*self._first_calls]

    def add_notes(self, key: str, notes: Notes) -> None:
        """Log notes about an answer, which its caller makes when it has read it."""
        with lock:
            self._later_notes[key] = {**self._later_notes.get(key, {}), **notes}

    def with_notes(self, record: Record) -> Record:
        """Return a record with the notes that this run made about it."""
        key = record.cache_key
        noted = {**self._notes.get(key, {}), **self._later_notes.get(key, {})}
        if not noted:
            return record
        notes = merged_notes(record.notes, noted)
        return record if notes == record.notes else record.replace(notes=notes)

    # Callers

    def recorded_callers(self, path: str, request_key: str) -> RecordedCallers:
        """Return the recorded callers of a request's draws in the file.

        :param path: the scope path.
        :param request_key: the request's key outside any scope.
        """
        if self._recorded is None:  # if two threads read them, they read the same
            self._recorded = self._read_callers()
        return self._recorded.get((path, request_key), self._no_callers)

    def _read_callers(self) -> dict[tuple[str, str], RecordedCallers]:
        callers: defaultdict[tuple[str, str], dict[int, str]] = defaultdict(dict)
        histories: defaultdict[tuple[str, str], dict[int, str]] = defaultdict(dict)
        for record in self._stored.named():
            if draw := draw_of(record):
                callers[draw[:2]][draw.number] = record.caller or ""
                histories[draw[:2]][draw.number] = HISTORY.of(record)
        return {
            drawn: RecordedCallers(callers[drawn], self._is_recording, histories=histories[drawn])
            for drawn in callers
        }

    def with_callers(
        self, records: Sequence[Record], is_gained: Callable[[str], bool], *, is_complete: bool
    ) -> Sequence[Record]:
        """Return records with the names of their callers, where the file needs them to distinguish equal
        requests.

        An incomplete recording needs every name, since a missing call may come before the others.

        :param records: all that the file will have.
        :param is_gained: returns whether this run recorded the record with a key.
        """
        told_apart = {record.cache_key for record in self._stored.named()} | self._told_apart
        names = []
        for record in records:
            key = record.cache_key
            name = self._callers.get(key) or (None if is_gained(key) else record.caller)
            names.append(name if told_apart or record.sample is None else None)
        named = _named_if_needed(records, names, told_apart.__contains__, is_complete=is_complete)
        histories = self._histories(named)
        if not histories:
            return named
        return [with_history(record, histories.get(record.cache_key)) for record in named]

    def _histories(self, records: Sequence[Record]) -> dict[str, str]:
        """Return what the callers of this run had asked in their scopes before each call, as digests, by the keys of
        the records that name a caller.
        """
        named = {record.cache_key: record.scope for record in records if record.caller}
        own = {key: scope for key, scope in named.items() if self._callers.get(key)}
        scopes = {*own.values()}
        used = [
            number
            for number, record in enumerate(records)
            if record.scope in scopes and self._callers.get(record.cache_key)
        ]
        last: dict[tuple[str, str], int] = {}
        found = {}
        for number in sorted(used, key=lambda it: self.first_call(records[it].cache_key)):
            record = records[number]
            caller = record.scope, self._callers.get(record.cache_key) or ""
            if record.cache_key in named:
                found[record.cache_key] = "" if record.arms else history_text(last.get(caller, 0))
            digest = identity(record.kind, record.request).hexdigest()
            last[caller] = history_after(last.get(caller, 0), digest)
        return found

    def has_new_callers(self) -> bool:
        """Return whether the records of the file need other names than they have."""
        is_lone = len({*self._callers.values()}) < 2
        if is_lone and next(self._stored.named(), None) is None:
            return False
        records = list(self._stored)
        named = self.with_callers(records, lambda key: False, is_complete=True)
        return any(
            (new.caller, HISTORY.of(new)) != (old.caller, HISTORY.of(old))
            for new, old in zip(named, records, strict=True)
        )


def with_history(record: Record, history: str | None) -> Record:
    """Return a record with its caller's history: what the caller had asked before. Without a caller, it has none.

    :param history: ``None`` if this run did not make the call.
    """
    if record.caller is None:
        history = ""
    if history is None or history == HISTORY.of(record):
        return record
    others = {name: note for name, note in record.notes.items() if name != HISTORY.name}
    return record.replace(notes={**others, HISTORY.name: history} if history else others)


def _own_draws(record: Record, caller: str | None) -> tuple[str, str, str] | None:
    """Return the scope, request and caller that a record's draw belongs to; ``None`` without a caller or draw."""
    draw = draw_of(record)
    return None if caller is None or draw is None else (draw[0], draw[1], caller)


def without_lone_callers(records: Sequence[Record]) -> Sequence[Record]:
    """Return records without the callers' names that distinguish nothing: where one caller has all draws of
    a request in a scope, and they count from 0.

    The name stays where an earlier draw is missing, since without it the caller would draw that one.
    """
    names = [record.caller for record in records]
    return _named_if_needed(records, names, lambda key: True, is_complete=True)


def _named_if_needed(
    records: Sequence[Record],
    names: list[str | None],
    is_told_apart: Callable[[str], bool],
    *,
    is_complete: bool,
) -> Sequence[Record]:
    """Return records with those names that distinguish something; see :func:`without_lone_callers`.

    :param names: those of their callers, which they would all have.
    :param is_told_apart: returns whether the caller of a key's record tells it from identical ones; otherwise these
        followed one another.
    :param is_complete: ``True`` if no further draw may come before these.
    """
    by_scope: dict[str, list[int]] = {}
    named_scopes = {record.scope for record, name in zip(records, names, strict=True) if name}
    for number, record in enumerate(records) if named_scopes else ():
        if record.scope in named_scopes and record.sample is not None:
            by_scope.setdefault(record.scope, []).append(number)
    for drawn in (drawn for some in by_scope.values() for drawn in _draws_of_one(records, some)):
        numbers = {(records[number].sample or "").partition("#")[2] for number in drawn}
        has_gap = numbers != {str(number) for number in range(len(drawn))}
        is_lone = not has_gap and len({names[number] for number in drawn} - {None}) == 1
        is_in_order = not any(is_told_apart(records[number].cache_key) for number in drawn)
        if is_in_order or (is_complete and is_lone):
            for number in drawn:
                names[number] = None
    return [
        record if record.caller == name else with_history(record.replace(caller=name), None)
        for record, name in zip(records, names, strict=True)
    ]


def _draws_of_one(records: Sequence[Record], numbers: Sequence[int]) -> Iterable[Sequence[int]]:
    """Return the draws of each request in a scope.

    :param numbers: of the records of the scope.
    """
    if all((records[number].sample or "").endswith("#0") for number in numbers):
        return ([number] for number in numbers)  # most often: nothing has to be read
    requests: dict[str, list[int]] = {}
    for number in numbers:
        record = records[number]
        requests.setdefault(key_of(record.kind, record.request, None), []).append(number)
    return requests.values()


def _outermost_scope(record: Record) -> str:
    return record.scope.partition("/")[0]
