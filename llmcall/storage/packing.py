"""Records as bytes: pickled plain data behind a checksum, read by an unpickler that can build nothing else."""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any, NoReturn
from zlib import crc32

from ..errors import CacheCorruptError
from ..requests.messages import plain
from ..types import Record
from .operations import check, may_overflow

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["REMEDY", "pack", "packed", "unpack"]

CHECKSUM_BYTES = 4
PROTOCOL = 4  # the newest that every supported Python reads and that holds no out-of-band buffers
FIELDS = ("kind", "sample", "request", "response", "cost", "api_type", "host", "version")
FIELD_NAMES = frozenset(FIELDS)
TEXTS = ("sample", "api_type", "host", "version")
REMEDY = "'llmcall cache verify' lists such records, and 'llmcall cache salvage NEW_FOLDER' saves the others"
# What the unpickler raises at bytes that somebody made up.
UNREADABLE = (
    pickle.UnpicklingError, ValueError, TypeError, LookupError, AttributeError, EOFError, MemoryError, OverflowError,
    RecursionError,
)  # fmt: skip


class _PlainUnpickler(pickle.Unpickler):
    """Read dicts, lists, strings, numbers, booleans, bytes and ``None``; refuse to look up anything else."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse: plain data names no class."""
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no plain data")

    def persistent_load(self, identifier: Any) -> NoReturn:
        """Refuse: plain data refers to nothing outside."""
        raise pickle.UnpicklingError("it refers to an object outside")


class _PlainPickler(pickle.Pickler):
    """Write what :class:`_PlainUnpickler` reads; refuse to write anything else."""

    def reducer_override(self, value: Any) -> NoReturn:
        """Refuse: only what is no plain data has to be reduced."""
        raise _NotPlainError


class _NotPlainError(Exception):
    """Say that a value is no plain data, such as a string of a class of its own."""


def pack(record: Record) -> bytes:
    """Return a record as bytes; its key and time of storing are kept beside them, not in them.

    :raises TypeError: where the record holds what is no plain data and has no plain form, naming its place.
    """
    return packed(record)[0]


def packed(record: Record) -> tuple[bytes, Record]:
    """Return a record as bytes, and the record as they hold it: of plain data alone.

    :raises TypeError: where the record holds what is no plain data and has no plain form, naming its place.
    """
    values = {name: value for name in FIELDS if (value := getattr(record, name)) is not None}
    try:
        pickled = _pickled(values)
    except _NotPlainError:
        values = {name: plain(value, name) for name, value in values.items()}
        pickled, record = _pickled(values), record._replace(**values)
    return pickled + crc32(pickled).to_bytes(CHECKSUM_BYTES, "little"), record


def _pickled(values: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    _PlainPickler(file, PROTOCOL).dump(values)
    return file.getvalue()


def unpack(cache_key: str, packed: bytes, stored_at: float | None = None, *, strict: bool = False) -> Record:
    """Return the record that :func:`pack` made bytes of.

    :param strict: whether to look at each operation of the pickle before, which takes longer than reading it; otherwise
        only where one might overflow the stack. A small record of a stranger can then still reserve much memory.
    :raises CacheCorruptError: where the checksum does not fit, or the bytes hold anything but a record of plain data.
    """
    body = packed[:-CHECKSUM_BYTES]
    if crc32(body) != int.from_bytes(packed[-CHECKSUM_BYTES:], "little"):
        raise CacheCorruptError(f"the record {cache_key[:12]}… is damaged: its checksum does not fit; {REMEDY}")
    return _record(cache_key, _plain_data(cache_key, body, strict), stored_at)


def _plain_data(cache_key: str, body: bytes, strict: bool) -> Any:
    try:
        if strict or may_overflow(body):
            check(body)
        return _PlainUnpickler(io.BytesIO(body)).load()
    except UNREADABLE as error:
        raise CacheCorruptError(f"the record {cache_key[:12]}… cannot be read: {error}; {REMEDY}") from error


def _record(cache_key: str, values: Any, stored_at: float | None) -> Record:
    if type(values) is dict and values.keys() <= FIELD_NAMES and _is_record(values):
        return Record._make((cache_key, *map(values.get, FIELDS), stored_at))
    what = "cannot be read: it holds something else than a record"
    raise CacheCorruptError(f"the record {cache_key[:12]}… {what}; {REMEDY}")


def _is_record(values: Mapping[str, Any]) -> bool:
    for name in TEXTS:
        if type(values.get(name, "")) is not str:
            return False
    return (
        type(values.get("kind")) is str
        and type(values.get("request")) is dict
        and type(values.get("response")) is dict
        and isinstance(values.get("cost", 0.0), (int, float))
    )
