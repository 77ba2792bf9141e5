"""The home of a worker: the process whose ``map`` runs here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Set

    from ..errors import APIError
    from ..stores.cache.cache import ResponseCache
    from ..stores.cassettes.cassette import Cassette
    from ..traffic.budgets import Needs
    from ..traffic.limits import Endpoints, Slot
    from ..traffic.turns import Turn
    from .deadline import Deadline


class LedFlights(Protocol):
    """The flights that a call of this process leads there."""

    @property
    def keys(self) -> Set[str]:
        """The keys of their requests."""
        ...

    def end(self, answered: Collection[str], error: APIError | None) -> None:
        """End the flights.

        :param answered: the keys of those whose answer is stored.
        :param error: what the followers of the others get; ``None``: one of them takes the lead.
        """
        ...


class Home(Protocol):
    """The process whose ``map`` runs here: its flights, open budgets and limits hold here, too."""

    def lead(self, shared_by: ResponseCache | Cassette, keys: Collection[str]) -> LedFlights:
        """Lead the flight of each request that has none there.

        :param shared_by: the cache or cassette through which the answers are shared.
        """
        ...

    def follow(self, shared_by: ResponseCache | Cassette, key: str, seconds: float | None) -> None:
        """Wait for a flight there, for some seconds at most.

        :raises APIError: the leader's, if it is shared.
        """
        ...

    def needs(self) -> Needs:
        """Return what its open budgets have to know of a send."""
        ...

    def turn(self, label: str, endpoints: Endpoints, slot: Slot, deadline: Deadline) -> Turn:
        """Return the turn of a send among those of that process and of this one."""
        ...


homes: list[Home] = []  # the innermost last
