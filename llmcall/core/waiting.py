"""The waits of a call: for another call, the disk, the reader of its stream; ``callbacks.py`` waits for its server.

The steps of a call are coroutines, written once for threads and for event loops. Whatever
has to wait is here: in a thread it blocks, in an event loop it lets the loop continue. So are the functions
that run a call.
"""

from __future__ import annotations

import enum
import time
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
)
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from types import coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from ..errors import RequestTimeoutError
from ..support.system import running_loop
from ..support.waits import BlockingIterator, check_stops, may_block, set_end, set_may_block, waits

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..keys.request import Data
    from .seams import Store


P = ParamSpec("P")
T = TypeVar("T")


class End(enum.Enum):
    """The sentinel after the last item."""

    END = "end"


END = End.END


class Deadline(NamedTuple):
    """The monotonic time after which nothing is tried, or ``None`` without one."""

    at: float | None

    def time_left(self) -> float | None:
        """Return the seconds until it, or ``None`` without one."""
        return None if self.at is None else self.at - time.monotonic()

    def time_for(
        self, seconds: float | None, if_late: str = "the call's deadline passed"
    ) -> float | None:
        """Return the seconds that a step may take: at most some, and until the deadline.

        :param seconds: ``None`` means no limit.
        :param if_late: the message of the error.
        :raises RequestTimeoutError: if the deadline has passed; it is not tried again.
        """
        seconds_left = self.time_left()
        if seconds_left is None:
            return seconds
        if seconds_left <= 0:
            error = RequestTimeoutError(if_late)
            error.retryable = False
            error.note(is_late=True)
            raise error
        return seconds_left if seconds is None else min(seconds, seconds_left)


async def in_time(awaitable: Awaitable[T], seconds: float | None, source: str) -> T:
    """Return the result of an awaitable, within some seconds.

    In a thread nothing interrupts it: code that reads from the network there checks
    :func:`is_too_late` after each read.

    :param seconds: ``None`` means no limit.
    :param source: what the result comes from, for the error.
    :raises RequestTimeoutError: if it takes longer.
    """
    before = waits().ends_at
    set_end(None if seconds is None else time.monotonic() + seconds)
    try:
        if may_block() or seconds is None:
            return await awaitable
        if running_loop() is None:  # Trio's
            import anyio

            try:
                with anyio.fail_after(seconds):
                    return await awaitable
            except TimeoutError:
                raise RequestTimeoutError(f"no complete answer from {source} in time") from None
        import asyncio

        try:
            return await asyncio.wait_for(awaitable, seconds)
        except asyncio.TimeoutError:
            raise RequestTimeoutError(f"no complete answer from {source} in time") from None
    finally:
        set_end(before)


def is_too_late() -> bool:
    """Return whether the time that :func:`in_time` gives the running code is over."""
    ends_at = waits().ends_at
    return ends_at is not None and ends_at <= time.monotonic()


async def wait(future: Future[T] | None, seconds: float | None) -> None:
    """Wait until a future is done, or some seconds have passed.

    :param future: ``None`` means to wait for the seconds alone.
    :param seconds: the longest wait; ``None`` means no limit.
    """
    from concurrent import futures  # takes 5 ms, which a replay need not pay

    future = future or futures.Future()
    stops = waits().stops
    if may_block():
        awaited: list[Future[Any]] = [future, *stops]
        futures.wait(awaited, seconds, futures.FIRST_COMPLETED)
        if not future.done():
            check_stops(stops)
        return
    check_stops(stops)
    if running_loop() is None:
        await _in_thread_of_trio(futures.wait, [future], seconds)
        return
    import asyncio

    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def wake(_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(done.set)

    future.add_done_callback(wake)
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(done.wait(), seconds)


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the result of a function that may wait for the disk; an event loop runs it in a thread, to
    its end even if the caller is cancelled meanwhile.
    """
    if may_block():
        return function(*args, **kwargs)
    if running_loop() is None:
        return await _in_thread_of_trio(function, *args, **kwargs)
    import asyncio

    loop = asyncio.get_running_loop()
    run = partial(copy_context().run, partial(function, *args, **kwargs))
    outcome = loop.run_in_executor(None, run)
    # A cancelled caller never retrieves its error, and asyncio would report that.
    outcome.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(outcome)


async def _in_thread_of_trio(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    import anyio.to_thread

    return await anyio.to_thread.run_sync(partial(function, *args, **kwargs))


async def with_store(
    store: Store, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return the result of a function that reads a store: in this thread, unless the store is on a server."""
    if store.is_on_server:
        return await in_thread(function, *args, **kwargs)
    return function(*args, **kwargs)


Flow = Coroutine[Any, Any, T]  # a call's, which an event loop or a thread runs


class Piece(NamedTuple):
    """A piece of a streamed answer.

    :param text: the new text of the first choice; empty without any.
    :param chunk: the whole piece, as a ``chat.completion.chunk`` of the API; the bytes of an answer
        that is recorded as it is.
    """

    text: str
    chunk: Mapping[str, Data] | bytes = {}


@coroutine
def emit(piece: Piece) -> Generator[Piece, None, None]:
    """Give the reader of a stream a piece; continue when the reader wants the next one."""
    yield piece


# Running a call, and passing on the pieces of a stream


class _AbandonedError(BaseException):
    """Raised inside a call whose reader has left: a closed coroutine could await nothing in its
    ``finally``.
    """


class _Result(NamedTuple):
    """A call's result, after its last piece.

    A ``StopIteration`` in its place would hold the frames of the stream and of its reader, in a
    cycle that only the garbage collector ends, perhaps in another thread.
    """

    value: Any


async def adrive(call: Flow[T]) -> T:
    """Run a call in the running event loop, and return its result."""
    set_may_block(False)  # the loop may itself run in a call that blocks its thread
    return await call


def drive_stream(call: Flow[T], finish: Callable[[T], None]) -> Iterator[Piece]:
    """Run a call, and yield the pieces that it emits.

    :param finish: called with the call's result at its end, unless the reader leaves before.
    """
    return BlockingIterator(_pieces(call, finish, blocks=True))


def adrive_stream(call: Flow[T], finish: Callable[[T], None]) -> AsyncGenerator[Piece, None]:
    """Run a call in the running event loop, and yield the pieces that it emits, as
    :func:`drive_stream`.
    """
    return _pieces(call, finish, blocks=False)


async def _pieces(
    call: Flow[T], finish: Callable[[T], None], *, blocks: bool
) -> AsyncGenerator[Piece, None]:
    try:
        while True:
            set_may_block(blocks)
            piece = await _next_piece(partial(call.send, None), call)
            if isinstance(piece, _Result):
                finish(piece.value)
                return
            try:
                yield piece
            except GeneratorExit:
                set_may_block(blocks)
                with suppress(_AbandonedError):
                    await _next_piece(partial(call.throw, _AbandonedError()), call)
                return
    finally:
        call.close()  # Ctrl-C between two pieces leaves it where it was


@coroutine
def _next_piece(
    step: Callable[[], object], call: Flow[T]
) -> Generator[object, Any, Piece | _Result]:
    """Advance a call to the next piece that it emits, or to its result.

    :param step: the first step; what the call awaits goes to the event loop.
    """
    while True:
        try:
            awaited = step()
        except StopIteration as stop:
            return _Result(stop.value)
        if isinstance(awaited, Piece):
            return awaited
        try:
            step = partial(call.send, (yield awaited))
        except BaseException as error:  # the call gets it thrown in, and raises it
            if getattr(call, "cr_frame", call) is None:  # closed at exit, while its task waited
                raise
            step = partial(call.throw, error)
