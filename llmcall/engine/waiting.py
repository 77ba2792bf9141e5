"""Waiting for a future or a time, whichever comes first, in a thread or in an event loop.

What is waited for is an :class:`Outcome`, or anything else that has its ``done`` and ``add_done_callback``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .flights import Outcome

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from .flights import Flight

__all__ = ["follow_in_loop", "follow_in_thread", "wait_for_any", "wait_in_loop", "wait_in_thread"]

FIRST_LOOK, LONGEST_LOOK = 0.1, 2.0  # seconds until a follower looks whether there still is a leader; each is doubled


def wait_in_thread(future: Any, seconds: float | None) -> None:
    """Wait until a future is done, whatever it holds, but not longer than some seconds."""
    wait_for_any((future,), seconds)


def wait_for_any(futures: tuple[Any, ...], seconds: float | None) -> None:
    """Wait until one of some futures is done, but not longer than some seconds.

    Ctrl-C leaves no lock behind, as it may in ``concurrent.futures.wait``, and is ``KeyboardInterrupt`` to the caller.
    """
    from queue import Empty, SimpleQueue

    told: SimpleQueue[object] = SimpleQueue()
    try:
        for future in futures:
            future.add_done_callback(told.put)
        told.get(timeout=None if seconds is None else max(0.0, seconds))
    except Empty:
        return
    finally:
        _forget(futures, told.put)


async def wait_in_loop(future: Any, seconds: float | None) -> None:
    """Wait as :func:`wait_in_thread`, without blocking the event loop."""
    import asyncio

    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def tell(_: object) -> None:
        """Wake the one who waits, unless the event loop has ended by then."""
        try:
            loop.call_soon_threadsafe(told.set)
        except RuntimeError:
            return

    try:
        future.add_done_callback(tell)
        await _rested(told, seconds)
    finally:
        _forget((future,), tell)


def _forget(futures: tuple[Any, ...], tell: Callable[[Any], object]) -> None:
    """Let futures that last longer than the waiting forget whom to tell."""
    for future in futures:
        if isinstance(future, Outcome):
            future.remove_done_callback(tell)


async def _rested(told: asyncio.Event, seconds: float | None) -> None:
    import asyncio

    waiting = asyncio.ensure_future(told.wait())
    try:
        await asyncio.wait([waiting], timeout=seconds)
    finally:
        waiting.cancel()


def follow_in_thread(flight: Flight, seconds: float | None, wait: Callable[[Any, float | None], None]) -> None:
    """Wait until a flight has ended, by its leader or without it, but not longer than some seconds.

    :param wait: waits for a future, and for whatever else may end the waiting.
    """
    for look in _looks(seconds):
        if flight.has_ended():
            return
        wait(flight.outcome, look)


async def follow_in_loop(flight: Flight, seconds: float | None) -> None:
    """Wait as :func:`follow_in_thread`, without blocking the event loop."""
    for look in _looks(seconds):
        if flight.has_ended():
            return
        await wait_in_loop(flight.outcome, look)


def _looks(seconds: float | None) -> Iterator[float]:
    """Yield how long to wait until the next look, as long as there is time."""
    ends = None if seconds is None else time.monotonic() + seconds
    look = FIRST_LOOK
    while True:
        left = look if ends is None else ends - time.monotonic()
        yield max(0.0, min(look, left))
        if left <= 0:
            return
        look = min(2 * look, LONGEST_LOOK)
