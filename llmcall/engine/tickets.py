"""A place in a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .flights import Leader, Outcome

if TYPE_CHECKING:
    from .limits import Entry, Gate

__all__ = ["Ticket"]


class Ticket:
    """Be one attempt's place in the queues of the endpoints that may serve it.

    :ivar called: is done when there is reason to look again.
    :ivar leader: whoever holds it, and ``left`` whether it was given back.
    :ivar entry: the call, once it was let in, and ``gate`` where.
    """

    __slots__ = ("called", "entry", "gate", "leader", "left", "queues")

    def __init__(self) -> None:
        self.called: Outcome | None = None
        self.leader = Leader()
        self.left = False
        self.entry: Entry | None = None
        self.gate: Gate | None = None
        self.queues: tuple[Gate, ...] = ()

    def call(self) -> None:
        """Tell whoever holds it to look again."""
        if self.called is not None and not self.called.done():
            self.called.settle(None, None)

    def call_later(self) -> None:
        """Make ready for the next :meth:`call`."""
        self.called = Outcome()

    def is_gone(self) -> bool:
        """Return whether it was given back, or whoever held it ended without doing so."""
        return self.left or self.leader.is_gone()

    def queued(self) -> int:
        """Return how many wait in the longest of its queues."""
        return max((len(gate.queue) for gate in self.queues), default=0)
