"""How far the calls of an actor were gone through, and the causes that were found."""

from __future__ import annotations

from typing import NamedTuple

from .changes import Turn
from .pairs import Pair


class Cause(NamedTuple):
    """Why an actor's runs part at a call.

    :param scope: the actor's.
    :param place: the call's place among the actor's, from 0.
    :param why: as of a :class:`~llmcall.review.comparison.Parting`, as are the others.
    """

    scope: str
    place: int
    why: str
    before: str | None
    after: str | None
    doubt: str = ""


class Actor:
    """The calls of one actor, and how far they were gone through.

    :ivar next_place: the place of the next call among them, from 0.
    :ivar indexed: how many calls the index of answers knows to be passed.
    :ivar parting: the first call at which its runs part.
    :ivar later: the first call after another draw that is a cause again.
    """

    def __init__(self, scope: str, calls: list[Pair]) -> None:
        self.scope = scope
        self.calls = calls
        self.next_place = 0
        self.indexed = 0
        self.parting: Cause | None = None
        self.later: Cause | None = None

    @property
    def next_turn(self) -> Turn:
        """Return where the next call stands in the actor's run."""
        return Turn(self.next_place, len(self.calls))

    def is_done(self) -> bool:
        """Return whether all calls were passed."""
        return self.next_place == len(self.calls)

    def note_cause(self, cause: Cause) -> None:
        """Note a cause, and go past it; the rest of the calls is passed if no more causes count."""
        self.next_place += 1
        if self.parting is None:
            self.parting = cause
            if cause.why != "draw":
                self.next_place = len(self.calls)
        elif cause.why in ("prompt", "parameters", "model"):
            self.later = cause
            self.next_place = len(self.calls)
