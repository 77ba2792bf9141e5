"""Single flight: of identical requests under way in one process, one is sent, and all share its outcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeAlias

from ..errors import APIError
from ..stores.record import Record
from ..support.notices import warn_once
from ..support.system import after_fork_in_child, lock
from ..support.waits import Progress, open_calls
from .calls import Call
from .effects import Blocks, Look, Wait

if TYPE_CHECKING:
    from ..stores.cache.cache import ResponseCache
    from ..stores.cassettes.cassette import Cassette

Records: TypeAlias = dict[str, Record]  # by the request's key
CallsInFlight: TypeAlias = "list[tuple[Call, Flight]]"
SendCalls: TypeAlias = Callable[[Sequence[Call]], Awaitable[Records]]
LATE = "the call's deadline passed while it waited for an identical call"


class Flight(Future[None]):
    """One request under way, done once its answer is stored or its followers have an error. If the leader
    ends without either, a follower leads.

    :param leader: the progress of the call that is sent.
    :ivar is_followed: ``True`` if another call waits for it.
    """

    def __init__(self, leader: Progress) -> None:
        super().__init__()
        self.leader = leader
        self.is_followed = False


# By the cache or cassette through which the answer is shared, and by key.
flights: dict[tuple[ResponseCache | Cassette, str], Flight] = {}
after_fork_in_child(flights.clear)  # a forked process lacks the threads that make them


async def lead(
    calls: Sequence[Call],
    followed: CallsInFlight,
    shared_by: ResponseCache | Cassette,
    send: SendCalls,
) -> Records:
    """Send the calls that lead a flight, and end their flights.

    :param followed: gets the other calls, each with the flight that it follows.
    :param send: sends calls, and returns their records.
    """
    led: CallsInFlight = []
    records: Records = {}
    error: APIError | None = None
    try:
        _begin_flights(calls, led, followed, shared_by)
        await _look_and_send([call for call, _ in led], records, send)
        return records
    except APIError as own_error:
        if _concerns_followers(own_error, calls[0]):
            error = own_error
        raise
    finally:
        for call, flight in led:
            with lock:
                flights.pop((shared_by, call.request.cache_key), None)
            if error is None or not flight.is_followed or call.request.cache_key in records:
                flight.set_result(None)  # a follower finds the record, or leads the next flight
            else:  # the leader's own gets the leader's traceback
                flight.set_exception(_copied(error))
        error = None  # its traceback holds this frame


async def _look_and_send(calls: Sequence[Call], records: Records, send: SendCalls) -> None:
    """Check whether another leader has stored an answer since the first look, and send the rest.

    :param records: gets the records, even if sending fails for some.
    """
    for call in calls:
        key = call.request.cache_key
        if call.store.has_used(key):
            record = await Look(call)
            if record is not None:
                records[key] = record
    unanswered = [call for call in calls if call.request.cache_key not in records]
    if unanswered:
        records.update(await send(unanswered))


async def follow(call: Call, flight: Flight, send: SendCalls) -> Records:
    """Wait for a flight, and return the record that it left; nothing if the call has to lead the next.

    :raises APIError: the leader's, if it is shared.
    """
    if _may_wait_for_us(flight, blocks=await Blocks()) and not flight.done():
        return await _send_beside(call, flight, send)
    while not flight.done():
        await Wait(flight, call.deadline.time_for(None, LATE))
    shared_error = flight.exception()
    if shared_error is not None:  # with a traceback of its own
        raise _copied(shared_error)
    record = await Look(call)
    return {} if record is None else {call.request.cache_key: record}


async def _send_beside(call: Call, flight: Flight, send: SendCalls) -> Records:
    """Send a call although an identical one, which might wait for it, is under way.

    If that is a stream, its reader has the first half of the answer already: it is the recorded
    one.
    """
    warn_once(
        f"{call.label} was made inside another call while the same request is under way. Each might wait for the "
        "other, so llmcall sends it separately. Read a stream to its end first, or give each call a scope",
        about=("beside a flight", call.request.cache_key),
    )
    if flight.leader.is_read:
        call = call.unrecorded()
    return await send([call])


def _begin_flights(
    calls: Sequence[Call],
    led: CallsInFlight,
    followed: CallsInFlight,
    shared_by: ResponseCache | Cassette,
) -> None:
    """Begin a flight for each request without one.

    :param led: gets the calls that lead, each with its flight, before other threads see that flight: an
        interrupted leader can then end it.
    :param followed: gets the calls that follow, each with its flight.
    """
    # Under one lock: otherwise two identical batches would each lead some texts and wait for the other.
    with lock:
        for call in calls:
            flight_key = shared_by, call.request.cache_key
            flight = flights.get(flight_key)
            if flight is None:
                assert call.progress is not None  # it was begun
                flight = Flight(call.progress)
                led.append((call, flight))
                flights[flight_key] = flight
            else:
                flight.is_followed = True
                followed.append((call, flight))


def _concerns_followers(error: APIError, call: Call) -> bool:
    """Return whether the error of a failed call concerns more than this call: not that of a stream."""
    if call.progress is not None and call.progress.is_read:
        return False
    seconds_left = call.deadline.time_left()
    return not error.failure.is_late and (seconds_left is None or seconds_left > 0)


def _copied(error: BaseException) -> BaseException:
    """Return a copy of an error, without its traceback. Its constructor, which may want arguments of its own, is not
    called.
    """
    copied: BaseException = type(error).__new__(type(error), *error.args)
    copied.args = error.args  # an OSError's constructor would set them
    vars(copied).update(vars(error))
    copied.__cause__ = error.__cause__
    return copied


def _may_wait_for_us(flight: Flight, *, blocks: bool) -> bool:
    """Return whether a flight might end only after this call does.

    This thread or task makes its call; or, inside another call, a stream's reader might wait for that other call,
    or any call for the budget that it reserved.

    :param blocks: ``True`` if this call blocks its thread.
    """
    outer = open_calls()
    return (
        flight.leader.waits_for_us(blocks=blocks)
        or (bool(outer) and flight.leader.is_read)
        or any(call.holds_budget for call in outer)
    )
