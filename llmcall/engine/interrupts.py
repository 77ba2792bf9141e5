"""Interrupts: after Ctrl-C in a ``map``, none of its calls begins, waits or is tried again."""

from __future__ import annotations

from concurrent.futures import Future
from contextvars import ContextVar

# For each ``map`` that the present context is in, a future that is done once it was interrupted. A
# call that waits for its server goes on, and its answer is stored if it comes.
Stops = tuple[Future[None], ...]
current_stops: ContextVar[Stops] = ContextVar("llmcall stops", default=())


def check_stops(stops: Stops) -> None:
    """Raise if a ``map`` was interrupted.

    :raises KeyboardInterrupt: so that no ``except Exception`` takes it for a failed call.
    """
    if any(stop.done() for stop in stops):
        raise KeyboardInterrupt("the map that this call belongs to was interrupted")
