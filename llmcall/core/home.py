"""The home of a worker: the process whose ``map`` runs here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..stores.cache.cache import ResponseCache
    from ..stores.cassettes.cassette import Cassette
    from ..traffic.limits import Endpoints, Slot
    from ..traffic.reservations import Needs
    from .waiting import Deadline


class Lead(Protocol):
    """The right to ask for some requests: among all workers of a map, one has it, and the others wait."""

    def begin(self, keys: Collection[str], deadline: Deadline) -> None:
        """Wait until nobody else asks for any of them.

        :raises RequestTimeoutError: if the deadline passes.
        """
        ...

    def end(self) -> None:
        """Let others ask; they look first for what is stored."""
        ...


class Home(Protocol):
    """The process whose ``map`` runs here: its flights, open budgets and limits hold here, too."""

    def lead(self, shared_by: ResponseCache | Cassette) -> Lead:
        """Return a lead that has not begun.

        :param shared_by: the cache or cassette through which the answers are shared.
        """
        ...

    def needs(self) -> Needs:
        """Return what its open budgets have to know of a send."""
        ...

    def slot(self, pool: Endpoints, slot_type: type[Slot]) -> Slot:
        """Return the slot of a send among those of that process."""
        ...


homes: list[Home] = []  # the innermost last
