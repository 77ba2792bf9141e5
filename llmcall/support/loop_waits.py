"""Waits in an event loop of asyncio, which goes on meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextvars import Context, copy_context
from functools import partial
from types import CoroutineType, coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ..errors import RequestTimeoutError
from .system import running_loop

if TYPE_CHECKING:
    from concurrent.futures import Future

P = ParamSpec("P")
T = TypeVar("T")


class InContext(Awaitable[T]):
    """An awaitable that runs in its own context. Otherwise, a block that sets a context variable and
    awaits would restore it wherever it is closed, even by the garbage collector in another context.

    :param begin: returns the awaitable; called, in the context, only once this is awaited: a task that is cancelled
        before leaves nothing that was begun.
    """

    def __init__(self, context: Context, begin: Callable[[], Awaitable[T]]) -> None:
        self._context = context
        self._begin = begin

    def __await__(self) -> Generator[Any, Any, T]:
        run = self._context.run
        awaitable = run(self._begin)
        steps = awaitable if isinstance(awaitable, CoroutineType) else awaited(awaitable)
        result: object = None
        error: BaseException | None = None
        try:
            while True:
                try:
                    future = run(steps.send, result) if error is None else run(steps.throw, error)
                except StopIteration as stop:
                    return stop.value  # type: ignore[no-any-return]
                result = error = None
                try:
                    result = yield future
                except BaseException as raised:  # noqa: BLE001 - its own
                    error = raised
        finally:
            error = None  # its traceback holds this frame


async def awaited(awaitable: Awaitable[T]) -> T:
    """Return the result of an awaitable."""
    return await awaitable


@coroutine
def next_step() -> Generator[None, None, None]:
    """Let asyncio's loop go on for one step. A program's test may have replaced ``asyncio.sleep``."""
    yield


async def in_time(awaitable: Awaitable[T], seconds: float | None, source: str) -> T:
    """Return the result of an awaitable, within some seconds.

    :param seconds: ``None`` means no limit.
    :param source: what the result comes from, for the error.
    :raises RequestTimeoutError: if it takes longer.
    """
    if seconds is None:
        return await awaitable
    import asyncio

    try:
        return await asyncio.wait_for(awaitable, seconds)
    except asyncio.TimeoutError:
        raise RequestTimeoutError(f"no complete answer from {source} in time") from None


async def until_done(future: Future[Any] | None, seconds: float | None) -> None:
    """Wait until a future is done, or some seconds have passed.

    :param future: ``None`` means to wait for the seconds alone.
    :param seconds: the longest wait; ``None`` means no limit.
    """
    from concurrent import futures  # takes 5 ms, which a replay need not pay

    future = future or futures.Future()
    import asyncio

    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def wake(_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(done.set)

    future.add_done_callback(wake)
    # Not asyncio.wait_for: until Python 3.12, it loses a cancellation that comes as the wait ends.
    timer = None if seconds is None else loop.call_later(seconds, done.set)
    try:
        await done.wait()
    finally:
        if timer is not None:
            timer.cancel()


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the result of a function that may wait, from a thread. It runs to its end even if the caller is
    cancelled meanwhile.
    """
    if running_loop() is None:  # the loop is not asyncio's: it stands still
        return function(*args, **kwargs)
    import asyncio

    def call() -> T:
        try:
            return function(*args, **kwargs)
        except StopIteration as error:  # a future that gets it never ends
            raise RuntimeError("a function raised StopIteration") from error

    loop = asyncio.get_running_loop()
    run = partial(copy_context().run, call)
    outcome = loop.run_in_executor(None, run)
    # A cancelled caller never retrieves its error, and asyncio would report that.
    outcome.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(outcome)
