"""The response cache: records in a directory, found by their key, shared by threads and processes."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

from ..errors import CacheCorruptError
from ..types import record_of
from .record import REMEDY, pack, unpack
from .rows import Rows
from .sqlite import SqliteStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from ..explain.report import Miss
    from ..types import Record, Reply, Request
    from .record import Head
    from .stats import CacheStats
    from .storage import Storage

    Where = Callable[[Record], bool]

__all__ = ["MODES", "ResponseCache", "forget_shared", "shared_cache"]

MODES = ("auto", "replay", "refresh", "off")


class ResponseCache:
    """Keep the answers of models in a diskcache directory or a Redis server; nothing is evicted, no answer expires.

    :param path: the directory, made at the first write, private (mode 0700) and with a ``.gitignore``; or the server's
        address: ``redis://…``, ``rediss://…`` or ``unix://…``.
    :param mode: ``auto`` and ``replay`` read and keep what was stored first, ``refresh`` overwrites each key once per
        process and reads it from then on, ``off`` neither reads nor stores.
    """

    def __init__(self, path: str | os.PathLike[str], *, mode: str = "auto") -> None:
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(MODES)}")
        self._storage = _storage_at(os.fspath(path))
        self.mode = mode
        self._unstored: dict[str, bytes] = {}  # paid answers that the store did not take
        self._refreshed: set[str] = set()
        self._rows = Rows()
        self._warned = False
        self._lock = threading.Lock()
        _caches.add(self)

    @property
    def path(self) -> Path | str:
        """Return the directory, absolute, or the server's address without its password."""
        return self._storage.place

    @property
    def storage(self) -> Storage:
        """Return what keeps the records' bytes."""
        return self._storage

    def get(self, request: Request, *, mode: str | None = None) -> Record | None:
        """Return the recorded answer of a request, or ``None`` where there is none.

        :raises CacheCorruptError: in the mode ``replay``, where the record is damaged; the other modes ask anew.
        """
        key, mode = request.cache_key, mode or self.mode
        if mode in ("off", "rewrite") or (mode == "refresh" and key not in self._refreshed):
            return None
        try:
            return self.lookup(key)
        except CacheCorruptError as error:
            if mode == "replay":
                raise
            from ..notices import warn_once

            warn_once(f"{self.path}: {error}; the request is asked anew")
            return None

    def lookup(self, cache_key: str) -> Record | None:
        """Return the record of a key, or ``None``.

        :raises CacheCorruptError: where the record or the database is damaged.
        """
        found = self._packed(cache_key)
        return None if found is None else unpack(cache_key, *found)

    def recall(self, cache_key: str) -> tuple[Head, Reply] | None:
        """Return a chat call's reply, and what it was made of; ``None`` where there is none, or a pointer to another.

        :raises CacheCorruptError: where the record or the database is damaged.
        """
        found = self._packed(cache_key) if self._unstored else self._storage.get(cache_key)
        return None if found is None else self._rows.reply(cache_key, found[0])

    def _packed(self, cache_key: str) -> tuple[bytes, float | None] | None:
        unstored = self._unstored.get(cache_key) if self._unstored else None
        return self._storage.get(cache_key) if unstored is None else (unstored, None)

    def put(self, request: Request, response: Mapping[str, Any], *, cost: float | None = None) -> Record:
        """Record an answer and return the record that counts: whatever was stored first.

        :param response: the response as the API gave it.
        :param cost: USD, or ``None`` where the price is unknown.
        """
        record = record_of(request, response, cost=cost)
        return self.store(unpack(record.cache_key, pack(record)))  # a copy of what is the caller's

    def store(self, record: Record, *, mode: str | None = None) -> Record:
        """Store a record and return the one that counts: whatever was stored first.

        A store that fails loses no answer: it is kept in memory until the store takes it, and a warning says so once.

        :param mode: instead of the cache's own; ``rewrite`` puts the record in place of what is there.
        """
        mode = mode or self.mode
        if mode == "off":
            return record
        again = mode == "refresh" and record.cache_key not in self._refreshed
        from .keeping import keep

        return keep(self, record, overwrite=again or mode == "rewrite")

    def __len__(self) -> int:
        return len(self._storage)

    def __bool__(self) -> bool:
        return True

    def exists(self) -> bool:
        """Return whether anything was ever stored in the directory."""
        return self._storage.exists()

    def records(self, *, where: Where | None = None) -> Iterator[Record]:
        """Yield the records in the order in which they were stored, read a page at a time.

        :param where: which ones.
        :raises CacheCorruptError: at a damaged one.
        """
        for key, packed, stored_at in self._storage.rows():
            if packed is None:
                raise CacheCorruptError(f"{self.path}: the row {key[:12]!r} is none that llmcall stores; {REMEDY}")
            record = unpack(key, packed, stored_at)
            if where is None or where(record):
                yield record

    def verify(self) -> list[str]:
        """Return the keys of the damaged records, those whose stored request does not fit their key included."""
        from .salvage import damaged

        return damaged(self)

    def stats(self) -> CacheStats:
        """Return the path, the number of records and the bytes on the disk; its cost does not grow with the cache."""
        from .stats import CacheStats

        return CacheStats(str(self.path), len(self), self._storage.size())

    def delete(self, *, where: Where | None = None, keys: Iterable[str] | None = None) -> int:
        """Delete the records that ``where`` is true of, or those of some keys; return how many.

        :param where: which ones; every record is read for it.
        :param keys: whole keys; at a cost that does not grow with the cache. A damaged record goes as well.
        :raises TypeError: where both are given, or neither.
        """
        if (where is None) == (keys is None):
            raise TypeError("give either where= or keys=; clear() deletes all records")
        if isinstance(keys, str):
            raise TypeError(f"keys is {keys!r}; it must be a sequence of keys")
        return self._storage.delete(
            [record.cache_key for record in self.records(where=where)] if keys is None else keys
        )

    def clear(self) -> int:
        """Delete all records; return how many."""
        return self._storage.clear()

    def export(self, path: str | os.PathLike[str], *, where: Where | None = None) -> int:
        """Write the records as JSON Lines, the form of a cassette; return how many.

        :raises CacheError: where a text looks like a credential, naming its place.
        """
        from .transfers import export

        return export(self, path, where)

    def load(self, path: str | os.PathLike[str] | ResponseCache, *, on_conflict: str = "keep") -> int:
        """Add the records of an exported file, a cassette, or another cache or its path; return how many were stored.

        :param on_conflict: what to do about a key that has another answer here: ``keep`` this one, ``replace`` it, or
            ``raise`` before anything is stored.
        :raises CacheCorruptError: where a line is broken, or two answers meet under ``raise``.
        """
        from .transfers import load

        return load(self, path, on_conflict)

    def add_all(self, records: Iterable[Record], replaced: frozenset[str] | set[str] = frozenset()) -> int:
        """Store many records, all or none; return how many were stored.

        :param replaced: the keys of those that go in place of what is there; the others leave it alone.
        """
        return self._storage.add_all(
            (record.cache_key, pack(record), record.cache_key in replaced) for record in records
        )

    def salvage(self, to: str | os.PathLike[str]) -> int:
        """Write every record that can still be read to a cache in another directory; return how many there were.

        :raises CacheError: where there is no database, or ``to`` is this cache's own directory.
        """
        from .salvage import salvage

        return salvage(self, to)

    def rekey(self) -> int:
        """Recompute every key after a change of aliases, namespace or key version; return how many records changed.

        The model is looked up in the present aliases, and the present namespace stands in place of the stored one.
        Of records that come to the same key the first gets it; the others stay as they are.
        """
        from .rekeying import rekey

        return rekey(self)

    def explain(self, request: Request) -> Miss:
        """Return the nearest record to a request, and what differs from it; ``str()`` of it is a report."""
        from ..explain.report import explain

        return explain(self, request)

    def close(self) -> None:
        """Close the handles; the next use opens them again."""
        self._storage.close()

    def __enter__(self) -> ResponseCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ResponseCache({str(self.path)!r}, mode={self.mode!r})"


def _storage_at(path: str) -> Storage:
    if "://" not in path:
        return SqliteStorage(path)
    from .redis import RedisStorage

    return RedisStorage(path)


_caches: weakref.WeakSet[ResponseCache] = weakref.WeakSet()
_shared: dict[str, ResponseCache] = {}
_shared_lock = threading.Lock()


def _begin_anew() -> None:
    """Forget, in a forked process, what the threads that stayed behind were doing."""
    global _shared_lock
    _shared_lock = threading.Lock()
    for cache in list(_caches):
        cache._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def shared_cache(path: str | os.PathLike[str]) -> ResponseCache:
    """Return the one cache object of a directory in this process: its lock and its unstored answers are shared."""
    name = os.fspath(path)
    found = _shared.get(name)
    if found is None:
        with _shared_lock:
            found = _shared.setdefault(name, ResponseCache(name))
    return found


def forget_shared() -> None:
    """Close and forget the shared cache objects."""
    with _shared_lock:
        caches = list(_shared.values())
        _shared.clear()
    for cache in caches:
        cache.close()
