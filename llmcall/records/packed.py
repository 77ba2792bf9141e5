"""A record as bytes, in which the cache keeps it.

The bytes are pickled plain data, the request last, with a checksum at the end. The checksum covers
the record's key, so that one record's bytes are never taken for another's. Reading a record looks up
no class and no function: a cache from a stranger can lie and waste memory, but runs no code.
"""

from __future__ import annotations

import pickle
from functools import partial
from io import BytesIO
from itertools import product
from operator import attrgetter
from typing import Any, NoReturn
from zlib import crc32

from ..errors import CacheCorruptError
from ..requests.keys import plain
from ..types import Record

# of the tuple that is pickled: this number, and then the fields, but the request, which is pickled
# after it
LAYOUT = 2
# of a record that names its asker: the asker stands before the response
LAYOUT_WITH_ASKER = 3
FIELDS = ("kind", "sample", "cost", "api_type", "host", "version", "asker", "response", "request")
_fields_of = attrgetter(*FIELDS)
PROTOCOL = (
    4  # of pickle: the newest that every supported Python reads and that has no buffers outside
)
CHECKSUM_BYTES = 4
# the CRC-32 of anything that ends with its own CRC-32 (RFC 1662, appendix C.3, complemented)
RESIDUE = 0x2144DF1C
# of a record without its request, up to which they take less memory than the objects in it
SHORT_BYTES = 2_000
TEXTS = (str, type(None))
_HEAD = ((int,), (str,), TEXTS, (float, int, type(None)), TEXTS, TEXTS, TEXTS)
# By layout, the types of what is pickled, each combination that there is: see pack().
SHAPES = {
    LAYOUT: frozenset(product(*_HEAD, (dict,))),
    LAYOUT_WITH_ASKER: frozenset(product(*_HEAD, (str,), (dict,))),
}
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

    :raises TypeError: where the record holds what is no plain data and has no plain form, naming
        its place.
    """
    fields = _fields_of(record)
    try:
        body = _body(*fields)
    except (_NotPlain, RecursionError):
        body = _body(*map(plain, fields, FIELDS))
    checksum = crc32(body, crc32(record.cache_key.encode("utf-8", "replace")))
    return body + checksum.to_bytes(CHECKSUM_BYTES, "little")


def _body(*fields: Any) -> bytes:
    *head, asker, response, request = fields
    packed: tuple[Any, ...] = (LAYOUT, *head, response)
    if asker is not None:
        packed = (LAYOUT_WITH_ASKER, *head, asker, response)
    body = _dumps(packed) + _dumps(request)
    if not _is_layout(packed):
        raise TypeError(
            f"the record {head} could not be read again: cost is a number, all others are texts"
        )
    return body


def _is_layout(fields: Any) -> bool:
    """Return whether something unpickled has one of the layouts that :func:`pack` makes."""
    if type(fields) is not tuple or not fields or type(fields[0]) is not int:
        return False
    return tuple(map(type, fields)) in SHAPES.get(fields[0], ())


def unpack(cache_key: str, packed: bytes | None, stored_at: float | None = None) -> Record:
    """Return the record that :func:`pack` made bytes of; its request is read when somebody asks for
    it.

    :param packed: the bytes; ``None`` are none.
    :raises CacheCorruptError: where the checksum does not fit, or the bytes hold anything but a
        record of plain data.
    """
    if not packed or crc32(packed, crc32(cache_key.encode("utf-8", "replace"))) != RESIDUE:
        raise CacheCorruptError(
            f"the record {cache_key[:12]}… is damaged: its checksum does not fit; {REMEDY}"
        )
    file = BytesIO(packed)
    try:
        fields = _Unpickler(file).load()  # which ends before the request
    except UNREADABLE as error:
        raise _unreadable(cache_key, error) from error
    if not _is_layout(fields):
        raise _unreadable(cache_key, "it holds something else than a record")
    _, kind, sample, cost, api_type, host, version, *askers, response = fields
    asker = askers[0] if askers else None
    begin = file.tell()
    request = partial(_request, cache_key, packed[begin:])
    record = Record(
        cache_key,
        kind,
        sample,
        request,
        response,
        cost,
        api_type,
        host,
        version,
        stored_at,
        asker,
    )
    if begin <= SHORT_BYTES:
        record._read_again = _PackedResponse(packed[:begin])
    return record


class _PackedResponse(bytes):
    """Be the bytes of a record without its request: a call of them reads the response, as often as
    it is wanted.
    """

    __slots__ = ()

    def __call__(self) -> dict[str, Any]:
        """Return the response."""
        return _Unpickler(BytesIO(self)).load()[-1]  # type: ignore[no-any-return]


def _request(cache_key: str, packed: bytes) -> dict[str, Any]:
    try:
        request = _Unpickler(BytesIO(packed)).load()  # which ends before the checksum
    except UNREADABLE as error:
        raise _unreadable(cache_key, error) from error
    if type(request) is not dict:
        raise _unreadable(cache_key, "its request is none")
    return request


def _unreadable(cache_key: str, why: object) -> CacheCorruptError:
    return CacheCorruptError(f"the record {cache_key[:12]}… cannot be read: {why}; {REMEDY}")
