"""The calls that a cassette's records answered, in the order of the program."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...config.values import FrozenDict
from ...keys.keys import identity, key_of
from ...keys.request import Data
from ...scopes.active import PROGRAM_SCOPE
from ...scopes.draw_numbers import RecordedCallers
from ...scopes.position import CallOrder, Position
from ...scopes.replayed_callers import history_after, history_text
from ...support.system import lock
from ..notes import HISTORY, Notes, merged_notes
from ..record import Record, draw_of, scope_of, sorted_scopes
from ..records.numbered import Column, KeyNumbers, Numbered
from ..records.packed import LazyRecord
from ..records.reader import Records
from .gained import GainedRecords

if TYPE_CHECKING:
    from ..records.reader import RecordFile


class NamedDraw(NamedTuple):
    """A recorded draw that names its caller.

    :param history: a digest of what its caller had asked before in the scope.
    """

    caller: str
    history: str


# (scope path, the request's key outside any scope) → number of the draw → the draw.
NamedDraws = dict[tuple[str, str], dict[int, NamedDraw]]
# First the levels of the call's scope path, then the numbers of its order: one tuple, as a run has a million.
SortKey = tuple[Any, ...]
AFTER_ALL: SortKey = (["\U0010ffff"],)
NO_CALLS: Mapping[str, SortKey] = FrozenDict()


def function_scope(request: Mapping[str, Data], sample: str | None) -> str:
    """Return the name of the scope in which a recorded function runs; it is the same in every arm.

    :param request: what identifies the call.
    """
    name = str(request.get("function", "http"))
    key = key_of("function", {field: request[field] for field in request if field != "arm"}, sample)
    return f"{name.replace('/', '.').replace('#', '.')}.{key[:8]}"


def sort_key_of(path: str, order: CallOrder) -> SortKey:
    """Return the sort key of a call.

    :param path: its scope path.
    """
    return path.split("/") if path else [], *order


NOT_USED, PLANNED, LONG, FIRST = range(4)


class FirstCalls:
    """The first calls that records answered, by the numbers of the records' keys.

    :param paths: the scope paths of the run.
    """

    def __init__(self, paths: Numbered[str]) -> None:
        self._all_paths = paths
        self._paths = Column("I")
        # The order of a call that is one number, from FIRST on; or one of the numbers before
        self._orders = Column("q")
        self._long_orders: dict[int, CallOrder] = {}

    def note(self, number: int, position: Position) -> bool:
        """Note a call; return whether it is the first one so far."""
        path, order = position.path, position.order
        if self.has(number) and self.get(number) <= sort_key_of(path, order):
            return False
        self._paths[number] = self._all_paths.add(path)
        if len(order) == 1:
            self._orders[number] = FIRST + order[0]
        else:
            self._long_orders[number] = order
            self._orders[number] = LONG
        return True

    def note_planned(self, number: int) -> None:
        """Note that a dry run looked a record up, which comes after all."""
        if not self.has(number):
            self._orders[number] = PLANNED

    def has(self, number: int) -> bool:
        """Return whether a record answered a call."""
        return number >= 0 and self._orders[number] != NOT_USED

    def get(self, number: int) -> SortKey:
        """Return the sort key of a record's first call; unused records come last."""
        order = self._orders[number] if number >= 0 else NOT_USED
        if order < LONG:
            return AFTER_ALL
        path = self._all_paths[self._paths[number]]
        return sort_key_of(path, self._long_orders[number] if order == LONG else (order - FIRST,))

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of the records that answered calls."""
        return (number for number, order in enumerate(self._orders) if order)

    def numbers_in(self, path: str) -> Iterator[int]:
        """Yield those whose first calls were in a scope."""
        wanted = self._all_paths.get(path)
        return (
            number
            for number, (order, found) in enumerate(zip(self._orders, self._paths, strict=False))
            if order >= LONG and found == wanted
        )


class ReplayLog:
    """A log of the records that answered calls, each with its first call and its caller.

    The first call is the first one in the program's order, whichever thread was faster. The methods are
    thread-safe.

    :param stored: the records of the file.
    :param is_recording: ``True`` if this run continues the file's recording.
    :param names_callers: ``True`` if the file may be written, with the names of callers.
    :param earlier_calls: the first calls of records that earlier openings of this run used.
    """

    def __init__(
        self,
        stored: RecordFile,
        *,
        is_recording: bool = False,
        names_callers: bool = True,
        earlier_calls: Mapping[str, SortKey] = NO_CALLS,
    ) -> None:
        self._stored = stored
        self._is_recording = is_recording
        self._no_callers = RecordedCallers(is_recording=is_recording)  # one for all requests
        self._names_callers = names_callers
        self._earlier_calls = earlier_calls
        self._recorded: NamedDraws | None = None  # of the file, read at first use
        self.keys = KeyNumbers()
        self.paths = Numbered[str]()
        # By the number of a record's key: its first call, and the number of the caller that got it first, plus one
        self._first_calls = FirstCalls(self.paths)
        self._names = Numbered[str]()
        self._callers = Column("I")
        self._told_apart = Column("B")  # whether callers told it from identical ones
        self._arms: dict[
            int, dict[str, CallOrder]
        ] = {}  # arm → the arm's first call that it answered
        # Of the calls that made notes, the one that requested it first; and its notes, unless the record has them
        self._noted_calls = FirstCalls(self.paths)
        self._notes: dict[int, Notes] = {}
        self._later_notes: dict[int, Notes] = {}  # those about the answer
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
            number = self.keys.add(key)
            self._first_calls.note(number, position)
            if position.notes and self._noted_calls.note(number, position):
                self._notes.pop(number, None)
                if merged_notes(record.notes, position.notes) != record.notes:
                    self._notes[number] = position.notes
            if arm := position.arm:
                orders = self._arms.setdefault(number, {})
                orders[arm] = min(position.order, orders.get(arm, position.order))
            if caller is not None and self._names_callers:
                if not self._callers[number]:
                    self._callers[number] = self._names.add(caller) + 1
                if not position.is_in_order:
                    self._told_apart[number] = True

    def note_planned(self, key: str) -> None:
        """Log a record that a dry run looked up; it counts as used."""
        with lock:
            self._first_calls.note_planned(self.keys.add(key))

    def count_in(self, path: str, arm: str) -> int:
        """Return how many records answered calls in a scope; in an arm, calls of that arm."""
        with lock:
            return sum(
                not arm or arm in self._arms.get(number, ())
                for number in self._first_calls.numbers_in(path)
            )

    def has_used(self, key: str) -> bool:
        """Return whether a record answered a call."""
        return self._first_calls.has(self.keys.get(key))

    def first_call(self, key: str) -> SortKey:
        """Return the sort key of a record's first call; unused records come last."""
        earlier = self._earlier_calls.get(key, AFTER_ALL)
        return min(earlier, self._first_calls.get(self.keys.get(key)))

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
    def in_order(self, stored: Sequence[Record], gained: GainedRecords) -> Iterator[int]:
        """Yield the places of a file's records in the order of this run's calls, each scope's in turn.

        :param stored: the records that the file had and keeps, in its order: their places come first.
        :param gained: those that this run recorded: the numbers of their keys follow.
        """
        used: dict[str | None, array[int]] = {}  # places by scope
        for number in gained.numbers():
            scope = gained.scope_at(number)
            used.setdefault(scope, array("Q")).append(len(stored) + number)
        last_used: dict[str | None, int] = {}
        unused: dict[str | None, list[tuple[int, int]]] = {}  # each with the used place before it
        for place, record in enumerate(stored):
            scope = scope_of(record)
            if self.first_call(record.cache_key) != AFTER_ALL:
                used.setdefault(scope, array("Q")).append(place)
                last_used[scope] = place
            else:
                unused.setdefault(scope, []).append((place, last_used.get(scope, -1)))

        def record_at(place: int) -> Record:
            return stored[place] if place < len(stored) else gained.at(place - len(stored))

        def number_at(place: int) -> int:
            is_stored = place < len(stored)
            return self.keys.get(stored[place].cache_key) if is_stored else place - len(stored)

        def key_at(place: int) -> bytes:
            is_stored = place < len(stored)
            return (
                bytes.fromhex(stored[place].cache_key)
                if is_stored
                else self.keys.packed(place - len(stored))
            )

        def first_call_at(place: int) -> SortKey:
            if self._earlier_calls:
                return self.first_call(key_at(place).hex())
            return self._first_calls.get(number_at(place))

        for scope in sorted_scopes({*used, *unused}):
            # First by key, then, as sorting is stable, by call: pairs of both would take more memory.
            places = sorted(sorted(used.get(scope, ()), key=key_at), key=first_call_at)
            followers: dict[int, list[int]] = {}  # by the used place before them
            last_own: dict[tuple[str, str, str], int] = {}  # by scope, request and caller
            for place in places if scope in unused else ():
                record = record_at(place)
                caller = self._caller_of(record.cache_key) or record.caller
                if own := _own_draws(record, caller):
                    last_own[own] = place
            for place, before in unused.get(scope, ()):
                own = _own_draws(stored[place], stored[place].caller)
                after = last_own.get(own, before) if own else before
                if before >= 0 and first_call_at(after) < first_call_at(before):
                    after = before
                followers.setdefault(after, []).append(place)
            yield from followers.get(-1, ())
            for place in places:
                yield place
                yield from followers.get(place, ())

    def unused(self, records: Sequence[Record], others: list[Record] | None = None) -> list[Record]:
        """Return the records that answered no call and belong to no replayed function.

        :param others: those that answered no call; ``None`` finds them by their keys.
        """
        if others is not None and not self._skipped_scopes:
            return others
        return list(filter(self.unused_test(records), records))

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

    def arms(self) -> dict[str, list[str]]:
        """Return the arms that used each used record, by its key, in the order of their first calls."""
        used = {key: self._arms.get(self.keys.get(key), {}) for key in self.used_keys()}
        return {key: sorted(orders, key=orders.__getitem__) for key, orders in used.items()}

    def with_arms(self, record: Record, *, is_gained: bool, drops_unused: bool) -> Record:
        """Return a record with the names of the arms that used it, in the order of their first calls.

        An arm that this run did not use stays, unless the run drops what it did not use.

        :param is_gained: ``True`` if this run recorded it; then all its arms are of this run.
        """
        orders = self._arms.get(self.keys.get(record.cache_key), {}) if self._arms else {}
        if self._is_recording and self._skipped_scopes and record.arms:
            skipped = self._arms_skipped(record.scope)
            orders = {arm: skipped[arm] for arm in record.arms if arm in skipped} | orders
        arms = tuple(sorted(orders, key=orders.__getitem__))
        is_of_run = is_gained or (drops_unused and self.has_used(record.cache_key))
        if not is_of_run:
            both = (arms, record.arms) if self._is_recording else (record.arms, arms)
            arms = tuple(dict.fromkeys(name for names in both for name in names))
        return record if arms == record.arms else record.replace(arms=arms)

    def _arms_skipped(self, scope: str) -> dict[str, CallOrder]:
        """Return the arms in which the function around a scope was replayed, each with its call of the function."""
        levels = scope.split("/")
        paths = ("/".join(levels[:depth]) for depth in range(1, len(levels) + 1))
        return {
            arm: order
            for path in paths
            for arm, order in self._skipped_scopes.get(path, {}).items()
        }

    def used_keys(self) -> list[str]:
        """Return the keys of the records that the run got."""
        with lock:
            return [self.keys[number] for number in self._first_calls.numbers()]

    def add_notes(self, key: str, notes: Notes) -> None:
        """Log notes about an answer, which its caller makes when it has read it."""
        with lock:
            number = self.keys.add(key)
            self._later_notes[number] = {**self._later_notes.get(number, {}), **notes}

    def with_notes(self, record: Record) -> Record:
        """Return a record with the notes that this run made about it."""
        number = self.keys.get(record.cache_key)
        noted = self._later_notes.get(number, {})
        if self._noted_calls.has(number) and isinstance(record, LazyRecord):
            written = self._notes.get(number) or record.written().notes
            # what its caller asked before is decided at the end, with the caller
            noted = {**{name: written[name] for name in written if name != HISTORY.name}, **noted}
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
            self._recorded = named_draws(self._stored.named())
        draws = self._recorded.get((path, request_key))
        if draws is None:
            return self._no_callers
        callers = {number: draw.caller for number, draw in draws.items()}
        histories = {number: draw.history for number, draw in draws.items()}
        return RecordedCallers(callers, self._is_recording, histories=histories)

    def _caller_of(self, key: str) -> str | None:
        """Return the caller of this run that got a record first, or ``None``."""
        name = self._callers[self.keys.get(key)]
        return self._names[name - 1] if name else None

    def with_callers(
        self, records: Records, is_gained: Callable[[str], bool], *, is_complete: bool
    ) -> Records:
        """Return records with the names of their callers, where the file needs them to distinguish equal
        requests.

        An incomplete recording needs every name, since a missing call may come before the others.

        :param records: all that the file will have.
        :param is_gained: returns whether this run recorded the record with a key.
        """
        named_before = {record.cache_key for record in self._stored.named()}
        are_told_apart = bool(named_before) or any(self._told_apart)
        recorded, names = [], []
        for record in records:
            recorded.append(record.caller)
            if are_told_apart or record.sample is None:
                key = record.cache_key
                names.append(self._caller_of(key) or (None if is_gained(key) else record.caller))
            else:
                names.append(None)

        def is_told_apart(record: Record) -> bool:
            key = record.cache_key
            return bool(self._told_apart[self.keys.get(key)]) or key in named_before

        named = _named_if_needed(records, recorded, names, is_told_apart, is_complete=is_complete)
        histories = self._histories(named)
        if not histories:
            return named
        return named.changed(
            lambda _, record: with_history(record, histories.get(record.cache_key))
        )

    def _histories(self, records: Records) -> dict[str, str]:
        """Return what the callers of this run had asked in their scopes before each call, as digests, by the keys of
        the records that name a caller.
        """
        named = {record.cache_key: record.scope for record in records if record.caller}
        own = {key: scope for key, scope in named.items() if self._caller_of(key)}
        scopes = {*own.values()}
        used = [
            number
            for number, record in enumerate(records)
            if record.scope in scopes and self._caller_of(record.cache_key)
        ]
        last: dict[tuple[str, str], int] = {}
        found = {}
        for number in sorted(used, key=lambda it: self.first_call(records[it].cache_key)):
            record = records[number]
            caller = record.scope, self._caller_of(record.cache_key) or ""
            if record.cache_key in named:
                found[record.cache_key] = "" if record.arms else history_text(last.get(caller, 0))
            digest = identity(record.kind, record.request).hexdigest()
            last[caller] = history_after(last.get(caller, 0), digest)
        return found

    def has_new_callers(self) -> bool:
        """Return whether the records of the file need other names than they have."""
        is_lone = len(self._names) < 2
        if is_lone and next(self._stored.named(), None) is None:
            return False
        records = Records.of(list(self._stored))
        named = self.with_callers(records, lambda key: False, is_complete=True)
        return any(
            (new.caller, HISTORY.of(new)) != (old.caller, HISTORY.of(old))
            for new, old in zip(named, records, strict=True)
        )


def with_history(record: Record, history: str | None) -> Record:
    """Return a record with what its caller had asked before; without a caller, with nothing.

    :param history: ``None`` if this run did not make the call.
    """
    if record.caller is None:
        history = ""
    if history is None or history == HISTORY.of(record):
        return record
    others = {name: note for name, note in record.notes.items() if name != HISTORY.name}
    return record.replace(notes={**others, HISTORY.name: history} if history else others)


def _own_draws(record: Record, caller: str | None) -> tuple[str, str, str] | None:
    """Return what a caller's draws of one request have in common, or ``None`` of a record without a caller or draw."""
    draw = draw_of(record)
    return None if caller is None or draw is None else (draw[0], draw[1], caller)


def named_draws(records: Iterable[Record]) -> NamedDraws:
    """Return the draws of records that name their callers."""
    named: NamedDraws = {}
    for record in records:
        if record.caller is not None and (draw := draw_of(record)) is not None:
            scope, request_key, number = draw
            named_draw = NamedDraw(record.caller, HISTORY.of(record))
            named.setdefault((scope, request_key), {})[number] = named_draw
    return named


def without_lone_callers(records: Sequence[Record]) -> Records:
    """Return records without the callers' names that distinguish nothing: where one caller has all draws of
    a request in a scope, and they count from 0.

    The name stays where an earlier draw is missing, since without it the caller would draw that one.
    """
    records = Records.of(records)
    recorded = [record.caller for record in records]
    return _named_if_needed(records, recorded, [*recorded], lambda record: True, is_complete=True)


def _named_if_needed(
    records: Records,
    recorded: list[str | None],
    names: list[str | None],
    is_told_apart: Callable[[Record], bool],
    *,
    is_complete: bool,
) -> Records:
    """Return records with those names that distinguish something; see :func:`without_lone_callers`.

    :param recorded: the names of their callers, as they have them.
    :param names: as they would all have them.
    :param is_told_apart: returns whether a record's caller tells it from identical ones; otherwise these followed one
        another.
    :param is_complete: ``True`` if no further draw may come before these.
    """
    by_scope: dict[str, array[int]] = {}
    named_scopes = {
        scope for scope, name in zip(records.scopes(), names, strict=True) if name is not None
    }
    for number, scope in enumerate(records.scopes()) if named_scopes else ():
        if scope in named_scopes and records[number].sample is not None:
            by_scope.setdefault(scope, array("I")).append(number)
    for drawn in (drawn for some in by_scope.values() for drawn in _draws_of_one(records, some)):
        numbers = {(records[number].sample or "").partition("#")[2] for number in drawn}
        has_gap = numbers != {str(number) for number in range(len(drawn))}
        is_lone = not has_gap and len({names[number] for number in drawn} - {None}) == 1
        is_in_order = not any(is_told_apart(records[number]) for number in drawn)
        if is_in_order or (is_complete and is_lone):
            for number in drawn:
                names[number] = None
    if names == recorded:
        return records
    return records.changed(
        lambda number, record: (
            record
            if record.caller == names[number]
            else with_history(record.replace(caller=names[number]), None)
        )
    )


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
