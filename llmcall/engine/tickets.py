"""A place in a queue."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .limits import Entry, Gate

__all__ = ["Ticket"]


class Ticket:
    """Be one attempt's place in the queues of the endpoints that may serve it.

    :ivar called: is done when there is reason to look again.
    :ivar left: whether it was given back.
    :ivar entry: the call, once it was let in, and ``gate`` where.
    """

    __slots__ = ("called", "entry", "gate", "left", "queues")

    def __init__(self) -> None:
        self.called: Future[None] | None = None
        self.left = False
        self.entry: Entry | None = None
        self.gate: Gate | None = None
        self.queues: tuple[Gate, ...] = ()

    def call(self) -> None:
        """Tell whoever holds it to look again."""
        if self.called is not None and not self.called.done():
            self.called.set_result(None)

    def call_later(self) -> None:
        """Make ready for the next :meth:`call`."""
        self.called = Future()

    def queued(self) -> int:
        """Return how many wait in the longest of its queues."""
        return max((len(gate.queue) for gate in self.queues), default=0)
