"""Signals from a ``map`` to its calls: after Ctrl-C no call begins, waits or is tried again."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from .system import after_fork_in_child

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stop(Future[None]):
    """A future that is done once its ``map`` is interrupted.

    A call that waits for its server goes on, and its answer is stored if it comes.

    :ivar thread: the identifier of the thread that runs the map and gets its results.
    """

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()


# One for each ``map`` that the current context is in.
Stops = tuple[Stop, ...]
current_stops: ContextVar[Stops] = ContextVar("llmcall stops", default=())
after_fork_in_child(lambda: current_stops.set(()))  # a forked process is in none


@contextmanager
def in_maps(stops: Stops) -> Iterator[None]:
    """Put the current context into further maps for a block.

    :param stops: the stops of these maps.
    """
    before = current_stops.get()
    current_stops.set((*before, *stops))
    try:
        yield
    finally:
        current_stops.set(before)


def check_stops(stops: Stops) -> None:
    """Raise if a ``map`` was interrupted.

    :raises KeyboardInterrupt: so that no ``except Exception`` takes it for a failed call.
    """
    if any(stop.done() for stop in stops):
        raise KeyboardInterrupt("the map that this call belongs to was interrupted")
