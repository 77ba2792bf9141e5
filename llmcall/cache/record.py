"""Records as bytes: pickled plain data behind a checksum, laid out so that an answer can be read without the rest.

The pickle is a list of three parts, each at a known place: the head, the response, the request. The head is JSON, whose
reading takes no more memory than some times its length: what a reply needs, with the answer's text, which the response
leaves out. The others are pickles of their own, every operation of which is looked at before any is carried out.
"""

from __future__ import annotations

from itertools import product
from json import JSONDecoder, JSONEncoder
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from ..errors import CacheCorruptError
from ..requests.plain_data import plain
from ..types import Record

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["REMEDY", "Head", "head_of", "pack", "packed", "response_of", "unpack", "unpack_keyed"]

CHECKSUM_BYTES = 4
# The CRC-32 of any data with its own CRC-32 behind it, the lowest byte first, whatever it was begun with.
RESIDUE = 0x2144DF1C
FRAME = b"\x80\x04\x95"  # the operations PROTO, of protocol 4, and FRAME; the frame's length follows in eight bytes
FRAME_BYTES, LENGTH_BYTES = 8, 4
LIST, TEXT, BYTES, END = b"](", b"X", b"B", b"e."  # a list and a mark, BINUNICODE, BINBYTES, the list's end and all's
PARTS_AT = len(FRAME) + FRAME_BYTES
BEGINNING = LIST + TEXT  # from PARTS_AT; a record of an earlier version has another one
HEAD_LENGTH_AT = PARTS_AT + len(BEGINNING)
HEAD_AT = HEAD_LENGTH_AT + LENGTH_BYTES
TEXTS = (str, type(None))
# The types of a head's values, each combination that there is.
SHAPES = frozenset(product((str,), TEXTS, (float, int, type(None)), *(TEXTS,) * 5))
REMEDY = "'llmcall cache verify' lists such records, and 'llmcall cache salvage NEW_FOLDER' saves the others"
# What bytes raise that somebody made up.
UNREADABLE = (
    ValueError, TypeError, LookupError, AttributeError, EOFError, MemoryError, OverflowError, RecursionError,
    StopIteration,
)  # fmt: skip

_written = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_scan = JSONDecoder().scan_once  # type: ignore[attr-defined]  # what raw_decode calls, in less time


class Head(NamedTuple):
    """Hold what a hit needs of a record.

    :param role: of the answer's message, where that is a text and nothing else; ``None`` otherwise.
    :param content: the text.
    """

    kind: str
    sample: str | None
    cost: float | None
    api_type: str | None
    host: str | None
    version: str | None
    role: str | None = None
    content: str | None = None


def pack(record: Record) -> bytes:
    """Return a record as bytes, whose checksum is one of its key as well; key and time of storing stand beside them.

    :raises TypeError: where the record holds what is no plain data and has no plain form, naming its place.
    """
    return packed(record)[0]


def packed(record: Record) -> tuple[bytes, Record]:
    """Return a record as bytes, and the record as they hold it: of plain data alone.

    :raises TypeError: where the record holds what is no plain data and has no plain form, naming its place.
    """
    role, content, rest = _apart(record)
    head, values = _head_part(
        [record.kind, record.sample, record.cost, record.api_type, record.host, record.version, role, content]
    )
    response, rest = _part("response", rest)
    request, asked = _part("request", record.request)
    parts = b"".join((LIST, head, response, request, END))
    body = FRAME + len(parts).to_bytes(FRAME_BYTES, "little") + parts
    return body + crc32(body, _begun(record.cache_key)).to_bytes(CHECKSUM_BYTES, "little"), _record(
        record.cache_key, Head._make(values), rest, asked, record.stored_at
    )


def _apart(record: Record) -> tuple[str | None, str | None, Any]:
    """Return role and text of an answer that is nothing else, and its response without the text."""
    response = record.response
    choices: Any = response.get("choices") if record.kind == "chat" else None
    first: Any = choices[0] if type(choices) is list and choices else None
    message: Any = first.get("message") if type(first) is dict else None
    if type(message) is not dict or message.get("tool_calls") or message.get("refusal"):
        return None, None, response
    role, content = message.get("role") or "assistant", message.get("content")
    if type(role) is not str or type(content) not in TEXTS:
        return None, None, response
    if content is None:
        return role, None, response
    return role, content, {**response, "choices": [{**first, "message": {**message, "content": None}}, *choices[1:]]}


def _head_part(values: list[Any]) -> tuple[bytes, list[Any]]:
    """Return the head's values as the bytes of a part, and the values that these hold."""
    try:
        text = _written(values)
    except TypeError:
        return _head_part([plain(value, name) for name, value in zip(Head._fields, values, strict=True)])
    read = _scan(text, 0)[0]
    if tuple(map(type, read)) not in SHAPES:
        raise TypeError(f"a record of {read} could not be read again: cost is a number, all others are texts")
    return _counted(TEXT, text.encode("utf-8", "surrogatepass")), read


def _part(name: str, value: Any) -> tuple[bytes, Any]:
    """Return plain data as the bytes of a part, and the value that these hold."""
    from .plain_pickles import NotPlainError, dumps

    try:
        return _counted(BYTES, dumps(value)), value
    except NotPlainError:
        return _part(name, plain(value, name))


def _counted(operation: bytes, data: bytes) -> bytes:
    return operation + len(data).to_bytes(LENGTH_BYTES, "little") + data


def unpack(cache_key: str, packed: bytes, stored_at: float | None = None) -> Record:
    """Return the record that :func:`pack` made bytes of.

    :raises CacheCorruptError: where the checksum does not fit, or the bytes hold anything but a record of plain data.
    """
    if not _adds_up(cache_key, packed):
        raise _damaged(cache_key)
    return _parsed(cache_key, packed, stored_at)


def unpack_keyed(packed: bytes, keys: tuple[Callable[[Record], str], ...], stored_at: float | None = None) -> Record:
    """Return the record that :func:`pack` made bytes of, and whose key is not known for certain.

    :param keys: each makes a key that it may have.
    :raises CacheCorruptError: as of :func:`unpack`, for each of the keys; also what making them raises.
    """
    record = _parsed("", packed, stored_at)
    for key in (make(record) for make in keys):
        if _adds_up(key, packed):
            return record._replace(cache_key=key)
    raise _damaged("")


def _parsed(cache_key: str, packed: bytes, stored_at: float | None) -> Record:
    try:
        if not packed.startswith(BEGINNING, PARTS_AT):
            from .earlier import parts_of

            values, response, request = parts_of(packed[:-CHECKSUM_BYTES])
            head = Head(*values)
        else:
            head, at = _head(packed)
            response, at = _read(packed, at)
            request, at = _read(packed, at)
            if packed[at:-CHECKSUM_BYTES] != END:
                raise ValueError("it ends in another way than a record")
        if type(request) is not dict or type(response) is not dict:
            raise ValueError("it holds something else than a record")
        return _record(cache_key, head, response, request, stored_at)
    except UNREADABLE as error:
        raise _unreadable(cache_key, error) from error


def head_of(cache_key: str, packed: bytes) -> Head:
    """Return the head of the record that :func:`pack` made bytes of.

    :raises CacheCorruptError: where the checksum does not fit, or the bytes hold no head.
    """
    if packed[PARTS_AT:HEAD_LENGTH_AT] != BEGINNING:
        record = unpack(cache_key, packed)
        return Head(record.kind, record.sample, record.cost, record.api_type, record.host, record.version)
    if crc32(packed, _begun(cache_key)) != RESIDUE:
        raise _damaged(cache_key)
    try:
        return _head(packed)[0]
    except UNREADABLE as error:
        raise _unreadable(cache_key, error) from error


def response_of(cache_key: str, packed: bytes) -> dict[str, Any]:
    """Return the response of the record that :func:`pack` made bytes of.

    :raises CacheCorruptError: as of :func:`unpack`.
    """
    return unpack(cache_key, packed).response


def _begun(cache_key: str) -> int:
    """Return what a checksum begins with, so that one record's bytes are never taken for another's."""
    return crc32(cache_key.encode() if cache_key.isascii() else cache_key.encode("utf-8", "replace"))


def _adds_up(cache_key: str, packed: bytes) -> bool:
    # Records of 0.1.0 have a checksum of their bytes alone.
    return crc32(packed, _begun(cache_key) if packed.startswith(BEGINNING, PARTS_AT) else 0) == RESIDUE


def _damaged(cache_key: str) -> CacheCorruptError:
    return CacheCorruptError(f"the record {cache_key[:12]}… is damaged: its checksum does not fit; {REMEDY}")


def _unreadable(cache_key: str, error: Exception) -> CacheCorruptError:
    return CacheCorruptError(f"the record {cache_key[:12]}… cannot be read: {error}; {REMEDY}")


def _head(packed: bytes) -> tuple[Head, int]:
    """Return the head of a record, and where the next part begins."""
    end = HEAD_AT + int.from_bytes(packed[HEAD_LENGTH_AT:HEAD_AT], "little")
    text = packed[HEAD_AT:end].decode("utf-8", "surrogatepass")
    values, read = _scan(text, 0)
    if read != len(text) or tuple(map(type, values)) not in SHAPES:
        raise ValueError("it holds something else than a record")
    return tuple.__new__(Head, values), end


def _read(packed: bytes, at: int) -> tuple[Any, int]:
    """Return what a part holds, and where the next one begins."""
    from .plain_pickles import loads

    begin = at + len(BYTES) + LENGTH_BYTES
    end = begin + int.from_bytes(packed[at + len(BYTES) : begin], "little")
    if packed[at : at + len(BYTES)] != BYTES:
        raise ValueError("it holds something else than a record")
    return loads(packed[begin:end]), end


def _record(cache_key: str, head: Head, response: Any, request: Any, stored_at: float | None) -> Record:
    if head.content is not None:
        response["choices"][0]["message"]["content"] = head.content
    return Record(
        cache_key, head.kind, head.sample, request, response, head.cost, head.api_type, head.host, head.version,
        stored_at,
    )  # fmt: skip
