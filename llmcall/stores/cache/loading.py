"""Rows that are loaded into a cache, and those that are put right in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from ...additions import additions
from ...additions import load as load_place
from ...config import resolve as config
from ...errors import CacheCorruptError, CacheError, ConfigError
from ...keys.keys import short_key
from ...support.display import counted
from ...support.notices import notice
from ..cassettes.replay_log import without_lone_callers
from ..record import Record
from ..records.answers import CONFLICTS, same_answer
from ..records.keyed_settings import settings_differences
from ..records.packed import pack, unpack
from ..records.readable import incomplete, unreadable
from ..records.reader import read
from .addresses import is_address, storage_at
from .storages import Change, Storage

MOST_LISTED_KEYS = 5  # keys that a message lists


def addition(record: Record, *, replaces: bool = False) -> Change:
    """Return the change that adds a record to a cache; it keeps its days."""
    return Change(record.cache_key, pack(record.replace()), replaces)


def load(storage: Storage, source: str | Storage, on_conflict: str) -> int:
    """Add records to a storage; return how many were stored. See :meth:`ResponseCache.load`.

    :param source: a file, the path of another cache, or its storage.
    """
    if on_conflict not in CONFLICTS:
        raise ValueError(
            f"on_conflict is {on_conflict!r}; it must be one of {', '.join(CONFLICTS)}"
        )
    if isinstance(source, str) and (is_address(source) or os.path.isdir(source)):
        source = storage_at(source)
    if isinstance(source, Storage) and os.path.realpath(source.name) == os.path.realpath(
        storage.name
    ):
        return 0  # to read by a second handle would wait for the end of what this one writes
    name, records = _open_source(source)
    conflicts: list[str] = []  # keys

    def is_conflict(record: Record) -> bool:
        row = storage.get(record.cache_key)
        if row is None or same_answer(unpack(record.cache_key, *row), record):
            return False
        conflicts.append(short_key(record.cache_key))
        return True

    def words() -> str:
        more = ["…"] if len(conflicts) > MOST_LISTED_KEYS else []
        listed = ", ".join([*conflicts[:MOST_LISTED_KEYS], *more])
        requests = f"{counted(len(conflicts), 'request')} ({listed})"
        return f"{name} and {storage.name} answer {requests} differently"

    if on_conflict == "raise" and sum(map(is_conflict, records())):
        raise CacheError(
            f"{words()}, and nothing was loaded; on_conflict may also be 'keep' or 'replace'"
        )
    replaces, left_out = on_conflict == "replace", 0

    def changes() -> Iterator[Change]:
        nonlocal left_out
        for record in records():
            if incomplete(record):
                left_out += 1
            else:
                yield addition(record, replaces=is_conflict(record) and replaces)

    stored_count = storage.write(changes())
    if left_out:
        notice(
            "%s: %s that were filtered, broke off or are empty are left out",
            name,
            counted(left_out, "answer"),
        )
    if conflicts:
        notice("%s: %s", words(), on_conflict)
    return stored_count


def _open_source(source: str | Storage) -> tuple[str, Callable[[], Iterable[Record]]]:
    """Return a source's name in messages, and a function that returns its records."""
    if not isinstance(source, str):
        if not source.exists():
            raise CacheError(
                f"{source.name} contains no cache; give a cache's directory or server, or an exported file"
            )
        name, rows = source.name, source.rows
        return name, lambda: (_readable(unpack(*row), name) for row in rows())
    for place in additions("formats").values() if os.path.exists(source) else ():
        if (found := load_place(place)(source)) is not None:
            return source, lambda: found
    file = read(source)
    settings = file.header.settings
    found = [record for record in file if not (file.has_given and record.given)]
    records = without_lone_callers(found)
    if given := len(file) - len(records):
        notice("%s: %s not loaded: no model gave them", source, counted(given, "answer"))
    current = config.without_code()  # of it, what changes the key of a request
    here = {
        "cache_namespace": current.cache_namespace,
        "cache_normalize": [*current.cache_normalize],
    }
    recorded = {name: settings.get(name, type(here[name])()) for name in here}
    if settings and (differences := settings_differences(recorded, here)):
        notice(
            "%s was recorded with other settings: %s. Calls here may not find its records until you set the same "
            "values",
            source,
            differences,
        )
    return source, lambda: records


def _readable(record: Record, source: str) -> Record:
    """Return a record of another cache."""
    if problem := unreadable(record):
        key = short_key(record.cache_key)
        raise CacheCorruptError(f"{source}: record {key}…: {problem}; delete it there")
    return record


def salvage(source: Storage, target: Storage) -> int:
    """Write every readable record to another storage; return how many. See :meth:`ResponseCache.salvage`."""
    if not source.exists():
        raise CacheError(f"{source.name} contains no cache; give the path of the damaged cache")
    if os.path.realpath(target.name) == os.path.realpath(source.name):
        raise CacheError(f"{source.name} cannot be salvaged into itself; name a new directory")
    saved_keys: set[str] = set()
    if any(_sound_rows(source, set())):
        target.write(_sound_rows(source, saved_keys))
        target.close()
    count = len(saved_keys)
    try:
        lost_count = len(source) - count
    except (CacheError, ConfigError):  # damaged, or another program's
        notice("%s: besides the %d records that were read, others may be lost", source.name, count)
    else:
        if lost_count > 0:
            notice(
                "%s: %d of %d records cannot be read and are lost",
                source.name,
                lost_count,
                count + lost_count,
            )
    return count


def _sound_rows(source: Storage, saved_keys: set[str]) -> Iterator[Change]:
    """Yield each readable record once."""
    for key, packed, stored_at in source.readable_rows():
        if key in saved_keys:
            continue
        with suppress(CacheCorruptError):
            _ = unpack(key, packed).request  # read at first use
            saved_keys.add(key)
            yield Change(key, packed, stored_at=stored_at)
