"""Single flight: of identical requests under way in one process, one is sent, and all share its outcome."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import APIError, RequestTimeoutError
from ..forks import after_fork_in_child
from ..types import Outcome
from .drivers import Wait, look

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..cache.cache import ResponseCache
    from ..types import Record, Request
    from .drivers import Flow
    from .retry import RetryPolicy

    Key = tuple[ResponseCache, str]  # where the answer goes to, and the request's key
    Outcomes = dict[str, Outcome]  # by the request's key

__all__ = ["Shareable", "share"]

TOO_LONG = "the call's deadline passed while an identical call was under way"


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
        self.outcome: Future[Outcome | None] = Future()
        self.outcome.set_running_or_notify_cancel()  # a follower that is cancelled cancels nothing
        self.thread = threading.get_ident()
        self.followers = 0

    def result(self) -> Outcome | None:
        """Return a copy of what it came to.

        :raises RequestTimeoutError: where it is still under way.
        :raises APIError: the leader's, with a traceback of the follower's own.
        """
        if not self.outcome.done():
            raise RequestTimeoutError(TOO_LONG)
        error = self.outcome.exception()
        if isinstance(error, APIError):
            raise copy.copy(error) from error.__cause__
        return copy.deepcopy(self.outcome.result())


_lock = threading.RLock()  # the garbage collector may end an abandoned leader at any moment
_flights: dict[Key, Flight] = {}


def _join(keys: list[Key]) -> list[tuple[bool, Flight]]:
    """Return for each key whether the caller leads, and the flight that it leads or follows.

    All at once: of two equal batches, one would else lead some texts and the other the rest.
    """
    joined = []
    with _lock:
        for key in keys:
            other = _flights.get(key)
            if other is not None:
                other.followers += 1
            joined.append((other is None, other or _flights.setdefault(key, Flight(key))))
    return joined


def _land(flight: Flight, outcome: Outcome | None, error: APIError | None) -> None:
    """End a flight that the caller leads: with an outcome, an error to share, or nothing to share."""
    with _lock:
        if _flights.get(flight.key) is flight:
            del _flights[flight.key]
    if outcome is None and error is not None:
        flight.outcome.set_exception(error)
    else:
        # A copy of what is already its caller's when the others wake up.
        told = Outcome(copy.deepcopy(outcome.record)) if outcome is not None and flight.followers else None
        flight.outcome.set_result(told)


@after_fork_in_child
def _forget() -> None:
    """Forget, in a forked process, the requests of the threads that stayed behind."""
    global _lock
    _lock = threading.RLock()
    _flights.clear()


class Shareable(Protocol):
    """What single flight needs of a call: of a model, or of a recorded function."""

    @property
    def request(self) -> Request:
        """Return what is asked."""

    @property
    def cache(self) -> ResponseCache | None:
        """Return the disk cache, or ``None`` where the call goes past it."""

    @property
    def storing_mode(self) -> str:
        """Return how the disk cache stores."""

    def stored(self) -> Record | None:
        """Return the answer that the disk cache holds by now, where it may supply it."""


def share(calls: Sequence[Shareable], ask: Callable[[Any], Flow[Outcomes]], policy: RetryPolicy) -> Flow[Outcomes]:
    """Answer calls that are not recorded: as the leader of each request's flight, or by another caller's answer.

    An error of the caller's own deadline, budget or cancellation is not shared: another one takes over.

    :param calls: of one client, all with the same options.
    :param ask: answers those of them that nobody else does.
    """
    cache = calls[0].cache
    if cache is None or calls[0].storing_mode == "off":
        return (yield from ask(calls))
    outcomes: Outcomes = {}
    left = {call.request.cache_key: call for call in calls}
    while left:
        followed = yield from _lead(cache, list(left.values()), ask, policy, outcomes)
        left = {}
        for call, flight in followed:
            if not (yield Wait(flight.outcome, policy.time_left(), flight.thread)):
                outcomes |= yield from ask([call])  # the thread itself is at it, further out
                continue
            outcome = flight.result()
            if outcome is None:
                left[call.request.cache_key] = call
            else:
                outcomes[call.request.cache_key] = outcome
    return outcomes


def _lead(
    cache: ResponseCache,
    calls: list[Shareable],
    ask: Callable[[Any], Flow[Outcomes]],
    policy: RetryPolicy,
    outcomes: Outcomes,
) -> Flow[list[tuple[Shareable, Flight]]]:
    """Answer the calls that nobody is answering; return the others, each with its flight."""
    led: list[Flight] = []
    followed: list[tuple[Shareable, Flight]] = []
    missing: list[Shareable] = []
    shared: APIError | None = None
    try:
        joined = _join([(cache, call.request.cache_key) for call in calls])
        led = [flight for leads, flight in joined if leads]
        for call, (leads, flight) in zip(calls, joined, strict=True):
            if not leads:
                followed.append((call, flight))
                continue
            record = yield from look(cache, call.stored)  # another one may have stored it meanwhile
            if record is None:
                missing.append(call)
            else:
                outcomes[call.request.cache_key] = Outcome(record)
        if missing:
            outcomes |= yield from ask(missing)
    except APIError as error:
        if not policy.ended(error):
            shared = copy.copy(error)  # a traceback belongs to one
            shared.__cause__ = error.__cause__
        raise
    finally:
        for flight in led:
            _land(flight, outcomes.get(flight.key[1]), shared)
    return followed
