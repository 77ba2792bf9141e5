"""The messages of the link: values with names, of plain data.

A frame is 8 bytes that say how long the rest is, and a pickle of a call's number and a message. What is unpickled is
plain data or of one of the classes ``NAMED``, which run no code.
"""

from __future__ import annotations

import io
import struct
from typing import Any, NamedTuple

from ..config.endpoints import Endpoint
from ..config.setting import Rank, SettingValue
from ..core.options import Options
from ..keys.request import Data, Request
from ..models.catalog import Capabilities
from ..scopes.active import OpenedBy
from ..scopes.position import Branch, Branches
from ..stores.notes import Notes
from ..stores.record import Received
from ..stores.records.packed import PlainPickler, PlainUnpickler

TASK_OF_RAY = "ray "  # begins the name of a caller that Ray tells from all others


class Where(NamedTuple):
    """The position of a call in a process that is recorded, seen from where that process was started.

    :param names: of the scopes that it opened there, the outermost first.
    :param outermost: identifies the outermost of these scopes, which counts draws, if no scope was open before; empty
        if one was.
    :param is_apart: ``True`` if it left all scopes that were open before, by ``scope(None)``.
    :param branches: the arms and cells that it opened there.
    :param order: of the call among those of the process.
    :param caller: the caller's name, or ``None``.
    :param is_programs: ``True`` if a program's client makes the call.
    :param keeps_draw: ``True`` if the process may retract the draw later, as a map in it does that ends early.
    :param opened_in: as of an :class:`.ActiveScope`.
    :param process: the number of the process's hello, or ``None``.
    """

    names: tuple[str, ...] = ()
    outermost: str = ""
    is_apart: bool = False
    branches: Branches = ()
    order: tuple[int, ...] = ()
    caller: str | None = None
    is_programs: bool = False
    keeps_draw: bool = False
    opened_in: str | None = None
    process: int | None = None


class Base(NamedTuple):
    """The scope in which a process, or a part of it, was started.

    :param ticket: its name.
    :param path: of the scope; empty outside any.
    :param branches: in which it was started.
    :param opened_by: as of an :class:`.ActiveScope`.
    """

    ticket: str
    path: str = ""
    branches: Branches = ()
    opened_by: OpenedBy = "default"


class ErrorData(NamedTuple):
    """An error as plain data.

    :param name: of its class.
    :param attributes: those that are plain data.
    """

    name: str
    message: str
    attributes: dict[str, Any]


# Notes of a recorded process, which get no answer


class Started(NamedTuple):
    """A process was started.

    :param program: the one that it runs, if it is a Python; ``None`` if it may start some.
    """

    ticket: str
    process: int
    program: str | None


class Dismiss(NamedTuple):
    """The process, or the part of one, that a ticket was made for has ended."""

    ticket: str


class Retract(NamedTuple):
    """A draw's number is free again.

    :param number: of the draw among those that the ticket keeps.
    """

    ticket: str
    number: int


class Noted(NamedTuple):
    """A feature notes something about an answer.

    :param key: the key of the answer's record.
    """

    key: str
    notes: Notes


class Credential(NamedTuple):
    """The process used a credential, which the recording process may not write.

    :param secret: its beginning.
    """

    secret: str


class Warned(NamedTuple):
    """The process issued a warning."""

    text: str


class Refused(NamedTuple):
    """The program got an llmcall error."""

    error: ErrorData


class Saw(NamedTuple):
    """The program did something that is not recorded: a :class:`.Sight`, and where."""

    sight: str
    address: str


class Cancel(NamedTuple):
    """The process no longer waits for a call."""


# Questions of a recorded process


class Admit(NamedTuple):
    """A ticket for what the process starts. The answer is a :class:`Base`."""

    ticket: str
    where: Where


class Calls(NamedTuple):
    """One call, or one call for each text to embed.

    :param ticket: of the code that makes them.
    :param requests: of each what is hashed, and the body; the first may have the whole name of a draw that the scope
        does not enter.
    :param facts: of the client, pickled; see ``client_facts.py``.
    :param name: of what is called, if it is not a model.
    :param is_clients: ``True`` if the transport of the client sends it, and not one of its own.

    Other fields are those of :class:`.calls.Call`, of its kind and of its request.
    """

    ticket: str
    where: Where
    requests: list[Request]
    options: Options
    name: str
    fallbacks: tuple[str, ...]
    facts: bytes
    is_clients: bool
    calls_model: bool
    prefers_calling: bool
    is_streamed: bool
    is_inner: bool
    notes: Notes | None


# What the recording process tells the process of a call to do; each has an answer


class Transmit(NamedTuple):
    """Send the request as it is now.

    :param inside: where calls are that are made inside this one.
    :param request: without what the process has of it.
    :param endpoint: its number among the model's.
    :param is_read: ``True`` if the answer is to be read chunk by chunk.
    """

    inside: Base
    request: Request
    endpoint: int
    timeout: float | None
    is_read: bool


class Next(NamedTuple):
    """Read the next chunk, within some seconds."""

    timeout: float | None


class Leave(NamedTuple):
    """Close the chunks, which have not ended. A process answers a piece by it if the reader of the stream has left."""


class Emit(NamedTuple):
    """Give the reader of the stream a piece."""

    text: str
    chunk: Any


# The answers to these


class Sent(NamedTuple):
    """A response arrived.

    :param misfit: where the answer departs from the form that it must have, or ``None``.
    """

    data: dict[str, Data]
    request_id: str | None = None
    status_code: int | None = None
    source: str = ""
    misfit: str | None = None


class Opened(NamedTuple):
    """The answer will come chunk by chunk.

    :param class_name: of the transport; ``None`` if it does not stream, and nothing was sent.
    """

    class_name: str | None


class Got(NamedTuple):
    """A chunk arrived, other than a :class:`.seams.Response`, which comes as :class:`Sent`."""

    data: dict[str, Data] | bytes


class Ended(NamedTuple):
    """No chunk is left.

    :param misfit: as of :class:`Sent`.
    """

    misfit: str | None


class Failed(NamedTuple):
    """The failure of what the process was told to do.

    :param number: of the error among those that the process raised in this call.
    :param renewable: as of a :class:`.seams.Transport`.
    """

    error: ErrorData
    number: int
    renewable: bool


class Done(NamedTuple):
    """The end of what the process was told to do."""


# The ends of calls


class UsedAmounts(NamedTuple):
    """The amounts that a call used.

    :param amounts: by column of the usage.
    """

    model: str
    scope: str
    amounts: dict[str, Any]
    arm: str


class RecordData(NamedTuple):
    """A record without its request, which the process of the call has."""

    key: str
    packed: bytes
    stored_at: float | None
    received: Received | None


class Answered(NamedTuple):
    """The calls are answered.

    :param draw: the number of a draw that the process may retract, or ``None``.
    """

    records: list[RecordData]
    paths: list[str]
    used: list[UsedAmounts]
    draw: int | None


class Unanswered(NamedTuple):
    """The calls failed.

    :param number: of the error among those that the process raised, or ``None``.
    """

    error: ErrorData
    number: int | None
    used: list[UsedAmounts]


class Over(NamedTuple):
    """The reader of the stream has left, or the recording process answers no more calls."""

    used: list[UsedAmounts]


End = Answered | Unanswered | Over
Message = Any  # a value of one of these classes

PLAIN = (str, int, float, bytes, tuple, list, dict)
# What a message is made of: plain data, the classes of this module, and some others.
KINDS = frozenset(
    [*PLAIN, Branch, Capabilities, Endpoint, Options, Rank, Received, Request, SettingValue]
    + [kind for kind in vars().values() if isinstance(kind, type) and kind.__module__ == __name__]
)
NAMED = {(kind.__module__, kind.__qualname__): kind for kind in KINDS}
LENGTH = struct.Struct(">Q")


class _Pickler(PlainPickler):
    """A pickler of messages; an object of a subclass of a plain type, such as an enum's, becomes one of that type."""

    def reducer_override(self, value: Any) -> Any:
        """Return how an object that is not plain data is pickled."""
        if type(value) in KINDS or (isinstance(value, type) and value in KINDS):
            return NotImplemented
        for kind in PLAIN:
            if isinstance(value, kind):
                convert: Any = str.__str__ if kind is str else kind
                return kind, (convert(value),)
        if hasattr(value, "tolist"):  # the vector of an embedding
            return list, (value.tolist(),)
        raise TypeError(
            f"{type(value).__name__} is not plain data, so it cannot go to the process that records this one: "
            f"{value!r:.60}"
        )


class _Unpickler(PlainUnpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return a class of messages; refuse any other."""
        return NAMED.get((module, name)) or super().find_class(module, name)


def packed(value: object) -> bytes:
    """Return a message, or plain data, as bytes.

    :raises TypeError: if it holds anything else.
    """
    buffer = io.BytesIO()
    _Pickler(buffer, 5).dump(value)
    return buffer.getvalue()


def unpacked(data: bytes) -> Any:
    """Return what :func:`packed` packed.

    :raises UnpicklingError: if it is something else.
    """
    return _Unpickler(io.BytesIO(data)).load()


def next_message(buffer: bytearray) -> tuple[int, int, Message] | None:
    """Return the length of the first frame in a buffer, its call's number and its message; ``None`` if it is not whole.

    :raises UnpicklingError: if it is not a message.
    """
    if len(buffer) < LENGTH.size:
        return None
    end = LENGTH.size + LENGTH.unpack_from(buffer)[0]
    if len(buffer) < end:
        return None
    call, message = unpacked(bytes(buffer[LENGTH.size : end]))
    return end, call, message


def frame(message: Message, call: int = 0) -> bytes:
    """Return a message in the form that is sent.

    :param call: the number of the call that it belongs to; 0 for none.
    """
    data = packed((call, message))
    return LENGTH.pack(len(data)) + data
