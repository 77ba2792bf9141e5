"""How far the calls of an actor were gone through, and the causes that were found."""

from __future__ import annotations

from typing import NamedTuple

from .pairs import Pair


class Cause(NamedTuple):
    """Why an actor's runs part at a call.

    :param scope: the actor's.
    :param number: the index of the call among the actor's.
    :param why: as of a :class:`~llmcall.review.comparison.Parting`, as are the others.
    """

    scope: str
    number: int
    why: str
    before: str | None
    after: str | None
    doubt: str = ""


class Actor:
    """The calls of one actor, and how far they were gone through.

    :ivar passed: how many calls came before what is looked at.
    :ivar noted: how many of them the index of answers knows of.
    :ivar parting: the first call at which its runs part.
    :ivar later: the first call after another draw that is a cause again.
    """

    def __init__(self, scope: str, calls: list[Pair]) -> None:
        self.scope = scope
        self.calls = calls
        self.passed = 0
        self.noted = 0
        self.parting: Cause | None = None
        self.later: Cause | None = None

    def progress(self, index: int) -> tuple[int, float]:
        """Return how far a call is in the run: its number, and its share of the actor's calls."""
        return index, index / len(self.calls)

    def is_done(self) -> bool:
        """Return whether all calls were passed."""
        return self.passed == len(self.calls)

    def part(self, cause: Cause) -> None:
        """Note a cause, and go past it; the rest of the calls is passed if no more causes count."""
        self.passed += 1
        if self.parting is None:
            self.parting = cause
            if cause.why != "draw":
                self.passed = len(self.calls)
        elif cause.why in ("prompt", "parameters", "model"):
            self.later = cause
            self.passed = len(self.calls)
