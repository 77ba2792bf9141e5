"""Which answers came before an actor's next call.

A recording keeps the order of each actor's calls, and not that between actors. Another actor's answer
came before a call if it stands in an earlier round. In the same round it may have come before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import merge

from .changes import Change, Part, Parts, Turn, order_of
from .progress import Actor

BEFORE, BESIDE, AFTER = range(3)

CameBefore = Callable[[Actor, Change], bool]  # whether an answer came before an actor's next call


class Order:
    """The order of the calls of some actors, as far as their rounds tell it.

    :param actors: by scope path; how far they were gone through changes.
    """

    def __init__(self, actors: Mapping[str, Actor]) -> None:
        self._actors = actors

    def has_come(self, actor: Actor, change: Change) -> bool:
        """Return whether an answer came before an actor's next call."""
        order = self._order(actor, change)
        is_passed = change.place < self._actors[change.scope].next_place
        return order == BEFORE or (order == BESIDE and is_passed)

    def may_come(self, actor: Actor, change: Change) -> bool:
        """Return whether an answer came before an actor's next call, or may have in the same round."""
        return self._order(actor, change) != AFTER

    def _order(self, actor: Actor, change: Change) -> int:
        """Return whether an answer came before an actor's next call, as far as rounds tell."""
        if change.scope == actor.scope:
            return BEFORE if change.place < actor.next_place else AFTER
        return self.turn_order(actor, change.turn)

    def turn_order(self, actor: Actor, turn: Turn) -> int:
        """Return whether a turn of other actors comes before an actor's next call."""
        if turn.is_before(actor.next_turn):
            return BEFORE
        return AFTER if actor.next_turn.is_before(turn) else BESIDE

    def parts_before(self, actor: Actor, parts: Parts, came_before: CameBefore) -> Iterator[Part]:
        """Yield the parts that came before an actor's next call, in their order.

        An actor's own turns are in the same order, apart from the next call itself.
        """
        groups: list[Iterable[Part]] = []
        for turn, turn_parts in parts.by_turn.items():
            order = self.turn_order(actor, turn)
            if order == BEFORE:
                groups.append(turn_parts)
            elif order == BESIDE and came_before == self.has_come:
                groups.append(parts.passed_by_turn.get(turn, ()))
            elif order == BESIDE:
                groups.append(part for part in turn_parts if came_before(actor, part.change))
        return merge(*groups, key=order_of)
