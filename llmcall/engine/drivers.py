"""The four drivers of a flow: synchronous and asynchronous, each with a streaming twin that hands each piece on.

They alone perform effects; tests feed them by hand instead.
"""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import APIError, RequestTimeoutError
from . import stops
from .effects import ALONE, END, Close, Do, Emit, Next, Open, Send, Sleep, Until, Wait
from .flights import driver
from .time_limits import TOO_LATE, limited, too_late
from .waiting import follow_in_loop, follow_in_thread, wait_in_loop, wait_in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from .effects import Flow
    from .stops import Stop

    T = TypeVar("T")

__all__ = ["adrive", "adrive_stream", "drive", "drive_stream"]

TOO_LONG = "the call's deadline passed while an identical call was under way"


def _perform(effect: Any) -> Any:
    stop = stops.current()
    return _performed(effect) if stop is None else _stoppable(effect, stop)


def _stoppable(effect: Any, stop: Stop) -> Any:
    """Perform an effect of a ``map``, which an interrupt ends; what stores or closes goes through."""
    if isinstance(effect, Sleep):
        return stop.sleep(effect.seconds)
    if isinstance(effect, Until):
        return stop.wait(effect.future, effect.seconds)
    if isinstance(effect, Wait):
        return _awaited(effect, stop.wait)
    if isinstance(effect, Send) and effect.request.kind == "function":
        stop.check()  # a recorded function of the user's: its connections are its own
    elif isinstance(effect, (Send, Open, Next)):
        return stop.perform(lambda: _performed(effect), begins=not isinstance(effect, Next))
    return _performed(effect)


def _performed(effect: Any) -> Any:
    if isinstance(effect, Send):
        return effect.transport.send(effect.request, effect.timeout)
    if isinstance(effect, Do):
        return effect.function()
    if isinstance(effect, Sleep):
        return time.sleep(effect.seconds)
    if isinstance(effect, Wait):
        return _awaited(effect)
    if isinstance(effect, Until):
        return wait_in_thread(effect.future, effect.seconds)
    if isinstance(effect, Open):
        transport = effect.transport
        return iter(transport.stream(effect.request, effect.timeout)) if hasattr(transport, "stream") else None
    if isinstance(effect, Next):
        return _next(effect)
    return effect.chunks.close() if hasattr(effect.chunks, "close") else None


def _next(effect: Next) -> Any:
    with limited(effect.timeout) as limit:
        chunk = next(effect.chunks, END)
        if chunk is END and too_late(limit):
            raise RequestTimeoutError(TOO_LATE)
    return chunk


def _awaited(wait: Wait, until: Callable[[Any, float | None], None] = wait_in_thread) -> Any:
    if wait.flight.is_mine() and not wait.flight.has_ended():
        return ALONE
    follow_in_thread(wait.flight, wait.timeout, until)
    return _outcome(wait)


def _outcome(wait: Wait) -> Any:
    if not wait.flight.outcome.done():
        raise RequestTimeoutError(TOO_LONG)
    try:
        return wait.flight.outcome.result()
    except APIError as error:
        raise _own(error) from error.__cause__


def _own(error: APIError) -> APIError:
    """Return a copy of an error that several callers share: each raises it, with a traceback of its own."""
    return copy.copy(error)


async def _aperform(effect: Any) -> Any:
    stop = stops.current()
    if stop is None or isinstance(effect, (Do, Close)):
        return await _aperformed(effect)
    with stop.cancelling():
        return await _aperformed(effect)


async def _aperformed(effect: Any) -> Any:
    import asyncio

    if isinstance(effect, Send):
        return await _asent(effect)
    if isinstance(effect, Do):
        return await _adone(effect)
    if isinstance(effect, Sleep):
        return await asyncio.sleep(effect.seconds)
    if isinstance(effect, Wait):
        return await _aawaited(effect)
    if isinstance(effect, Until):
        return await wait_in_loop(effect.future, effect.seconds)
    if isinstance(effect, Open):
        return _aopened(effect)
    if isinstance(effect, Next):
        return await _anext(effect)
    return await effect.chunks.aclose() if hasattr(effect.chunks, "aclose") else None


async def _adone(effect: Do) -> Any:
    if effect.in_turn:
        from .queues import do_in_turn

        return await do_in_turn(effect.function)
    import asyncio

    return await asyncio.to_thread(effect.function)


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


async def _aawaited(wait: Wait) -> Any:
    await follow_in_loop(wait.flight, wait.timeout)
    return _outcome(wait)


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


@driver
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


@driver
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
