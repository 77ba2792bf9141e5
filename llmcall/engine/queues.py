"""What the tasks of an event loop have to store: one thread does it in turn, and tells the loop of many at once.

A thread for each would wait for the others at the store's lock, and wake the loop each time.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["do_in_turn"]

MOST = 16  # functions after which the loop is told at the latest
_Item = tuple[Context, "Callable[[], Any]", "asyncio.Future[Any]"]


async def do_in_turn(function: Callable[[], Any]) -> Any:
    """Run a function in a thread, after those that were given before it in the same event loop.

    It is run even where its caller is cancelled meanwhile.
    """
    loop = asyncio.get_running_loop()
    queue = _queues.get(loop) or _queues.setdefault(loop, _Queue())
    return await queue.put(loop, function)


class _Queue:
    """Hold what is still to be done, and know whether a thread is at it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: deque[_Item] = deque()
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
            outcomes = [(future, *_outcome(context, function)) for context, function, future in items]
            try:
                loop.call_soon_threadsafe(_settle, outcomes)
            except RuntimeError:  # the loop has ended, and nobody waits for it
                if not loop.is_closed():
                    raise

    def _taken(self) -> list[_Item]:
        with self._lock:
            taken = [self._items.popleft() for _ in range(min(MOST, len(self._items)))]
            self._is_served = bool(taken)
            return taken


_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()


def _outcome(context: Context, function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
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
