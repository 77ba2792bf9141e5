"""Effects: what a flow asks its driver to do.

A flow is a generator that yields effects and does no input or output, so that the road is written once; the drivers of
:mod:`llmcall.engine.drivers` perform them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ..cache.cache import ResponseCache
    from ..types import Request
    from .single_flight import Flight

    T = TypeVar("T")
    Flow = Generator["Effect", Any, T]

__all__ = [
    "ALONE", "END", "Close", "Do", "Effect", "Emit", "Flow", "Next", "Open", "Send", "Sleep", "Until", "Wait", "look",
]  # fmt: skip

END = object()
ALONE = object()  # given back by Wait where the waiting would never end


class Sleep(NamedTuple):
    """Wait for some seconds."""

    seconds: float


class Send(NamedTuple):
    """Send a request and give back the response."""

    transport: Any
    request: Request
    timeout: float | None


class Open(NamedTuple):
    """Send a request and give back an iterator of the chunks of its answer; ``None``, unsent, where no way streams."""

    transport: Any
    request: Request
    timeout: float | None


class Next(NamedTuple):
    """Give back the next chunk, or ``END``, within some seconds."""

    chunks: Any
    timeout: float | None = None


class Close(NamedTuple):
    """Close the iterator of chunks, and its connection with it."""

    chunks: Any


class Wait(NamedTuple):
    """Wait for the outcome of another caller's flight; ``ALONE`` where the present thread itself leads it."""

    flight: Flight
    timeout: float | None


class Until(NamedTuple):
    """Wait until a future is done, whatever it holds, but not longer than some seconds.

    :param future: a ``concurrent.futures.Future``.
    """

    future: Any
    seconds: float | None


class Do(NamedTuple):
    """Run a function that may block on the disk.

    :param in_turn: whether those of many calls had better be run one after the other.
    """

    function: Callable[[], Any]
    in_turn: bool = False


class Emit(NamedTuple):
    """Hand a piece of text to the reader of a stream."""

    text: str


def look(cache: ResponseCache, function: Callable[[], T]) -> Flow[T]:
    """Call what looks into a cache: at once where that takes microseconds, as an effect where it may wait."""
    return function() if cache.storage.is_near else (yield Do(function))


Effect = Sleep | Send | Open | Next | Close | Wait | Until | Do | Emit
