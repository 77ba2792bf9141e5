"""The membrane: every call of code that is not llmcall's on llmcall's behalf, and of the network.

What is sent in it is nobody's record: no recorder sees it, no asker gets a number for it, and calls of
llmcall's own in it are neither counted nor stored. It goes to the threads, tasks and pools' work that such
code starts. Code of the program that llmcall runs, such as a recorded function, is outside.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..support.sender import LLMCALL, sent_by
from ..support.waits import check_stops, may_block, waits
from .effects import END, in_time

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from ..keys.request import Request

T = TypeVar("T")

membrane = partial(sent_by, LLMCALL)


def call_foreign(function: Callable[..., T], *args: Any) -> T:
    """Return the result of a user's function."""
    with membrane():
        return function(*args)


def each_foreign(function: Callable[..., Iterable[T]], *args: Any) -> Iterator[T]:
    """Yield the items that a user's function returns or yields."""
    items = call_foreign(lambda: iter(function(*args)))
    while (item := call_foreign(next, items, END)) is not END:
        yield item


async def key_from(provider: Callable[[], Any]) -> Any:
    """Return what a user's function gives as a key; it may be asynchronous."""
    from inspect import isawaitable  # takes long to import

    with membrane():
        key = provider()
        if not isawaitable(key):
            return key
        return _await_in_thread(key) if may_block() else await key


def _await_in_thread(awaitable: Any) -> Any:
    """Await in a new event loop in a new thread: this thread may already run a loop."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    async def awaited() -> Any:
        """Await it in a new event loop."""
        return await awaitable

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(call_foreign, asyncio.run, awaited()).result()


# Transports


async def send(transport: Any, request: Request, timeout: float | None) -> Any:
    """Send a request by a transport, and return the response.

    A user's transport has ``asend`` for event loops, or its ``send`` runs in a thread there. One of
    llmcall's own has ``asend`` for both: it blocks the thread where ``may_block`` says so. One that
    ``keeps_time`` may send several requests, each within the timeout.
    """
    check_stops(waits().stops)
    with _around(request):
        if _uses_async_method(transport, "asend"):
            seconds = None if getattr(transport, "keeps_time", False) else timeout
            return await in_time(transport.asend(request, timeout), seconds)
        return await _to_thread(transport.send, request, timeout)


def _around(request: Request) -> AbstractContextManager[None]:
    """Return the membrane; a recorded function is the program's own."""
    return nullcontext() if request.kind == "function" else membrane()


def open_stream(transport: Any, request: Request, timeout: float | None) -> Any:
    """Send a request as :func:`send` does; return an asynchronous iterator of the answer's chunks, or
    ``None``, with nothing sent, if the transport does not stream.
    """
    check_stops(waits().stops)
    if _uses_async_method(transport, "astream"):
        return call_foreign(lambda: aiter(transport.astream(request, timeout)))
    if not hasattr(transport, "stream"):
        return None
    return _read_in_thread(call_foreign(lambda: iter(transport.stream(request, timeout))))


def _uses_async_method(transport: Any, method: str) -> bool:
    if may_block():
        return getattr(transport, "obeys_may_block", False)
    return hasattr(transport, method)


async def _to_thread(function: Callable[..., T], *args: Any) -> T:
    if may_block():
        return function(*args)
    import asyncio

    return await asyncio.to_thread(function, *args)


async def _read_in_thread(chunks: Any) -> AsyncGenerator[Any, None]:
    try:
        while (chunk := await _to_thread(next, chunks, END)) is not END:
            yield chunk
    finally:
        if hasattr(chunks, "close"):
            call_foreign(chunks.close)


async def next_chunk(chunks: Any, timeout: float | None) -> Any:
    """Return the next chunk, or ``END``."""
    with membrane():
        return await in_time(anext(chunks, END), timeout)


class Reading:
    """Closes an iterator of chunks, and its connection with it, at the end of a block.

    A class, not a generator: an event loop that shuts down closes all generators.
    """

    def __init__(self, chunks: Any) -> None:
        self._chunks = chunks

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is GeneratorExit:  # the call's coroutine is closed: it cannot await
            return
        try:
            if not may_block():
                import asyncio

                await asyncio.sleep(0)  # the loop may be about to close the chunks
        finally:  # a cancelled scope of anyio cancels each wait in it
            if hasattr(self._chunks, "aclose") and not getattr(self._chunks, "ag_running", False):
                with membrane():
                    await self._chunks.aclose()


async def fetch(transport: Any, request: Request, timeout: float | None, *where: str) -> Any:
    """Send one request about a response that a server keeps, and return the server's response.

    :param where: the method and the path; without them, the request begins a response.
    """
    with membrane():
        return await in_time(transport.fetch(request, timeout, *where), timeout)


def close(transport: Any) -> None:
    """Close a transport that can be closed."""
    if hasattr(transport, "close"):
        call_foreign(transport.close)


async def aclose(transport: Any) -> None:
    """Close a transport that can be closed, with its connections of the running event loop."""
    if not hasattr(transport, "aclose"):
        close(transport)
        return
    with membrane():
        await transport.aclose()
