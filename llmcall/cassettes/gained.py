"""The records that a cassette gains while it is open."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..records.packed import pack, unpack
from ..types import FROM_FUNCTION, FROM_SERVER, POINTER, day_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..types import Days, Record


class GainedRecords:
    """Records by key, and where each came from.

    They are kept as bytes, so that whoever gets one cannot change it for others.
    """

    def __init__(self) -> None:
        self._packed: dict[str, bytes] = {}
        self._sources: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, key: str) -> bool:
        return key in self._packed

    def __iter__(self) -> Iterator[str]:
        """Yield the keys in the order in which the records came."""
        return iter(self._packed)

    def __getitem__(self, key: str) -> Record:
        return unpack(key, self._packed[key])

    def add(self, record: Record, source: str) -> Record:
        """Add a record, in place of one with its key; return it with the days of its answer.

        :param source: ``FROM_SERVER``, ``FROM_CACHE``, ``FROM_FUNCTION`` or ``POINTER``.
        """
        record = record.replace(days=_days_of(record, source))
        self._packed[record.cache_key] = pack(record)
        self._sources[record.cache_key] = source
        return record

    def count(self, source: str) -> int:
        """Return the number of records that came from a source."""
        return list(self._sources.values()).count(source)


def _days_of(record: Record, source: str) -> Days | None:
    """Return the days of a gained answer; ``None`` if they are unknown."""
    if record.days is not None or source in (FROM_FUNCTION, POINTER):
        return record.days
    # The answer of an equal call that was under way also came from a server just now; no cache holds
    # it yet.
    is_new = source == FROM_SERVER or (record.stored_at is None and record.was_asked)
    return record.answered_on(day_of(time.time())) if is_new else None
