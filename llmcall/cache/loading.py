"""Load records into a cache from a file or from another cache."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..display.formatting import counted
from ..errors import CacheError
from ..notices import notice
from ..records.answers import same_answer
from ..records.header import header_differences, header_of
from ..records.packed import pack, unpack
from .locations import is_address, storage_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..types import Record
    from .locations import Storage

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


def add_all(
    storage: Storage, records: Iterable[Record], replaced_keys: frozenset[str] = frozenset()
) -> int:
    """Add records whose keys are not in a storage yet; return how many were stored.

    :param replaced_keys: the keys whose records are replaced.
    """
    return storage.add_all(
        (record.cache_key, pack(record.with_days()), record.cache_key in replaced_keys, None)
        for record in records
    )


def load(
    storage: Storage,
    source: str | Storage,
    on_conflict: str,
    classes: tuple[type[Any], ...],
) -> int:
    """Add records to a storage; return how many were stored. See :meth:`ResponseCache.load`.

    :param source: a file, the path of another cache, or its storage.
    """
    if on_conflict not in CONFLICTS:
        raise ValueError(
            f"on_conflict is {on_conflict!r}; it must be one of {', '.join(CONFLICTS)}"
        )
    name, records = _read(source, classes)
    conflicts = [record.cache_key for record in records if _conflicts(storage, record)]
    if conflicts:
        _log_conflicts(f"{name} and {storage.location}", conflicts, on_conflict)
    return add_all(storage, records, frozenset(conflicts if on_conflict == "replace" else ()))


def _read(source: str | Storage, classes: tuple[type[Any], ...]) -> tuple[str, list[Record]]:
    """Return the source's name in messages, and its records."""
    if not isinstance(source, str):
        return _read_storage(source)
    if is_address(source) or os.path.isdir(source):
        return _read_storage(storage_at(source))
    return source, _read_file(source, classes)


def _read_storage(source: Storage) -> tuple[str, list[Record]]:
    if not source.exists():
        raise CacheError(
            f"{source.location} contains no cache; give a cache's directory or server, or an exported file"
        )
    return str(source.location), list(records_in(source))


def _read_file(path: str, classes: tuple[type[Any], ...]) -> list[Record]:
    from ..ancestors import tinytroupe
    from ..records.reader import read

    if os.path.exists(path) and tinytroupe.recognized(path):
        return tinytroupe.read(path, classes)
    recording = read(path)
    _warn_of_other_settings(path, recording.settings)
    return recording.records()


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


def _log_conflicts(locations: str, conflicts: list[str], on_conflict: str) -> None:
    """Log which requests have two answers.

    :param locations: the names of source and storage.
    :param conflicts: the keys of the requests.
    :raises CacheError: if ``on_conflict`` is ``"raise"``.
    """
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
