"""The import of records into a cache, from a file or from another cache."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from ..display.formatting import counted
from ..errors import CacheError
from ..notices import notice
from ..records.answers import same_answer
from ..records.header import header_differences, header_of
from ..records.packed import pack, unpack
from .places import is_address, storage_at
from .rows import Change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ..values import Record
    from .places import Storage

CONFLICTS = ("keep", "replace", "raise")
# Settings that decide the key of one and the same request.
KEY_SETTINGS = ("cache_namespace", "cache_normalize")
KEY_DIGITS = 12  # digits of a key that a message shows
MOST_LISTED_KEYS = 5  # keys that a message lists


def records_in(storage: Storage) -> Iterator[Record]:
    """Yield the records of a storage in the order in which they were stored, read a page at a time.

    :raises CacheCorruptError: at a damaged one.
    """
    for key, packed, stored_at in storage.rows():
        yield unpack(key, packed, stored_at)


def add_all(storage: Storage, records: Iterable[Record]) -> int:
    """Add records whose keys are not in a storage yet; return how many were stored."""
    return storage.write(map(_added, records))


def _added(record: Record, *, replaces: bool = False) -> Change:
    return Change(record.cache_key, pack(record.with_days()), replaces)


def load(
    storage: Storage,
    source: str | Storage,
    on_conflict: str,
) -> int:
    """Add records to a storage; return how many were stored. See :meth:`ResponseCache.load`.

    :param source: a file, the path of another cache, or its storage.
    """
    if on_conflict not in CONFLICTS:
        raise ValueError(
            f"on_conflict is {on_conflict!r}; it must be one of {', '.join(CONFLICTS)}"
        )
    name, records = _opened(source)
    locations = f"{name} and {storage.location}"
    if on_conflict == "raise":
        _tell_conflicts(
            locations,
            [record.cache_key for record in records() if _conflicts(storage, record)],
            on_conflict,
        )
    conflicts: list[str] = []

    def changes() -> Iterator[Change]:
        for record in records():
            is_conflict = _conflicts(storage, record)
            if is_conflict:
                conflicts.append(record.cache_key)
            yield _added(record, replaces=is_conflict and on_conflict == "replace")

    count = storage.write(changes())
    _tell_conflicts(locations, conflicts, on_conflict)
    return count


def _opened(source: str | Storage) -> tuple[str, Callable[[], Iterable[Record]]]:
    """Return a source's name in messages, and what gives its records."""
    if isinstance(source, str):
        if not (is_address(source) or os.path.isdir(source)):
            return source, _file_opened(source)
        source = storage_at(source)
    if not source.exists():
        raise CacheError(
            f"{source.location} contains no cache; give a cache's directory or server, or an exported file"
        )
    return str(source.location), partial(records_in, source)


def _file_opened(path: str) -> Callable[[], Iterable[Record]]:
    from ..ancestors import tinytroupe
    from ..records.reader import read

    if os.path.exists(path) and tinytroupe.recognized(path):
        records = tinytroupe.read(path)
        return lambda: records
    recording = read(path)
    _warn_of_other_settings(path, recording.settings)
    return lambda: recording


def _warn_of_other_settings(path: str, header: Mapping[str, Any]) -> None:
    """Warn if a file's records may have keys for which no call asks with the settings here."""
    if not header:  # nobody knows its settings
        return
    recorded = {name: header[name] for name in KEY_SETTINGS if name in header}
    here = {name: value for name, value in header_of().items() if name in KEY_SETTINGS}
    differences = header_differences(recorded, here)
    if differences:
        notice(
            "%s was made with other settings than those here: %s. Calls here may not find its records until you set "
            "the same values",
            path,
            differences,
        )


def _conflicts(storage: Storage, record: Record) -> bool:
    """Return whether a storage has another answer to a record's request."""
    row = storage.get(record.cache_key)
    return row is not None and not same_answer(unpack(record.cache_key, *row), record)


def _tell_conflicts(locations: str, conflicts: list[str], on_conflict: str) -> None:
    """Log which requests have two answers, if any.

    :param locations: the names of source and storage.
    :param conflicts: the keys of the requests.
    :raises CacheError: if there are any and ``on_conflict`` is ``"raise"``.
    """
    if not conflicts:
        return
    keys = [key[:KEY_DIGITS] for key in conflicts[:MOST_LISTED_KEYS]]
    if len(conflicts) > MOST_LISTED_KEYS:
        keys.append("…")
    conflict_words = (
        f"{locations} answer {counted(len(conflicts), 'request')} ({', '.join(keys)}) differently"
    )
    if on_conflict == "raise":
        raise CacheError(
            f"{conflict_words}, and nothing was loaded; on_conflict may also be 'keep' or 'replace'"
        )
    notice("%s: %s", conflict_words, on_conflict)
