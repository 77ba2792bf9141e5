"""Waiting for a future or a time, whichever comes first, in a thread or in an event loop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from .flights import Flight

__all__ = ["follow_in_loop", "follow_in_thread", "wait_in_loop", "wait_in_thread"]

FIRST_LOOK, LONGEST_LOOK = 0.1, 2.0  # seconds until a follower looks whether there still is a leader; each is doubled


def wait_in_thread(future: Future[Any], seconds: float | None) -> None:
    """Wait until a future is done, whatever it holds, but not longer than some seconds."""
    from concurrent.futures import wait

    wait([future], seconds)


async def wait_in_loop(future: Future[Any], seconds: float | None) -> None:
    """Wait as :func:`wait_in_thread`, without blocking the event loop."""
    import asyncio

    waiting = asyncio.wrap_future(future)
    try:
        await asyncio.wait([waiting], timeout=seconds)
    finally:
        waiting.cancel()  # else the future would tell an event loop that may have ended by then


def follow_in_thread(
    flight: Flight, seconds: float | None, wait: Callable[[Future[Any], float | None], None] | None = None
) -> None:
    """Wait until a flight has ended, by its leader or without it, but not longer than some seconds.

    :param wait: waits for a future, and for whatever else may end the waiting.
    """
    rest = _resting(flight) if wait is None else _waiting(flight, wait)
    for look in _looks(seconds):
        if flight.has_ended():
            return
        rest(look)


def _resting(flight: Flight) -> Callable[[float], None]:
    """Return what waits some seconds or until it is told; Ctrl-C leaves no lock behind, as it may with a future."""
    from queue import Empty, SimpleQueue

    told: SimpleQueue[None] = SimpleQueue()
    flight.outcome.on_settled(lambda: told.put(None))

    def rest(seconds: float) -> None:
        """Wait."""
        try:
            told.get(timeout=seconds)
        except Empty:
            return

    return rest


def _waiting(flight: Flight, wait: Callable[[Future[Any], float | None], None]) -> Callable[[float], None]:
    from concurrent.futures import Future, InvalidStateError

    told: Future[None] = Future()

    def tell() -> None:
        """End the waiting, unless that was done."""
        try:
            told.set_result(None)
        except InvalidStateError:
            return

    flight.outcome.on_settled(tell)
    return lambda seconds: wait(told, seconds)


async def follow_in_loop(flight: Flight, seconds: float | None) -> None:
    """Wait as :func:`follow_in_thread`, without blocking the event loop."""
    import asyncio

    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def tell() -> None:
        """Wake the one who waits, if the event loop has not ended by then."""
        if not loop.is_closed():
            loop.call_soon_threadsafe(told.set)

    flight.outcome.on_settled(tell)
    for look in _looks(seconds):
        if flight.has_ended():
            return
        await _rested(told, look)


async def _rested(told: asyncio.Event, seconds: float) -> None:
    import asyncio

    waiting = asyncio.ensure_future(told.wait())
    try:
        await asyncio.wait([waiting], timeout=seconds)
    finally:
        waiting.cancel()


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
