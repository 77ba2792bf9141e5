"""Single flight: one leads, the others share what comes of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

import pytest

from llmcall.engine.drivers import adrive, drive
from llmcall.engine.effects import Do, Send
from llmcall.engine.flights import Flight, Flights
from llmcall.errors import ServiceError

if TYPE_CHECKING:
    from llmcall.engine.effects import Flow


def test_the_first_leads() -> None:
    """Of those who ask for one key, the first leads and the others follow the same flight."""
    flights = Flights()
    leads, flight = flights.join("k")
    follows, same = flights.join("k")
    assert (leads, follows) == (True, False)
    assert same == flight


def test_keys_are_apart() -> None:
    """Another key is another flight."""
    flights = Flights()
    assert flights.join("a")[0]
    assert flights.join("b")[0]


def test_the_outcome_is_shared() -> None:
    """Followers get what the leader lands with, and the next to ask leads anew."""
    flights = Flights()
    _, flight = flights.join("k")
    _, followed = flights.join("k")
    flights.land(flight, "the answer")
    assert followed.outcome.result() == "the answer"
    assert flights.join("k")[0]


def test_an_error_is_shared() -> None:
    """Followers get the leader's error where it is one to share."""
    flights = Flights()
    _, flight = flights.join("k")
    flights.land(flight, error=ServiceError("502"))
    with pytest.raises(ServiceError, match="502"):
        flight.outcome.result()


def test_nothing_to_share() -> None:
    """A leader that leaves with nothing lets a follower take over."""
    flights = Flights()
    _, flight = flights.join("k")
    flights.land(flight)
    assert flight.outcome.result() is None
    assert flights.join("k")[0]


def test_landing_touches_no_later_flight() -> None:
    """A flight that is over does not end the one that came after it."""
    flights = Flights()
    _, first = flights.join("k")
    flights.land(first, 1)
    leads, second = flights.join("k")
    assert leads
    assert not second.outcome.done()
    assert flights.join("k")[1] == second


def test_whose_flight_it_is() -> None:
    """A flight is the present thread's own while that thread leads it, and no longer."""
    flights = Flights()
    _, flight = flights.join("k")
    elsewhere: list[bool] = []
    thread = threading.Thread(target=lambda: elsewhere.append(flight.is_mine()))
    thread.start()
    thread.join()
    assert flight.is_mine()
    assert elsewhere == [False]
    flights.land(flight, 1)
    assert not flight.is_mine()


def test_one_leader_among_many_threads() -> None:
    """From many threads at once, exactly one leads each key."""
    flights = Flights()
    joined: list[tuple[bool, Flight]] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        joined.extend(flights.join(key) for key in "abc")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(flight.key for leads, flight in joined if leads) == ["a", "b", "c"]


def led(flights: Flights, joined: list[Flight], ends: BaseException) -> Flow[None]:
    """Lead a flight and end before anything is done about it."""
    joined.append(flights.join("k")[1])
    yield Do(lambda: None)
    raise ends


def test_a_leader_that_is_gone() -> None:
    """Whoever keeps the exception that ended a leader keeps nobody else waiting, and the next one leads."""
    flights = Flights()
    joined: list[Flight] = []
    with pytest.raises(KeyboardInterrupt) as kept:
        drive(led(flights, joined, KeyboardInterrupt()))
    assert joined[0].has_ended()
    assert joined[0].outcome.result() is None
    assert flights.join("k")[0]
    assert kept.value.__traceback__ is not None


def test_a_leader_that_works() -> None:
    """As long as its driver runs, in whichever thread or task, nobody else takes over."""
    flights = Flights()
    seen: list[bool] = []

    def leading() -> Flow[None]:
        flight = flights.join("k")[1]
        yield Do(lambda: seen.append(flights.join("k")[0] or flight.has_ended()))
        flights.land(flight)

    drive(leading())
    asyncio.run(adrive(leading()))
    assert seen == [False, False]


def test_a_leader_whose_event_loop_stands_still() -> None:
    """Others do not wait until somebody runs it again; what it comes to in the end harms nobody."""
    flights = Flights()
    joined: list[Flight] = []
    loop = asyncio.new_event_loop()

    async def waits() -> None:
        loop.stop()
        await asyncio.sleep(0)

    def leading() -> Flow[None]:
        joined.append(flights.join("k")[1])
        yield Send(Asynchronous(waits), None, None)  # type: ignore[arg-type]
        flights.land(joined[0], "late")

    task = loop.create_task(adrive(leading()))
    loop.run_forever()
    leads, later = flights.join("k")
    assert leads
    loop.run_until_complete(task)
    loop.close()
    assert joined[0].outcome.result() is None
    assert flights.join("k") == (False, later)


class Asynchronous(NamedTuple):
    """Be a transport."""

    wait: Callable[[], Awaitable[None]]

    async def asend(self, request: object, timeout: float | None) -> None:
        """Wait, instead of sending anything."""
        await self.wait()
