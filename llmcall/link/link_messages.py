"""What goes over the link, as plain data: calls, positions, answers, records and errors."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from types import NoneType
from typing import Any, NamedTuple

from .. import errors
from ..apis.chunks import DONE
from ..core.seams import AlreadyRecorded, Chunk, Response
from ..keys.request import Data
from ..scopes.draws import MapIsOverError
from ..stores.notes import Notes
from ..stores.record import Received, Record
from ..stores.records.packed import pack, unpack
from ..support.failures import UnrecordedAnswer, UnrecordedResult
from .wire import Message

TASK_OF_RAY = "ray "  # begins the name of a caller that Ray tells from all others


class Where(NamedTuple):
    """The position of a call in a process that is recorded, seen from where that process was started.

    :param names: of the scopes that it opened there, the outermost first.
    :param outermost: identifies the outermost of these scopes, which counts draws, if no scope was open before; empty
        if one was.
    :param is_apart: whether it left all scopes that were open before, by ``scope(None)``.
    :param branches: the arms and cells that it opened there.
    :param order: of the call among those of the process.
    :param caller: the caller's name, or ``None``.
    :param is_programs: whether a program's client makes the call.
    :param keeps_draw: whether the process may retract the draw later, as a map in it does that ends early.
    :param opened_in: as of an :class:`.ActiveScope`.
    """

    names: tuple[str, ...] = ()
    outermost: str = ""
    is_apart: bool = False
    branches: tuple[tuple[str, str, str], ...] = ()
    order: tuple[int, ...] = ()
    caller: str | None = None
    is_programs: bool = False
    keeps_draw: bool = False
    opened_in: str | None = None


class ForwardedCalls(NamedTuple):
    """Calls as the recording process gets them: one, or one for each text of embeddings.

    :param contents: of each call what is hashed, and the body.
    :param sample: the whole name of a draw that the scope does not enter, or ``None``.
    :param options: as a tuple.
    :param facts: of the client, pickled; see ``client_facts.py``.
    :param has_form: whether its answers must have a form, which the process checks.
    :param taken: the settings that the keys depend on, without those that code gives.
    :param name: of what is called, if it is not a model.
    :param is_clients: whether the transport of the client sends it, and not one of its own.

    Other fields are those of :class:`.calls.Call`, of its kind and of its request.
    """

    kind: str
    model: str
    contents: list[tuple[Data, Data]]
    sample: str | None
    options: tuple[Any, ...]
    name: str
    fallbacks: tuple[str, ...]
    facts: bytes
    has_form: bool
    is_clients: bool
    calls_model: bool
    prefers_calling: bool
    is_streamed: bool
    is_inner: bool
    notes: Notes | None
    taken: dict[str, Data]


# Records


def record_data(record: Record) -> tuple[Any, ...]:
    """Return a record as plain data, without its request, which the calling process has."""
    received = None if record.received is None else tuple(record.received)
    return record.cache_key, pack(record.replace(request={})), record.stored_at, received


def record_in(data: tuple[Any, ...], request: Mapping[str, Data]) -> Record:
    """Return the record in what :func:`record_data` returned, which answers a request."""
    key, packed, stored_at, received = data
    record = unpack(key, packed, stored_at).replace(request=dict(request))
    record.received = None if received is None else Received(*received)
    return record


# Pieces of a streamed answer


def chunk_data(chunk: Chunk) -> Message:
    """Return a chunk of a transport's stream as a message."""
    if isinstance(chunk, Response):
        return "response", dict(chunk), chunk.request_id, chunk.status_code
    return "chunk", chunk if isinstance(chunk, bytes) else dict(chunk)


def chunk_in(message: Message) -> Chunk:
    """Return the chunk in what :func:`chunk_data` returned."""
    verb, data, *facts = message
    if verb == "response":
        request_id, status_code = facts
        return Response(data, request_id, status_code=status_code)
    return DONE if data == DONE else data


# Errors

OTHERS: dict[str, type[BaseException]] = {
    kind.__name__: kind
    for kind in (
        AlreadyRecorded,
        MapIsOverError,
        UnrecordedAnswer,
        UnrecordedResult,
        KeyboardInterrupt,
    )
}


class CallbackError(Exception):
    """An error of the code of a process that is recorded, as the recording process has it: of a class of its name."""


def error_data(error: BaseException) -> tuple[str, str, dict[str, Any]]:
    """Return an error as plain data: the name of its class, its message, and its plain attributes."""
    if isinstance(error, KeyError):
        return "LookupError", str(error), {}
    attributes: dict[str, Any] = {
        name: value
        for name, value in vars(error).items()
        if name == "body" or isinstance(value, (str, int, float, NoneType))
    }
    if isinstance(error, errors.APIError):
        attributes["failure"] = error.failure._replace(response=None, event=None)._asdict()
    message = error.report if isinstance(error, errors.CacheMissError) else str(error)
    return type(error).__name__, message, attributes


def error_in(data: tuple[str, str, dict[str, Any]], *, is_any: bool) -> BaseException:
    """Return the error in what :func:`error_data` returned.

    :param is_any: whether a class that is none of llmcall's may be anything: then its name is all that is known.
    """
    name, message, attributes = data
    kind: Any = getattr(errors, name, None) or OTHERS.get(name)
    if kind is None and not is_any:
        kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        kind = type(name, (CallbackError if is_any else errors.LLMCallError,), {})
    error: BaseException = kind(message)
    for attribute, value in attributes.items():
        if attribute != "failure":
            setattr(error, attribute, value)
        elif isinstance(error, errors.APIError):
            error.note(**value)
    return error
