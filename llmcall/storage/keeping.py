"""Storing an answer that is paid for: it is not lost, whatever the store does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import CacheCorruptError, CacheError
from .packing import pack

if TYPE_CHECKING:
    from ..types import Record
    from .cache import ResponseCache

__all__ = ["keep"]


def keep(cache: ResponseCache, record: Record, *, overwrite: bool) -> Record:
    """Store a record and return the one that counts. See :meth:`ResponseCache.keep`."""
    key, packed = record.cache_key, pack(record)
    try:
        _store(cache, key, packed, overwrite=overwrite)
    except (OSError, CacheError) as error:
        _keep_in_memory(cache, key, packed, error, overwrite=overwrite)
    else:
        _store_unstored(cache)
    if overwrite:
        cache._refreshed.add(key)
    try:
        return cache.learn(key) or record
    except CacheCorruptError as error:  # it stands where nobody finds it
        _keep_in_memory(cache, key, packed, error, overwrite=overwrite)
    except CacheError:  # a server that was there a moment ago
        pass
    return record


def _store(cache: ResponseCache, key: str, packed: bytes, *, overwrite: bool) -> None:
    if overwrite:
        cache.store.set(key, packed)
        cache._unstored.pop(key, None)
    elif key not in cache._unstored and not cache.store.add(key, packed):
        _contest(cache, key, packed)


def _contest(cache: ResponseCache, key: str, packed: bytes) -> None:
    """Overwrite what stands under the key already, but only where it cannot be read."""
    try:
        if cache.find(key) is not None:
            return
    except CacheCorruptError:
        pass
    cache.store.set(key, packed)


def _store_unstored(cache: ResponseCache) -> None:
    """Store what could not be stored before: a disk may have room again, a server may be back."""
    for key, packed in list(cache._unstored.items()):
        try:
            if key in cache._refreshed:
                cache.store.set(key, packed)
            else:
                cache.store.add(key, packed)
            cache.store.get(key)
        except CacheCorruptError:  # as above
            continue
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
