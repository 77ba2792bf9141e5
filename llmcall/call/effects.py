"""What a call waits for: another call, its server, the disk, the reader of its stream.

The steps of a call are coroutines, written once for threads and for event loops. What has to wait
is here: in a thread it blocks, in an event loop it lets the loop go on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Mapping,
)
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for_futures
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar, copy_context
from functools import partial
from types import coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..blocking import may_block
from ..errors import RequestTimeoutError
from ..interrupts import check_stops, current_stops
from ..system import current_task

if TYPE_CHECKING:
    from ..cache.cache import ResponseCache
    from ..values import Request

T = TypeVar("T")
END = object()  # comes after the last chunk

# The monotonic time at which the attempt of the current context has to end.
_ends_at: ContextVar[float | None] = ContextVar("llmcall end of an attempt", default=None)


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Limit how long a block may read from the network; ``None`` sets no limit.

    :param seconds: for the whole block.
    """
    token = _ends_at.set(None if seconds is None else time.monotonic() + seconds)
    try:
        yield
    finally:
        _ends_at.reset(token)


def time_left() -> float | None:
    """Return the seconds that are left of the current :func:`time_limit`, or ``None`` without one.

    Whoever reads from the network in a thread asks this before each step.
    """
    ends_at = _ends_at.get()
    return None if ends_at is None else ends_at - time.monotonic()


class Runner(NamedTuple):
    """Who runs something: a thread and, in an event loop, a task.

    :param task: the identity of the task; ``None`` outside any.
    """

    thread: int
    task: int | None

    @classmethod
    def current(cls) -> Runner:
        """Return whoever runs this code."""
        task = current_task()
        return cls(threading.get_ident(), None if task is None else id(task))

    def waits_for_us(self) -> bool:
        """Return whether it goes on only after the current thread or task does."""
        current = Runner.current()
        # A wait that blocks the whole thread stops all of its tasks.
        is_same_task = may_block.get() or self.task in (None, current.task)
        return self.thread == current.thread and is_same_task


async def wait(future: Future[Any], seconds: float | None) -> None:
    """Wait until a future is done, or some seconds have passed.

    :param future: what is waited for; a new one to wait for the seconds alone.
    :param seconds: the longest wait; ``None`` means no limit.
    """
    stops = current_stops.get()
    if may_block.get():
        wait_for_futures([future, *stops], seconds, FIRST_COMPLETED)
        if not future.done():
            check_stops(stops)
        return
    import asyncio

    check_stops(stops)
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def wake(_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(done.set)

    future.add_done_callback(wake)
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(done.wait(), seconds)


def wake_first(queue: Mapping[Any, None]) -> None:
    """Wake whoever has waited longest, to look again: something has changed.

    :param queue: those who wait, the oldest first; each has a future ``wakeup``. Nobody else may
        change it meanwhile.
    """
    first = next(iter(queue), None)
    if first is not None and not first.wakeup.done():
        first.wakeup.set_result(None)


async def send(transport: Any, request: Request, timeout: float | None) -> Any:
    """Send a request, and return the response: by the transport's asynchronous method, or by the other
    one in a thread.
    """
    check_stops(current_stops.get())
    if not may_block.get() and hasattr(transport, "asend"):
        return await _in_time(transport.asend(request, timeout), timeout)

    def send_in_thread() -> Any:
        with time_limit(timeout):
            return transport.send(request, timeout)

    if may_block.get():
        return send_in_thread()
    import asyncio

    return await asyncio.to_thread(send_in_thread)


async def to_the_end(step: Awaitable[T]) -> T:
    """Await a step that goes on to its end if the caller is cancelled meanwhile, and return its result."""
    if may_block.get():
        return await step
    import asyncio

    return await asyncio.shield(step)


async def do(function: Callable[..., T], *args: Any) -> T:
    """Return the result of a function that may wait for the disk; an event loop runs it in a thread, to
    its end even if the caller is cancelled meanwhile.
    """
    if may_block.get():
        return function(*args)
    import asyncio

    loop = asyncio.get_running_loop()
    run = partial(copy_context().run, function, *args)
    return await asyncio.shield(loop.run_in_executor(None, run))


async def with_cache(cache: ResponseCache, function: Callable[..., T], *args: Any) -> T:
    """Return the result of a function that reads a cache: at once unless that waits for a server."""
    return await do(function, *args) if cache.storage.is_on_server else function(*args)


def opened(transport: Any, request: Request, timeout: float | None) -> Any:
    """Send a request; return an iterator of the answer's chunks, or ``None``, with nothing sent, if the
    transport does not stream.
    """
    check_stops(current_stops.get())
    if not may_block.get() and hasattr(transport, "astream"):
        return aiter(transport.astream(request, timeout))
    if not hasattr(transport, "stream"):
        return None
    chunks = iter(transport.stream(request, timeout))
    return chunks if may_block.get() else _in_threads(chunks)


async def _in_threads(chunks: Any) -> AsyncGenerator[Any, None]:
    import asyncio

    try:
        while True:
            chunk = await asyncio.to_thread(next, chunks, END)
            if chunk is END:
                break
            yield chunk
    finally:
        if hasattr(chunks, "close"):
            chunks.close()


async def next_of(chunks: Any, timeout: float | None) -> Any:
    """Return the next chunk, or ``END``."""
    if may_block.get():
        with time_limit(timeout):  # the transport keeps to it
            return next(chunks, END)
    return await _in_time(anext(chunks, END), timeout)


async def _in_time(awaitable: Awaitable[T], seconds: float | None) -> T:
    import asyncio

    try:
        return await asyncio.wait_for(awaitable, seconds)
    except asyncio.TimeoutError:
        raise RequestTimeoutError("no complete answer within the timeout") from None


@asynccontextmanager
async def reading(chunks: Any) -> AsyncIterator[None]:
    """Close the iterator of chunks, and its connection with it, at the end of a block."""
    try:
        yield
    except GeneratorExit:  # nobody runs this call any more: it cannot await
        raise
    except BaseException:
        await _close(chunks)
        raise
    await _close(chunks)


async def _close(chunks: Any) -> None:
    if may_block.get():
        if hasattr(chunks, "close"):
            chunks.close()
        return
    import asyncio

    try:
        await asyncio.sleep(0)  # at its end, the event loop closes all generators at once
    finally:  # a cancelled scope of anyio cancels each wait in it
        if hasattr(chunks, "aclose") and not getattr(chunks, "ag_running", False):
            await chunks.aclose()


class Piece(NamedTuple):
    """A piece of a streamed answer.

    :param text: the new text of the first choice; empty if there is none.
    :param chunk: the whole piece, as a ``chat.completion.chunk`` of the API; the bytes of an answer
        that is recorded as it is.
    """

    text: str
    chunk: Mapping[str, Any] | bytes = {}


@coroutine
def emit(piece: Piece) -> Generator[Piece, None, None]:
    """Give the reader of a stream a piece; go on when the reader wants the next one."""
    yield piece
