"""Waiting for a future or a time, whichever comes first, in a thread or in an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["wait_in_loop", "wait_in_thread"]


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
