"""The caches of this process: one object for each directory or server."""

from __future__ import annotations

import os

from ..system import ProcessLock
from .cache import ResponseCache

_caches: dict[str, ResponseCache] = {}  # by path
_lock = ProcessLock()


def shared_cache(path: str | os.PathLike[str]) -> ResponseCache:
    """Return the one cache object of a directory in this process: its lock and its unstored answers
    are shared.
    """
    name = os.fspath(path)
    cache = _caches.get(name)
    if cache is None:
        with _lock:
            cache = _caches.setdefault(name, ResponseCache(name))
    return cache


def forget_shared() -> None:
    """Close and forget the shared cache objects."""
    with _lock:
        caches = list(_caches.values())
        _caches.clear()
    for cache in caches:
        cache.close()
