"""The records that a run adds to a cassette, by the numbers of their keys."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from math import isnan, nan
from typing import Any

from ...support.system import lock
from ..notes import NO_NOTES
from ..record import GotFrom
from ..records.numbered import KeyNumbers, Numbered
from ..records.packed import HELD, LazyRecord

# The fields of a record that many others share
OWN = ("_cache_key", "sample", "cost", "stored_at", "notes", "header_notes")
COMMON = tuple(name for name in (*HELD, "_read", "read_lines") if name not in OWN)
LONGEST_NUMBER = 18  # digits that a column of draws has room for


# A run of a million answers knows some 200 bytes of each: the key and its number, in a dictionary, and the rest by
# that number in arrays. An object for each answer, or a second dictionary, would take twice that.


class GainedRecords:
    """The records that a run gained, each with its source; most as lines that are read at each use.

    :param keys: the keys of the run.
    :param paths: the scope paths of the run.
    """

    def __init__(self, keys: KeyNumbers, paths: Numbered[str]) -> None:
        self._keys = keys
        self._count = 0
        self._paths = paths
        self._common = Numbered[tuple[Any, ...]]()  # what many records have in common
        # The numbers of these, plus one, and of the scopes, plus one; 0 outside any
        self._commons, self._scopes = array("I"), array("I")
        self._draws = array("q")
        self._costs, self._stored_at = array("d"), array("d")  # NaN without one
        self._starts, self._lengths = array("Q"), array("I")  # of the lines
        self._columns = (
            *(self._commons, self._scopes, self._draws, self._costs, self._stored_at),
            *(self._starts, self._lengths),
        )
        self._unwritten: dict[int, bytes] = {}
        self._others: dict[int, dict[str, Any]] = {}  # values that have no place in a column
        self._in_memory: dict[int, LazyRecord] = {}  # those that are not lines

    def put(self, record: LazyRecord, source: GotFrom) -> None:
        """Hold a record."""
        number = self._keys.add(record.cache_key)
        path, _, draw = (record.sample or "").partition("#")
        is_counted = draw.isdecimal() and len(draw) <= LONGEST_NUMBER and str(int(draw)) == draw
        others: dict[str, Any] = {}
        if not is_counted and record.sample is not None:
            others["sample"] = record.sample
        if record.notes:
            others["_notes"] = record.notes
        if record.header_notes:
            others["header_notes"] = record.header_notes
        if record.cost is not None and type(record.cost) is not float:
            others["cost"] = record.cost
        with lock:
            if lacking := max(0, number + 1 - len(self._commons)):
                for column in self._columns:
                    column.extend([0] * lacking)
            is_new = not self._commons[number]
            for values in (self._in_memory, self._unwritten, self._others):
                values.pop(number, None)
            if record.read_lines is None:
                self._in_memory[number] = record
            else:
                place: tuple[Any, ...] = record._place
                self._starts[number], self._lengths[number], unwritten = place
                if unwritten:
                    self._unwritten[number] = unwritten
            if others:
                self._others[number] = others
            self._draws[number] = int(draw) if is_counted else 0
            self._costs[number] = nan if record.cost is None else record.cost
            self._stored_at[number] = nan if record.stored_at is None else record.stored_at
            self._scopes[number] = 0 if record.sample is None else self._paths.add(path) + 1
            common = source, *(getattr(record, name) for name in COMMON)
            self._count += is_new
            self._commons[number] = self._common.add(common) + 1

    def get(self, key: str) -> LazyRecord | None:
        """Return the record with a key, or ``None``."""
        number = self._number_of(key)
        return None if number < 0 else self.at(number)

    def _number_of(self, key: str) -> int:
        """Return the number of a record's key, or -1."""
        number = self._keys.get(key)
        return number if 0 <= number < len(self._commons) and self._commons[number] else -1

    def at(self, number: int) -> LazyRecord:
        """Return a record by the number of its key."""
        if number in self._in_memory:
            return self._in_memory[number]
        record = LazyRecord.__new__(LazyRecord)
        _, *common = self._common[self._commons[number] - 1]
        for name, value in zip(COMMON, common):  # noqa: B905  # for speed
            setattr(record, name, value)
        record._cache_key = self._keys[number]
        scope = self._scopes[number]
        record.sample = f"{self._paths[scope - 1]}#{self._draws[number]}" if scope else None
        cost, stored_at = self._costs[number], self._stored_at[number]
        record.cost = None if isnan(cost) else cost
        record.stored_at = None if isnan(stored_at) else stored_at
        record._notes = record.header_notes = NO_NOTES
        if number in self._others:
            for name, value in self._others[number].items():
                setattr(record, name, value)
        unwritten = self._unwritten.get(number, b"")
        record._place = self._starts[number], self._lengths[number], unwritten
        return record

    def scope_at(self, number: int) -> str | None:
        """Return the scope path of a record by the number of its key; ``None`` outside any."""
        scope = self._scopes[number]
        return self._paths[scope - 1] if scope else None

    def source_of(self, key: str) -> GotFrom:
        """Return where a record came from; nowhere, if there is none with the key."""
        number = self._number_of(key)
        source: GotFrom = GotFrom(0) if number < 0 else self._common[self._commons[number] - 1][0]
        return source

    def sources(self) -> Iterator[GotFrom]:
        """Yield where each record came from."""
        common = self._common
        return (common[place - 1][0] for place in self._commons if place)

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of their keys."""
        return (number for number, place in enumerate(self._commons) if place)

    def discard(self, key: str) -> bool:
        """Drop the record with a key; return whether there was one."""
        with lock:
            if key not in self:
                return False
            self._commons[self._keys.get(key)] = 0
            self._count -= 1
            return True

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._number_of(key) >= 0

    def __iter__(self) -> Iterator[LazyRecord]:
        return map(self.at, self.numbers())

    def __len__(self) -> int:
        return self._count
