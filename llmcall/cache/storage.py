"""Records as bytes, and what a response cache asks of the place where it keeps them.

The bytes are pickled plain data with a checksum behind it, which is begun with the record's key, so that one record's
bytes are never taken for another's. No class and no function is looked up while a record is read: a cache from a
stranger can lie and waste memory, and runs no code.
"""

from __future__ import annotations

import os
import pickle
from functools import partial
from io import BytesIO
from itertools import product
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from zlib import crc32

from ..errors import CacheCorruptError
from ..requests.keys import plain
from ..types import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    # Of a row: its place in the order of storing, its key, its bytes (None where unreadable), and when it was stored.
    Row = tuple[int, str, bytes | None, float]
    # Of a row to be stored: its key, its bytes, whether it replaces what is there, and when it was stored (None: now).
    NewRow = tuple[str, bytes, bool, float | None]
    # Of a row that changes: its key, its key from now on, and its bytes from now on.
    Change = tuple[str, str, bytes]

__all__ = ["REMEDY", "UNREADABLE", "CacheSource", "Change", "NewRow", "Row", "Storage", "each_row", "pack", "unpack"]


PAGE = 500  # rows read at a time


class Storage(Protocol):
    """Keep bytes under keys, in the order of storing, for many threads and processes.

    What is stored is there for everybody when the method returns, and stays whatever happens to the process. A method
    that reads raises ``CacheError`` where the place cannot be reached or is damaged; one that writes, that or an
    ``OSError``. Neither a look-up nor storing may cost more the more rows there are, save by the depth of an index.
    """

    @property
    def is_near(self) -> bool:
        """Return whether a look-up takes microseconds and waits for nobody, so that an event loop may stand still."""

    @property
    def place(self) -> Path | str:
        """Return where it is, as messages may show it: a directory, or an address without its password."""

    def exists(self) -> bool:
        """Return whether anything was ever stored there."""

    def get(self, key: str) -> tuple[bytes | None, float] | None:
        """Return the bytes of a key and when they were stored (seconds since the epoch), or ``None``."""

    def add(self, key: str, value: bytes) -> bool:
        """Store bytes under a key that has none, whoever else tries at the same time; return whether they were."""

    def set(self, key: str, value: bytes) -> None:
        """Store bytes under a key, in place of what is there; its place in the order stays."""

    def add_all(self, rows: Iterable[NewRow]) -> int:
        """Store many rows, all or none; return how many were stored."""

    def delete(self, keys: Iterable[str]) -> int:
        """Delete keys, all or none; return how many were there."""

    def clear(self) -> int:
        """Delete all rows; return how many there were."""

    def rewrite(self, changes: Callable[[], Iterable[Change]]) -> int:
        """Give rows other keys and bytes, all or none; each keeps its place and time. Return how many changed.

        :param changes: says which, none with the key of another row as its new one; what it reads is what stands there
            until the changes are done.
        """

    def page(self, after: int, size: int) -> list[Row]:
        """Return the next rows after a place in the order, at most ``size``; the first place is above 0."""

    def readable_rows(self) -> Iterator[tuple[str, bytes | None, float]]:
        """Yield key, bytes and time of every row that can be read, whatever became of the others."""

    def last(self) -> int:
        """Return the last place that is taken, or 0."""

    def starting(self, prefix: str, limit: int) -> list[str]:
        """Return the keys that begin with a prefix, sorted, at most ``limit`` of them."""

    def __len__(self) -> int: ...

    def size(self) -> int:
        """Return the bytes that everything takes, at a cost that does not grow with it."""

    def close(self) -> None:
        """Close what is open; the next use opens it again."""


def each_row(storage: Storage) -> Iterator[tuple[str, bytes | None, float]]:
    """Yield key, bytes and time of every row of a storage, a page after the other."""
    last = 0
    while page := storage.page(last, PAGE):
        for _, key, value, stored_at in page:
            yield key, value, stored_at
        last = page[-1][0]


class CacheSource:
    """Be the records of a cache.

    :param store: where the cache keeps them.
    """

    def __init__(self, store: Storage) -> None:
        self._store = store

    def name(self) -> str:
        """Return what messages call it."""
        return f"the cache {_from_here(self._store.place)}"

    def count(self) -> int:
        """Return how many records it has."""
        return len(self._store)

    def last(self) -> int:
        """Return the last place."""
        return self._store.last()

    def holding(self, probes: list[bytes], after: int, size: int) -> list[tuple[int, int]]:
        """Return the next rows, and which probes they hold as they are stored."""
        from ..explain.nearest import holding

        rows = self._store.page(after, size)
        masks = holding([data or b"" for _, _, data, _ in rows], probes)
        return [(row[0], mask) for row, mask in zip(rows, masks, strict=True)]

    def record(self, place: int) -> Record | None:
        """Return the record of a row, or ``None`` where it cannot be read."""
        for found, key, packed, stored_at in self._store.page(place - 1, 1):
            try:
                return unpack(key, packed, stored_at) if found == place else None
            except CacheCorruptError:
                return None
        return None


def _from_here(place: Path | str) -> Path | str:
    """Return a path as seen from the working directory, where it lies below that."""
    if isinstance(place, str):
        return place
    here = os.getcwd()
    return place.relative_to(here) if place.is_relative_to(here) else place


LAYOUT = 1  # of the tuple that is pickled: this number, and then the fields
FIELDS = ("kind", "sample", "cost", "api_type", "host", "version", "response", "request")
_fields_of = attrgetter(*FIELDS)
PROTOCOL = 4  # of pickle: the newest that every supported Python reads and that has no buffers outside
CHECKSUM_BYTES = 4
TEXTS = (str, type(None))
# The types of what is pickled, each combination that there is: see pack().
SHAPES = frozenset(product((int,), (str,), TEXTS, (float, int, type(None)), TEXTS, TEXTS, TEXTS, (dict,), (bytes,)))
REMEDY = "'llmcall cache verify' lists such records, and 'llmcall cache salvage NEW_FOLDER' saves the others"
# What bytes raise that somebody made up.
UNREADABLE = (
    pickle.UnpicklingError, ValueError, TypeError, LookupError, AttributeError, EOFError, MemoryError, OverflowError,
    RecursionError,
)  # fmt: skip


class _NotPlain(Exception):
    pass


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> NoReturn:
        """Refuse: only what is no plain data has to be reduced."""
        raise _NotPlain


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse: plain data names no class."""
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no plain data")


def _dumps(value: Any) -> bytes:
    file = BytesIO()
    _Pickler(file, PROTOCOL).dump(value)
    return file.getvalue()


def pack(record: Record) -> bytes:
    """Return a record as bytes; its key and the time of storing stand beside them.

    :raises TypeError: where the record holds what is no plain data and has no plain form, naming its place.
    """
    fields = _fields_of(record)
    try:
        body = _body(*fields)
    except (_NotPlain, RecursionError):
        body = _body(*map(plain, fields, FIELDS))
    checksum = crc32(body, crc32(record.cache_key.encode("utf-8", "replace")))
    return body + checksum.to_bytes(CHECKSUM_BYTES, "little")


def _body(*fields: Any) -> bytes:
    *head, request = fields
    packed = (LAYOUT, *head, _dumps(request))
    body = _dumps(packed)
    if tuple(map(type, packed)) not in SHAPES:
        raise TypeError(f"the record {head[:-1]} could not be read again: cost is a number, all others are texts")
    return body


def unpack(cache_key: str, packed: bytes | None, stored_at: float | None = None) -> Record:
    """Return the record that :func:`pack` made bytes of; its request is read when somebody asks for it.

    :param packed: the bytes; ``None`` are none.
    :raises CacheCorruptError: where the checksum does not fit, or the bytes hold anything but a record of plain data.
    """
    checksum = crc32((packed or b"")[:-CHECKSUM_BYTES], crc32(cache_key.encode("utf-8", "replace")))
    if not packed or packed[-CHECKSUM_BYTES:] != checksum.to_bytes(CHECKSUM_BYTES, "little"):
        raise CacheCorruptError(f"the record {cache_key[:12]}… is damaged: its checksum does not fit; {REMEDY}")
    try:
        fields = _Unpickler(BytesIO(packed)).load()  # which ends before the checksum
    except UNREADABLE as error:
        raise _unreadable(cache_key, error) from error
    if type(fields) is not tuple or tuple(map(type, fields)) not in SHAPES or fields[0] != LAYOUT:
        raise _unreadable(cache_key, "it holds something else than a record")
    _, kind, sample, cost, api_type, host, version, response, request = fields
    read = partial(_request, cache_key, request)
    return Record(cache_key, kind, sample, read, response, cost, api_type, host, version, stored_at)


def _request(cache_key: str, packed: bytes) -> dict[str, Any]:
    try:
        request = _Unpickler(BytesIO(packed)).load()
    except UNREADABLE as error:
        raise _unreadable(cache_key, error) from error
    if type(request) is not dict:
        raise _unreadable(cache_key, "its request is none")
    return request


def _unreadable(cache_key: str, why: object) -> CacheCorruptError:
    return CacheCorruptError(f"the record {cache_key[:12]}… cannot be read: {why}; {REMEDY}")
