"""Asynchronous code that also runs in a plain thread, where nothing that it awaits has to wait.

So each step of a call is written once. In a thread it calls blocking functions.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator
from typing import Any, Protocol, TypeVar, runtime_checkable

from .waits import may_block, set_may_block

T = TypeVar("T")


def run_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in this thread, and return its result."""
    hooks = sys.get_asyncgen_hooks()
    # Otherwise a loop of this thread would take the generators for its own, and close them at its end.
    sys.set_asyncgen_hooks(None, None)
    before = may_block()
    set_may_block(True)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        coroutine.close()
        set_may_block(before)
        sys.set_asyncgen_hooks(*hooks)
    raise RuntimeError("a coroutine waits in a thread without an event loop")


def iterate_blocking(pieces: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """Yield the items of an asynchronous generator, in this thread."""

    async def next_piece() -> T:
        return await anext(pieces)

    try:
        while True:
            try:
                piece = run_blocking(next_piece())
            except StopAsyncIteration:
                return
            yield piece
    finally:
        run_blocking(pieces.aclose())


def as_generator(items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """Return an asynchronous iterator as a generator, which can be closed."""
    return items if isinstance(items, AsyncGenerator) else _each(items)


async def _each(items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    try:
        async for item in items:
            yield item
    finally:
        if isinstance(items, _Closable):
            await items.aclose()


@runtime_checkable
class _Closable(Protocol):
    async def aclose(self) -> None: ...


async def resolved(result: object) -> Any:
    """Return the result of a function that may be asynchronous."""
    return await result if hasattr(result, "__await__") else result


async def as_async(pieces: Any) -> AsyncIterator[Any]:
    """Yield the items of an iterator that may be asynchronous."""
    if hasattr(pieces, "__aiter__"):
        async for piece in pieces:
            yield piece
    else:
        for piece in pieces:
            yield piece
