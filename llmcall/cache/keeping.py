"""Storing an answer that is paid for: it is not lost, whatever the store does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import CacheCorruptError, CacheError
from .record import packed as packed_record
from .record import unpack

if TYPE_CHECKING:
    from ..types import Record
    from .cache import ResponseCache

__all__ = ["keep"]


def keep(cache: ResponseCache, record: Record, *, overwrite: bool) -> Record:
    """Store a record and return the one that counts. See :meth:`ResponseCache.store`."""
    key = record.cache_key
    mine, record = packed_record(record)
    try:
        _store(cache, key, mine, overwrite=overwrite)
    except (OSError, CacheError) as error:
        _keep_in_memory(cache, key, mine, error, overwrite=overwrite)
    else:
        _store_unstored(cache)
    if overwrite:
        cache._refreshed.add(key)
    try:
        found = _counting(cache, record, mine)
        if found is None:  # its place in the index is damaged, or another process deleted it at once
            cache._unstored.setdefault(key, mine)
        return found or record
    except CacheCorruptError as error:  # it stands where nobody can read it
        _keep_in_memory(cache, key, mine, error, overwrite=overwrite)
    except CacheError:  # a server that was there a moment ago
        pass
    return record


def _counting(cache: ResponseCache, record: Record, mine: bytes) -> Record | None:
    """Return what stands under a record's key now, or ``None``.

    :param mine: the record's bytes; where they stand there, it is the record itself.
    """
    key = record.cache_key
    found = cache._packed(key)
    if found is None:
        return None
    return record._replace(stored_at=found[1]) if found[0] == mine else unpack(key, *found)


def _store(cache: ResponseCache, key: str, packed: bytes, *, overwrite: bool) -> None:
    if overwrite:
        cache.storage.set(key, packed)
        cache._unstored.pop(key, None)
    elif key not in cache._unstored and not cache.storage.add(key, packed):
        _contest(cache, key, packed)


def _contest(cache: ResponseCache, key: str, packed: bytes) -> None:
    """Overwrite what stands under the key already, but only where it cannot be read."""
    try:
        if cache.lookup(key) is not None:
            return
    except CacheCorruptError:
        pass
    cache.storage.set(key, packed)


def _store_unstored(cache: ResponseCache) -> None:
    """Store what could not be stored before: a disk may have room again, a server may be back."""
    for key, packed in list(cache._unstored.items()):
        try:
            if key in cache._refreshed:
                cache.storage.set(key, packed)
            else:
                cache.storage.add(key, packed)
            if cache.storage.get(key) is None:
                return
        except (OSError, CacheError):  # as before, so they stay where they are
            return
        with cache._lock:
            if cache._unstored.get(key) is packed:
                del cache._unstored[key]


def _keep_in_memory(cache: ResponseCache, key: str, packed: bytes, error: Exception, *, overwrite: bool) -> None:
    with cache._lock:
        if overwrite:
            cache._unstored[key] = packed
        cache._unstored.setdefault(key, packed)
        first_time, cache._warned = not cache._warned, True
    if first_time:
        _log().warning("the cache cannot store answers, which are kept in memory until it can: %s", error)


def _log() -> Any:
    import logging

    return logging.getLogger("llmcall")
