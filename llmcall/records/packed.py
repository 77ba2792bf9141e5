"""A record as bytes, as the cache keeps it.

The bytes are two pickles of plain data, the fields and the request, and a checksum. The checksum covers
the record's key, so that one record's bytes are never taken for another's. Reading a record looks up
no class and no function: a cache from a stranger can lie and waste memory, but runs no code.
"""

from __future__ import annotations

import pickle
from io import BytesIO
from typing import Any, NoReturn
from zlib import crc32

from ..errors import CacheCorruptError
from ..keys.keys import short_key
from ..keys.plain_data import plain
from ..values import Record
from .served import days_entry, days_of

# The first of the pickled fields says which ones follow.
LAYOUT = 2
LAYOUT_WITH_ASKER = 3
LAYOUT_WITH_DAYS = 4
COMMON_FIELDS = ("kind", "sample", "cost", "api_type", "host", "version")
FIELDS = {
    LAYOUT: (*COMMON_FIELDS, "response"),
    LAYOUT_WITH_ASKER: (*COMMON_FIELDS, "asker", "response"),
    LAYOUT_WITH_DAYS: (*COMMON_FIELDS, "asker", "days", "response"),
}
TYPES: dict[str, tuple[type, ...]] = {
    "kind": (str,),
    "sample": (str, type(None)),
    "cost": (float, int, type(None)),
    "api_type": (str, type(None)),
    "host": (str, type(None)),
    "version": (str, type(None)),
    "asker": (str, type(None)),
    "days": (dict,),
    "response": (dict,),
}
PROTOCOL = 4  # the newest pickle protocol without buffers outside the bytes
CHECKSUM_BYTES = 4
REMEDY = "'llmcall cache verify' lists such records, and 'llmcall cache salvage NEW_FOLDER' saves the others"
# What the unpickler raises for made-up bytes.
UNREADABLE = (
    pickle.UnpicklingError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    MemoryError,
    OverflowError,
    RecursionError,
)


class _NotPlain(Exception):
    pass


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> NoReturn:
        """Refuse the value: plain data need no reduction."""
        raise _NotPlain


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse the class: plain data name none."""
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not plain data")


def pack(record: Record) -> bytes:
    """Return a record as bytes, without its key and the time when it was stored.

    :raises TypeError: if the record holds something that is not plain data and has no plain form,
        naming its place.
    """
    layout = LAYOUT if record.asker is None else LAYOUT_WITH_ASKER
    if record.noted_days is not None:
        layout = LAYOUT_WITH_DAYS
    names = FIELDS[layout]
    fields = [getattr(record, name) for name in names]
    if record.noted_days is not None:
        fields[names.index("days")] = days_entry(record.noted_days)
    request = record.request
    try:
        body = _pickled((layout, *fields)) + _pickled(request)
    except (_NotPlain, RecursionError):
        fields = [plain(value, name) for name, value in zip(names, fields, strict=True)]
        request = plain(request, "request")
        body = _pickled((layout, *fields)) + _pickled(request)
    if problem := _misfit(layout, fields):
        raise TypeError(f"the record {record.cache_key} could not be read again: {problem}")
    return body + _checksum(record.cache_key, body)


def unpack(cache_key: str, packed: bytes | None, stored_at: float | None = None) -> Record:
    """Return the record that :func:`pack` packed.

    :param packed: the bytes, or ``None`` if there are none.
    :raises CacheCorruptError: if the checksum does not fit, or the bytes hold anything but a record
        of plain data.
    """
    if not packed:
        raise _damaged(cache_key)
    body = packed[:-CHECKSUM_BYTES]
    checksum = packed[-CHECKSUM_BYTES:]
    if checksum != _checksum(cache_key, body):
        raise _damaged(cache_key)
    file = BytesIO(body)
    try:
        fields = _Unpickler(file).load()
        request = _Unpickler(file).load()
    except UNREADABLE as error:
        raise _unreadable(cache_key, error) from error
    if type(fields) is not tuple or not fields or type(request) is not dict:
        raise _unreadable(cache_key, "it is not a record")
    layout, *values = fields
    if problem := _misfit(layout, values):
        raise _unreadable(cache_key, problem)
    fields_by_name = dict(zip(FIELDS[layout], values, strict=True))
    if "days" in fields_by_name:
        fields_by_name["days"] = days_of(fields_by_name["days"])
    return Record(cache_key, request=request, stored_at=stored_at, **fields_by_name)


def _pickled(value: Any) -> bytes:
    file = BytesIO()
    _Pickler(file, PROTOCOL).dump(value)
    return file.getvalue()


def _checksum(cache_key: str, body: bytes) -> bytes:
    key_checksum = crc32(cache_key.encode("utf-8", "replace"))
    return crc32(body, key_checksum).to_bytes(CHECKSUM_BYTES, "little")


def _misfit(layout: Any, values: list[Any]) -> str | None:
    """Return why fields are not those of a layout, or ``None`` if they are."""
    names = FIELDS.get(layout, ()) if type(layout) is int else ()
    if len(values) != len(names) or not names:
        return "it has another layout"
    for name, value in zip(names, values, strict=True):
        if type(value) not in TYPES[name]:
            return f"its {name} is {type(value).__name__}"
    return None


def _damaged(cache_key: str) -> CacheCorruptError:
    return CacheCorruptError(
        f"the record {short_key(cache_key)}… is damaged: its checksum does not match; {REMEDY}"
    )


def _unreadable(cache_key: str, reason: object) -> CacheCorruptError:
    return CacheCorruptError(
        f"the record {short_key(cache_key)}… cannot be read: {reason}; {REMEDY}"
    )
