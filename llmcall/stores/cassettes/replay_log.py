"""The use of a cassette's records: by whom, and where in the order of the calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ...keys.keys import key_of
from ...scopes import PROGRAM_SCOPE, CallOrder, RecordedAskers
from ...support.system import lock

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable, Mapping

    from ...scopes import Draw, ScopedRecord
    from ..record import Record


class Caller(NamedTuple):
    """The place in the program where a call is made.

    :param path: its scope path; empty outside any scope.
    :param order: says which calls come before it.
    :param draw: the draw that it took, or ``None``; given back if the call fails.
    :param arm: the name of the arm that it is in; empty outside any.
    :param used_records: gathers the records that the arm's calls get, or ``None``.
    """

    path: str = ""
    order: CallOrder = ()
    draw: Draw | None = None
    arm: str = ""
    used_records: deque[ScopedRecord] | None = None

    def elsewhere(self) -> Caller:
        """Return it for another process."""
        return self._replace(draw=None, used_records=None)


# By scope path and by the request's key outside any scope: by the number of a draw, who asked.
Askers = dict[tuple[str, str], dict[int, str]]
# First by the levels of the caller's scope path, then by the order of the calls.
SortKey = tuple[list[str], CallOrder]
AFTER_ALL: SortKey = (["\U0010ffff"], ())


def function_scope(request: Mapping[str, Any], sample: str | None) -> str:
    """Return the name of the scope in which a recorded function runs, if it runs.

    It is the same in every arm.

    :param request: what identifies the call.
    """
    name = str(request.get("function", "http"))
    key = key_of("function", {field: request[field] for field in request if field != "arm"}, sample)
    return f"{name.replace('/', '.').replace('#', '.')}.{key[:8]}"


class ReplayLog:
    """The records of a cassette that answered calls, each with the first of its calls and its asker.

    The first call is the one that comes first in the program, no matter which thread was faster. Any
    thread may call the methods.

    :param stored: the records of the file.
    :param is_recording: whether the recording in the file goes on.
    :ivar has_new_askers: whether the names of this run's askers differ from those in the file.
    """

    def __init__(self, stored: Iterable[Record] = (), *, is_recording: bool = False) -> None:
        self.has_new_askers = False
        self._stored = stored
        self._is_recording = is_recording
        self._recorded: Askers | None = None  # those of the file, read when somebody needs them
        self._draws: dict[str, Draw] = {}  # by the key of a record: which draw got it first
        self._first_calls: dict[str, SortKey] = {}  # by the key of a record
        # By the key of a record, then by arm: the first of the arm's calls that it answered.
        self._arms: dict[str, dict[str, CallOrder]] = {}
        # The scopes of recorded functions that did not run, since they were replayed.
        self._skipped_scopes: set[str] = set()

    def note(self, record: Record, caller: Caller, *, is_replayed: bool = False) -> None:
        """Note a call that a record answers.

        :param is_replayed: whether the record was there before.
        """
        key, draw = record.cache_key, caller.draw
        sort_key = caller.path.split("/") if caller.path else [], caller.order
        skipped: set[str] = set()
        if is_replayed and record.kind == "function":  # which does not run
            scope_name = function_scope(record.request, record.sample)
            if record.scope:
                skipped = {f"{record.scope}/{scope_name}"}
            else:  # with the default scope in which its programs' calls are
                skipped = {scope_name, f"{PROGRAM_SCOPE}/{scope_name}"}
        with lock:
            self._skipped_scopes |= skipped
            self._first_calls[key] = min(sort_key, self._first_calls.get(key, sort_key))
            if caller.arm:
                orders = self._arms.setdefault(key, {})
                orders[caller.arm] = min(caller.order, orders.get(caller.arm, caller.order))
            if draw is not None and draw.asker is not None:
                is_first = self._draws.setdefault(key, draw) is draw
                if is_first and is_replayed and record.asker not in (None, draw.asker.name):
                    self.has_new_askers = True

    def note_planned(self, key: str) -> None:
        """Note that a dry run looked up a record, which so counts as used."""
        with lock:
            self._first_calls.setdefault(key, AFTER_ALL)

    def has_used(self, key: str) -> bool:
        """Return whether the record of a key answered a call."""
        return key in self._first_calls

    def sort_key(self, key: str) -> SortKey:
        """Return the sort key of the first call that a record answered; unused records come last."""
        return self._first_calls.get(key, AFTER_ALL)

    def unused(self, records: Iterable[Record]) -> list[Record]:
        """Return the records that answered no call and belong to no replayed function.

        A record outside any scope may belong to any function: an embedding, say. If a function
        outside any scope was replayed, a record may belong to it if this run made no call in the
        record's outermost scope.
        """
        records = list(records)
        with lock:
            unused = [record for record in records if record.cache_key not in self._first_calls]
            if not self._skipped_scopes:
                return unused
            skipped = tuple(f"{path}/" for path in self._skipped_scopes)
            entered = {
                _outermost_scope(record)
                for record in records
                if record.cache_key in self._first_calls
            }
            is_any_outside = any("/" not in path for path in self._skipped_scopes)
            return [
                record
                for record in unused
                if record.sample is not None
                and not f"{record.scope}/".startswith(skipped)
                and not (is_any_outside and _outermost_scope(record) not in entered)
            ]

    def with_arms(self, record: Record, *, is_gained: bool, drops_unused: bool) -> Record:
        """Return a record with the names of the arms that used it, in the order of their first calls.

        An arm that this run did not use stays, unless the run drops what it did not use.

        :param is_gained: whether this run recorded it, so that no arm in it is another run's.
        """
        orders = self._arms.get(record.cache_key, {})
        arms = tuple(sorted(orders, key=orders.__getitem__))
        is_of_run = is_gained or (drops_unused and self.has_used(record.cache_key))
        if not is_of_run:
            both = (arms, record.arms) if self._is_recording else (record.arms, arms)
            arms = tuple(dict.fromkeys(name for names in both for name in names))
        return record if arms == record.arms else record.replace(arms=arms)

    # Askers

    def recorded_askers(self, path: str, request_key: str) -> RecordedAskers:
        """Return who asked for a request's draws when they were recorded, as far as the file says it.

        :param path: the scope path.
        :param request_key: the request's key outside any scope.
        """
        if self._recorded is None:  # if two threads read them, they read the same
            recorded: Askers = {}
            for record in self._stored:
                scope, _, number = (record.sample or "").partition("#")
                if record.asker is not None and number.isdecimal():
                    request = scope, key_of(record.kind, record.request, None)
                    recorded.setdefault(request, {})[int(number)] = record.asker
            self._recorded = recorded
        return RecordedAskers(self._recorded.get((path, request_key), {}), self._is_recording)

    def with_asker(self, record: Record, *, is_gained: bool, is_complete: bool) -> Record:
        """Return a record with its asker's name, if the file needs it to tell equal requests apart.

        A recording that goes on needs each name: a call that was missed may come before the others.

        :param is_gained: whether this run recorded it.
        :param is_complete: whether the recording is complete.
        """
        name = None if is_gained else record.asker
        draw = self._draws.get(record.cache_key)
        if draw is not None and draw.asker is not None:
            recorded = self.recorded_askers(*draw.request)
            names = draw.askers() | set(recorded.askers.values())
            name = draw.asker.name if len(names) > 1 or not is_complete else None
        return record if name == record.asker else record.replace(asker=name)


def _outermost_scope(record: Record) -> str:
    return record.scope.partition("/")[0]
