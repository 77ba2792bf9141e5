"""Records as bytes, for the cache.

The bytes are two pickles of plain data, the fields and the request, and a checksum. The checksum covers
the record's key, so that one record's bytes never pass for another's. Reading a record looks up no class
and no function: a stranger's cache can lie and waste memory, but cannot run code.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from io import BytesIO
from typing import Any
from zlib import compress, crc32, decompress

from ...errors import CacheCorruptError
from ...keys.keys import short_key
from ...keys.plain_data import plain
from ...keys.request import Data
from ..days import days_entry, parse_days
from ..notes import NO_NOTES, Notes, known_header_notes
from ..record import Record

READ_AGAIN = ("_request", "response", "_model_answer")
HELD = tuple(name for name in Record.__slots__ if name not in READ_AGAIN)
SLOTS = {name: vars(Record)[name] for name in Record.__slots__}
BESIDE_REQUEST = {"caller", "arms", "notes"}


class LazyRecord(Record):
    """A record that holds some of its fields, and reads the others at each use: they take most of its memory.

    :param read: returns the whole record at a place; it is never changed.
    :param held: what it holds, by the names of its slots.
    """

    __slots__ = ("_place", "_read")

    def __init__(self, read: Callable[..., Record], *place: object, **held: object) -> None:
        self._read, self._place = read, place
        self.received = None
        for name, value in held.items():
            setattr(self, name, value)

    # Python calls this for a slot without a value.
    def __getattr__(self, name: str) -> Any:
        record = self._read(*self._place)
        public = {"_request": "request", "_model_answer": "model_answer"}
        return getattr(record, public.get(name, name))

    def replace(self, **changes: Any) -> Record:
        """Return another record with some fields changed."""
        if not changes.keys() <= BESIDE_REQUEST:
            return super().replace(**changes)
        held = {}
        for name, slot in SLOTS.items():
            with suppress(AttributeError):
                held[name] = slot.__get__(self)
        return LazyRecord(self._read, *self._place, **{**held, **changes, "received": None})

    def __reduce__(self) -> tuple[Any, ...]:
        return Record._shallow_copy, (self._shallow_copy(),)  # in another process it is whole


# The number of the layout comes before the fields. Most records have neither arms nor a note of their file's
# header, and use layout 4; layout 5 adds the arms, and each later one also a header's note, which has that number.
LAYOUT, LAYOUT_OF_ARMS, LAYOUT_OF_NOTE = 4, 5, 6
FIELDS = ("kind", "sample", "cost", "api_type", "host", "version", "caller")
PROTOCOL = 4  # the newest pickle protocol without buffers outside the bytes
CHECKSUM_BYTES = 4
REMEDY = "'llmcall cache salvage NEW_FOLDER' saves the others"
NO_RECORD = "it is not a record"
# The errors that the unpickler raises for arbitrary bytes.
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


class PlainPickler(pickle.Pickler):
    """A pickler of plain data."""

    def reducer_override(self, value: object) -> Any:
        """Refuse the value, since plain data needs no reduction."""
        raise _NotPlain


class PlainUnpickler(pickle.Unpickler):
    """An unpickler of plain data."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse the class, since plain data names no classes."""
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not plain data")


def pack(record: Record) -> bytes:
    """Return a record as bytes, without its key and the time when it was stored.

    :raises TypeError: if the record holds something that cannot become plain data; names its location.
    """
    request = record.request
    fields: dict[str, Data] = {name: getattr(record, name) for name in FIELDS}
    fields["days"] = {} if record.noted_days is None else days_entry(record.noted_days)
    layout = LAYOUT
    noted = [
        known_header_notes()[name] for name in record.header_notes if name in known_header_notes()
    ]
    if record.arms or noted:
        layout = LAYOUT_OF_ARMS
        fields["arms"] = record.arms
    for kind in noted[:1]:
        layout = kind.layout
        fields[kind.name] = record.header_notes[kind.name]
    fields["response"] = record.response
    try:
        body = _pickled((layout, *fields.values()), request)
    except (_NotPlain, RecursionError):
        fields = {name: plain(value, name) for name, value in fields.items()}
        body = _pickled((layout, *fields.values()), plain(request, "request"))
    return body + _checksum(record.cache_key, body)


def unpack(cache_key: str, packed: bytes | None, stored_at: float | None = None) -> Record:
    """Return the record that :func:`pack` packed.

    :param packed: the bytes, or ``None``.
    :raises CacheCorruptError: if the checksum does not match, or the fields are not plain data; the
        request raises it at first read.
    """
    body = (packed or b"")[:-CHECKSUM_BYTES]
    if not packed or packed[-CHECKSUM_BYTES:] != _checksum(cache_key, body):
        raise CacheCorruptError(
            f"the record {short_key(cache_key)}… is damaged: its checksum does not match; {REMEDY}"
        )
    file = BytesIO(body)
    try:
        fields = PlainUnpickler(file).load()
        layout, kind, sample, cost, api_type, host, version, caller, days, *rare, response = fields
        is_known = len(rare) == min(layout, LAYOUT_OF_NOTE) - LAYOUT
        if not is_known or type(response) is not dict:
            raise ValueError(NO_RECORD)
        names = tuple(rare[0]) if rare else ()
        header_notes: Notes = NO_NOTES
        if layout >= LAYOUT_OF_NOTE:  # none if the feature that made the note is not here
            kinds = known_header_notes().values()
            header_notes = {kind.name: rare[1] for kind in kinds if kind.layout == layout}
    except UNREADABLE as error:
        raise _unreadable(cache_key, error) from error
    return Record(
        cache_key,
        kind,
        sample,
        partial(_request_in, body[file.tell() :], cache_key),
        response,
        cost,
        api_type,
        host,
        version,
        stored_at,
        caller,
        names,
        parse_days(days) if days else None,
        header_notes=header_notes,
    )


MOST_PLAIN = 1000  # bytes of a held record that are not compressed


@lru_cache(maxsize=2)  # a record's fields are read one after the other
def _unpack_again(cache_key: str, packed: bytes, is_compressed: bool) -> Record:
    return unpack(cache_key, decompress(packed) if is_compressed else packed)


def kept(record: Record) -> LazyRecord:
    """Return a record that keeps its request and response as bytes, and shares no data with the given one.

    :raises TypeError: if the record holds something that cannot become plain data; names its location.
    """
    held = {name: getattr(record, name) for name in HELD}
    packed = pack(record)
    is_long = len(packed) > MOST_PLAIN
    packed = compress(packed, 1) if is_long else packed
    return LazyRecord(_unpack_again, record.cache_key, packed, is_long, **held)


def _request_in(body: bytes, cache_key: str) -> dict[str, Data]:
    """Return a record's request. It is separate from the fields because a replay needs only the answer."""
    try:
        request = PlainUnpickler(BytesIO(body)).load()
        if type(request) is not dict:
            raise ValueError(NO_RECORD)
    except UNREADABLE as error:
        raise _unreadable(cache_key, error) from error
    return request


def _unreadable(cache_key: str, error: Exception) -> CacheCorruptError:
    return CacheCorruptError(
        f"the record {short_key(cache_key)}… cannot be read: {error}; {REMEDY}"
    )


def _pickled(*values: object) -> bytes:
    file = BytesIO()
    for value in values:
        PlainPickler(file, PROTOCOL).dump(value)
    return file.getvalue()


def _checksum(cache_key: str, body: bytes) -> bytes:
    key_checksum = crc32(cache_key.encode("utf-8", "replace"))
    return crc32(body, key_checksum).to_bytes(CHECKSUM_BYTES, "little")
