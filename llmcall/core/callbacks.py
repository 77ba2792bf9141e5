"""Calls to callbacks, user code that llmcall runs on its own behalf, and to the network.

Requests sent in a callback are unrecorded: no recorder sees them, they take no caller's number, and llmcall's
own calls among them are neither counted nor stored. The same holds in threads, tasks and pool jobs that the
callback starts. A recorded function is the program's code, not a callback.
"""

from __future__ import annotations

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
from contextlib import nullcontext
from functools import partial
from types import AsyncGeneratorType
from typing import ParamSpec, TypeVar

from ..apis.bodies import nan_as_none
from ..errors import ConfigError
from ..keys.plain_data import recordable
from ..keys.request import Data, Request
from ..support.request_origin import LLMCALL, sent_by
from ..support.system import running_loop
from ..support.waits import as_generator, check_stops, may_block, waits
from .seams import AsyncTransport, Background, Chunk, CoroutineTransport, Response, Transport
from .waiting import END, End, in_thread, in_time

P = ParamSpec("P")
T = TypeVar("T")

in_callback = partial(sent_by, LLMCALL)


def call_callback(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the result of a user's function."""
    with in_callback():
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

    with in_callback():
        key = provider()
        if not isawaitable(key):
            return key
        return _await_in_thread(key) if may_block() else await key


def _await_in_thread(awaitable: Awaitable[T]) -> T:
    """Await in a new event loop in a new thread: this thread may already run a loop."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    async def awaited() -> T:
        """Await it in a new event loop."""
        return await awaitable

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(call_callback, asyncio.run, awaited()).result()


# Transports


async def send(transport: Transport, request: Request, timeout: float | None) -> Response:
    """Send a request by a transport, and return the response.

    In event loops, a transport's ``asend`` sends; without one, its ``send`` runs in a thread.

    :raises ConfigError: if the transport returns anything but a response.
    """
    check_stops(waits().stops)
    # a recorded function is the program's own
    with nullcontext() if request.kind == "function" else in_callback():
        own, method = _by_coroutines(transport), sending_method(transport)
        if own is None:
            answer = await in_thread(transport.send, request, timeout)
        else:
            coroutine = own.asend(request, timeout)
            _check_type(coroutine, Awaitable, f"{method} returned", "a coroutine")
            seconds = None if own.keeps_time else timeout
            answer = await in_time(coroutine, seconds, _awaited(transport, method))
    if isinstance(answer, Response):
        return answer
    _check_type(answer, Mapping, f"{method} returned", "a dict")
    return Response(plain_answer(answer, f"{method}(…)") if request.kind == "chat" else answer)


def plain_answer(answer: Mapping[str, Data], location: str) -> dict[str, Data]:
    """Return a copy of a chat's answer; anything but plain data in it would keep a cassette from being written.

    :param location: where it is from, for the message.
    :raises ConfigError: if it is not plain data.
    """
    copied: dict[str, Data]
    try:
        try:
            copied = recordable(answer, location, surrogates=True)
        except ValueError:  # rare: NaN or an infinity
            copied = recordable(nan_as_none(answer), location, surrogates=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from None
    return copied


def open_stream(
    transport: Transport, request: Request, timeout: float | None
) -> AsyncGenerator[Chunk, None] | None:
    """Send a request as :func:`send` does; return the answer's chunks, or ``None``, with nothing sent, if
    the transport does not stream.
    """
    check_stops(waits().stops)
    own, name = _by_coroutines(transport), transport.class_name
    with in_callback():
        if own is not None and (chunks := own.astream(request, timeout)) is not None:
            _check_type(
                chunks, AsyncIterable, f"{name}.astream returned", "an asynchronous iterator"
            )
            return as_generator(aiter(chunks))
        pieces = transport.stream(request, timeout)
        if pieces is None:
            return None
        _check_type(pieces, Iterable, f"{name}.stream returned", "an iterator")
        return read_in_thread(iter(pieces))


def _by_coroutines(transport: Transport) -> AsyncTransport | None:
    """Return a transport if its coroutines serve the code that runs: in threads only those that may block."""
    kind = CoroutineTransport if may_block() else AsyncTransport
    return transport if isinstance(transport, kind) else None


def sending_method(transport: Transport) -> str:
    """Return the name of the method that sends for the code that runs."""
    method = "send" if _by_coroutines(transport) is None else "asend"
    return f"{transport.class_name}.{method}"


def stream_name(transport: Transport) -> str:
    """Return how messages name a transport's stream: any of its methods may have made it."""
    return f"the stream of {transport.class_name}"


def _awaited(transport: Transport, method: str) -> str:
    """Return what an answer comes from: a server, or else a user's method."""
    return method if transport.background is None else transport.background.url


async def read_in_thread(items: Iterator[T]) -> AsyncGenerator[T, None]:
    """Yield the items of a user's iterator; an event loop reads each in a thread."""
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


async def next_chunk(
    chunks: AsyncGenerator[Chunk, None], transport: Transport, timeout: float | None
) -> Chunk | None:
    """Return the next chunk of a transport's stream, or ``None`` at the end.

    :raises ConfigError: if the stream yields something else.
    """
    name = stream_name(transport)
    with in_callback():
        chunk = await in_time(anext(chunks, None), timeout, _awaited(transport, name))
    if chunk is not None:
        _check_type(chunk, (Mapping, bytes), f"{name} yielded", "a dict")
    return chunk


class Reading:
    """A block that closes an iterator of chunks, with its connection, at its end.

    A class, not a generator: an event loop that shuts down closes all generators.
    """

    def __init__(self, chunks: AsyncGenerator[Chunk, None]) -> None:
        self._chunks = chunks

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is GeneratorExit:  # the call's coroutine is closed: it cannot await
            return
        try:
            if not may_block() and running_loop() is not None:
                import asyncio

                await asyncio.sleep(0)  # the loop may be about to close the chunks
        finally:  # a cancelled scope of anyio cancels each wait in it
            is_running = isinstance(self._chunks, AsyncGeneratorType) and self._chunks.ag_running
            if not is_running:
                with in_callback():
                    await self._chunks.aclose()


async def fetch(
    server: Background, request: Request, timeout: float | None, *where: str
) -> Response:
    """Send one request about a response that a server keeps, and return the server's response.

    :param where: the method and the path; without them, the request begins a response.
    """
    with in_callback():
        return await in_time(server.fetch(request, timeout, *where), timeout, server.url)


def close(transport: Transport) -> None:
    """Close a transport's connections that no call uses."""
    call_callback(transport.close)


async def aclose(transport: Transport) -> None:
    """Close a transport's connections, with those of the running event loop."""
    with in_callback():
        await transport.aclose()
