"""Single flight: of equal requests under way in one process, one is sent, and all share its outcome."""

from __future__ import annotations

import copy
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import APIError, RequestTimeoutError
from ..notices import warn_once
from ..system import after_fork_in_child, process_lock
from ..types import Outcome
from .effects import Runner, Wait, with_cache
from .lookup import find_in_cache, find_on_cassette

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from ..cache.cache import ResponseCache
    from ..cassettes.cassette import Cassette
    from .effects import Flow
    from .prepared_call import Call
    from .retry import RetryPolicy

    Store: TypeAlias = ResponseCache | Cassette
    Key = tuple[Store, str]  # where the answer is stored, and the request's key
    Outcomes = dict[str, Outcome]  # by the request's key


class Flight(Future["Outcome | None"]):
    """One request under way; its outcome is ``None`` if others cannot share it.

    :ivar leader: the thread and task that make the call; of a stream, those that began to read it.
    :ivar is_stream: whether the answer comes no faster than a reader reads it.
    :ivar followers: how many others wait, or waited, for the outcome.
    """

    def __init__(self, *, is_stream: bool) -> None:
        super().__init__()
        self.leader = Runner.current()
        self.is_stream = is_stream
        self.followers = 0

    def shared_outcome(self) -> Outcome | None:
        """Return a copy of the outcome.

        :raises RequestTimeoutError: if the call is still under way.
        :raises APIError: the leader's, with a traceback of its own.
        """
        if not self.done():
            raise RequestTimeoutError(
                "the call's deadline passed while it waited for an identical call"
            )
        error = self.exception()
        if isinstance(error, APIError):
            raise copy.copy(error) from error.__cause__
        return copy.deepcopy(self.result())


_lock = process_lock(__name__)
flights: dict[Key, Flight] = {}
after_fork_in_child(flights.clear)  # the threads that made them are not there


def share(
    calls: Sequence[Call],
    ask: Callable[[Sequence[Call]], Flow[Outcomes]],
    policy: RetryPolicy,
    *,
    stream: bool = False,
) -> Flow[Outcomes]:
    """Answer calls that are not recorded: lead the flight of each request, or follow another call's.

    A leader does not share an error of its own deadline, budget or cancellation, nor that of a
    stream: then a follower takes over.

    :param calls: all with the same options and store; if they have none, they are not shared.
    :param ask: answers the calls that lead a flight, and stores the answers.
    :param stream: whether ``ask`` emits its answer as it comes.
    """
    store = calls[0].shared_store
    if store is None:
        return (yield from ask(calls))
    outcomes: Outcomes = {}
    while True:
        unanswered = [call for call in calls if call.request.cache_key not in outcomes]
        if not unanswered:
            return outcomes
        led_flights: list[tuple[Call, Flight]] = []
        followed_flights: list[tuple[Call, Flight]] = []
        error: APIError | None = None
        try:
            _lead_or_follow(unanswered, store, led_flights, followed_flights, is_stream=stream)
            outcomes |= yield from _ask_missing([call for call, _ in led_flights], ask)
        except APIError as own_error:
            if not stream and not policy.ended_by_deadline(own_error):
                error = copy.copy(own_error)  # the leader's own gets the leader's traceback
                error.__cause__ = own_error.__cause__
            raise
        finally:
            for call, flight in led_flights:
                key = call.request.cache_key
                with _lock:
                    flights.pop((store, key), None)
                _finish(flight, outcomes.get(key), error)
        for call, flight in followed_flights:
            outcomes |= yield from _follow(call, flight, ask, policy)


def _lead_or_follow(
    calls: Sequence[Call],
    store: Store,
    led_flights: list[tuple[Call, Flight]],
    followed_flights: list[tuple[Call, Flight]],
    *,
    is_stream: bool,
) -> None:
    """Begin the flights of requests that have none, and follow the others.

    :param led_flights: gets the calls that lead a flight, and the flights. The caller has this list before
        any flight begins, so that it ends them all even if Ctrl-C comes in between.
    :param followed_flights: gets the calls that follow one, and the flights.
    """
    # Under one lock: of two equal batches, each would else lead some texts and wait for the other.
    with _lock:
        for call in calls:
            key = call.request.cache_key
            flight = flights.get((store, key))
            if flight is None:
                flight = flights[store, key] = Flight(is_stream=is_stream)
                led_flights.append((call, flight))
            else:
                flight.followers += 1
                followed_flights.append((call, flight))


def _ask_missing(
    calls: Sequence[Call], ask: Callable[[Sequence[Call]], Flow[Outcomes]]
) -> Flow[Outcomes]:
    """Ask for those calls whose answer no other leader has stored since the first look."""
    outcomes: Outcomes = {}
    missing = []
    for call in calls:
        key = call.request.cache_key
        record = find_on_cassette(call)
        # A leader of this process notes the key when it stores the answer.
        if record is None and call.cache.has_used(key):
            record = yield from with_cache(call.cache, find_in_cache, call)
        if record is None:
            missing.append(call)
        else:
            outcomes[key] = Outcome(record)
    if missing:
        outcomes |= yield from ask(missing)
    return outcomes


def _follow(
    call: Call,
    flight: Flight,
    ask: Callable[[Sequence[Call]], Flow[Outcomes]],
    policy: RetryPolicy,
) -> Flow[Outcomes]:
    """Wait for another call's flight, and return its outcome; empty if it shares none."""
    if not (yield Wait(flight, policy.time_left(), flight.leader)):
        return (yield from _ask_beside(call, flight, ask))
    outcome = flight.shared_outcome()
    return {} if outcome is None else {call.request.cache_key: outcome}


def _finish(flight: Flight, outcome: Outcome | None, error: APIError | None) -> None:
    """Give a flight its outcome: a copy, since the leader may change its own."""
    if outcome is None and error is not None:
        flight.set_exception(error)
    elif outcome is None or not flight.followers:
        flight.set_result(None)
    else:
        flight.set_result(Outcome(copy.deepcopy(outcome.record)))


def _ask_beside(
    call: Call, flight: Flight, ask: Callable[[Sequence[Call]], Flow[Outcomes]]
) -> Flow[Outcomes]:
    """Ask for a call although its own thread or task makes an equal one.

    If that is a stream, its reader has the first half of the answer already: it is the recorded
    one.
    """
    warn_once(
        f"{call.label} was made while its own thread or task makes the same request, so it asks for "
        "itself. Read a stream to its end first, or give each call a scope",
        about=("beside a flight", call.request.cache_key),
    )
    if not flight.is_stream:
        return (yield from ask([call]))
    unstored = replace(call, options=call.options._replace(cache=False), cassette=None)
    outcomes = yield from ask([unstored])
    return {key: outcome._replace(is_recorded=False) for key, outcome in outcomes.items()}
