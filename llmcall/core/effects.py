"""Effects: all that waits. A procedure awaits effects, and whoever drives it executes them.

A procedure is a coroutine that is written once for threads and event loops. ``threads.py`` executes its effects by
blocking the thread, ``loops.py`` by letting the event loop go on; a test lists them. In an event loop, a procedure may
also await what the loop knows, once ``Blocks`` has said that it is in one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

from ..keys.request import Data, Request
from ..stores.record import Record
from .options import Deadline
from .seams import Chunk, Response, Transport

if TYPE_CHECKING:
    from concurrent.futures import Future
    from contextvars import Context

    from ..support.waits import Progress
    from .calls import Call

T = TypeVar("T")
Procedure: TypeAlias = Coroutine[Any, Any, T]


class Effect(Generic[T]):
    """Something that a procedure awaits; its result is that of the ``await``."""

    __slots__ = ()

    def __await__(self) -> Generator[Effect[T], T, T]:
        return (yield self)


class Look(Effect[Record | None]):
    """Look up a call's recorded answer."""

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call = call


class Write(Effect[T]):
    """Store a call's answer by a function."""

    __slots__ = ("call", "function")

    def __init__(self, call: Call, function: Callable[[], T]) -> None:
        self.call = call
        self.function = function


class Wait(Effect[None]):
    """Wait until a future is done, or some seconds have passed.

    :param future: ``None`` means to wait for the seconds alone.
    :param seconds: the longest wait; ``None`` means no limit.
    """

    __slots__ = ("future", "seconds")

    def __init__(self, future: Future[Any] | None, seconds: float | None) -> None:
        self.future = future
        self.seconds = seconds


class _OfTransport(Effect[T]):
    """A transport's work on a request.

    :param timeout: in seconds; ``None`` means no limit.
    :param inside: the call inside which the transport runs.
    """

    __slots__ = ("inside", "request", "timeout", "transport")

    def __init__(
        self,
        transport: Transport,
        request: Request,
        timeout: float | None,
        inside: Progress | None = None,
    ) -> None:
        self.transport = transport
        self.request = request
        self.timeout = timeout
        self.inside = inside


class Send(_OfTransport[Response]):
    """Send a request by a transport, and get the response."""

    __slots__ = ()


class Chunks(NamedTuple):
    """The chunks of an answer, as a transport yields them.

    :param items: an iterator; in an event loop, an asynchronous one.
    :param transport: yields them.
    :param inside: the call inside which it does.
    :param context: that in which it yields them in an event loop.
    """

    items: Any
    transport: Transport
    inside: Progress | None = None
    context: Context | None = None

    @property
    def name(self) -> str:
        """Return how messages name them: any method of the transport may have made them."""
        return f"the stream of {self.transport.class_name}"


class Timed:
    """The deadline of the next chunk, as a transport of llmcall's own sees it: in a thread, nothing else ends its wait.

    :ivar deadline: of the chunk that is awaited.
    """

    deadline = Deadline(None)


class Open(_OfTransport[Chunks | None]):
    """Send a request whose answer is read chunk by chunk; ``None``, with nothing sent, if the transport does not
    stream.
    """

    __slots__ = ()


class Next(Effect[Chunk | None]):
    """Get the next chunk of an answer, or ``None`` at its end.

    :param timeout: in seconds; ``None`` means no limit.
    """

    __slots__ = ("chunks", "timeout")

    def __init__(self, chunks: Chunks, timeout: float | None) -> None:
        self.chunks = chunks
        self.timeout = timeout


class Leave(Effect[None]):
    """Close the chunks of an answer, with their connection."""

    __slots__ = ("chunks",)

    def __init__(self, chunks: Chunks) -> None:
        self.chunks = chunks


class Piece(NamedTuple):
    """A piece of a streamed answer.

    :param text: the new text of the first choice; empty without any.
    :param chunk: the whole piece, as a ``chat.completion.chunk`` of the API; the bytes of an answer
        that is recorded as it is.
    """

    text: str
    chunk: Mapping[str, Data] | bytes = {}


class Emit(Effect[None]):
    """Give the reader of a stream a piece; continue when the reader wants the next one.

    :param inside: the call inside which the reader runs meanwhile; ``None`` if the answer is there.
    """

    __slots__ = ("inside", "piece")

    def __init__(self, piece: Piece, inside: Progress | None = None) -> None:
        self.piece = piece
        self.inside = inside


class Blocks(Effect[bool]):
    """Find out whether waiting blocks the whole thread."""

    __slots__ = ()


class Do(Effect[T]):
    """Do what another layer does in two ways.

    :param block: returns the result, and may block the thread.
    :param wait: returns an awaitable of the result.
    """

    __slots__ = ("block", "wait")

    def __init__(self, block: Callable[[], T], wait: Callable[[], Awaitable[T]]) -> None:
        self.block = block
        self.wait = wait


class AbandonedError(BaseException):
    """Raised inside a procedure whose reader has left: a closed coroutine could await nothing in its ``finally``."""


class Ended(NamedTuple):
    """The end of a procedure.

    A ``StopIteration`` in its place would hold the frames of the stream and of its reader, in a
    cycle that only the garbage collector ends, perhaps in another thread.

    :param result: what it returned.
    """

    result: Any
