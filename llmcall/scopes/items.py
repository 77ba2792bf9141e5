"""The items of a ``map``: each has a name, and its draws, which are retracted together if it ends early."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from .draws import Draw, Drawn


class Retracts(Protocol):
    """A draw, here or in the process that records this one."""

    def retract(self) -> None:
        """Free its number, even if its call has an answer: the same call will be made again."""
        ...


class MapIsOverError(KeyboardInterrupt):
    """Raised for a draw in a ``map`` that is over, so that no ``except Exception`` takes it for a
    failed call.
    """


class DrawList:
    """The draws of one item of a ``map``, which are retracted together if it ends early.

    :param parent: the list of the item in which the map runs, or ``None``.
    """

    __slots__ = ("_is_over", "_parent", "draws")

    def __init__(self, parent: DrawList | None = None) -> None:
        self.draws: list[Retracts] = []
        self._parent = parent
        self._is_over = False

    def add(self, draw: Retracts) -> None:
        """Add a draw.

        :raises MapIsOverError: if the draws were retracted.
        """
        if self._parent is not None:
            self._parent.add(draw)
        self.draws.append(draw)
        if self._is_over:
            draw.retract()
            raise MapIsOverError("the map that this call belongs to is over")

    def drawn(self) -> list[Drawn]:
        """Return the draws whose numbers are still taken."""
        return [
            Drawn(draw.request, draw.branches, draw.number)
            for draw in self.draws
            if isinstance(draw, Draw) and draw.is_taken
        ]

    def retract(self) -> None:
        """Retract all draws, and refuse further ones."""
        self._is_over = True
        for draw in list(self.draws):
            draw.retract()


class Item(NamedTuple):
    """The item of a ``map`` in which code runs.

    :param name: its name, if the map has names for its items.
    :param draws: gets its draws, or ``None``.
    """

    name: str = ""
    draws: DrawList | None = None


NO_ITEM = Item()
