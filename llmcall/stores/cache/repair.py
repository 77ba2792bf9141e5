"""Repairs of a cache: finding damaged records, salvaging the others, making new keys."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...config import resolve as config
from ...errors import CacheCorruptError, CacheError
from ...keys.keys import key_of
from ...keys.rekeying import under_settings
from ...support.display.formatting import counted
from ...support.notices import notice
from ..records.packed import pack, unpack
from .storages import Change

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .storages import Storage


def damaged_keys(storage: Storage) -> list[str]:
    """Return the keys of the damaged records, which include those whose request does not match."""
    return [key for key, packed, _ in storage.rows() if not _is_sound(key, packed)]


def _is_sound(key: str, packed: bytes | None) -> bool:
    try:
        record = unpack(key, packed)
        return key_of(record.kind, record.request, record.sample) == key
    except (CacheCorruptError, ValueError, TypeError):
        return False


def salvage(source: Storage, target: Storage) -> int:
    """Write every readable record to another storage; return how many. See :meth:`ResponseCache.salvage`."""
    if not source.exists():
        raise CacheError(f"{source.location} contains no cache; give the path of the damaged cache")
    if os.path.realpath(target.location) == os.path.realpath(source.location):
        raise CacheError(f"{source.location} cannot be salvaged into itself; name a new directory")
    saved_keys: set[str] = set()
    if any(_sound_rows(source, set())):
        target.write(_sound_rows(source, saved_keys))
        target.close()
    count = len(saved_keys)
    try:
        lost_count = len(source) - count
    except CacheError:
        notice(
            "%s: besides the %d records that were read, others may be lost", source.location, count
        )
    else:
        if lost_count > 0:
            notice(
                "%s: %d of %d records cannot be read and are lost",
                source.location,
                lost_count,
                count + lost_count,
            )
    return count


def _sound_rows(source: Storage, saved_keys: set[str]) -> Iterator[Change]:
    """Yield each readable record once."""
    for key, packed, stored_at in source.readable_rows():
        if key not in saved_keys and _is_sound(key, packed):
            saved_keys.add(key)
            yield Change(key, packed, stored_at=stored_at)


def rekey(storage: Storage) -> int:
    """Give the records of a storage new keys under the current settings; return how many changed.

    If several records would get the same key, only the first one gets it.
    """
    settings = config.settings()
    changed_count = damaged_count = unchanged_count = 0

    def changes() -> Iterator[Change]:
        """Yield the changes; they are stored while the rows are read."""
        nonlocal changed_count, damaged_count, unchanged_count
        for key, packed, stored_at in storage.rows():
            try:
                record = unpack(key, packed, stored_at)
            except CacheCorruptError:
                damaged_count += 1
                continue
            request = under_settings(record.request, settings)
            new_key = key_of(record.kind, request, record.sample)
            if new_key != key and storage.get(new_key) is not None:
                unchanged_count += 1
                new_key = key
            if new_key != key:
                changed_count += 1
                new = record.replace(cache_key=new_key, request=request)
                yield Change(new_key, pack(new), stored_at=stored_at)
                yield Change(key, None)

    storage.write(changes())
    if damaged_count:
        notice(
            "%s: %s left unchanged; 'llmcall cache verify' lists all damaged rows",
            storage.location,
            counted(damaged_count, "damaged row"),
        )
    if unchanged_count:
        notice(
            "%s: %s not updated, because other records have the new keys",
            storage.location,
            counted(unchanged_count, "record"),
        )
    return changed_count
