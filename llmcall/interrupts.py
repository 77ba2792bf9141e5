"""Signals between a ``map`` and its calls: after Ctrl-C none begins, waits or is tried again; while
one waits in a window, another item begins.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from .system import after_fork_in_child, lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Stop(Future[None]):
    """A future that is done once a ``map`` was interrupted.

    A call that waits for its server goes on, and its answer is stored if it comes.

    :param around: that of the map around it, or ``None``.
    :ivar thread: the identifier of the thread that runs the map and gets its results.
    :ivar waiting: how many of its calls wait in a window, so that as many more items may begin.
    :ivar note_change: is called when ``waiting`` has changed.
    """

    def __init__(self, around: Stop | None = None) -> None:
        super().__init__()
        self._around = around
        self.thread = threading.get_ident()
        self.waiting = 0
        self.note_change: Callable[[], object] = int

    def add_waiting(self, change: int) -> None:
        """Change the number of calls that wait; in the map around it, the whole map counts as one."""
        with lock:
            was_waiting = self.waiting > 0
            self.waiting += change
            change_around = (self.waiting > 0) - was_waiting
        self.note_change()
        if change_around and self._around is not None:
            self._around.add_waiting(change_around)


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


@contextmanager
def waiting_in_window() -> Iterator[None]:
    """Let the map around the current context, if there is one, begin another item while a block waits
    for an answer that takes hours.
    """
    stops = current_stops.get()[:1]
    for stop in stops:
        stop.add_waiting(1)
    try:
        yield
    finally:
        for stop in stops:
            stop.add_waiting(-1)


def check_stops(stops: Stops) -> None:
    """Raise if a ``map`` was interrupted.

    :raises KeyboardInterrupt: so that no ``except Exception`` takes it for a failed call.
    """
    if any(stop.done() for stop in stops):
        raise KeyboardInterrupt("the map that this call belongs to was interrupted")
