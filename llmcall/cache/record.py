"""Records as bytes, and back: pickled plain data with a checksum behind it.

The checksum is begun with the record's key, so that one record's bytes are never taken for another's. No class and no
function is looked up while a record is read: a cache from a stranger can lie and waste memory, and runs no code.
"""

from __future__ import annotations

import pickle
from functools import partial
from io import BytesIO
from itertools import product
from typing import Any, NoReturn
from zlib import crc32

from ..errors import CacheCorruptError
from ..requests.plain_data import plain
from ..types import Record

__all__ = ["REMEDY", "UNREADABLE", "pack", "unpack"]

LAYOUT = 1  # of the tuple that is pickled: this number, and then the fields
FIELDS = ("kind", "sample", "cost", "api_type", "host", "version", "response", "request")
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

    def persistent_load(self, identifier: Any) -> NoReturn:
        """Refuse: plain data refers to nothing outside."""
        raise pickle.UnpicklingError("it refers to an object outside")


def _dumps(value: Any) -> bytes:
    file = BytesIO()
    _Pickler(file, PROTOCOL).dump(value)
    return file.getvalue()


def pack(record: Record) -> bytes:
    """Return a record as bytes; its key and the time of storing stand beside them.

    :raises TypeError: where the record holds what is no plain data and has no plain form, naming its place.
    """
    fields = {name: getattr(record, name) for name in FIELDS}
    try:
        body = _body(fields)
    except (_NotPlain, RecursionError):
        body = _body({name: plain(value, name) for name, value in fields.items()})
    return body + _checksum(record.cache_key, body)


def _body(fields: dict[str, Any]) -> bytes:
    *head, request = fields.values()
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
    body = memoryview(packed or b"")[:-CHECKSUM_BYTES]
    if not packed or packed[-CHECKSUM_BYTES:] != _checksum(cache_key, body):
        raise CacheCorruptError(f"the record {cache_key[:12]}… is damaged: its checksum does not fit; {REMEDY}")
    fields = _loads(cache_key, body)
    if type(fields) is not tuple or tuple(map(type, fields)) not in SHAPES or fields[0] != LAYOUT:
        raise _unreadable(cache_key, "it holds something else than a record")
    _, kind, sample, cost, api_type, host, version, response, request = fields
    read = partial(_request, cache_key, request)
    return Record(cache_key, kind, sample, read, response, cost, api_type, host, version, stored_at)


def _request(cache_key: str, packed: bytes) -> dict[str, Any]:
    request = _loads(cache_key, packed)
    if type(request) is not dict:
        raise _unreadable(cache_key, "its request is none")
    return request


def _loads(cache_key: str, body: bytes | memoryview) -> Any:
    try:
        return _Unpickler(BytesIO(body)).load()
    except UNREADABLE as error:
        raise _unreadable(cache_key, error) from error


def _unreadable(cache_key: str, why: object) -> CacheCorruptError:
    return CacheCorruptError(f"the record {cache_key[:12]}… cannot be read: {why}; {REMEDY}")


def _checksum(cache_key: str, body: bytes | memoryview) -> bytes:
    """Return a checksum of a record's bytes, bound to its key."""
    return crc32(body, crc32(cache_key.encode("utf-8", "replace"))).to_bytes(CHECKSUM_BYTES, "little")
