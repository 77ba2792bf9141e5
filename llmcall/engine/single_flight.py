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
    from .prepare import RetryPolicy

    Key = tuple[ResponseCache, str]  # where the answer goes to, and the request's key
    Outcomes = dict[str, Outcome]  # by the request's key

__all__ = ["Shareable", "share"]

TOO_LONG = "the call's deadline passed while an identical call was under way"


class Flight:
    """Be one request under way.

    :ivar outcome: what it comes to; ``None`` where the leader left without anything that others may share.
    :ivar thread: the thread that leads it.
    :ivar followers: how many others wait, or waited, for the outcome.
    """

    __slots__ = ("followers", "outcome", "thread")

    def __init__(self) -> None:
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

    def stored(self) -> Record | None:
        """Return the answer that the disk cache holds by now, where it may supply it."""


def share(
    calls: Sequence[Shareable],
    ask: Callable[[Any], Flow[Outcomes]],
    policy: RetryPolicy,
    cache: ResponseCache | None,
) -> Flow[Outcomes]:
    """Answer calls that are not recorded: as the leader of each request's flight, or by another caller's answer.

    An error of the caller's own deadline, budget or cancellation is not shared: another one takes over.

    :param calls: of one client, all with the same options.
    :param ask: answers those of them that nobody else does.
    :param cache: where the answers go to; ``None`` where they are not stored, and not shared.
    """
    if cache is None:
        return (yield from ask(calls))
    outcomes: Outcomes = {}
    left = calls
    while left:
        followed = yield from _lead(cache, left, ask, policy, outcomes)
        left = []
        for call, flight in followed:
            if not (yield Wait(flight.outcome, policy.time_left(), flight.thread)):
                outcomes |= yield from ask([call])  # the thread itself is at it, further out
                continue
            outcome = flight.result()
            if outcome is None:
                left.append(call)
            else:
                outcomes[call.request.cache_key] = outcome
    return outcomes


def _lead(
    cache: ResponseCache,
    calls: Sequence[Shareable],
    ask: Callable[[Any], Flow[Outcomes]],
    policy: RetryPolicy,
    outcomes: Outcomes,
) -> Flow[list[tuple[Shareable, Flight]]]:
    """Answer the calls that nobody is answering; return the others, each with its flight."""
    led: dict[str, Flight] = {}
    followed: list[tuple[Shareable, Flight]] = []
    missing: list[Shareable] = []
    shared: APIError | None = None
    try:
        with _lock:  # all at once: of two equal batches, one would else lead some texts and the other the rest
            for call in calls:
                key = call.request.cache_key
                other = _flights.get((cache, key))
                if other is None:
                    led[key] = _flights[cache, key] = Flight()
                    missing.append(call)
                else:
                    other.followers += 1
                    followed.append((call, other))
        for call in tuple(missing):
            record = yield from look(cache, call.stored)  # another one may have stored it meanwhile
            if record is not None:
                outcomes[call.request.cache_key] = Outcome(record)
                missing.remove(call)
        if missing:
            outcomes |= yield from ask(missing)
    except APIError as error:
        if not policy.ended(error):
            shared = copy.copy(error)  # a traceback belongs to one
            shared.__cause__ = error.__cause__
        raise
    finally:
        for key, flight in led.items():
            with _lock:
                if _flights.get((cache, key)) is flight:
                    del _flights[cache, key]
            outcome = outcomes.get(key)
            if outcome is None and shared is not None:
                flight.outcome.set_exception(shared)
            else:
                # A copy of what is already its caller's when the others wake up.
                told = Outcome(copy.deepcopy(outcome.record)) if outcome is not None and flight.followers else None
                flight.outcome.set_result(told)
    return followed
