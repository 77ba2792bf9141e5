"""The calls that a cassette's records answered, in the order of the program."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
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
from ..record import Record, by_scope, draw_of, scope_of

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


class ReplayLog:
    """A log of the records that answered calls, each with its first call and its caller.

    The first call is the first one in the program's order, whichever thread was faster. The methods are
    thread-safe.

    :param stored: the records of the file.
    :param is_recording: whether this run continues the file's recording.
    :param names_callers: whether the file may be written, with the names of callers.
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
        self._callers: dict[str, str] = {}  # key of a record → the caller that got it first
        # Keys of the records that callers told from identical ones
        self._told_apart: set[str] = set()
        self._first_calls: dict[str, SortKey] = {}  # by the key of a record
        self._levels: dict[str, list[str]] = {}  # of each path, which many calls share
        # key of a record → arm → the arm's first call that it answered
        self._arms: dict[str, dict[str, CallOrder]] = {}
        # Key of a record → the notes of the call that requested it first, in the order of the calls.
        self._notes: dict[str, tuple[SortKey, Notes]] = {}
        self._later_notes: dict[str, Notes] = {}  # by key, those about the answer
        # The scopes of recorded functions that were replayed, and so did not run → arm → its call of the function
        self._skipped_scopes: dict[str, dict[str, CallOrder]] = {}

    def note(self, record: Record, position: Position, *, is_replayed: bool = False) -> None:
        """Log a call and the record that answers it.

        :param is_replayed: whether the record existed before the call.
        """
        key, caller = record.cache_key, position.caller
        path = position.path
        levels = self._levels.setdefault(path, path.split("/") if path else [])
        sort_key: SortKey = levels, *position.order
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
            self._first_calls[key] = min(sort_key, self._first_calls.get(key, sort_key))
            if position.notes:
                first = self._notes.get(key)
                if first is None or sort_key < first[0]:
                    self._notes[key] = sort_key, position.notes
            if arm := position.arm:
                orders = self._arms.setdefault(key, {})
                orders[arm] = min(position.order, orders.get(arm, position.order))
            if caller is not None and self._names_callers:
                self._callers.setdefault(key, caller)
                if not position.is_in_order:
                    self._told_apart.add(key)

    def note_planned(self, key: str) -> None:
        """Log a record that a dry run looked up; it counts as used."""
        with lock:
            self._first_calls.setdefault(key, AFTER_ALL)

    def count_in(self, path: str, arm: str) -> int:
        """Return how many records answered calls in a scope; in an arm, calls of that arm."""
        levels = path.split("/")
        with lock:
            return sum(
                first[0] == levels and (not arm or arm in self._arms.get(key, ()))
                for key, first in self._first_calls.items()
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
        with lock:
            keys = {*self._first_calls, *self._earlier_calls}
        return {key: self.first_call(key) for key in keys}

    # An unused record has no place among this run's calls, so where a file keeps it is a decision. It
    # follows the record that preceded it in the file, the nearest one of its scope that this run used. So
    # the old wording of a changed prompt stands just before the new one, as in a diff, and a run of a part
    # of a program leaves the other part where it was: such a file changes by the changed lines alone.
    # An unused draw of a caller also follows those that this caller got: a replay gives a caller its draws
    # of a request in the file's order. Behind all others was rejected, since the next run would bring an
    # unused record back to its place, and every run of a part would move the rest; before the record that
    # followed it was rejected, since the file of a run that broke off would then end with its own calls.
    def in_order(self, stored: Iterable[Record], gained: Iterable[Record]) -> list[Record]:
        """Return the records of a file in the order of this run's calls, each scope's in turn.

        :param stored: the records that the file had and keeps, in its order.
        :param gained: those that this run recorded.
        """
        used = {record.cache_key: record for record in gained}
        followers: dict[tuple[str | None, str], list[Record]] = {}  # by the used record before them
        last_used: dict[str | None, str] = {}
        unused: list[tuple[Record, str]] = []  # each with the key of the used record before it
        for record in stored:
            scope, key = scope_of(record), record.cache_key
            if self.first_call(key) != AFTER_ALL:
                used[key], last_used[scope] = record, key
            else:
                unused.append((record, last_used.get(scope, "")))
        last_own: dict[tuple[str, str, str], str] = {}  # by scope, request and caller
        for key, record in used.items() if unused else ():
            if own := _own_draws(record, self._callers.get(key, record.caller)):
                last_own[own] = max(last_own.get(own, key), key, key=self.first_call)
        for record, before in unused:
            own = _own_draws(record, record.caller)
            after = last_own.get(own, before) if own else before
            if before and self.first_call(after) < self.first_call(before):
                after = before
            followers.setdefault((scope_of(record), after), []).append(record)
        first = [record for (_, key), records in followers.items() if not key for record in records]
        ordered = [
            record
            for key in sorted(used, key=lambda key: (self.first_call(key), key))
            for record in (used[key], *followers.get((scope_of(used[key]), key), ()))
        ]
        return by_scope((*first, *ordered))

    def unused(self, records: Iterable[Record], others: list[Record] | None = None) -> list[Record]:
        """Return the records that answered no call and belong to no replayed function.

        A record outside any scope, such as an embedding, may belong to any function. A function that
        was replayed outside any scope may own every record whose outermost scope this run did not
        enter.

        :param others: those that answered no call; ``None`` finds them by their keys.
        """
        with lock:
            skipped = [*self._skipped_scopes]
        if others is not None and not skipped:
            return others
        records = list(records)
        unused = [record for record in records if not self.has_used(record.cache_key)]
        if not skipped:
            return unused
        inside = tuple(f"{path}/" for path in skipped)
        entered = {
            _outermost_scope(record) for record in records if self.has_used(record.cache_key)
        }
        is_any_outside = any("/" not in path for path in skipped)
        return [
            record
            for record in unused
            if record.sample is not None
            and not f"{record.scope}/".startswith(inside)
            and not (is_any_outside and _outermost_scope(record) not in entered)
        ]

    def arms(self) -> dict[str, list[str]]:
        """Return the arms that used each used record, by its key, in the order of their first calls."""
        used = {key: self._arms.get(key, {}) for key in self.used_keys()}
        return {key: sorted(orders, key=orders.__getitem__) for key, orders in used.items()}

    def with_arms(self, record: Record, *, is_gained: bool, drops_unused: bool) -> Record:
        """Return a record with the names of the arms that used it, in the order of their first calls.

        An arm that this run did not use stays, unless the run drops what it did not use.

        :param is_gained: whether this run recorded it; then all its arms are of this run.
        """
        orders = self._arms.get(record.cache_key, {})
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
            return [*self._first_calls]

    def add_notes(self, key: str, notes: Notes) -> None:
        """Log notes about an answer, which its caller makes when it has read it."""
        with lock:
            self._later_notes[key] = {**self._later_notes.get(key, {}), **notes}

    def with_notes(self, record: Record) -> Record:
        """Return a record with the notes that this run made about it."""
        first = self._notes.get(record.cache_key)
        if first is None:
            return record
        noted = {**first[1], **self._later_notes.get(record.cache_key, {})}
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

    def with_callers(
        self, records: Iterable[Record], gained_keys: Container[str], *, is_complete: bool
    ) -> list[Record]:
        """Return records with the names of their callers, where the file needs them to distinguish equal
        requests.

        An incomplete recording needs every name, since a missing call may come before the others.

        :param records: all that the file will have.
        :param gained_keys: the keys of those that this run recorded.
        """
        records = list(records)
        names = [
            self._callers.get(
                record.cache_key, None if record.cache_key in gained_keys else record.caller
            )
            for record in records
        ]
        told_apart = self._told_apart | {record.cache_key for record in self._stored.named()}
        named = _named_if_needed(records, names, told_apart, is_complete=is_complete)
        histories = self._histories(named)
        return [with_history(record, histories.get(record.cache_key)) for record in named]

    def _histories(self, records: Iterable[Record]) -> dict[str, str]:
        """Return what the callers of this run had asked in their scopes before each call, as digests, by the keys of
        the records that name a caller.
        """
        named = {record.cache_key: record.scope for record in records if record.caller}
        scopes = {scope for key, scope in named.items() if key in self._callers}
        used = [it for it in records if it.scope in scopes and it.cache_key in self._callers]
        last: dict[tuple[str, str], int] = {}
        found = {}
        for record in sorted(used, key=lambda record: self.first_call(record.cache_key)):
            caller = record.scope, self._callers[record.cache_key]
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
        named = self.with_callers(records, (), is_complete=True)
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


def without_lone_callers(
    records: Iterable[Record],
    told_apart: Collection[str] | None = None,
    *,
    is_complete: bool = True,
) -> list[Record]:
    """Return records without the callers' names that distinguish nothing: where one caller has all draws of
    a request in a scope, and they count from 0; and where these followed one another.

    The name stays where an earlier draw is missing, since without it the caller would draw that one.

    :param told_apart: the keys of the records that their callers tell from identical ones; ``None`` for all.
    :param is_complete: whether no further draw may come before these.
    """
    records = list(records)
    names = [record.caller for record in records]
    return _named_if_needed(records, names, told_apart, is_complete=is_complete)


def _named_if_needed(
    records: Sequence[Record],
    names: list[str | None],
    told_apart: Collection[str] | None,
    *,
    is_complete: bool,
) -> list[Record]:
    """Return records with those names that distinguish something; see :func:`without_lone_callers`.

    :param names: of their callers.
    """
    named_scopes = {
        record.scope for record, name in zip(records, names, strict=True) if name is not None
    }
    by_scope: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        if record.sample is not None and record.scope in named_scopes:
            by_scope.setdefault(record.scope, []).append(number)
    for drawn in (drawn for some in by_scope.values() for drawn in _draws_of_one(records, some)):
        numbers = {(records[number].sample or "").partition("#")[2] for number in drawn}
        has_gap = numbers != {str(number) for number in range(len(drawn))}
        is_lone = not has_gap and len({names[number] for number in drawn} - {None}) == 1
        is_in_order = told_apart is not None and not any(
            records[number].cache_key in told_apart for number in drawn
        )
        if is_in_order or (is_complete and is_lone):
            for number in drawn:
                names[number] = None
    return [
        record if record.caller == name else with_history(record.replace(caller=name), None)
        for record, name in zip(records, names, strict=True)
    ]


def _draws_of_one(records: Sequence[Record], numbers: Sequence[int]) -> Iterable[list[int]]:
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
