"""The driver of procedures in a thread, which their effects block."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

from ..support.waits import Progress, check_stops, enter_call, leave_call, stops
from . import callbacks
from .effects import (
    AbandonedError,
    Blocks,
    Do,
    Emit,
    Ended,
    Leave,
    Look,
    Next,
    Open,
    Piece,
    Procedure,
    Send,
    Timed,
    Wait,
    Write,
)

T = TypeVar("T")


@overload
def run(procedure: Procedure[T]) -> T: ...
@overload
def run(
    procedure: Procedure[Any], error: BaseException | None = None, *, is_read: Literal[True]
) -> Emit | Ended: ...


def run(
    procedure: Procedure[Any], error: BaseException | None = None, *, is_read: bool = False
) -> Any:
    """Run a procedure to its end in this thread, and return its result.

    :param error: raised where it stands.
    :param is_read: ``True`` to run it only until it emits a piece, and return that effect; or else its end.
    """
    result: Any = None
    try:
        while True:
            try:
                effect = procedure.send(result) if error is None else procedure.throw(error)
                result = error = None
                if isinstance(effect, Emit) and is_read:
                    return effect
                result = _execute(effect)
            except StopIteration as stop:
                if procedure.cr_frame is None:  # type: ignore[attr-defined]
                    return Ended(stop.value) if is_read else stop.value
                error = stop
            except BaseException as raised:  # Ctrl-C, too, wherever it comes
                if procedure.cr_frame is None:  # type: ignore[attr-defined]
                    raise
                error = raised.with_traceback(below_driver(raised))
    finally:
        error = None  # its traceback holds this frame
        if not is_read:
            procedure.close()


def below_driver(error: BaseException) -> TracebackType | None:
    """Return the traceback of an effect's error without the two frames of the driver."""
    frames = error.__traceback__
    for _ in range(2):
        frames = frames and frames.tb_next
    return frames or error.__traceback__


def _execute(effect: object) -> Any:
    """Return the result of an effect."""
    match effect:
        case Send():
            return callbacks.send(effect.transport, effect.request, effect.timeout, effect.inside)
        case Write():
            return effect.function()
        case Blocks():
            return True
        case Look():
            return effect.call.store.get(effect.call.request)
        case Do():
            return effect.block()
        case Wait():
            return wait(effect)
        case Next():
            return callbacks.next_chunk(effect.chunks, effect.timeout)
        case Open():
            return callbacks.open_stream(
                effect.transport, effect.request, effect.timeout, effect.inside
            )
        case Leave():
            return callbacks.leave(effect.chunks)
    raise RuntimeError(f"a procedure waits in a thread without an event loop, for {effect!r:.60}")


def wait(effect: Wait) -> None:
    """Wait until a future is done, some seconds have passed, or a map that the code is in was interrupted."""
    from concurrent import futures  # takes 5 ms, which a replay need not pay

    future = effect.future or futures.Future()
    of_maps = stops()
    futures.wait([future, *of_maps], effect.seconds, futures.FIRST_COMPLETED)
    if not future.done():
        check_stops(of_maps)


class Pieces(Iterator[Piece]):
    """The pieces that a procedure emits.

    :param finish: called with the procedure's result at its end, unless the reader leaves before.
    """

    def __init__(self, procedure: Procedure[T], finish: Callable[[T], None]) -> None:
        self._procedure = procedure
        self._finish = finish
        self._has_begun = self._has_ended = False
        self._is_used = threading.Lock()
        self._inside: Progress | None = None  # the call, while its reader runs

    def __next__(self) -> Piece:
        outcome = self._advance(None)
        if isinstance(outcome, Emit):
            return outcome.piece
        if outcome is not None:
            self._finish(outcome.result)
        raise StopIteration

    def close(self) -> None:
        """End the procedure."""
        with suppress(AbandonedError):
            self._advance(AbandonedError())

    def _advance(self, error: BaseException | None) -> Emit | Ended | None:
        if not self._is_used.acquire(blocking=False):
            raise ValueError("the stream is already being read")
        try:
            if self._has_ended or not (self._has_begun or error is None):
                self._has_ended = True
                return None
            self._has_begun = self._has_ended = True  # unless a piece comes
            if self._inside is not None:
                leave_call(self._inside)
            outcome = run(self._procedure, error, is_read=True)
            self._has_ended = isinstance(outcome, Ended)
            if isinstance(outcome, Emit) and outcome.inside is not None:
                self._inside = outcome.inside
                enter_call(self._inside)
            return outcome
        finally:
            if self._has_ended:
                self._procedure.close()
            self._is_used.release()


class Each(Iterator[T]):
    """The items of an asynchronous generator that awaits effects, in this thread.

    A class, not a generator, which the garbage collector would close in the current context.

    :ivar timed: has the deadline of the next item, where nothing else ends the wait for it.
    """

    def __init__(self, items: AsyncGenerator[T, None], timed: Timed | None = None) -> None:
        self._items = items
        self.timed = timed

    def __next__(self) -> T:
        try:
            return _run_hooked(_next(self._items))
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the iteration."""
        _run_hooked(_close(self._items))


async def _next(items: AsyncGenerator[T, None]) -> T:
    return await anext(items)


async def _close(items: AsyncGenerator[Any, None]) -> None:
    await items.aclose()


def _run_hooked(procedure: Procedure[T]) -> T:
    """Run a procedure that advances an asynchronous generator."""
    hooks = sys.get_asyncgen_hooks()
    # Otherwise a loop of this thread would take the generators for its own, and close them at its end.
    sys.set_asyncgen_hooks(None, _close_dropped)
    try:
        return run(procedure)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _close_dropped(generator: AsyncGenerator[object, None]) -> None:
    """Close an unreferenced generator in its own context.

    Before 3.12, Python's garbage collector may run in the middle of ``ContextVar.set``, and a value that
    something it closes sets in the same context then ends the process (a segmentation fault).
    """
    copy_context().run(_run_hooked, _close(generator))
