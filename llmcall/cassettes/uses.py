"""Which records of a cassette were used, and where in the order of the calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..requests.keys import key_of
from ..scopes import CallOrder
from ..system import process_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..records.reader import RecordFile
    from ..types import Record

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


_lock = process_lock(__name__)


class Uses:
    """The records of a cassette that answered calls, each with the first of its calls.

    The first call is the one that comes first in the program, no matter which thread was faster. Any
    thread may call the methods.
    """

    def __init__(self) -> None:
        self._first_calls: dict[str, SortKey] = {}  # by the record's key
        # The scopes of recorded functions that did not run, since they were replayed.
        self._skipped_scopes: set[str] = set()
        self._planned_keys: set[str] = set()  # the keys of the records that dry runs looked up

    def note(self, record: Record, path: str, order: CallOrder) -> None:
        """Note a call that a record answers.

        :param path: the scope path in which the call was made; empty outside any scope.
        :param order: the call's.
        """
        sort_key = path.split("/") if path else [], order
        with _lock:
            first_call = self._first_calls.get(record.cache_key, sort_key)
            self._first_calls[record.cache_key] = min(sort_key, first_call)

    def note_replayed(self, record: Record, path: str, order: CallOrder) -> None:
        """Note a call that an existing record answers; see :meth:`note`."""
        self.note(record, path, order)
        if record.kind == "function":  # which does not run
            scope_name = function_scope(record.request, record.sample)
            with _lock:
                self._skipped_scopes.add(f"{record.scope}/{scope_name}".lstrip("/"))

    def has_used(self, key: str) -> bool:
        """Return whether a record answered a call.

        :param key: the record's.
        """
        return key in self._first_calls

    def note_planned(self, key: str) -> None:
        """Note that a record would answer a call of a dry run.

        :param key: the record's.
        """
        self._planned_keys.add(key)

    def sort_key(self, key: str) -> SortKey:
        """Return the sort key of the first call that a record answered; unused records come last."""
        return self._first_calls.get(key, AFTER_ALL)

    def unused(self, records: Iterable[Record]) -> list[Record]:
        """Return the records that answered no call and belong to no replayed function.

        :param records: those of the file; they are iterated twice if a function was replayed.
        """
        with _lock:
            entered_scopes = self._entered(records) if self._skipped_scopes else set()
            return [
                record
                for record in records
                if record.cache_key not in self._first_calls
                and not self._may_be_skipped(record, entered_scopes)
            ]

    def _entered(self, records: Iterable[Record]) -> set[str]:
        """Return the outermost scopes in which this run made calls."""
        return {
            _outermost_scope(record) for record in records if record.cache_key in self._first_calls
        }

    def unneeded(self, stored: RecordFile) -> list[Record]:
        """Return the unused records that no dry run looked up.

        :param stored: those of the file.
        """
        return [each for each in self.unused(stored) if each.cache_key not in self._planned_keys]

    def _may_be_skipped(self, record: Record, entered_scopes: set[str]) -> bool:
        """Return whether a record may belong to a function that was replayed.

        A record outside any scope may belong to any function: an embedding, say. If a function
        outside any scope was replayed, a record may belong to it if this run made no call in the
        record's outermost scope.

        :param entered_scopes: the outermost scopes in which this run made calls.
        """
        if not self._skipped_scopes:
            return False
        if record.sample is None:
            return True
        if f"{record.scope}/".startswith(tuple(f"{path}/" for path in self._skipped_scopes)):
            return True
        is_any_outside = any("/" not in path for path in self._skipped_scopes)
        return is_any_outside and _outermost_scope(record) not in entered_scopes


def _outermost_scope(record: Record) -> str:
    return record.scope.partition("/")[0]
