"""Drivers: they run a call, in a thread or in an event loop, and hand on the pieces of a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from contextlib import suppress
from functools import partial
from types import coroutine
from typing import Any, TypeVar

from ..support.blocking import iterate, may_block, run
from .effects import Piece

T = TypeVar("T")


class _AbandonedError(BaseException):
    """Raised inside a call whose reader has left: one that is closed could await nothing in its
    ``finally``.
    """


drive = run


async def adrive(call: Coroutine[Any, Any, T]) -> T:
    """Run a call in the running event loop, and return its result."""
    may_block.set(False)  # the loop may itself run in a call that blocks its thread
    return await call


def drive_stream(call: Coroutine[Any, Any, T], finish: Callable[[T], None]) -> Iterator[Piece]:
    """Run a call, and yield the pieces that it emits.

    :param finish: called with the call's result at its end, unless the reader leaves before.
    """
    return iterate(_pieces(call, finish, blocks=True))


def adrive_stream(
    call: Coroutine[Any, Any, T], finish: Callable[[T], None]
) -> AsyncGenerator[Piece, None]:
    """Run a call in the running event loop, and yield the pieces that it emits, as
    :func:`drive_stream`.
    """
    return _pieces(call, finish, blocks=False)


async def _pieces(
    call: Coroutine[Any, Any, T], finish: Callable[[T], None], *, blocks: bool
) -> AsyncGenerator[Piece, None]:
    try:
        while True:
            may_block.set(blocks)
            piece = await _next_piece(partial(call.send, None), call)
            if isinstance(piece, StopIteration):
                finish(piece.value)
                return
            try:
                yield piece
            except GeneratorExit:
                may_block.set(blocks)
                with suppress(_AbandonedError):
                    await _next_piece(partial(call.throw, _AbandonedError()), call)
                return
    finally:
        call.close()  # Ctrl-C between two pieces leaves it where it was


@coroutine
def _next_piece(
    step: Callable[[], Any], call: Coroutine[Any, Any, Any]
) -> Generator[Any, Any, Piece | StopIteration]:
    """Advance a call to the next piece that it emits, or to its end.

    :param step: the first step; what the call awaits goes to the event loop.
    """
    while True:
        try:
            awaited = step()
        except StopIteration as stop:
            return stop
        if isinstance(awaited, Piece):
            return awaited
        try:
            step = partial(call.send, (yield awaited))
        except BaseException as error:  # noqa: BLE001 - the call gets it thrown in, and raises it
            step = partial(call.throw, error)
