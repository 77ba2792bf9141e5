"""The response cache: records in a directory or a Redis server, found by their key, shared by
threads and processes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import resolve as config
from ..config.values import without_password
from ..display.data_frames import record_frame
from ..display.formatting import counted
from ..errors import CacheCorruptError, CacheError, ConfigError, short_traceback
from ..notices import notice, warn_once
from ..records.packed import pack, unpack
from ..requests.keys import key_of
from ..system import at_exit, process_lock
from ..types import record_of
from .storage import SqliteStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ..misses.report import Miss
    from ..misses.search import Source
    from ..types import Record, Request
    from .redis import Storage
    from .storage import Change, NewRow

    Where = Callable[[Record], bool]

MODES = ("auto", "replay", "refresh", "off")
CONFLICTS = ("keep", "replace", "raise")
SHORT = 12  # digits of a key that a message shows
NAMED = 5  # keys that a message lists


class CacheStats(NamedTuple):
    """What is known of a cache without reading it through.

    :param path: the directory, or the server's address without its password.
    :param records: how many answers it holds.
    :param size: bytes on the disk, or in the server's memory.
    """

    path: str
    records: int
    size: int


class ResponseCache:
    """The answers of models, kept in a diskcache directory or a Redis server. Nothing is evicted, and
    no answer expires.

    :param path: the directory, made at the first write, private (mode 0700) and with a
        ``.gitignore``; or the server's address: ``redis://…``, ``rediss://…`` or ``unix://…``.
    :param mode: ``auto`` and ``replay`` read and keep what was stored first, ``refresh`` overwrites
        each key once per process and reads it from then on, ``off`` neither reads nor stores.

    >>> cache = llmcall.ResponseCache("answers")
    >>> cache.load("examples/market_day.jsonl")
    62
    >>> cache.export("greta.jsonl", where=lambda record: record.scope.endswith("/Greta"))
    11
    """

    def __init__(self, path: str | os.PathLike[str], *, mode: str = "auto") -> None:
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(MODES)}")
        self.storage: Storage = _storage_at(os.fspath(path))
        self._used = _used_at.setdefault(_absolute(os.fspath(path)), set())
        self.mode = mode
        self._unstored: dict[str, bytes] = {}  # paid answers that the storage did not take
        self._refreshed: set[str] = set()
        # the keys of the records that calls of this process named an asker of
        self._named: set[str] = set()
        # the process that was told that answers are kept in memory
        self._warned_in: int | None = None

    @property
    def path(self) -> Path | str:
        """Return the directory, absolute, or the server's address without its password."""
        return self.storage.place

    def get(self, request: Request | str, *, mode: str | None = None) -> Record | None:
        """Return the recorded answer of a request, or ``None`` if there is none.

        :param request: what is asked, or its key.
        :param mode: instead of the cache's own.
        :raises CacheCorruptError: in the mode ``replay``, if the record or the database is
            damaged; the other modes ask again.
        """
        key = request if isinstance(request, str) else request.cache_key
        mode = mode or self.mode
        if mode == "off" or (mode == "refresh" and key not in self._refreshed):
            return None
        try:
            packed = self._unstored.get(key)
            found = self.storage.get(key) if packed is None else (packed, None)
            return None if found is None else unpack(key, *found)
        except CacheCorruptError as error:
            if mode == "replay":
                raise
            warn_once(f"{self.path}: {error}; llmcall asks for the answer again")
            return None

    def put(
        self, request: Request, response: Mapping[str, Any], *, cost: float | None = None
    ) -> Record:
        """Record an answer and return the record that counts: whatever was stored first.

        :param response: the response as the API gave it.
        :param cost: USD, or ``None`` if the price is unknown.
        """
        return self.store(record_of(request, response, cost=cost))

    def store(self, record: Record, *, mode: str | None = None) -> Record:
        """Store a record and return the one that counts: whatever was stored first.

        If the storage fails, the answer is kept in memory until the storage takes it, and a warning
        says so once.

        :param mode: instead of the cache's own; ``rewrite`` puts the record in place of what is
            there.
        """
        mode = mode or self.mode
        key = record.cache_key
        if mode == "off":
            return record
        packed = pack(record)
        replaces = mode == "rewrite" or (mode == "refresh" and key not in self._refreshed)
        if replaces:
            self._unstored.pop(key, None)
        packed = self._unstored.get(key, packed)
        try:
            stored = self.storage.put(key, packed, replace=replaces)
            counting = unpack(key, packed) if stored else self._first(key, packed)
        except (OSError, CacheError) as error:
            counting = self._keep_in_memory(key, packed, error)
        else:
            if self._unstored:
                self.store_unstored()
        if replaces:
            self._refreshed.add(key)
        return counting

    def name_asker(self, record: Record, asker: str) -> None:
        """Keep who asks for a record now, for the next replay; the first one of a process counts.

        :param record: of this cache.
        """
        key = record.cache_key
        with _lock:
            is_named = key in self._named
            self._named.add(key)
        if is_named or record.asker == asker or key in self._unstored:
            return
        try:
            self.storage.put(key, pack(record.replace(asker=asker)), replace=True)
        except (OSError, CacheError) as error:
            warn_once(
                f"{self.path} cannot store which task or thread asked, so a replay may swap the answers to "
                f"equal requests: {error}",
                about=(ResponseCache.name_asker, str(self.path)),
            )

    def _first(self, key: str, packed: bytes) -> Record:
        """Return the record that was stored first; put these bytes in its place if it cannot be
        read.
        """
        with suppress(CacheCorruptError):
            if found := self.get(key, mode="replay"):
                return found
        self.storage.put(key, packed, replace=True)
        # raises if the index is damaged
        return self.get(key, mode="replay") or unpack(key, packed)

    def store_unstored(self, otherwise: str = "") -> None:
        """Store what could not be stored before: a disk may have room again.

        :param otherwise: what becomes of the answers that cannot be stored now, for a warning.
        """
        failure: Exception | None = None
        for key, packed in list(self._unstored.items()):
            try:
                self.storage.put(key, packed, replace=key in self._refreshed)
            except (OSError, CacheError) as error:
                failure = error
                continue
            with _lock:
                if self._unstored.get(key) is packed:
                    del self._unstored[key]
        if otherwise and failure is not None:
            notice("%s %s: %s", counted(len(self._unstored), "answer"), otherwise, failure)

    def _keep_in_memory(self, key: str, packed: bytes, error: Exception) -> Record:
        """Keep an answer that the storage refused, and warn once in each process.

        :returns: the record that counts: the first one that is kept under the key.
        """
        with _lock:
            packed = self._unstored.setdefault(key, packed)
            is_first_time = self._warned_in != os.getpid()
            self._warned_in = os.getpid()
        if is_first_time:
            at_exit(self._store_at_exit)
            notice(
                "the cache cannot store answers; they are kept in memory until it can: %s", error
            )
        return unpack(key, packed)

    def _store_at_exit(self) -> None:
        self.store_unstored("lost because they could not be stored")
        self._unstored.clear()

    def __len__(self) -> int:
        return len(self.storage)

    def __bool__(self) -> bool:
        return True

    def exists(self) -> bool:
        """Return whether anything was ever stored in the directory."""
        return self.storage.exists()

    def records(self, *, where: Where | None = None) -> Iterator[Record]:
        """Yield the records in the order in which they were stored, read a page at a time.

        :param where: a function of a record that says whether it is meant; ``None`` means all.
        :raises CacheCorruptError: at a damaged one.
        """
        for key, packed, stored_at in self.storage.rows():
            record = unpack(key, packed, stored_at)
            if where is None or where(record):
                yield record

    def to_frame(self, where: Where | None = None, *, levels: Sequence[str] | None = None) -> Any:
        """Return a pandas DataFrame with a row for each record.

        :param where: a function of a record that says whether it is meant; ``None`` means all.
        :param levels: names for the levels of the scopes, such as ``["rep", "agent"]``, each of
            which then has a column. A scope with fewer levels has the first ones.
        :returns: columns scope, draw, kind, model, served (the name that the server gave), prompt,
            answer, finish_reason, refusal, input_tokens, output_tokens, cost (USD), used (by a call
            of this process), cache_key.
        :raises ValueError: if ``levels`` names more or fewer levels than the deepest scope has, or
            another column.
        """
        used = self._used
        return record_frame(
            self.records(where=where), lambda record: record.cache_key in used, levels
        )

    def note_used(self, key: str) -> None:
        """Note that a call of this process used a record, or made it.

        :param key: the record's.
        """
        self._used.add(key)

    def has_used(self, key: str) -> bool:
        """Return whether a call of this process used a record, or made it.

        :param key: the record's.
        """
        return key in self._used

    def stats(self) -> CacheStats:
        """Return the path, the number of records and the bytes on the disk; its cost does not grow
        with the cache.
        """
        return CacheStats(str(self.path), len(self), self.storage.size())

    def delete(self, *, where: Where | None = None, keys: Iterable[str] | None = None) -> int:
        """Delete the records for which ``where`` is true, or those of some keys; return how many.

        :param where: a function of a record that says whether it is meant; every record is read for
            it.
        :param keys: whole keys; at a cost that does not grow with the cache. A damaged record goes
            as well.
        :raises TypeError: if both are given, or neither.
        """
        if (where is None) == (keys is None):
            raise TypeError("give either where= or keys=; clear() deletes all records")
        if isinstance(keys, str):
            raise TypeError(f"keys is {keys!r}; it must be a sequence of keys")
        if keys is None:
            keys = [record.cache_key for record in self.records(where=where)]
        return self.storage.delete(keys)

    def clear(self) -> int:
        """Delete all records; return how many."""
        return self.storage.clear()

    def export(self, path: str | os.PathLike[str], *, where: Where | None = None) -> int:
        """Write the records as JSON Lines, the form of a cassette; return how many.

        :param where: a function of a record that says whether it is meant; ``None`` means all.
        :raises CacheError: if a text looks like a credential, naming its place.
        """
        from ..records.askers import with_shared_askers
        from ..records.header import header_of
        from ..records.writer import write

        records = with_shared_askers(self.records(where=where))
        write(path, header_of(), records, allow=config.settings().cassette_allow)
        return len(records)

    @short_traceback
    def load(
        self,
        path: str | os.PathLike[str] | ResponseCache,
        *,
        on_conflict: str = "keep",
        classes: Iterable[type[Any]] = (),
    ) -> int:
        """Add the records of an exported file, a cassette, or another cache or its path; return how
        many were stored.

        :param path: also TinyTroupe's pickle cache.
        :param on_conflict: what to do about a key that has another answer here: ``keep`` this one,
            ``replace`` it, or ``raise`` before anything is stored.
        :param classes: those that were a ``response_format`` when TinyTroupe's cache was written;
            the file has only their names.
        :raises CacheCorruptError: if a line is broken, or a file has two answers to one request.
        :raises CacheError: if another answer is here under ``raise``, or ``path`` contains no
            cache.
        """
        if on_conflict not in CONFLICTS:
            raise ValueError(
                f"on_conflict is {on_conflict!r}; it must be one of {', '.join(CONFLICTS)}"
            )
        source, records = _loaded(path, tuple(classes))
        conflicts = [record.cache_key for record in records if self._conflicts(record)]
        if conflicts:
            listed = ", ".join(
                [*(key[:SHORT] for key in conflicts[:NAMED]), *["…"][: len(conflicts) - NAMED]]
            )
            differ = f"{source} and {self.path} answer {counted(len(conflicts), 'request')} ({listed}) differently"
            if on_conflict == "raise":
                raise CacheError(
                    f"{differ}, and nothing was loaded; on_conflict may also be 'keep' or 'replace'"
                )
            notice("%s: %s", differ, on_conflict)
        replaced = set(conflicts if on_conflict == "replace" else ())
        return self.storage.add_all(
            (record.cache_key, pack(record.with_days()), record.cache_key in replaced, None)
            for record in records
        )

    def add_all(self, records: Iterable[Record]) -> int:
        """Add records whose keys are not here yet; return how many were stored."""
        return self.storage.add_all(
            (record.cache_key, pack(record.with_days()), False, None) for record in records
        )

    def _conflicts(self, record: Record) -> bool:
        """Return whether the cache has another answer to a record's request."""
        from ..records.answers import same_answer

        found = self.storage.get(record.cache_key)
        return found is not None and not same_answer(unpack(record.cache_key, *found), record)

    def verify(self) -> list[str]:
        """Return the keys of the damaged records, those whose stored request does not fit their key
        included.
        """
        return [key for key, packed, _ in self.storage.rows() if not _is_sound(key, packed)]

    def salvage(self, to: str | os.PathLike[str]) -> int:
        """Write every record that can still be read to a cache in another directory; return how
        many there were.

        The log says how many could not be read. If none could, no cache is made.

        :raises CacheError: if there is no database, or ``to`` is this cache's own directory.
        :raises CacheCorruptError: if not even the beginning of the database can be read.
        """
        target = _storage_at(os.fspath(to))
        if not self.exists():
            raise CacheError(f"{self.path} contains no cache; give the path of the damaged cache")
        if os.path.realpath(target.place) == os.path.realpath(self.path):
            raise CacheError(f"{self.path} cannot be salvaged into itself; name a new directory")

        sound: set[str] = set()

        def sound_rows() -> Iterator[NewRow]:
            """Yield what can be read."""
            for key, packed, stored_at in self.storage.readable_rows():
                if packed is not None and key not in sound and _is_sound(key, packed):
                    sound.add(key)
                    yield key, packed, False, stored_at

        if any(sound_rows()):  # without any, no cache is made
            sound.clear()
            target.add_all(sound_rows())
            target.close()
        count = len(sound)
        try:
            lost = len(self) - count
        except CacheError:
            notice(
                "%s: besides the %d records that were read, others may be lost", self.path, count
            )
        else:
            if lost > 0:
                notice(
                    "%s: %d of %d records cannot be read and are lost",
                    self.path,
                    lost,
                    count + lost,
                )
        return count

    def rekey(self) -> int:
        """Recompute every key after a change of aliases, namespace or key version; return how many
        records changed.

        The model is looked up in the present aliases, and the present namespace stands in place of
        the stored one. Of records that come to the same key the first gets it; the others stay as
        they are.
        """
        return self.storage.rewrite(self._changes) if self.exists() else 0

    def _changes(self) -> Iterator[Change]:
        """Yield what new keys change, while the storage shows its rows as they were."""
        from ..requests.rekeying import under_settings

        settings = config.settings()
        wanted: dict[str, str] = {}
        pointers: dict[str, str] = {}
        unread = 0
        for key, packed, _ in self.storage.rows():
            try:
                record = unpack(key, packed)
                wanted[key] = key_of(
                    record.kind, under_settings(record.request, settings), record.sample
                )
            except CacheCorruptError:
                unread += 1
                wanted[key] = key
                continue
            if "fallback" in record.response and record.kind == "chat":
                pointers[key] = str(record.response["fallback"])
        # A key that several come to stays with the one that has it already, else the first gets it.
        first = {new: key for key, new in reversed(wanted.items())}
        moves = {key: new for new, key in first.items() if new not in wanted}
        kept = sum(key != new for key, new in wanted.items()) - len(moves)
        if unread:
            found = counted(unread, "damaged row")
            notice(
                "%s: %s left unchanged; 'llmcall cache verify' lists all damaged rows",
                self.path,
                found,
            )
        if kept:
            found = counted(kept, "record")
            notice(
                "%s: %s not updated, because other records have the new keys",
                self.path,
                found,
            )
        for key, packed, _ in self.storage.rows():
            if key not in moves and pointers.get(key) not in moves:
                continue
            record = unpack(key, packed)
            if pointers.get(key) in moves:
                record = record.replace(response={"fallback": moves[pointers[key]]})
            if key in moves:
                record = record.replace(
                    cache_key=moves[key], request=under_settings(record.request, settings)
                )
            yield key, record.cache_key, pack(record)

    def explain(self, request: Request) -> Miss:
        """Return the nearest record to a request, and what differs from it; ``str()`` of it is a
        report.
        """
        from ..misses.report import cache_remedy, explain

        settings = config.settings()
        return explain(request, searched_cache(self.storage), settings, cache_remedy(settings))

    def close(self) -> None:
        """Store what could not be stored before, and close the handles; the next use opens them
        again.
        """
        self.store_unstored("in memory only")
        self.storage.close()

    def __enter__(self) -> ResponseCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ResponseCache({str(self.path)!r}, mode={self.mode!r})"


def _loaded(
    path: str | os.PathLike[str] | ResponseCache, classes: tuple[type[Any], ...]
) -> tuple[str, list[Record]]:
    """Return what messages call the source of records, and the records."""
    if isinstance(path, ResponseCache):
        cache = path
    elif "://" in str(path) or os.path.isdir(path):
        cache = ResponseCache(path)
    else:
        from ..ancestors import tinytroupe
        from ..records.reader import read

        source = os.fspath(path)
        if os.path.exists(source) and tinytroupe.recognized(source):
            return source, tinytroupe.read(source, classes)
        return source, read(source).records()
    if not cache.exists():
        raise CacheError(
            f"{cache.path} contains no cache; give a cache's directory or server, or an exported file"
        )
    return str(cache.path), list(cache.records())


def _is_sound(key: str, packed: bytes | None) -> bool:
    try:
        record = unpack(key, packed)
        return key_of(record.kind, record.request, record.sample) == key
    except (CacheCorruptError, ValueError, TypeError):
        return False


def searched_cache(storage: Storage) -> Source:
    """Return the records of a cache, to be searched for the nearest to a request."""
    from ..misses.search import Source

    rows = (
        ([packed or b""], partial(unpack, key, packed, at)) for key, packed, at in storage.rows()
    )
    return Source(f"the cache {storage.place}", rows)


_shared: dict[str, ResponseCache] = {}
_lock = process_lock(__name__)


def shared_cache(path: str | os.PathLike[str]) -> ResponseCache:
    """Return the one cache object of a directory in this process: its lock and its unstored answers
    are shared.
    """
    name = os.fspath(path)
    found = _shared.get(name)
    if found is None:
        with _lock:
            found = _shared.setdefault(name, ResponseCache(name))
    return found


def forget_shared() -> None:
    """Close and forget the shared cache objects."""
    with _lock:
        caches = list(_shared.values())
        _shared.clear()
    for cache in caches:
        cache.close()


# By cache: the keys of the records that calls of this process used.
_used_at: dict[str, set[str]] = {}


def _absolute(path: str) -> str:
    """Return the absolute path of a directory; an address stays as it is."""
    if "://" in path:
        return path
    return os.path.abspath(os.path.expandvars(os.path.expanduser(path)))


def _storage_at(path: str) -> Storage:
    """Return the storage in a directory, or at the address of a Redis server.

    :raises ConfigError: if the address is invalid, or redis-py is not installed.
    """
    if "://" not in path:
        return SqliteStorage(path)
    try:
        from .redis import RedisStorage
    except ImportError as error:
        needs = f"[Cache] PATH = {without_password(path)} needs the Python package redis (5.3.0 or later)"
        raise ConfigError(f"{needs}: install the extra 'redis'") from error
    return RedisStorage(path)
