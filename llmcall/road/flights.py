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


class Flights:
    """Know which calls are under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[str, Flight] = {}
        self._followed: set[str] = set()

    def join(self, key: str) -> tuple[bool, Flight]:
        """Return whether the caller leads, and the flight that it leads or follows."""
        from concurrent.futures import Future

        mine = Flight(key, Future(), threading.get_ident())
        with self._lock:
            other = self._flights.setdefault(key, mine)
            if other is not mine:
                self._followed.add(key)
        return (other is mine, other)

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
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]
            followed = flight.key in self._followed
            self._followed.discard(flight.key)
        if share is not None and outcome is not None:
            outcome = share(outcome) if followed else None
        if error is not None:
            flight.outcome.set_exception(error)
        else:
            flight.outcome.set_result(outcome)
