"""The driver of procedures in an event loop, which goes on during their effects."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import suppress
from types import coroutine
from typing import Any, Literal, TypeVar, overload

from ..support.loop_waits import in_thread, until_done
from ..support.waits import NotAtOnceError, at_once, check_stops, enter_call, leave_call, stops
from . import callbacks
from .effects import (
    AbandonedError,
    Blocks,
    Do,
    Effect,
    Emit,
    Ended,
    Leave,
    Look,
    Next,
    Open,
    Piece,
    Procedure,
    Send,
    Wait,
    Write,
)
from .threads import below_driver

T = TypeVar("T")
Execute = Callable[[Effect[Any]], Awaitable[Any]]


@overload
def run(procedure: Procedure[T]) -> Awaitable[T]: ...
@overload
def run(
    procedure: Procedure[Any],
    error: BaseException | None = None,
    *,
    is_read: Literal[True],
    execute: Execute | None = None,
) -> Awaitable[Emit | Ended]: ...


@coroutine
def run(
    procedure: Procedure[Any],
    error: BaseException | None = None,
    *,
    is_read: bool = False,
    execute: Execute | None = None,
) -> Generator[Any, Any, Any]:
    """Run a procedure to its end in the running event loop, and return its result. What it awaits of the loop goes to
    the loop.

    :param error: raised where it stands.
    :param is_read: ``True`` to run it only until it emits a piece, and return that effect; or else its end.
    :param execute: executes an effect in place of :func:`perform`.
    """
    result: object = None
    try:
        while True:
            try:
                effect = procedure.send(result) if error is None else procedure.throw(error)
                result = error = None
                if not isinstance(effect, Effect):
                    result = yield effect
                    continue
                if isinstance(effect, Emit) and is_read:
                    return effect
                result = yield from (execute or perform)(effect).__await__()
            except StopIteration as stop:
                if procedure.cr_frame is None:  # type: ignore[attr-defined]
                    return Ended(stop.value) if is_read else stop.value
                error = stop
            except GeneratorExit:  # this coroutine is closed, and can await nothing
                procedure.close()
                raise
            except BaseException as raised:  # a cancellation, too
                if procedure.cr_frame is None:  # type: ignore[attr-defined]
                    raise
                error = raised.with_traceback(below_driver(raised))
    finally:
        error = None  # its traceback holds this frame
        if not is_read:
            procedure.close()


async def perform(effect: Effect[Any]) -> Any:
    """Return the result of an effect."""
    match effect:
        case Send():
            return await callbacks.asend(
                effect.transport, effect.request, effect.timeout, effect.inside
            )
        case Write():
            return await _write(effect)
        case Blocks():
            return False
        case Look():
            call = effect.call
            if call.needs_thread:
                return await in_thread(call.store.get, call.request)
            return call.store.get(call.request)
        case Do():
            return await effect.wait()
        case Wait():
            check_stops(stops())
            return await until_done(effect.future, effect.seconds)
        case Next():
            return await callbacks.anext_chunk(effect.chunks, effect.timeout)
        case Open():
            return callbacks.aopen_stream(
                effect.transport, effect.request, effect.timeout, effect.inside
            )
        case Leave():
            return await callbacks.aleave(effect.chunks)
    raise RuntimeError(f"no event loop can execute {effect!r:.60}")


async def _write(effect: Write[T]) -> T:
    """Store an answer.

    An event loop does this itself: handing it to a thread and back takes several times as long. Only
    if another thread or process is writing to the database does a thread take over, to wait for it.
    """
    if not effect.call.needs_thread:
        with suppress(NotAtOnceError):
            return at_once(effect.function)
    return await in_thread(effect.function)


async def pieces(
    procedure: Procedure[T], finish: Callable[[T], None]
) -> AsyncGenerator[Piece, None]:
    """Yield the pieces that a procedure emits.

    :param finish: called with the procedure's result at its end, unless the reader leaves before.
    """
    try:
        while isinstance(outcome := await run(procedure, is_read=True), Emit):
            inside = outcome.inside
            if inside is not None:
                enter_call(inside)
            try:
                yield outcome.piece
            except GeneratorExit:
                with suppress(AbandonedError):
                    await run(procedure, AbandonedError(), is_read=True)
                return
            finally:
                if inside is not None:
                    leave_call(inside)
        finish(outcome.result)
    finally:
        procedure.close()  # Ctrl-C between two pieces leaves it where it was


async def each(items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Yield the items of an asynchronous generator that awaits effects."""
    try:
        while isinstance(outcome := await run(_next(items), is_read=True), Ended):
            if outcome.result is None:
                return
            [item] = outcome.result
            yield item
    finally:
        await run(_close(items))


async def _next(items: AsyncGenerator[T, None]) -> tuple[T] | None:
    try:
        return (await anext(items),)
    except StopAsyncIteration:
        return None


async def _close(items: AsyncGenerator[Any, None]) -> None:
    await items.aclose()
