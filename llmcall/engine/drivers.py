"""The four drivers of a flow: synchronous and asynchronous, each with a streaming twin that hands each piece on.

They alone perform effects; tests feed them by hand instead.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from concurrent.futures import wait as wait_for_futures
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from ..errors import APIError, RequestTimeoutError
from . import interrupts
from .effects import ALONE, END, Close, Do, Emit, Next, Open, Send, Sleep, Until, Wait

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Callable, Iterator
    from concurrent.futures import Future
    from contextvars import Context

    from .effects import Flow

    T = TypeVar("T")
    Item = tuple[Context, Callable[[], Any], asyncio.Future[Any]]

__all__ = ["adrive", "adrive_stream", "drive", "drive_stream"]

TOO_LATE = "no complete answer within the timeout"
TOO_LONG = "the call's deadline passed while an identical call was under way"
MOST_IN_TURN = 16  # functions that are run in turn, after which the event loop is told at the latest


def _perform(effect: Any) -> Any:
    stop = interrupts.current()
    if stop is not None:
        if isinstance(effect, Sleep):
            return stop.sleep(effect.seconds)
        if isinstance(effect, Until):
            return stop.wait(effect.future, effect.seconds)
        if isinstance(effect, Wait):
            return _awaited(effect, stop.wait)
        if isinstance(effect, (Send, Open)):
            stop.check()
    return _performed(effect)


def _performed(effect: Any) -> Any:
    if isinstance(effect, Send):
        return effect.transport.send(effect.request, effect.timeout)
    if isinstance(effect, Do):
        return effect.function()
    if isinstance(effect, Sleep):
        return time.sleep(effect.seconds)
    if isinstance(effect, Wait):
        return _awaited(effect, _wait)
    if isinstance(effect, Until):
        return _wait(effect.future, effect.seconds)
    if isinstance(effect, Open):
        transport = effect.transport
        return iter(transport.stream(effect.request, effect.timeout)) if hasattr(transport, "stream") else None
    if isinstance(effect, Next):
        return next(effect.chunks, END)
    return effect.chunks.close() if hasattr(effect.chunks, "close") else None


def _wait(future: Future[Any], seconds: float | None) -> None:
    wait_for_futures([future], seconds)


def _awaited(effect: Wait, wait: Callable[[Future[Any], float | None], None]) -> Any:
    if effect.flight.is_mine():
        return ALONE
    wait(effect.flight.outcome, effect.timeout)
    return _outcome(effect)


def _outcome(effect: Wait) -> Any:
    outcome = effect.flight.outcome
    if not outcome.done():
        raise RequestTimeoutError(TOO_LONG)
    error = outcome.exception()
    if isinstance(error, APIError):  # each raises a copy, with a traceback of its own
        raise copy.copy(error) from error.__cause__
    return outcome.result()


async def _aperform(effect: Any) -> Any:
    stop = interrupts.current()
    if stop is not None and not isinstance(effect, (Do, Close)):
        stop.check()
    return await _aperformed(effect)


async def _aperformed(effect: Any) -> Any:
    import asyncio

    if isinstance(effect, Send):
        return await _asent(effect)
    if isinstance(effect, Do):
        return await (_do_in_turn(effect.function) if effect.in_turn else asyncio.to_thread(effect.function))
    if isinstance(effect, Sleep):
        return await asyncio.sleep(effect.seconds)
    if isinstance(effect, Wait):
        await _await(effect.flight.outcome, effect.timeout)
        return _outcome(effect)
    if isinstance(effect, Until):
        return await _await(effect.future, effect.seconds)
    if isinstance(effect, Open):
        return _aopened(effect)
    if isinstance(effect, Next):
        return await _anext(effect)
    return await effect.chunks.aclose() if hasattr(effect.chunks, "aclose") else None


async def _await(future: Future[Any], seconds: float | None) -> None:
    """Wait until a future is done, whatever it holds, but not longer than some seconds."""
    import asyncio

    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def tell(_: object) -> None:
        """Wake the one who waits, unless the event loop has ended by then."""
        if not loop.is_closed():
            loop.call_soon_threadsafe(done.set)

    future.add_done_callback(tell)
    try:
        await asyncio.wait_for(done.wait(), seconds)
    except asyncio.TimeoutError:
        return


async def _asent(send: Send) -> Any:
    import asyncio

    if hasattr(send.transport, "asend"):
        return await send.transport.asend(send.request, send.timeout)
    return await asyncio.to_thread(send.transport.send, send.request, send.timeout)


def _aopened(opening: Open) -> Any:
    if hasattr(opening.transport, "astream"):
        return aiter(opening.transport.astream(opening.request, opening.timeout))
    if hasattr(opening.transport, "stream"):
        return _in_threads(iter(opening.transport.stream(opening.request, opening.timeout)))
    return None


async def _in_threads(chunks: Any) -> AsyncGenerator[Any, None]:
    """Hand on the chunks of a transport that has no asynchronous twin."""
    import asyncio

    try:
        while (chunk := await asyncio.to_thread(next, chunks, END)) is not END:
            yield chunk
    finally:
        if hasattr(chunks, "close"):
            chunks.close()


async def _anext(effect: Next) -> Any:
    import asyncio

    if effect.timeout is None:
        return await anext(effect.chunks, END)
    try:
        return await asyncio.wait_for(anext(effect.chunks, END), effect.timeout)
    except asyncio.TimeoutError:
        raise RequestTimeoutError(TOO_LATE) from None


async def _do_in_turn(function: Callable[[], Any]) -> Any:
    """Run a function in a thread, after those that were given before it in the same event loop.

    A thread for each would wait for the others at the store's lock, and wake the loop each time. It is run even where
    its caller is cancelled meanwhile.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    queue = _queues.get(loop) or _queues.setdefault(loop, _Queue())
    return await queue.put(loop, function)


class _Queue:
    """Hold what the tasks of an event loop have to store, and know whether a thread is at it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: deque[Item] = deque()
        self._is_served = False

    def put(self, loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Let a function run when its turn comes; its result goes to the event loop."""
        future = loop.create_future()
        with self._lock:
            if not self._is_served:
                loop.run_in_executor(None, self._serve, loop)
                self._is_served = True
            self._items.append((copy_context(), function, future))
        return future

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while items := self._taken():
            outcomes = [(future, *_run(context, function)) for context, function, future in items]
            try:
                loop.call_soon_threadsafe(_settle, outcomes)
            except RuntimeError:  # the loop has ended, and nobody waits for it
                if not loop.is_closed():
                    raise

    def _taken(self) -> list[Item]:
        with self._lock:
            taken = [self._items.popleft() for _ in range(min(MOST_IN_TURN, len(self._items)))]
            self._is_served = bool(taken)
            return taken


_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()


def _run(context: Context, function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return context.run(function), None
    except BaseException as error:
        return None, error


def _settle(outcomes: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for future, result, error in outcomes:
        if future.done():  # its caller was cancelled
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


class _AbandonedError(BaseException):
    """Tell a flow that its reader has left; closing it instead would forbid its ``finally`` to yield."""


class _Steps:
    """Advance a flow: the outcome of each effect goes in, the next effect comes out."""

    def __init__(self, flow: Flow[Any]) -> None:
        self.flow = flow
        self.value: Any = None
        self.error: BaseException | None = None

    def next(self) -> Any:
        """Return the next effect; ``StopIteration`` carries the flow's result."""
        value, error, self.value, self.error = self.value, self.error, None, None
        if error is None:
            return self.flow.send(value)
        try:
            return self.flow.throw(error)
        finally:
            del error  # else it would refer to itself by this frame


def drive(flow: Flow[T]) -> T:
    """Perform a flow's effects and return its result."""
    steps = _Steps(flow)
    try:
        while True:
            try:
                effect = steps.next()
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            try:
                steps.value = _perform(effect)
            except BaseException as error:
                steps.error = error
    finally:
        flow.close()  # which Ctrl-C between two effects has left where it was


async def adrive(flow: Flow[T]) -> T:
    """Perform a flow's effects in the running event loop and return its result."""
    steps = _Steps(flow)
    try:
        while True:
            try:
                effect = steps.next()
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            try:
                steps.value = await _aperform(effect)
            except BaseException as error:
                steps.error = error
    finally:
        flow.close()


def drive_stream(flow: Flow[T], finish: Callable[[T], None]) -> Iterator[str]:
    """Perform a flow's effects and yield its pieces of text.

    :param finish: takes the flow's result at the end. A reader who leaves early never gets there.
    """
    steps = _Steps(flow)
    while True:
        try:
            effect = steps.next()
        except StopIteration as stop:
            finish(stop.value)
            return
        except _AbandonedError:
            return
        try:
            if isinstance(effect, Emit):
                yield effect.text
            else:
                steps.value = _perform(effect)
        except GeneratorExit:
            steps.error = _AbandonedError()
        except BaseException as error:
            steps.error = error


async def adrive_stream(flow: Flow[T], finish: Callable[[T], None]) -> AsyncGenerator[str, None]:
    """Perform a flow's effects in the running event loop and yield its pieces of text, as :func:`drive_stream`."""
    steps = _Steps(flow)
    while True:
        try:
            effect = steps.next()
        except StopIteration as stop:
            finish(stop.value)
            return
        except _AbandonedError:
            return
        try:
            if isinstance(effect, Emit):
                yield effect.text
            else:
                steps.value = await _aperform(effect)
        except GeneratorExit:
            steps.error = _AbandonedError()
        except BaseException as error:
            steps.error = error
