"""Asynchronous code that also runs in a plain thread, where nothing that it awaits has to wait.

So each step of a call is written once. In a thread it calls blocking functions.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from contextvars import copy_context
from typing import Any, Protocol, TypeVar, runtime_checkable

from .waits import may_block, set_may_block

T = TypeVar("T")


def run_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in this thread, and return its result."""
    hooks = sys.get_asyncgen_hooks()
    # Otherwise a loop of this thread would take the generators for its own, and close them at its end.
    sys.set_asyncgen_hooks(None, _close_dropped)
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


def _close_dropped(generator: AsyncGenerator[object, None]) -> None:
    """Close a generator that nobody holds any more, in a context of its own.

    Before 3.12, Python's garbage collector may run in the middle of ``ContextVar.set``, and a value that
    something it closes sets in the same context then ends the process (a segmentation fault).
    """
    copy_context().run(run_blocking, generator.aclose())


class BlockingIterator(Iterator[T]):
    """Yields the items of an asynchronous generator, in this thread.

    A class, not a generator, which the garbage collector would close in the current context.
    """

    def __init__(self, pieces: AsyncGenerator[T, None]) -> None:
        self._pieces = pieces

    def __next__(self) -> T:
        try:
            return run_blocking(self._next_piece())
        except StopAsyncIteration:
            raise StopIteration from None

    async def _next_piece(self) -> T:
        return await anext(self._pieces)

    def close(self) -> None:
        """End the iteration."""
        run_blocking(self._pieces.aclose())


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
