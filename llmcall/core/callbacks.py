"""Calls to callbacks, user code that llmcall runs on its own behalf, and to the network.

Requests sent in a callback are unrecorded: no recorder sees them, they take no caller's number, and llmcall's
own calls among them are neither counted nor stored. The same holds in threads, tasks and pool jobs that the
callback starts. A recorded function is the program's code, not a callback.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from contextvars import Context, copy_context
from functools import partial
from types import AsyncGeneratorType
from typing import Any, ParamSpec, TypeVar

from ..errors import ConfigError
from ..keys.plain_data import recordable_answer
from ..keys.request import Data, Request
from ..support.loop_waits import InContext, awaited, in_thread, in_time, next_step
from ..support.request_origin import LLMCALL, sender
from ..support.system import running_loop
from ..support.waits import Progress, check_stops, enter_call, leave_call, stops
from .effects import Chunks, Do, Leave, Timed
from .options import Deadline
from .seams import AsyncTransport, Chunk, Response, Transport

P = ParamSpec("P")
T = TypeVar("T")


class End(enum.Enum):
    """The sentinel after the last item."""

    END = "end"


END = End.END


class _InCallback:
    """A block of a callback.

    :param inside: the call inside which it runs, or ``None``.
    """

    __slots__ = ("_inside", "_token")

    def __init__(self, inside: Progress | None = None) -> None:
        self._inside = inside

    def __enter__(self) -> None:
        self._token = sender.set(LLMCALL)
        if self._inside is not None:
            enter_call(self._inside)

    def __exit__(self, *_: object) -> None:
        if self._inside is not None:
            leave_call(self._inside)
        sender.reset(self._token)


def _context_of_callback(inside: Progress | None = None) -> Context:
    """Return a new context for a callback that awaits in an event loop."""
    context = copy_context()
    context.run(_InCallback(inside).__enter__)
    return context


def acall_callback(begin: Callable[[], Awaitable[T]]) -> Awaitable[T]:
    """Return the awaitable of a user's function, to run in its own context."""
    return InContext(_context_of_callback(), begin)


def call_callback(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the result of a user's function."""
    with _InCallback():
        return function(*args, **kwargs)


def each_from_callback(
    function: Callable[P, Iterable[T]], *args: P.args, **kwargs: P.kwargs
) -> Iterator[T]:
    """Yield the items that a user's function returns or yields."""
    items = call_callback(lambda: iter(function(*args, **kwargs)))
    while not isinstance(item := call_callback(_next, items), End):
        yield item


def _next(items: Iterator[T]) -> T | End:
    return next(items, END)


def _check_type(value: object, types: type | tuple[type, ...], subject: str, words: str) -> None:
    """Raise ConfigError unless a user value has the right type.

    :param subject: the method and what it did, for the message.
    :param words: the right type, for the message.
    """
    if not isinstance(value, types):
        raise ConfigError(f"{subject} {value!r:.60}, not {words}")


async def key_from(provider: Callable[[], object]) -> object:
    """Return the key that a user's function gives; it may be asynchronous."""
    from inspect import isawaitable  # takes long to import

    key = call_callback(provider)
    if not isawaitable(key):
        return key
    return await Do(
        partial(_await_in_thread, key), lambda: InContext(_context_of_callback(), lambda: key)
    )


def _await_in_thread(awaitable: Awaitable[T]) -> T:
    """Await in a new event loop in a new thread: this thread may already run a loop."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(call_callback, asyncio.run, awaited(awaitable)).result()


# Transports, in a thread and in an event loop


def send(
    transport: Transport, request: Request, timeout: float | None, inside: Progress | None
) -> Response:
    """Send a request by a transport, and return the response.

    :param inside: the call inside which the transport runs.
    :raises ConfigError: if the transport returns anything but a response.
    """
    check_stops(stops())
    with _InCallback(inside):
        answer = transport.send(request, timeout)
    return _response(answer, request, f"{transport.class_name}.send")


async def asend(
    transport: Transport, request: Request, timeout: float | None, inside: Progress | None
) -> Response:
    """Send a request as :func:`send` does, by the transport's ``asend``; without one, its ``send`` runs in a thread."""
    check_stops(stops())
    context = _context_of_callback(inside)
    if not isinstance(transport, AsyncTransport):
        method = f"{transport.class_name}.send"
        answer = await InContext(context, partial(in_thread, transport.send, request, timeout))
    else:
        method = f"{transport.class_name}.asend"

        def begin() -> Awaitable[Mapping[str, Data]]:
            coroutine = transport.asend(request, timeout)
            _check_type(coroutine, Awaitable, f"{method} returned", "a coroutine")
            return coroutine

        answer = await in_time(InContext(context, begin), timeout, transport.source or method)
    return _response(answer, request, method)


def _response(answer: Mapping[str, Data], request: Request, method: str) -> Response:
    """Return the response that a method of a transport returned, checked."""
    if not isinstance(answer, Response):
        _check_type(answer, Mapping, f"{method} returned", "a dict")
        answer = Response(
            plain_answer(answer, f"{method}(…)") if request.kind == "chat" else answer
        )
    answer.source = answer.source or method
    return answer


def plain_answer(answer: Mapping[str, Data], location: str) -> dict[str, Data]:
    """Return a copy of a chat's answer; anything but plain data in it would keep a cassette from being written.

    :param location: where it is from, for the message.
    :raises ConfigError: if it is not plain data.
    """
    try:
        copied: dict[str, Data] = recordable_answer(answer, location)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from None
    return copied


def open_stream(
    transport: Transport, request: Request, timeout: float | None, inside: Progress | None
) -> Chunks | None:
    """Send a request as :func:`send` does; return the answer's chunks, or ``None``, with nothing sent, if
    the transport does not stream.
    """
    check_stops(stops())
    with _InCallback(inside):
        items = transport.stream(request, timeout)
    if items is None:
        return None
    _check_type(items, Iterable, f"{transport.class_name}.stream returned", "an iterator")
    return Chunks(iter(items), transport, inside)


def aopen_stream(
    transport: Transport, request: Request, timeout: float | None, inside: Progress | None
) -> Chunks | None:
    """Send a request as :func:`open_stream` does, by the transport's ``astream``; without one, its ``stream`` is read
    in a thread.
    """
    check_stops(stops())
    context = _context_of_callback(inside)
    items: Any = None
    if isinstance(transport, AsyncTransport):
        items = context.run(transport.astream, request, timeout)
    if items is not None:
        name = f"{transport.class_name}.astream returned"
        _check_type(items, AsyncIterable, name, "an asynchronous iterator")
        return Chunks(context.run(aiter, items), transport, inside, context)
    pieces = context.run(transport.stream, request, timeout)
    if pieces is None:
        return None
    _check_type(pieces, Iterable, f"{transport.class_name}.stream returned", "an iterator")
    items = read_in_thread(context.run(iter, pieces))
    return Chunks(items, transport, inside, context)


def next_chunk(chunks: Chunks, timeout: float | None) -> Chunk | None:
    """Return the next chunk of a transport's stream, or ``None`` at the end.

    :raises ConfigError: if the stream yields something else.
    """
    _set_time(chunks, timeout)
    with _InCallback(chunks.inside):
        chunk = next(chunks.items, END)
    return _checked(chunk, chunks.name)


async def anext_chunk(chunks: Chunks, timeout: float | None) -> Chunk | None:
    """Return the next chunk as :func:`next_chunk` does."""
    _set_time(chunks, timeout)
    assert chunks.context is not None  # an event loop opened it
    following = InContext(chunks.context, partial(anext, chunks.items, END))
    chunk = await in_time(following, timeout, chunks.transport.source or chunks.name)
    return _checked(chunk, chunks.name)


def _set_time(chunks: Chunks, timeout: float | None) -> None:
    timed = getattr(chunks.items, "timed", None)
    if isinstance(timed, Timed):
        timed.deadline = Deadline.after(timeout)


def _checked(chunk: Chunk | End, name: str) -> Chunk | None:
    if isinstance(chunk, End):
        return None
    _check_type(chunk, (Mapping, bytes), f"{name} yielded", "a dict")
    return chunk


def leave(chunks: Chunks) -> None:
    """Close a transport's stream, with its connection."""
    with _InCallback(chunks.inside):
        if (close := getattr(chunks.items, "close", None)) is not None:
            close()


async def aleave(chunks: Chunks) -> None:
    """Close a transport's stream, with its connection."""
    try:
        if running_loop() is not None:
            await next_step()  # the loop may be about to close the chunks
    finally:  # a cancelled scope of anyio cancels each wait in it
        items = chunks.items
        is_running = isinstance(items, AsyncGeneratorType) and items.ag_running
        if not is_running and (close := getattr(items, "aclose", None)) is not None:
            assert chunks.context is not None  # an event loop opened it
            await InContext(chunks.context, close)


class Reading:
    """A block that closes the chunks of an answer at its end.

    A class, not a generator: an event loop that shuts down closes all generators.
    """

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is not GeneratorExit:  # then the procedure is closed: it can await nothing
            await Leave(self._chunks)


async def read_in_thread(items: Iterator[T]) -> AsyncGenerator[T, None]:
    """Yield the items of a user's iterator, each read in a thread."""
    own = _delegating(items)
    is_used = threading.Lock()

    def next_item() -> T | End:
        with is_used:
            return _next(own)

    def close() -> None:
        with is_used:
            call_callback(own.close)

    try:
        while not isinstance(item := await in_thread(next_item), End):
            yield item
    finally:
        if is_used.locked():  # its reader has left, and a thread still waits for the item
            threading.Thread(target=close, daemon=True).start()
        else:
            close()


def _delegating(items: Iterator[T]) -> Generator[T, None, None]:
    """Yield the items of an iterator; closing this closes the iterator, if it can be closed."""
    yield from items


def close(transport: Transport) -> None:
    """Close a transport's connections that no call uses."""
    call_callback(transport.close)


async def aclose(transport: Transport) -> None:
    """Close a transport's connections, with those of the running event loop."""
    await acall_callback(transport.aclose)
