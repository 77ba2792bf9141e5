"""The response cache: records in a storage, such as a directory, found by their key, and shared by threads and
processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ...config import resolve as config
from ...config.settings import CACHE_MODES
from ...errors import CacheCorruptError, CacheError
from ...keys.request import Data, Request
from ...support.arguments import checked
from ...support.display import counted
from ...support.notices import notice, warn_once
from ...support.system import ProcessLock, at_exit
from ..record import Record, make_record
from ..records.packed import pack, unpack
from .addresses import is_address, storage_at
from .directory import Directory
from .storages import Change, Storage, Stored

if TYPE_CHECKING:
    from pathlib import Path

    import pandas

    from ..misses.causes import Source
    from ..misses.report import Miss

_shared_caches: dict[str, ResponseCache] = {}  # by path
_shared_lock = ProcessLock()
# By cache: the keys of the records that calls of this process used. Nothing empties them, since a refresh
# and the column "used" need all; docs/explanation/scale.rst has the bytes of each.
_used_keys_by_path: dict[str, set[str]] = {}
_batched_keys_by_path: dict[str, set[str]] = {}
_refreshed_keys_by_path: dict[str, set[str]] = {}  # until llmcall.reset()
_unstored_by_path: dict[str, UnstoredAnswers] = {}  # a refreshed key's answer may be only there


class CacheStats(NamedTuple):
    """The figures of a cache that are cheap to read.

    :param path: the directory, or the address without its password.
    :param records: how many answers it holds.
    :param size: bytes on the disk, in the server's memory, or of all rows.
    """

    path: str
    records: int
    size: int


class UnstoredAnswers(dict[str, bytes]):
    """Paid answers that could not be stored, packed, by key, kept in memory until the storage takes them.

    :param storage: the storage to try again.
    """

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self._storage = storage
        self._replacing: set[str] = set()  # keys
        self._warned_process: int | None = None  # the process that logged the warning

    def keep(self, key: str, packed: bytes, error: BaseException, replaces: bool) -> bytes:
        """Keep a record, and warn once in each process.

        :param error: why the storage does not have it.
        :param replaces: ``True`` if it replaces what is stored.
        :returns: the record that counts, packed: the first one under the key.
        """
        if replaces:
            self._replacing.add(key)
        if self._warned_process != os.getpid():
            self._warned_process = os.getpid()
            at_exit(self._store_at_exit)
            notice(
                "the cache cannot store answers; they are kept in memory until it can: %s",
                str(error) or type(error).__name__,
            )
        return self.setdefault(key, packed)

    def retry(self, consequence: str = "") -> None:
        """Try again to store all records; the disk may have room by now.

        :param consequence: what happens to those that still cannot be stored, for a warning.
        """
        failure: Exception | None = None
        for key, packed in list(self.items()):
            try:
                self._storage.put(key, packed, replaces=key in self._replacing)
            except (OSError, CacheError) as error:
                failure = error
            else:
                self.pop(key, None)
        if consequence and failure is not None:
            notice("%s %s: %s", counted(len(self), "answer"), consequence, failure)

    def _store_at_exit(self) -> None:
        self.retry("could not be stored in the cache; answers that are in no cassette are lost")
        self.clear()


class ResponseCache:
    """A cache of models' answers, in a diskcache directory, on a server or in a custom storage. Nothing is evicted, and
    no answer expires.

    :param path: the directory, made at the first write, private (mode 0700) and with a
        ``.gitignore``; or an address ``SCHEME://…`` of a server, or of a custom storage.
    :param mode: ``auto`` and ``replay`` read and keep what was stored first, ``refresh`` overwrites
        each key once per process and reads it from then on, ``off`` neither reads nor stores.
    :ivar used_keys: the keys of the records that calls of this process used or made; identical concurrent
        calls look here, too (``core/flights.py``).

    >>> cache = llmcall.ResponseCache("answers")
    >>> cache.load("examples/market_day.jsonl")
    47
    >>> cache.export("greta.jsonl", where=lambda record: record.scope.endswith("/Greta"))
    9
    """

    def __init__(self, path: str | os.PathLike[str], *, mode: str = "auto") -> None:
        self.mode = _checked_mode(mode)
        self.storage: Storage = storage_at(os.fspath(path))
        self._address = os.fspath(path) if is_address(os.fspath(path)) else self.storage.name
        name = self.storage.name
        self.used_keys = _used_keys_by_path.setdefault(name, set())
        self.batched_keys = _batched_keys_by_path.setdefault(name, set())
        self._refreshed_keys = _refreshed_keys_by_path.setdefault(name, set())
        self._unstored = _unstored_by_path.setdefault(name, UnstoredAnswers(self.storage))

    @property
    def is_directory(self) -> bool:
        """Return whether the records are in a directory."""
        return isinstance(self.storage, Directory)

    @property
    def path(self) -> Path | str:
        """Return the directory, absolute, or the address without its password."""
        if not self.is_directory:
            return self.storage.name
        from pathlib import Path  # costs 4 ms, which a look-up need not pay

        return Path(self.storage.name)

    def get(self, request: Request | str, *, mode: str | None = None) -> Record | None:
        """Return the recorded answer of a request, or ``None``.

        :param request: the request, or its key.
        :param mode: instead of the cache's mode.
        :raises CacheCorruptError: in the mode ``replay``, if the record or the database is
            damaged; the other modes call again.
        :raises TypeError: if it is neither.
        :raises ValueError: for an unknown mode.
        """
        if isinstance(request, str):
            key = request
        else:
            _check_request(request)
            key = request.cache_key
        mode = _checked_mode(mode or self.mode)
        if mode == "off":
            return None
        # A refresh looks, too: a directory that cannot be used is found before the answer is paid for.
        is_read = mode != "refresh" or key in self._refreshed_keys
        row = None
        try:
            packed = self._unstored.get(key)
            row = self.storage.get(key) if packed is None else (packed, None)
            return unpack(key, *row) if is_read and row is not None else None
        except CacheCorruptError as error:
            if mode == "replay":
                raise
            # A damaged database is reported once, though SQLite may raise several errors for it.
            about = "the database" if row is None else key
            warn_once(
                f"{self.path}: {error}; llmcall requests the answer again",
                about=("damaged", self.path, about),
            )
            return None

    @checked
    def put(
        self, request: Request, response: Mapping[str, Data], *, cost: float | None = None
    ) -> Record:
        """Record an answer; return the record that counts, which is the first one stored.

        :param response: the response as the API gave it.
        :param cost: USD, or ``None`` if the price is unknown.
        :raises ValueError: if no reader could read it: a chat's request has messages, and its response
            choices with messages, or the output of the Responses API; if it was filtered, broke off or is empty.
        """
        from ..records.readable import incomplete, unreadable

        _check_request(request)
        packed = pack(make_record(request, response, cost=cost))
        record = unpack(request.cache_key, packed)  # in its plain form
        if problem := unreadable(record) or incomplete(record):
            raise ValueError(problem)
        return self.store(record)

    def store(self, record: Record, *, mode: str | None = None, replace: bool = False) -> Record:
        """Store a record; return the record that counts, the first stored.

        If the storage fails, the answer stays in memory until the storage takes it, and one warning
        says so.

        :param mode: instead of the cache's mode.
        :param replace: ``True`` replaces a stored record. In the mode ``refresh``, the first record
            of a key in this process always does.
        """
        mode = mode or self.mode
        key = record.cache_key
        if mode == "off":
            return record
        packed = pack(record)
        if mode == "refresh" and key not in self._refreshed_keys:
            replace = True
        if replace:
            self._unstored.pop(key, None)
        # The answer that came first counts, even if only memory has it.
        if earlier := self._unstored.get(key):
            packed, record = earlier, unpack(key, earlier)
        try:
            is_stored = self.storage.put(key, packed, replaces=replace)
            stored_record = record if is_stored else self._first_stored(key, packed)
        except (OSError, CacheError) as error:
            stored_record = unpack(key, self._unstored.keep(key, packed, error, replace))
        except KeyboardInterrupt as interrupt:
            self._unstored.keep(key, packed, interrupt, replace)
            raise
        else:
            if self._unstored:
                self._unstored.retry()
        finally:
            if replace:
                self._refreshed_keys.add(key)
        return stored_record

    def _first_stored(self, key: str, packed: bytes) -> Record:
        """Return the record that was stored first; if it cannot be read, replace it by these bytes."""
        with suppress(CacheCorruptError):
            if record := self.get(key, mode="replay"):
                return record
        self.storage.put(key, packed, replaces=True)
        # Raises if the index is damaged.
        return self.get(key, mode="replay") or unpack(key, packed)

    def note_use(self, key: str, arm: str, caller: str | None) -> None:
        """Add to a stored record the arm and the caller that got it. Arms are sorted, since a cache has no
        order of calls.

        :param arm: empty for no arm.
        :param caller: ``None`` leaves the one that the record names.
        """

        def noted(stored: Stored) -> bytes:
            record = unpack(key, *stored)
            arms = tuple(sorted({*record.arms, arm} - {""}))
            return pack(record.replace(arms=arms, caller=caller or record.caller))

        try:
            self.storage.change(key, noted)
        except (OSError, CacheError) as error:
            warn_once(
                f"{self.path}: records do not name the arms and callers that got them: {error}"
            )

    def store_unstored(self) -> None:
        """Try again to store the answers in memory; the disk may have room by now."""
        self._unstored.retry()

    def __len__(self) -> int:
        return len(self.storage)

    def __bool__(self) -> bool:
        return True

    def exists(self) -> bool:
        """Return whether anything was ever stored in the directory."""
        return self.storage.exists()

    @checked
    def records(self, *, where: Callable[[Record], bool] | None = None) -> Iterator[Record]:
        """Yield the records in the order in which they were stored, read a page at a time.

        :param where: gets a record and returns whether to include it; ``None`` means all.
        :raises CacheCorruptError: at a damaged one.
        """
        for key, packed, stored_at in self.storage.rows():
            record = unpack(key, packed, stored_at)
            if where is None or where(record):
                yield record

    def to_frame(
        self, where: Callable[[Record], bool] | None = None, *, levels: Sequence[str] | None = None
    ) -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each record.

        :param where: gets a record and returns whether to include it; ``None`` means all.
        :param levels: names for the levels of the scopes, such as ``["rep", "agent"]``, or the
            name of the only one. Each level gets a column; a scope with fewer levels fills the first ones.
        :returns: columns scope, draw, arms (if any record has some), kind, model, served (the name
            that the server gave), prompt, answer, finish_reason, refusal, input_tokens,
            output_tokens, cost (USD), used (by a call of this process), cache_key, request (the digest
            of the request without its draw: the same in another recording of the same question); and for each
            kind of answer that features give in the model's place, false: no cache holds one.
        :raises ValueError: if ``levels`` does not name exactly the levels of the deepest scope, or
            uses another column's name.
        """
        from ..records.frame import record_frame

        used_keys = self.used_keys
        return record_frame(
            self.records(where=where), lambda record: record.cache_key in used_keys, levels
        )

    def stats(self) -> CacheStats:
        """Return the path, the number of records and the size, at a cost that does not grow with the
        cache.
        """
        return CacheStats(str(self.path), len(self), self.storage.size())

    @checked
    def delete(
        self, *, where: Callable[[Record], bool] | None = None, keys: Iterable[str] | None = None
    ) -> int:
        """Delete the records for which ``where`` is true, or those with some keys; return how many.

        :param where: gets a record and returns whether to delete it; this reads every record.
        :param keys: whole keys; the cost does not grow with the cache. Damaged records are
            deleted too.
        :raises TypeError: if both are given, or neither.
        """
        if (where is None) == (keys is None):
            raise TypeError("give either where= or keys=; clear() deletes all records")
        if keys is None:
            keys = [record.cache_key for record in self.records(where=where)]
        if not self.exists():
            return 0
        return self.storage.write(Change(key, None) for key in keys)

    def clear(self) -> int:
        """Delete all records; return how many."""
        return self.storage.clear()

    @checked
    def export(
        self, path: str | os.PathLike[str], *, where: Callable[[Record], bool] | None = None
    ) -> int:
        """Write the records as JSON Lines, as a cassette; return how many. The header holds current settings
        that the requests show. It replaces only exports and cassettes, and writes nothing if no record is
        selected.

        :param where: gets a record and returns whether to include it; ``None`` means all.
        :raises CacheError: if a text looks like a credential; the message names the record and field.
        :raises CacheCorruptError: if the file exists and is not a cassette.
        """
        from ...scopes.draw_numbers import UNKNOWN
        from ..cassettes.replay_log import with_history, without_lone_callers
        from ..records.header import Header
        from ..records.keyed_settings import current_settings_of
        from ..records.packed import kept
        from ..records.writer import write

        records = [kept(record) for record in self.records(where=where)]
        header = Header(current_settings_of(records))
        if records:  # an empty file would replace a recording by nothing
            named = without_lone_callers(records)
            write(path, header, [with_history(record, UNKNOWN) for record in named])
        return len(records)

    def load(
        self, path: str | os.PathLike[str] | ResponseCache, *, on_conflict: str = "keep"
    ) -> int:
        """Add the records of an exported file, a cassette, or another cache or its path; return how many.
        Filtered, broken and empty answers are left out.

        :param path: also another program's cache that ``llmcall cache load --help`` names.
        :param on_conflict: for a key that has another answer here, ``"keep"`` keeps it, ``"replace"``
            replaces it, and ``"raise"`` raises an error before anything is stored.
        :raises CacheCorruptError: if a line is broken, a chat cannot be read, or a file has two answers to one
            request.
        :raises CacheError: with ``raise``, if the cache has another answer; and if ``path`` contains
            no cache.
        """
        from .loading import load

        if isinstance(path, ResponseCache):
            return load(self.storage, path.storage, on_conflict)
        return load(self.storage, os.path.expanduser(os.fspath(path)), on_conflict)

    def add_all(self, records: Iterable[Record]) -> int:
        """Add records whose keys are not here yet; return how many were stored."""
        from .loading import addition

        return self.storage.write(map(addition, records))

    def salvage(self, to: str | os.PathLike[str]) -> int:
        """Write every record that can still be read to a cache in another directory; return how
        many there were.

        The log says how many could not be read. If none could, no cache is made.

        :raises CacheError: if there is no database, or ``to`` is this cache's own directory.
        :raises CacheCorruptError: if not even the beginning of the database can be read.
        """
        from .loading import salvage

        return salvage(self.storage, storage_at(os.fspath(to)))

    def search_source(self) -> Source:
        """Return the records as a source for the search of the nearest record."""
        from ..misses.causes import Source

        def sound_records() -> Iterator[Record]:
            for key, packed, stored_at in self.storage.rows():
                with suppress(CacheCorruptError):
                    yield unpack(key, packed, stored_at)

        return Source(f"the cache {self.path}", sound_records())

    def explain(self, request: Request) -> Miss:
        """Return the nearest record to a request and how it differs; ``str()`` gives a report."""
        from ..misses.report import cache_remedy, explain

        _check_request(request)
        settings = config.settings()
        return explain(request, self.search_source(), settings, cache_remedy(settings))

    def close(self) -> None:
        """Store the answers in memory, and close the handles; the next use opens them again."""
        self._unstored.retry("in memory only")
        self.storage.close()

    def __enter__(self) -> ResponseCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        # A copy opens the directory or connects to the server itself, with the address's password.
        return partial(type(self), mode=self.mode), (self._address,)

    def __repr__(self) -> str:
        return f"ResponseCache({str(self.path)!r}, mode={self.mode!r})"


def _checked_mode(mode: str) -> str:
    if mode not in CACHE_MODES:
        raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(CACHE_MODES)}")
    return mode


def shared_cache(path: str | os.PathLike[str]) -> ResponseCache:
    """Return this process's one cache object of a directory."""
    name = os.fspath(path)
    cache = _shared_caches.get(name)
    if cache is None:
        with _shared_lock:
            cache = _shared_caches.setdefault(name, ResponseCache(name))
    return cache


def remove(cache: ResponseCache) -> None:
    """Remove a cache's directory, with all answers."""
    import shutil  # most processes remove none

    cache._unstored.clear()
    cache.used_keys.clear()
    cache.close()
    shutil.rmtree(cache.storage.name, ignore_errors=True)


def forget_shared() -> None:
    """Close and forget the shared cache objects."""
    with _shared_lock:
        caches = list(_shared_caches.values())
        _shared_caches.clear()
        _refreshed_keys_by_path.clear()
    for cache in caches:
        cache.close()


def _check_request(request: object) -> None:
    """Raise TypeError unless given a request or key.

    :raises TypeError: naming the way to make one.
    """
    if not isinstance(request, Request):
        raise TypeError(
            f"request is {request!r}; it must be a request, as build_request() makes it"
        )
