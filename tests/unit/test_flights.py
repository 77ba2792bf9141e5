"""Single flight: one leads, the others share what comes of it."""

from __future__ import annotations

import threading

import pytest

from llmcall.errors import ServiceError
from llmcall.road.flights import Flights


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
    assert followed.outcome.result(0) == "the answer"
    assert flights.join("k")[0]


def test_an_error_is_shared() -> None:
    """Followers get the leader's error where it is one to share."""
    flights = Flights()
    _, flight = flights.join("k")
    flights.land(flight, error=ServiceError("502"))
    with pytest.raises(ServiceError, match="502"):
        flight.outcome.result(0)


def test_nothing_to_share() -> None:
    """A leader that leaves with nothing lets a follower take over."""
    flights = Flights()
    _, flight = flights.join("k")
    flights.land(flight)
    assert flight.outcome.result(0) is None
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
    flights, joined = Flights(), []
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


def test_a_leader_that_is_gone() -> None:
    """Where Ctrl-C ends a leader before it takes care of its flight, the others are told, and the next one leads."""
    flights = Flights()
    lead = flights.join("k")
    _, followed = flights.join("k")
    assert not followed.outcome.done()
    del lead
    assert followed.outcome.result(0) is None
    assert flights.join("k")[0]
