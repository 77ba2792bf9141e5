"""Single flight: of identical requests under way in one process, one is sent, and all share its
outcome.
"""

from __future__ import annotations

import copy
import time
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import APIError, RequestTimeoutError
from ..notices import warn_once
from ..system import after_fork_in_child, process_lock
from ..types import Outcome
from .drivers import Party, Wait, look
from .lookup import stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..cache.cache import ResponseCache
    from .drivers import Flow
    from .prepared_call import PreparedCall
    from .retry import RetryPolicy

    Key = tuple[ResponseCache, str]  # where the answer goes to, and the request's key
    Outcomes = dict[str, Outcome]  # by the request's key

# Seconds after which nobody waits for a stream whose reader does not read on: he may be waiting for
# the one who waits.
PATIENCE = 10.0


_lock = process_lock(__name__)


_flights: dict[Key, _Flight] = {}
after_fork_in_child(_flights.clear)  # which are of the threads that stayed behind


class _Flight(Future["Outcome | None"]):
    """Be the outcome of one request under way; ``None`` where the leader left without anything that
    others may share.

    :ivar party: who leads it.
    :ivar is_stream: whether a reader gets the answer as it comes, as fast as he reads.
    :ivar handed_at: the monotonic time since which the reader has a piece and has not asked for the
        next one; ``None`` while he waits for it.
    :ivar followers: how many others wait, or waited, for the outcome.
    """

    followers = 0
    handed_at: float | None = None

    def __init__(self, *, is_stream: bool) -> None:
        super().__init__()
        self.party = Party.here()
        self.is_stream = is_stream

    def followed(self, policy: RetryPolicy) -> Flow[bool]:
        """Wait for the outcome; return whether there may be one, which is not so where whoever
        waits would wait for himself, or for a reader who has left the stream lying.
        """
        while True:
            left = policy.time_left()
            seconds = left
            if self.is_stream:
                seconds = PATIENCE if left is None else min(PATIENCE, left)
            if not (yield Wait(self, seconds, self.party)):
                return False
            if self.done() or (left is not None and left <= (seconds or 0.0)):
                return True
            handed_at = self.handed_at
            if handed_at is not None and time.monotonic() - handed_at >= PATIENCE:
                return False

    def shared(self) -> Outcome | None:
        """Return a copy of what it came to.

        :raises RequestTimeoutError: where it is still under way.
        :raises APIError: the leader's, with a traceback of the follower's own.
        """
        if not self.done():
            raise RequestTimeoutError(
                "the call's deadline passed while an identical call was under way"
            )
        error = self.exception()
        if isinstance(error, APIError):
            raise copy.copy(error) from error.__cause__
        return copy.deepcopy(self.result())


@contextmanager
def handed(call: PreparedCall) -> Iterator[None]:
    """Note that the reader of a stream has a piece of it, and who that reader is."""
    cache = call.shared_by
    flight = None if cache is None else _flights.get((cache, call.request.cache_key))
    if flight is not None:
        flight.party = Party.here()
        flight.handed_at = time.monotonic()
    yield
    if flight is not None:
        flight.party = Party.here()
        flight.handed_at = None


def share(
    calls: Sequence[PreparedCall],
    ask: Callable[[Sequence[PreparedCall]], Flow[Outcomes]],
    policy: RetryPolicy,
    cache: ResponseCache | None,
    *,
    stream: bool = False,
) -> Flow[Outcomes]:
    """Answer calls that are not recorded: as the leader of each request's flight, or by another
    caller's answer.

    An error of the caller's own deadline, budget or cancellation is not shared: another one takes
    over. So it does where a stream is left, or fails.

    :param calls: of one client, all with the same options.
    :param ask: answers those of them that nobody else does.
    :param cache: where the answers go to; ``None`` where they are not stored, and not shared.
    :param stream: whether what ``ask`` is told is handed on as it comes.
    """
    if cache is None:
        return (yield from ask(calls))
    outcomes: Outcomes = {}
    while left := [call for call in calls if call.request.cache_key not in outcomes]:
        led: dict[str, _Flight] = {}
        followed: list[tuple[PreparedCall, _Flight]] = []
        missing: list[PreparedCall] = []
        shared: APIError | None = None
        try:
            # all at once: of two equal batches, one would else lead some texts and the other the
            # rest
            with _lock:
                for call in left:
                    key = call.request.cache_key
                    other = _flights.get((cache, key))
                    if other is None:
                        led[key] = _flights[cache, key] = _Flight(is_stream=stream)
                        missing.append(call)
                    else:
                        other.followers += 1
                        followed.append((call, other))
            for call in tuple(missing):
                # another one may have stored it meanwhile
                record = yield from look(cache, stored, call)
                if record is not None:
                    outcomes[call.request.cache_key] = Outcome(record)
                    missing.remove(call)
            if missing:
                outcomes |= yield from ask(missing)
        except APIError as error:
            if not stream and not policy.ended(error):
                shared = copy.copy(error)  # a traceback belongs to one
                shared.__cause__ = error.__cause__
            raise
        finally:
            for key, flight in led.items():
                with _lock:
                    _flights.pop((cache, key), None)
                outcome = outcomes.get(key)
                if outcome is None and shared is not None:
                    flight.set_exception(shared)
                else:
                    # A copy of what is already its caller's when the others wake up.
                    told = (
                        Outcome(copy.deepcopy(outcome.record))
                        if outcome is not None and flight.followers
                        else None
                    )
                    flight.set_result(told)
        for call, flight in followed:
            if not (yield from flight.followed(policy)):
                outcomes |= yield from _asked_beside(call, flight, ask)
            elif (outcome := flight.shared()) is not None:
                outcomes[call.request.cache_key] = outcome
    return outcomes


def _asked_beside(
    call: PreparedCall,
    flight: _Flight,
    ask: Callable[[Sequence[PreparedCall]], Flow[Outcomes]],
) -> Flow[Outcomes]:
    """Ask for a call although an equal one is under way, further out in the same thread or task.

    The reader of a stream has the first half of its answer already: it is that which is recorded.
    """
    if not flight.is_stream:
        return (yield from ask([call]))
    warn_once(
        f"{call.name} is asked while an equal stream is read, which cannot be waited for: its answer is not the "
        "recorded one. Read the stream to its end first, or give each of them a scope",
        about=("beside a stream", call.request.cache_key),
    )
    beside = call._replace(options=call.options._replace(cache=False), cassette=None)
    outcomes = yield from ask([beside])
    return {key: outcome._replace(is_kept=False) for key, outcome in outcomes.items()}
