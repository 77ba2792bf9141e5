"""What an endpoint allows: calls at once, requests and tokens in any minute, and what its server says."""

from __future__ import annotations

import time
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

import llmcall
from llmcall.config.settings import Endpoint
from llmcall.engine.demands import Demand
from llmcall.engine.limits import NO_LIMITS, WINDOW, Entry, Limits, Pool, Room, process_room
from llmcall.engine.rate_headers import LONGEST_WAIT, told_by
from llmcall.engine.tickets import Ticket

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

    def hear(self, headers: dict[str, str]) -> None:
        """Let the first endpoint say what is left."""
        self.pool.room.gate(self.pool.endpoints[0]).hear("m", told_by(headers), self.now)

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


@given(limit=LIMITS, delays=st.lists(st.floats(0, 1), min_size=20, max_size=20))
def test_calls_arrive_within_the_limit(limit: int, delays: list[float]) -> None:
    """By the clock of a server that is up to a second away no 60 seconds hold more arrivals than the limit."""
    door, arrivals = Door(Limits(requests=limit)), []
    for delay in delays:
        if len(arrivals) >= limit and len(arrivals) % limit == 0:
            door.now += door.refused()
        door.leave(door.entered(), used=1)
        arrivals.append(door.now + delay)
    assert all(sum(start <= each < start + 60 for each in arrivals) <= limit for start in arrivals)


SURPLUSES = [
    ([], 10, 0),
    ([(10, 40)], 10, 30),  # a template's own sentences
    ([(10, 40)], 2000, 30),
    ([(10, 40)], 5, 15),
    ([(100, 300)], 20, 40),  # a vocabulary that takes more tokens
    ([(100, 300), (10, 12)], 20, 40),
    ([(10, 9)], 10, 0),
    ([(0, 3)], 10, 3),
]


@pytest.mark.parametrize(("seen", "counted", "more"), SURPLUSES)
def test_what_a_server_counts_beyond_our_count(seen: list[tuple[int, int]], counted: int, more: int) -> None:
    """It is as much as was seen, in proportion to a shorter prompt; each model has its own, and no prompt gets less."""
    gate = Door().pool.room.gate(Endpoint("a"))
    for ours, its in seen:
        gate.compare("m", ours, its)
    assert (gate.surplus("m", counted), gate.surplus("other", counted)) == (more, 0)


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


def said(kind: str, left: str, reset: str, limit: str | None = None) -> dict[str, str]:
    """Return headers in OpenAI's manner."""
    headers = {f"x-ratelimit-remaining{kind}": left, f"x-ratelimit-reset{kind}": reset}
    return headers if limit is None else {**headers, f"x-ratelimit-limit{kind}": limit}


DATE = "Fri, 20 Nov 2026 12:00:00 GMT"
AT_THE_DATE = 1795176000  # seconds since 1970
IETF = "ratelimit"
HEADERS: list[tuple[dict[str, str], list[tuple[str, int, float, int | None]]]] = [
    (said("-requests", "59", "1s", "60"), [("requests", 59, 1.0, 60)]),  # OpenAI
    (said("-tokens", "149984", "20ms", "150000"), [("tokens", 149984, 0.02, 150000)]),
    (said("-requests", "14370", "2m59.56s", "14400"), [("requests", 14370, 179.56, 14400)]),  # Groq
    (said("-project-tokens", "5", "6m0s", "100"), [("tokens", 5, 360.0, 100)]),
    (said("-tokens_usage_based", "5", "1m30s", "100"), [("tokens", 5, 90.0, 100)]),
    (said("-requests", "0", "1h2m3.5s", "60"), [("requests", 0, 3723.5, 60)]),
    (said("-requests", "0", "1d", "60"), [("requests", 0, 86400.0, 60)]),
    (said("-requests", "0", "2026-11-20T12:01:30Z", "50"), [("requests", 0, 90.0, 50)]),  # Anthropic
    (said("-requests", "0", "2026-11-20T13:01:30.5+01:00", "50"), [("requests", 0, 90.5, 50)]),
    (said("-requests", "0", "2026-11-31T13:01:30Z", "50"), []),
    (said("-requests", "0", "9999-12-31T23:59:59.999999999-23:59", "50"), [("requests", 0, LONGEST_WAIT, 50)]),
    (said("-tokens", "7", "11", "100"), [("tokens", 7, 11.0, None)]),  # Azure
    (said("-requests-day", "0", "33011.382867097855", "14400"), [("requests", 0, 33011.382867, None)]),  # Cerebras
    (said("-tokens-minute", "9", "11.38"), [("tokens", 9, 11.38, None)]),
    (said("-tokens-per-day", "9", str(AT_THE_DATE + 30), "10"), [("tokens", 9, 30.0, None)]),  # DigitalOcean
    (said("-requests", "9", "0", "10"), [("requests", 9, 0.0, None)]),
    (said("", "0", str((AT_THE_DATE + 3600) * 1000), "50"), [("requests", 0, 3600.0, None)]),  # OpenRouter
    (said("", "0", str(AT_THE_DATE - 5)), [("requests", 0, 0.0, None)]),
    (said("", "3", "12.5", "100, 100;window=60"), [("requests", 3, 12.5, None)]),
    ({f"{IETF}-remaining": "0", f"{IETF}-reset": "30", f"{IETF}-limit": "100"}, [("requests", 0, 30.0, None)]),
    ({IETF: '"burst";r=0;t=30, "day" ; r=7 ; t=60'}, [("requests", 0, 30.0, None), ("requests", 7, 60.0, None)]),
    ({IETF: "default;r=0;t=30", f"{IETF}-policy": 'default;q=100;qu="requests"'}, [("requests", 0, 30.0, None)]),
    ({IETF: '"size";r=0;t=30', f"{IETF}-policy": '"size";q=100;qu="content-bytes"'}, []),
    ({IETF: '"a";r=3, "b";t=30, ;r=1;t=1'}, []),
    (said("-requests", "-3", "1s", "60"), [("requests", -3, 1.0, 60)]),
    (said("-requests", "-1", "1s"), [("requests", -1, 1.0, None)]),
    (said("-tokens", "-1", "0", "-1"), []),  # Azure, where there is no limit
    (said("-requests", "0", "99999999999d", "60"), [("requests", 0, LONGEST_WAIT, 60)]),
    (said("-requests", "0", "9" * 400, "60"), [("requests", 0, LONGEST_WAIT, None)]),
    (said("-requests", "9" * 400, "1s"), []),
    (said("-requests", "many", "soon"), []),
    (said("-requests", "0", "1.2.3s"), []),
    (said("-requests", "0", "2026-11-20T12:01:30"), []),  # of which zone?
    (said("-requests", "0", ""), []),
    (said("-fine-tunes", "0", "1s", "60"), []),
    ({"x-ratelimit-remaining-requests": "0"}, []),  # Mistral says no time
    ({"x-ratelimit-reset-requests": "1s"}, []),
    ({}, []),
]


@pytest.mark.parametrize(("headers", "expected"), HEADERS)
def test_what_headers_say(headers: dict[str, str], expected: list[tuple[str, int, float, int | None]]) -> None:
    """What is left and for how long is read as servers write it, dates by their own clock; half of it says nothing."""
    found = list(told_by({**headers, "date": DATE}).values())
    assert [tuple(each) for each in found] == [
        (unit, left, pytest.approx(seconds), limit) for unit, left, seconds, limit in expected
    ]


@pytest.mark.parametrize("unit", [1, 1000])
def test_a_reset_that_is_a_date(unit: int) -> None:
    """A reset as a date, from a server that does not tell its time, is so many seconds from this machine's."""
    date = str(int((time.time() + 3600) * unit))
    (quota,) = told_by({"x-ratelimit-remaining": "0", "x-ratelimit-reset": date}).values()
    assert 3590 - 60 < quota.seconds <= 3600


@given(
    st.dictionaries(
        st.sampled_from([*said("-requests", "", "", ""), *said("", "", ""), IETF, f"{IETF}-policy", "date"]),
        st.text(max_size=30) | st.from_regex(r"[-0-9.dhms:TZ+;rtqu=,\" ]{0,20}", fullmatch=True),
    )
)
def test_any_headers_are_waits_or_nothing(headers: dict[str, str]) -> None:
    """Whatever a server writes, it is a wait of a year at most, or nothing."""
    door = Door()
    door.hear(headers)
    ticket = Ticket()
    _, seconds, _ = door.enter(ticket, tokens=10)
    assert 0 <= seconds <= LONGEST_WAIT


@pytest.mark.parametrize("text", ["9" * 90_000, "a" * 90_000, '"' * 90_000, ",;" * 45_000, ";r=1" * 20_000, "1d" * 9])
def test_long_headers_take_no_time(text: str) -> None:
    """What a server can put into one header is read in time in proportion to its length."""
    names = ["x-ratelimit-remaining", "x-ratelimit-reset", IETF, f"{IETF}-policy", "date"]
    told_by(dict.fromkeys(names, text))


def told(door: Door, **left: str) -> None:
    """Let the endpoint say what is left, for 30 seconds."""
    for name, value in left.items():
        door.hear(said(f"-{name}", value, "30s"))


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


EVENLY = [
    ("-requests", "0", "1m0s", "60", None, 1.0),
    ("-requests", "0", "24h0m0s", "200", None, 432.0),  # a day's limit lets one request in long before the day is over
    ("-requests", "-2", "1m2s", "60", None, 3.0),
    ("-requests", "1", "59s", "60", None, 0.0),
    ("-tokens", "0", "60s", "60000", 1000, 1.0),
    ("-tokens", "500", "59.5s", "60000", 1000, 0.5),
    ("-tokens", "0", "60s", "60000", 70000, 60.0),  # more than there ever are: when all are there
    ("-tokens", "0", "60s", "60000", None, 0.001),
    ("-requests", "0", "0s", "60", None, 0.0),
    ("-requests", "0", "60", "60", None, 60.0),  # a number ends a window
]


@pytest.mark.parametrize(("kind", "left", "reset", "limit", "tokens", "seconds"), EVENLY)
def test_a_limit_that_refills_evenly(
    kind: str, left: str, reset: str, limit: str, tokens: int | None, seconds: float
) -> None:
    """Who needs one request waits until that one is there again, not until all are."""
    door = Door()
    door.hear(said(kind, left, reset, limit))
    name, wait, _ = door.enter(Ticket(), tokens)
    assert (name is None) == (wait > 0)
    assert wait == pytest.approx(seconds)


@given(
    left=st.integers(0, 5), limit=st.integers(6, 50), reset=st.integers(1, 600),
    pauses=st.lists(st.floats(0, 100), max_size=30),
)  # fmt: skip
def test_no_more_go_than_have_come_back(left: int, limit: int, reset: int, pauses: list[float]) -> None:
    """However calls come, they are never more than were left and came back since, and no wait is in vain."""
    door = Door()
    door.hear(said("-requests", str(left), f"{reset}s", str(limit)))
    for entered, pause in enumerate(pauses, start=1):
        door.now += pause
        name, wait, _ = door.enter(ticket := Ticket())
        if name is None:
            door.now += wait
            assert door.enter(ticket)[0] == "a"
        assert entered <= left + (limit - left) / reset * (door.now - 1000.0) + 1e-3


def test_calls_after_a_long_silence_are_no_more_than_the_limit() -> None:
    """What comes back never exceeds what there was at first."""
    door = Door()
    door.hear(said("-requests", "0", "60s", "3"))
    door.now += 100_000
    for _ in range(3):
        door.entered()
    assert door.refused() == 20


def test_reset_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """llmcall.reset() begins anew, and calls whoever waits."""
    door = Door(Limits(requests=1), room=process_room)
    door.entered()
    waiting = Ticket()
    door.enter(waiting)
    llmcall.reset()
    assert called(waiting)
    assert door.enter(waiting)[0] == "a"


def test_a_server_cannot_name_limits_without_end() -> None:
    """However many headers it makes up, a gate remembers some of them, and those that it knows go on being heard."""
    gate = Room().gate(Endpoint("a"))
    for number in range(1000):
        gate.hear("m", told_by(told_headers(f"requests-{number}", 5)), 0.0)
    assert gate.wait_as_told(None, "m", 0.0) == 0.0
    gate.hear("m", told_by(told_headers("requests-0", 0)), 0.0)
    assert gate.wait_as_told(None, "m", 0.0) == 30.0
    gate.hear("m", told_by(told_headers("requests-0", 5) | told_headers("requests-999", 0)), 0.0)
    assert gate.wait_as_told(None, "m", 0.0) == 0.0


def told_headers(what: str, left: int) -> dict[str, str]:
    """Return the headers that say how many are left for 30 seconds."""
    return {f"x-ratelimit-remaining-{what}": str(left), f"x-ratelimit-reset-{what}": "30"}
