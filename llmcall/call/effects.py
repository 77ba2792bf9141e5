"""Effects: the input and output of a call, described but not performed.

A flow is a generator that yields effects and does no input or output itself. So each step of a call
is written once, for threads and for event loops: an effect's ``perform`` blocks the thread, and its
``aperform`` lets the event loop go on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for_futures
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

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


class Effect(Protocol):
    """What a driver performs, in a thread or in an event loop; its result goes to the flow."""

    def perform(self) -> Any:
        """Perform it in this thread."""
        ...

    async def aperform(self) -> Any:
        """Perform it without blocking the event loop."""
        ...


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
        return self.thread == current.thread and self.task in (None, current.task)


class Wait(NamedTuple):
    """Wait until a future is done, or some seconds have passed; the result is ``False`` if the future
    could never be done.

    :param future: what is waited for; a new one to wait for the seconds alone.
    :param seconds: the longest wait; ``None`` means no limit.
    :param runner: who has to finish the future, if anybody: waiting for oneself would never end.
    """

    future: Future[Any]
    seconds: float | None
    runner: Runner | None = None

    def perform(self) -> bool:
        """Wait in this thread."""
        # A wait blocks the whole thread, so none of its tasks could finish the future.
        is_own_thread = self.runner is not None and self.runner.thread == threading.get_ident()
        if is_own_thread and not self.future.done():
            return False
        stops = current_stops.get()
        wait_for_futures([self.future, *stops], self.seconds, FIRST_COMPLETED)
        if not self.future.done():
            check_stops(stops)
        return True

    async def aperform(self) -> bool:
        """Wait without blocking the event loop."""
        import asyncio

        if self.runner is not None and self.runner.waits_for_us() and not self.future.done():
            return False
        check_stops(current_stops.get())
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def wake(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        self.future.add_done_callback(wake)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(done.wait(), self.seconds)
        return True


class Send(NamedTuple):
    """Send a request; the result is the response."""

    transport: Any
    request: Request
    timeout: float | None

    def perform(self) -> Any:
        """Call the transport."""
        check_stops(current_stops.get())
        with time_limit(self.timeout):
            return self.transport.send(self.request, self.timeout)

    async def aperform(self) -> Any:
        """Call the transport's asynchronous method, or the other one in a thread."""
        import asyncio

        check_stops(current_stops.get())
        if hasattr(self.transport, "asend"):
            response = self.transport.asend(self.request, self.timeout)
            return await _in_time(response, self.timeout)
        return await asyncio.to_thread(self.perform)


class AsOne(NamedTuple):
    """Send a request and hand the response to a function, as one step that no cancellation parts; the
    result is the function's.
    """

    send: Send
    function: Callable[[Any], Any]

    def perform(self) -> Any:
        """Send it."""
        return self.function(self.send.perform())

    async def aperform(self) -> Any:
        """Send it, to the end even if the caller is cancelled meanwhile."""
        import asyncio

        async def both() -> Any:
            return self.function(await self.send.aperform())

        return await asyncio.shield(both())


class Open(NamedTuple):
    """Send a request; the result is an iterator of the answer's chunks, or ``None``, with nothing
    sent, if the transport does not stream.
    """

    transport: Any
    request: Request
    timeout: float | None

    def perform(self) -> Any:
        """Open a stream."""
        check_stops(current_stops.get())
        if not hasattr(self.transport, "stream"):
            return None
        return iter(self.transport.stream(self.request, self.timeout))

    async def aperform(self) -> Any:
        """Open an asynchronous stream, or one whose chunks are waited for in threads."""
        check_stops(current_stops.get())
        if hasattr(self.transport, "astream"):
            return aiter(self.transport.astream(self.request, self.timeout))
        chunks = self.perform()
        return None if chunks is None else _in_threads(chunks)


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


class Next(NamedTuple):
    """Read the next chunk; the result is the chunk, or ``END``."""

    chunks: Any
    timeout: float | None

    def perform(self) -> Any:
        """Read it; the transport keeps to the time."""
        with time_limit(self.timeout):
            return next(self.chunks, END)

    async def aperform(self) -> Any:
        """Read it without blocking the event loop."""
        return await _in_time(anext(self.chunks, END), self.timeout)


async def _in_time(awaitable: Awaitable[T], seconds: float | None) -> T:
    import asyncio

    try:
        return await asyncio.wait_for(awaitable, seconds)
    except asyncio.TimeoutError:
        raise RequestTimeoutError("no complete answer within the timeout") from None


class Close(NamedTuple):
    """Close the iterator of chunks, and its connection with it."""

    chunks: Any

    def perform(self) -> None:
        """Close it, if it can be closed."""
        if hasattr(self.chunks, "close"):
            self.chunks.close()

    async def aperform(self) -> None:
        """Close it, if it can be closed and the event loop does not: at its end, the loop closes
        all generators at once.
        """
        import asyncio

        try:
            await asyncio.sleep(0)  # lets the event loop begin
        finally:  # a cancelled scope of anyio cancels each wait in it
            if hasattr(self.chunks, "aclose") and not getattr(self.chunks, "ag_running", False):
                await self.chunks.aclose()


class Do(NamedTuple):
    """Run a function that may wait for the disk; the result is the function's."""

    function: Callable[[], Any]

    def perform(self) -> Any:
        """Run it."""
        return self.function()

    async def aperform(self) -> Any:
        """Run it in a thread, to its end even if its caller is cancelled meanwhile."""
        import asyncio

        loop = asyncio.get_running_loop()
        run = partial(copy_context().run, self.function)
        return await asyncio.shield(loop.run_in_executor(None, run))


class Emit(NamedTuple):
    """Give the reader of a stream a piece of the answer: the driver yields it.

    :param text: the new text of the first choice; empty if there is none.
    :param chunk: the whole piece, as a ``chat.completion.chunk`` of the API; the bytes of an answer
        that is recorded as it is.
    """

    text: str
    chunk: Mapping[str, Any] | bytes = {}


Flow = Generator[Effect | Emit, Any, T]


def with_cache(cache: ResponseCache, function: Callable[..., T], *args: Any) -> Flow[T]:
    """Call a function that reads a cache: as an effect if it waits for a server, else at once."""
    if not cache.storage.is_on_server:
        return function(*args)
    result: T = yield Do(partial(function, *args))
    return result
