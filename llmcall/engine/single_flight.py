"""Single flight: of identical requests under way in one process, one is sent, and all share its outcome."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ..forks import after_fork_in_child

if TYPE_CHECKING:
    Key = tuple[Any, str]  # where the answer goes to, and the request's key

__all__ = ["Flight", "SingleFlight", "process_flights"]


class Flight:
    """Be one request under way.

    :param key: identifies the request, and the cache that its answer goes to.
    :ivar outcome: what it comes to; ``None`` where the leader left without anything that others may share.
    :ivar thread: the thread that leads it.
    :ivar followers: how many others wait, or waited, for the outcome.
    """

    __slots__ = ("followers", "key", "outcome", "thread")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.outcome: Future[Any] = Future()
        self.outcome.set_running_or_notify_cancel()  # a follower that is cancelled cancels nothing
        self.thread = threading.get_ident()
        self.followers = 0

    def is_mine(self) -> bool:
        """Return whether the present thread leads it: waiting for it would never end."""
        return self.thread == threading.get_ident() and not self.outcome.done()


class SingleFlight:
    """Know which requests are under way."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the garbage collector may end an abandoned leader at any moment
        self._flights: dict[Key, Flight] = {}

    def join(self, key: Key) -> tuple[bool, Flight]:
        """Return whether the caller leads, and the flight that it leads or follows."""
        with self._lock:
            other = self._flights.get(key)
            if other is not None:
                other.followers += 1
                return False, other
            mine = self._flights[key] = Flight(key)
        return True, mine

    def land(self, flight: Flight, outcome: Any = None, error: BaseException | None = None) -> None:
        """End a flight that the caller leads: with an outcome, an error to share, or nothing to share."""
        with self._lock:
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]
        if error is not None:
            flight.outcome.set_exception(error)
        else:
            flight.outcome.set_result(outcome)

    def forget(self) -> None:
        """Forget, in a forked process, the requests of the threads that stayed behind."""
        self._lock = threading.RLock()
        self._flights = {}


process_flights = SingleFlight()
after_fork_in_child(process_flights.forget)
