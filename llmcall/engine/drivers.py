"""Flows, the effects that they yield, and the drivers that perform these.

A flow is a generator that yields effects and does no input or output, so that the way of a call is
written once. Each effect knows how it is performed: by ``perform``, and in an event loop by
``aperform``.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for_futures
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..errors import RequestTimeoutError
from ..system import current_task

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Awaitable,
        Callable,
        Generator,
        Iterator,
        Mapping,
    )

    from ..cache.cache import ResponseCache
    from ..types import Request

    T = TypeVar("T")
    Flow = Generator["Effect", Any, T]

END = object()

# Of each ``map`` that the present context is in, what is done once it was interrupted. From then on
# no call of it begins, waits on, or is tried again. One that waits for its server goes on, and its
# answer is stored if it comes.
Stops = tuple[Future[None], ...]
current_stops: ContextVar[Stops] = ContextVar("llmcall stops", default=())


def check_stops(stops: Stops) -> None:
    """Raise where calls are to end.

    :raises KeyboardInterrupt: so that no ``except Exception`` on the way takes it for a failed
        call.
    """
    if any(map(Future.done, stops)):
        raise KeyboardInterrupt("the map that this call belongs to was interrupted")


# The monotonic time at which the attempt of the present context has to end. Whoever reads from the
# network in a thread asks how long it may still wait, before each step.
_ends_at: ContextVar[float | None] = ContextVar("llmcall end of an attempt", default=None)


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Bound what the block reads from the network; ``None`` sets no bound.

    :param seconds: for the whole block.
    """
    token = _ends_at.set(None if seconds is None else time.monotonic() + seconds)
    try:
        yield
    finally:
        _ends_at.reset(token)


def time_left() -> float | None:
    """Return the seconds that are left in the present :func:`time_limit`; ``None`` without one."""
    ends_at = _ends_at.get()
    return None if ends_at is None else ends_at - time.monotonic()


async def _in_time(awaited: Awaitable[T], seconds: float | None) -> T:
    import asyncio

    try:
        return await asyncio.wait_for(awaited, seconds)
    except asyncio.TimeoutError:
        raise RequestTimeoutError("no complete answer within the timeout") from None


# Effects


class Party(NamedTuple):
    """Know who does something: a thread and, in an event loop, a task.

    :param task: its identity; ``None`` outside any task.
    """

    thread: int
    task: int | None

    def is_here(self) -> bool:
        """Return whether it goes on only once the present thread or task does."""
        here = Party.here()
        return self.thread == here.thread and self.task in (None, here.task)

    @classmethod
    def here(cls) -> Party:
        """Return the one that runs now."""
        task = current_task()
        return cls(threading.get_ident(), None if task is None else id(task))


class Wait(NamedTuple):
    """Wait until a future is done, whatever it holds, but not longer than some seconds; give back
    whether it may be.

    A future that nobody knows is for the seconds alone.

    :param party: who has to finish it, if anybody: waiting there would never end.
    """

    future: Future[Any]
    seconds: float | None
    party: Party | None = None

    def perform(self) -> bool:
        """Wait in this thread."""
        is_own = self.party is not None and self.party.thread == threading.get_ident()
        if is_own and not self.future.done():
            return False
        stops = current_stops.get()
        wait_for_futures([self.future, *stops], self.seconds, FIRST_COMPLETED)
        if not self.future.done():
            check_stops(stops)
        return True

    async def aperform(self) -> bool:
        """Let the event loop go on meanwhile."""
        import asyncio

        if self.party is not None and self.party.is_here() and not self.future.done():
            return False
        check_stops(current_stops.get())
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def tell(_: object) -> None:
            """Wake the one who waits, unless the event loop has ended by then."""
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        self.future.add_done_callback(tell)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(done.wait(), self.seconds)
        return True


class Send(NamedTuple):
    """Send a request and give back the response."""

    transport: Any
    request: Request
    timeout: float | None

    def perform(self) -> Any:
        """Call the transport."""
        check_stops(current_stops.get())
        with time_limit(self.timeout):
            return self.transport.send(self.request, self.timeout)

    async def aperform(self) -> Any:
        """Call the transport's asynchronous twin, or itself in a thread."""
        check_stops(current_stops.get())
        if hasattr(self.transport, "asend"):
            sent = self.transport.asend(self.request, self.timeout)
            return await _in_time(sent, self.timeout)
        import asyncio

        return await asyncio.to_thread(self.perform)


class Open(NamedTuple):
    """Send a request and give back an iterator of the chunks of its answer; ``None``, unsent, where
    no way streams.
    """

    transport: Any
    request: Request
    timeout: float | None

    def perform(self) -> Any:
        """Open a stream."""
        check_stops(current_stops.get())
        opened = getattr(self.transport, "stream", None)
        return None if opened is None else iter(opened(self.request, self.timeout))

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
        while (chunk := await asyncio.to_thread(next, chunks, END)) is not END:
            yield chunk
    finally:
        if hasattr(chunks, "close"):
            chunks.close()


class Next(NamedTuple):
    """Give back the next chunk, or ``END``, within some seconds."""

    chunks: Any
    timeout: float | None

    def perform(self) -> Any:
        """Read it; the transport keeps to the time."""
        with time_limit(self.timeout):
            return next(self.chunks, END)

    async def aperform(self) -> Any:
        """Let the event loop go on meanwhile."""
        return await _in_time(anext(self.chunks, END), self.timeout)


class Close(NamedTuple):
    """Close the iterator of chunks, and its connection with it."""

    chunks: Any

    def perform(self) -> None:
        """Close it, where it can be."""
        if hasattr(self.chunks, "close"):
            self.chunks.close()

    async def aperform(self) -> None:
        """Close it, where it can be, unless the event loop does: at its end it closes all
        generators at once.
        """
        import asyncio

        try:
            await asyncio.sleep(0)  # lets the event loop begin
        finally:  # a cancelled scope of anyio cancels each wait in it
            if hasattr(self.chunks, "aclose") and not getattr(self.chunks, "ag_running", False):
                await self.chunks.aclose()


class Do(NamedTuple):
    """Run a function that may block on the disk."""

    function: Callable[[], Any]

    def perform(self) -> Any:
        """Run it."""
        return self.function()

    async def aperform(self) -> Any:
        """Run it in a thread, to its end even where its caller is cancelled meanwhile."""
        import asyncio

        running = asyncio.get_running_loop().run_in_executor(
            None, copy_context().run, self.function
        )
        return await asyncio.shield(running)


class Emit(NamedTuple):
    """Hand a piece of an answer to the reader of a stream; its driver yields it.

    :param text: the new text of the first choice; empty where there is none.
    :param chunk: the whole piece, as a ``chat.completion.chunk`` of the API.
    """

    text: str
    chunk: Mapping[str, Any] = {}


Effect = Send | Open | Next | Close | Wait | Do | Emit


def look(cache: ResponseCache, function: Callable[..., T], *args: Any) -> Flow[T]:
    """Call what looks into a cache: at once where that takes microseconds, as an effect where it
    may wait.
    """
    return function(*args) if cache.storage.is_near else (yield Do(partial(function, *args)))


# Drivers


class _AbandonedError(BaseException):
    """Tell a flow that its reader has left; closing it instead would forbid its ``finally`` to
    yield.
    """


def drive(flow: Flow[T]) -> T:
    """Perform the effects of a flow that emits nothing, and return its result."""
    results: list[T] = []
    for _ in drive_stream(flow, results.append):
        pass
    return results[0]


async def adrive(flow: Flow[T]) -> T:
    """Perform the effects of a flow that emits nothing in the running event loop, and return its
    result.
    """
    results: list[T] = []
    async for _ in adrive_stream(flow, results.append):
        pass
    return results[0]


def drive_stream(flow: Flow[T], finish: Callable[[T], None]) -> Generator[Emit, None, None]:
    """Perform a flow's effects and yield the pieces that it emits.

    :param finish: takes the flow's result at the end. A reader who leaves early never gets there.
    """
    given: Any = None  # to the flow: what its effect came to
    failure: BaseException | None = None
    try:
        while True:
            effect = flow.send(given) if failure is None else flow.throw(failure)
            given = failure = None
            try:
                if isinstance(effect, Emit):
                    given = yield effect
                else:
                    given = effect.perform()
            except GeneratorExit:
                failure = _AbandonedError()
            except BaseException as error:  # noqa: BLE001 - the flow gets it thrown in, and raises it
                failure = error
    except StopIteration as stop:
        finish(stop.value)
    except _AbandonedError:
        return
    finally:
        del failure  # else an error would refer to itself by this frame
        flow.close()  # which Ctrl-C between two effects has left where it was


async def adrive_stream(flow: Flow[T], finish: Callable[[T], None]) -> AsyncGenerator[Emit, None]:
    """Perform a flow's effects in the running event loop and yield the pieces that it emits, as
    :func:`drive_stream`.
    """
    given: Any = None  # to the flow: what its effect came to
    failure: BaseException | None = None
    try:
        while True:
            effect = flow.send(given) if failure is None else flow.throw(failure)
            given = failure = None
            try:
                if isinstance(effect, Emit):
                    given = yield effect
                else:
                    given = await effect.aperform()
            except GeneratorExit:
                failure = _AbandonedError()
            except BaseException as error:  # noqa: BLE001 - the flow gets it thrown in, and raises it
                failure = error
    except StopIteration as stop:
        finish(stop.value)
    except _AbandonedError:
        return
    finally:
        del failure  # else an error would refer to itself by this frame
        flow.close()
