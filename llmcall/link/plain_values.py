"""Records, chunks and errors as plain data, which goes over the link."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from types import NoneType
from typing import Any

from .. import errors
from ..apis.chunks import DONE
from ..core.seams import Chunk, Response
from ..keys.request import Data
from ..scopes.draws import MapIsOverError
from ..stores.record import Record
from ..stores.records.packed import pack, unpack
from ..support.failures import UnrecordedAnswer, UnrecordedResult
from .messages import ErrorData, Got, RecordData, Sent


def record_data(record: Record) -> RecordData:
    """Return a record as plain data."""
    packed_record = pack(record.replace(request={}))
    return RecordData(record.cache_key, packed_record, record.stored_at, record.received)


def record_in(data: RecordData, request: Mapping[str, Data]) -> Record:
    """Return the record in what :func:`record_data` returned, which answers a request."""
    record = unpack(data.key, data.packed, data.stored_at).replace(request=dict(request))
    record.received = data.received
    return record


# Pieces of a streamed answer


def chunk_data(chunk: Chunk) -> Got | Sent:
    """Return a chunk of a transport's stream as plain data."""
    if isinstance(chunk, Response):
        return Sent(dict(chunk), chunk.request_id, chunk.status_code)
    return Got(chunk if isinstance(chunk, bytes) else dict(chunk))


def chunk_in(got: Got | Sent) -> Chunk:
    """Return the chunk in what :func:`chunk_data` returned."""
    if isinstance(got, Sent):
        return Response(got.data, got.request_id, status_code=got.status_code)
    return DONE if got.data == DONE else got.data


# Errors

OTHERS: dict[str, type[BaseException]] = {
    kind.__name__: kind
    for kind in (
        MapIsOverError,
        UnrecordedAnswer,
        UnrecordedResult,
        KeyboardInterrupt,
    )
}


class CallbackError(Exception):
    """An error of the code of a process that is recorded, as the recording process has it: of a class of its name."""


def error_data(error: BaseException) -> ErrorData:
    """Return an error as plain data."""
    if isinstance(error, KeyError):
        return ErrorData("LookupError", str(error), {})
    attributes: dict[str, Any] = {
        name: value
        for name, value in vars(error).items()
        if name == "body" or isinstance(value, (str, int, float, NoneType))
    }
    if isinstance(error, errors.APIError):
        attributes["failure"] = error.failure._replace(response=None, event=None)._asdict()
    message = error.report if isinstance(error, errors.CacheMissError) else str(error)
    return ErrorData(type(error).__name__, message, attributes)


def error_in(data: ErrorData, *, is_any: bool) -> BaseException:
    """Return the error in what :func:`error_data` returned.

    :param is_any: ``True`` if a class that is none of llmcall's may be anything: then its name is all that is known.
    """
    kind: object = getattr(errors, data.name, None) or OTHERS.get(data.name)
    if kind is None and not is_any:
        kind = getattr(builtins, data.name, None)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        kind = type(data.name, (CallbackError if is_any else errors.LLMCallError,), {})
    error: BaseException = kind(data.message)
    for attribute, value in data.attributes.items():
        if attribute != "failure":
            setattr(error, attribute, value)
        elif isinstance(error, errors.APIError):
            error.note(**value)
    return error
