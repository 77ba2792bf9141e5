"""What an endpoint allows: calls at once, requests and tokens in any minute, and what its server says."""

from __future__ import annotations

import time
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

import llmcall
from llmcall.admission.demands import Demand
from llmcall.admission.limits import NO_LIMITS, WINDOW, Entry, Limits, Room, Ticket, process_room
from llmcall.admission.pools import Pool
from llmcall.admission.rate_headers import told_by
from llmcall.config.endpoints import Endpoint

INFINITE = float("inf")
LIMITS = st.integers(1, 5)
STEPS = st.lists(st.tuples(st.sampled_from(["ask", "ask", "answer", "fail"]), st.floats(0, 40)), max_size=40)


class Door:
    """Ask a pool's endpoints to let calls in, by a clock that the test moves."""

    def __init__(self, limits: Limits = NO_LIMITS, *names: str, room: Room | None = None) -> None:
        self.now = 1000.0
        self.limits = limits
        self.pool = Pool([Endpoint(name) for name in names or ("a",)], room)

    def enter(self, ticket: Ticket, tokens: int | None = None, model: str = "m") -> tuple[str | None, float, float]:
        """Return the endpoint's name, or ``None`` and the seconds to wait."""
        demand = None if tokens is None else Demand(tokens, 0, tokens)
        endpoint, seconds, least = self.pool.enter(ticket, self.limits, demand, model, lambda: self.now)
        return endpoint.name if endpoint else None, seconds, least

    def entered(self, tokens: int | None = None, model: str = "m") -> Ticket:
        """Return the ticket of a call that is let in."""
        ticket = Ticket()
        assert self.enter(ticket, tokens, model)[0] is not None
        return ticket

    def leave(self, ticket: Ticket, used: int | None = None) -> None:
        """End a call, with an answer that used some tokens, or with none."""
        if used is not None and ticket.gate and ticket.entry:
            ticket.gate.settle(ticket.entry, used)
        self.pool.leave(ticket, answered=used is not None)

    def refused(self, tokens: int | None = None, model: str = "m") -> float:
        """Return the seconds that a call would wait, which then does not."""
        ticket = Ticket()
        name, seconds, _ = self.enter(ticket, tokens, model)
        assert name is None
        self.leave(ticket)
        return seconds


def called(ticket: Ticket) -> bool:
    """Tell whether a ticket has reason to look again."""
    assert ticket.called is not None
    return ticket.called.done()


def test_a_burst_is_allowed_and_then_a_minute_passes() -> None:
    """All requests of a minute may begin at once; the next waits until the first is a minute old."""
    door = Door(Limits(requests=3))
    for _ in range(2):
        door.entered()
    door.now += 10
    door.entered()
    assert door.refused() == WINDOW - 10
    door.now += WINDOW - 10
    door.entered()
    door.entered()
    assert door.refused() == 10


@given(limit=LIMITS, steps=STEPS)
def test_no_minute_holds_more_requests_than_the_limit(limit: int, steps: list[tuple[str, float]]) -> None:
    """However calls come, end and fail, no 60 seconds hold more beginnings than the limit, and no wait is needless."""
    door, begun, running = Door(Limits(requests=limit)), [], []
    for what, seconds in steps:
        door.now += seconds
        if what == "ask":
            ticket = Ticket()
            name, wait, _ = door.enter(ticket)
            full = sum(door.now - WINDOW < each for each in begun) >= limit
            assert (name is None) == full == (wait > 0)
            if name is None:
                door.leave(ticket)
            else:
                begun.append(door.now)
                running.append(ticket)
        elif running:
            door.leave(running.pop(0), used=1 if what == "answer" else None)
    assert all(sum(start <= each < start + WINDOW for each in begun) <= limit for start in begun)


SIZES = st.lists(st.tuples(st.integers(1, 10), st.integers(0, 10)), min_size=40)


@given(limit=st.integers(10, 50), steps=STEPS, sizes=SIZES)
def test_no_minute_uses_more_tokens_than_the_limit(
    limit: int, steps: list[tuple[str, float]], sizes: list[tuple[int, int]]
) -> None:
    """Reserved and used tokens of the calls begun in any 60 seconds stay within the limit."""
    door, log, running = Door(Limits(tokens=limit)), [], []
    for (what, seconds), (reserved, used) in zip(steps, sizes, strict=False):
        door.now += seconds
        if what == "ask":
            ticket = Ticket()
            if door.enter(ticket, reserved)[0] is None:
                door.leave(ticket)
            else:
                log.append(ticket.entry)
                running.append(ticket)
        elif running:
            ticket = running.pop(0)
            assert ticket.entry
            door.leave(ticket, used=min(used, ticket.entry.tokens) if what == "answer" else None)
        assert _in_a_minute(log, door.now) <= limit


def _in_a_minute(log: list[Any], now: float) -> int:
    return sum(entry.tokens for entry in log if isinstance(entry, Entry) and entry.begun > now - WINDOW)


def test_tokens_are_settled_by_what_was_used() -> None:
    """What an answer did not use, and all of a failed call, may be used by others at once."""
    door = Door(Limits(tokens=100))
    first, second = door.entered(60), door.entered(40)
    assert door.refused(50) == WINDOW
    door.leave(first, used=10)
    door.leave(door.entered(50), used=50)
    door.leave(second)
    door.entered(40)
    assert door.refused(1) == WINDOW


def test_a_call_larger_than_the_limit_goes_alone() -> None:
    """A call that may use more than a minute's tokens waits until nothing else is counted, and then goes."""
    door = Door(Limits(tokens=100))
    door.entered(1)
    assert door.refused(500) == WINDOW
    door.now += WINDOW
    door.entered(500)
    assert door.refused(1) == WINDOW


def test_a_place_is_free_when_a_call_ends() -> None:
    """Where as many calls run as may, time does not help; the end of one calls whoever is first."""
    door = Door(Limits(calls=2))
    running, waiting = [door.entered(), door.entered()], [Ticket(), Ticket()]
    for ticket in waiting:
        assert door.enter(ticket) == (None, INFINITE, 0.0)
    door.leave(running[0])
    assert [called(ticket) for ticket in waiting] == [True, False]
    assert door.enter(waiting[1])[0] is None
    assert door.enter(waiting[0])[0] == "a"
    assert called(waiting[1])
    assert door.enter(waiting[1])[0] is None
    door.leave(running[1])
    assert door.enter(waiting[1])[0] == "a"


def test_nobody_overtakes() -> None:
    """A call that comes while others wait comes after them, though there is a place."""
    door = Door(Limits(calls=1))
    running, first, late = door.entered(), Ticket(), Ticket()
    door.enter(first)
    door.leave(running)
    assert door.enter(late)[0] is None
    assert door.enter(first)[0] == "a"


def test_who_leaves_the_queue_lets_the_next_in() -> None:
    """A call that is cancelled while it waits holds nobody up."""
    door = Door(Limits(requests=1))
    door.entered()
    first, second = Ticket(), Ticket()
    assert door.enter(first)[1] == WINDOW
    assert door.enter(second) == (None, INFINITE, WINDOW)
    door.leave(first)
    assert called(second)
    assert door.enter(second)[1] == WINDOW


def test_leaving_twice_gives_back_once() -> None:
    """A place is given back once, however often it is left."""
    door = Door(Limits(calls=2))
    first = door.entered()
    door.entered()
    door.leave(first)
    door.leave(first)
    door.entered()
    assert door.refused() == INFINITE


def test_another_endpoint_is_asked_where_one_is_full() -> None:
    """Limits are those of each endpoint: of a pool, one that has room is asked, in turn."""
    door = Door(Limits(requests=2), "a", "b")
    names = [door.enter(Ticket())[0] for _ in range(4)]
    assert names == ["a", "b", "a", "b"]
    door.now += 1
    door.pool.rest(door.pool.endpoints[0], door.now + 500)
    assert door.refused() == WINDOW - 1
    door.now += WINDOW
    assert [door.enter(Ticket())[0] for _ in range(2)] == ["b", "b"]


def test_pools_share_the_state_of_an_endpoint() -> None:
    """Two clients that know an endpoint by the same name and address are limited together; another address is not."""
    room = Room()
    one, other = Door(Limits(requests=1), room=room), Door(Limits(requests=1), room=room)
    one.entered()
    assert other.refused() == WINDOW
    elsewhere = Door(Limits(requests=1), room=room)
    elsewhere.pool.endpoints = [Endpoint("a", base_url="http://elsewhere.example.org")]
    elsewhere.entered()


def test_a_rest_holds_for_every_pool() -> None:
    """What one client was told by a 429, all keep to."""
    room = Room()
    one, other = Door(room=room), Door(room=room)
    one.pool.rest(one.pool.endpoints[0], one.now + 7)
    assert other.refused() == 7


def test_an_endpoint_that_is_left_out_is_waited_for_no_more() -> None:
    """A call that waits for two endpoints goes on with the one that remains."""
    door = Door(Limits(calls=1), "a", "b")
    first, second, waiting = door.entered(), door.entered(), Ticket()
    door.enter(waiting)
    door.pool.leave_out(door.pool.endpoints[0])
    door.enter(waiting)
    door.leave(first)
    assert not called(waiting)
    door.leave(second)
    assert door.enter(waiting)[0] == "b"


HEADERS = [
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, {"requests": (0, 360.0)}),
    ({"x-ratelimit-remaining-tokens": "149984", "x-ratelimit-reset-tokens": "20ms"}, {"tokens": (149984, 0.02)}),
    ({"x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-requests": "1h2m3.5s"}, {"requests": (59, 3723.5)}),
    ({"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "11"}, {"tokens": (7, 11.0)}),
    ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "12.5"}, {"requests": (3, 12.5)}),
    ({"x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "1s"}, {"requests": (-1, 1.0)}),
    ({"x-ratelimit-remaining-requests": "0"}, {}),
    ({"x-ratelimit-reset-requests": "1s"}, {}),
    ({"x-ratelimit-remaining-requests": "many", "x-ratelimit-reset-requests": "soon"}, {}),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1.2.3s"}, {}),
    ({}, {}),
]


@pytest.mark.parametrize(("headers", "expected"), HEADERS)
def test_what_headers_say(headers: dict[str, str], expected: dict[str, tuple[int, float]]) -> None:
    """What is left and for how long is read as servers write it; half of it says nothing."""
    found = told_by(headers)
    assert {name: (left, pytest.approx(seconds)) for name, (left, seconds) in expected.items()} == found


@pytest.mark.parametrize("unit", [1, 1000])
def test_a_reset_that_is_a_date(unit: int) -> None:
    """A reset as a date, in seconds or milliseconds since 1970, is so many seconds from now."""
    date = str(int((time.time() + 3600) * unit))
    (_, seconds), = told_by({"x-ratelimit-remaining": "0", "x-ratelimit-reset": date}).values()
    assert 3590 < seconds <= 3600


def told(door: Door, **left: str) -> None:
    """Let the endpoint say what is left, for 30 seconds."""
    headers = {f"x-ratelimit-remaining-{name}": value for name, value in left.items()}
    resets = {f"x-ratelimit-reset-{name}": "30s" for name in left}
    door.pool.room.gate(door.pool.endpoints[0]).hear("m", {**headers, **resets}, door.now)


def test_what_the_server_says_is_kept_to() -> None:
    """Where a server says that so many requests are left, no more are sent until it counts anew; other models may."""
    door = Door()
    told(door, requests="2")
    door.entered()
    door.entered()
    assert door.refused() == 30
    door.entered(model="another")
    door.now += 30
    door.entered()


def test_the_tokens_that_the_server_has_left() -> None:
    """A call that says it may use more tokens than are left waits, a smaller one does not."""
    door = Door()
    told(door, tokens="100")
    assert door.refused(101) == 30
    door.entered(90)
    assert door.refused(20) == 30
    door.entered(10)


def test_reset_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """llmcall.reset() begins anew, and calls whoever waits."""
    door = Door(Limits(requests=1), room=process_room)
    door.entered()
    waiting = Ticket()
    door.enter(waiting)
    llmcall.reset()
    assert called(waiting)
    assert door.enter(waiting)[0] == "a"
