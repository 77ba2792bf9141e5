"""The answers that two runs gave differently, and their parts."""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable, Mapping
from typing import NamedTuple

from .forms import Form


class Turn(NamedTuple):
    """Where a call stands in its actor's run.

    :param place: its place among the actor's calls, from 0.
    :param call_count: the number of these calls.
    """

    place: int
    call_count: int

    @property
    def share(self) -> float:
        """Return the share of the actor's calls that come before it."""
        return self.place / self.call_count

    def is_before(self, other: Turn) -> bool:
        """Return whether it comes before another actor's turn by its place and by its share."""
        return self.place < other.place and self.share < other.share


class Change(NamedTuple):
    """One answer that two runs gave differently.

    :param scope: the actor that gave it.
    :param place: the place of its call among those of that actor, from 0.
    :param forms: the parts of the first run's answer.
    :param other_forms: those of the other's.
    :param call_count: the number of calls of that actor.
    """

    scope: str
    place: int
    forms: Mapping[Hashable, Form]
    other_forms: Mapping[Hashable, Form]
    call_count: int

    @property
    def turn(self) -> Turn:
        """Return where its call stands in its actor's run."""
        return Turn(self.place, self.call_count)


class Part(NamedTuple):
    """One part of a changed answer, which prompts may quote.

    :param change: the answer.
    :param location: where it stands in the answer.
    :param order: its index among the parts with the same words.
    """

    change: Change
    location: Hashable
    order: int


class Parts:
    """The parts of changed answers that have the same words in both runs.

    :ivar index: the index of these words among those of all parts.
    :ivar by_turn: the parts, in their order.
    :ivar passed_by_turn: those whose calls were passed, in the same order.
    """

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.by_turn: dict[Turn, list[Part]] = {}
        self.passed_by_turn: dict[Turn, list[Part]] = {}
        self._by_scope: dict[str, list[Part]] = {}
        self._count = 0

    def add(self, change: Change, location: Hashable = ()) -> Part:
        """Add a part of an answer, and return it."""
        part = Part(change, location, self._count)
        self._count += 1
        self.by_turn.setdefault(change.turn, []).append(part)
        scope = change.scope
        self._by_scope.setdefault(scope, []).append(part)
        while "/" in scope:
            scope = scope.rpartition("/")[0]
            self._by_scope.setdefault(scope, []).append(part)
        return part

    def in_scope(self, scope: str) -> list[Part]:
        """Return the parts of an actor, and of those whose scopes are in its scope."""
        return self._by_scope.get(scope, [])

    def note_passed(self, part: Part) -> None:
        """Note that the call that gave a part was passed."""
        passed = self.passed_by_turn.setdefault(part.change.turn, [])
        insort(passed, part, key=order_of)


def order_of(part: Part) -> int:
    """Return the index of a part among those with the same words."""
    return part.order
