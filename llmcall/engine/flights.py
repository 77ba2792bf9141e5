"""Single flight: of identical requests under way in one process, one is sent, and all share its outcome.

Ctrl-C may end a leader at any instant, also before it can say so, and whoever keeps the exception keeps all that the
leader had. So those who follow do not rely on being told: now and then they look whether the leader's driver still
runs, and take over where it does not.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    Driver = TypeVar("Driver", bound=Callable[..., Any])

__all__ = ["Flight", "Flights", "Leader", "Outcome", "driver"]

CO_COROUTINE = 0x80  # of a function that is asynchronous; inspect.CO_COROUTINE, whose import takes long

_drivers: set[CodeType] = set()


def driver(function: Driver) -> Driver:
    """Mark a function as one that performs flows: what a flow leads is under way as long as it runs."""
    _drivers.add(function.__code__)
    return function


class Leader:
    """Be whoever leads a flight: the driver that runs in some thread or task.

    :ivar followers: how many others wait, or waited, for its outcome.
    """

    __slots__ = ("_frame", "_task", "followers")

    def __init__(self) -> None:
        self.followers = 0
        self._task: Any = None
        self._frame = frame = _driver_frame()
        if frame is not None and frame.f_code.co_flags & CO_COROUTINE:
            import asyncio

            self._task, self._frame = asyncio.current_task(), None

    def is_gone(self) -> bool:
        """Return whether it ended, or waits in an event loop that does not run."""
        frame, task = self._frame, self._task
        if task is not None:
            return task.done() or not task.get_loop().is_running()
        if frame is None:
            return False
        try:
            frame.clear()
        except RuntimeError:  # it runs
            return False
        return True

    def leave(self) -> None:
        """Forget what it was: its frame and its task refer to everything that the call used."""
        self._frame = self._task = None


def _driver_frame() -> FrameType | None:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code not in _drivers:
        frame = frame.f_back
    return frame


class Outcome:
    """Hold what a flight comes to, as a ``Future`` does, but with no lock that an interrupted thread could keep.

    ``threading.Condition`` takes its lock in a line of Python, after which Ctrl-C may come before anybody is bound to
    give it back; whoever then sets a future's result waits for ever.
    """

    __slots__ = ("_found", "_told")

    def __init__(self) -> None:
        self._found: list[tuple[Any, BaseException | None]] = []  # the first one counts
        self._told: list[Callable[[Outcome], object]] = []

    def done(self) -> bool:
        """Return whether there is an outcome."""
        return bool(self._found)

    def result(self) -> Any:
        """Return the outcome, or raise the error that it is.

        :raises LookupError: where there is none yet.
        """
        value, error = self._found[0]
        if error is not None:
            raise error
        return value

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Set the outcome, unless there is one, and tell those who wait."""
        self._found.append((value, error))
        for tell in tuple(self._told):
            tell(self)

    def add_done_callback(self, tell: Callable[[Outcome], object]) -> None:
        """Let something be called once or twice when there is an outcome, from any thread."""
        self._told.append(tell)
        if self._found:
            tell(self)

    def remove_done_callback(self, tell: Callable[[Outcome], object]) -> None:
        """Let it be called no more, if it was to be."""
        if tell in self._told:
            self._told.remove(tell)


class Flight(NamedTuple):
    """Be one call under way: its outcome, the thread that leads it, and the leader.

    The outcome is ``None`` where the leader left without one that others may share.
    """

    key: str
    outcome: Outcome
    thread: int
    leader: Leader

    def is_mine(self) -> bool:
        """Return whether the present thread leads it, and it has not ended: waiting for it would never end."""
        return self.thread == threading.get_ident() and not self.outcome.done()

    def has_ended(self) -> bool:
        """Return whether there is an outcome; where the leader is gone, there is none to share."""
        if self.outcome.done():
            return True
        if not self.leader.is_gone():
            return False
        self.end()
        return True

    def end(self, outcome: Any = None, error: BaseException | None = None) -> None:
        """Tell those who follow, unless they were told."""
        self.outcome.settle(outcome, error)
        self.leader.leave()  # after it: whoever has left is not known to be gone


class Flights:
    """Know which calls are under way."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # clearing what a leader left behind may end other flights of its
        self._flights: dict[str, Flight] = {}

    def join(self, key: str) -> tuple[bool, Flight]:
        """Return whether the caller leads, and the flight that it leads or follows."""
        mine = Flight(key, Outcome(), threading.get_ident(), Leader())
        with self._lock:
            other = self._flights.get(key)
            if other is None or other.has_ended():
                self._flights[key] = mine
                return True, mine
            other.leader.followers += 1
        mine.leader.leave()
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
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]
            followed = flight.leader.followers > 0
        if share is not None and outcome is not None:
            outcome = share(outcome) if followed else None
        flight.end(outcome, error)
