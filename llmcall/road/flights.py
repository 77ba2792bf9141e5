"""Single flight: of identical requests under way in one process, one is sent, and all share its outcome."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

__all__ = ["Flight", "Flights"]


class Flight(NamedTuple):
    """Be one call under way: its outcome, and the thread that leads it.

    The future's result is the outcome, or ``None`` where the leader left without one that others may share.
    """

    key: str
    outcome: Future[Any]
    thread: int

    def is_mine(self) -> bool:
        """Return whether the present thread leads it, and it has not ended: waiting for it would never end."""
        return self.thread == threading.get_ident() and not self.outcome.done()


class _Lead(Flight):
    """Be a flight in the hands of its leader: Ctrl-C may end that one on the very line before it takes care of it."""

    flights: Flights | None = None

    def __del__(self) -> None:
        if self.flights is not None and not self.outcome.done():
            self.flights.land(self)


class Flights:
    """Know which calls are under way."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # garbage may be collected, and a lead among it, while it is held
        self._flights: dict[str, Flight] = {}
        self._followed: set[str] = set()

    def join(self, key: str) -> tuple[bool, Flight]:
        """Return whether the caller leads, and the flight that it leads or follows."""
        from concurrent.futures import Future

        lead = _Lead(key, Future(), threading.get_ident())
        lead.flights = self
        mine = Flight(*lead)
        with self._lock:
            other = self._flights.setdefault(key, mine)
            if other is mine:
                return True, lead
            lead.flights = None
            self._followed.add(key)
        return False, other

    def land(
        self,
        flight: Flight,
        outcome: Any = None,
        error: BaseException | None = None,
        share: Callable[[Any], Any] | None = None,
    ) -> None:
        """End a flight that the caller leads: with an outcome, an error to share, or nothing to share.

        :param share: makes of the outcome what the others get, where there are any.
        """
        with self._lock:
            if self._flights.get(flight.key) == flight:
                del self._flights[flight.key]
            followed = flight.key in self._followed
            self._followed.discard(flight.key)
        if share is not None and outcome is not None:
            outcome = share(outcome) if followed else None
        if error is not None:
            flight.outcome.set_exception(error)
        else:
            flight.outcome.set_result(outcome)
