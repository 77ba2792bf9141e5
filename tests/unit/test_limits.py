"""What an endpoint allows: calls at once, requests and tokens in any minute, and what its server says.

The state of an endpoint is used directly, by a clock that the test moves: no interleaving may pass a limit.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

import llmcall
from llmcall.config.settings import Endpoint
from llmcall.engine.estimates import Estimate
from llmcall.engine.limits import NO_LIMITS, WINDOW, EndpointStates, Limits, Pool, Slot, Waiter, endpoint_states
from llmcall.engine.rate_headers import LONGEST_WAIT, Quota, quotas_in

INFINITE = float("inf")
MOVES = ["ask", "ask", "send", "answer", "fail"]
STEPS = st.lists(st.tuples(st.sampled_from(MOVES), st.floats(0, 40)), max_size=40)


class Door:
    """Ask a pool's endpoints to admit attempts, by a clock that the test moves."""

    def __init__(self, limits: Limits = NO_LIMITS, *names: str, states: EndpointStates | None = None) -> None:
        self.now = 1000.0
        self.limits = limits
        self.pool = Pool([Endpoint(name) for name in names or ("a",)], states)

    def ask(self, waiter: Waiter, tokens: int | None = None, model: str = "m") -> tuple[str | None, float, float]:
        """Return the endpoint's name, or ``None`` and the seconds to wait."""
        needed = None if tokens is None else Estimate(tokens, 0, tokens)
        endpoint, seconds, least = self.pool.acquire(waiter, self.limits, needed, model, self.now)
        return endpoint and endpoint.name, seconds, least

    def admitted(self, tokens: int | None = None, model: str = "m", *, sent: bool = True) -> Waiter:
        """Return an attempt that is let in, and sent."""
        waiter = Waiter()
        assert self.ask(waiter, tokens, model)[0] is not None
        if sent:
            self.pool.note_sent(waiter, self.now)
        return waiter

    def end(self, waiter: Waiter, used: int | None = None) -> None:
        """End an attempt, with an answer that used some tokens, or with none."""
        if used is not None and waiter.state and waiter.slot:
            waiter.state.settle(waiter.slot, used)
        self.pool.release(waiter, self.now, answered=used is not None)

    def refused(self, tokens: int | None = None) -> float:
        """Return the seconds that an attempt would wait, which then does not."""
        waiter = Waiter()
        name, seconds, _ = self.ask(waiter, tokens)
        assert name is None
        self.end(waiter)
        return seconds

    def say(self, **headers: str) -> None:
        """Let the first endpoint say what is left."""
        named = {f"x-ratelimit-{name.replace('_', '-')}": text for name, text in headers.items()}
        self.pool.states.of(self.pool.endpoints[0]).set_quotas("m", quotas_in(named), self.now)


def test_a_burst_is_allowed_and_then_a_minute_passes() -> None:
    """All requests of a minute may be sent at once; the next waits until the first is a minute old."""
    door = Door(Limits(requests=3))
    for _ in range(2):
        door.admitted()
    door.now += 10
    door.admitted()
    assert door.refused() == WINDOW - 10
    door.now += WINDOW - 10
    door.admitted()
    door.admitted()
    assert door.refused() == 10


def test_a_request_that_is_not_sent_yet_keeps_its_place() -> None:
    """However long the first connection takes, the minute of a request begins when it is sent; who waits is told."""
    door = Door(Limits(requests=1))
    slow, waiting = door.admitted(sent=False), Waiter()
    assert door.ask(waiting) == (None, INFINITE, 0.0)
    door.now += 500
    assert door.ask(waiting) == (None, INFINITE, 0.0)
    door.pool.note_sent(slow, door.now)
    assert waiting.wakeup.done()
    assert door.ask(waiting)[1] == WINDOW


SIZES = st.lists(st.integers(1, 10), min_size=80)


@given(limit=st.integers(1, 5), tokens=st.integers(10, 50), steps=STEPS, sizes=SIZES)
def test_no_minute_holds_more_than_the_limits(
    limit: int, tokens: int, steps: list[tuple[str, float]], sizes: list[int]
) -> None:
    """However attempts come, are sent, end and fail, no 60 seconds hold more requests or tokens than the limits."""
    door, running, sent = Door(Limits(requests=limit, tokens=tokens)), [], []
    for place, (what, seconds) in enumerate(steps):
        door.now += seconds
        if what == "ask":
            waiter = Waiter()
            if door.ask(waiter, sizes[2 * place])[0] is None:
                door.end(waiter)
            else:
                running.append(waiter)
        elif what == "send":
            unsent = [each for each in running if each.slot.sent_at is None]
            if unsent:
                door.pool.note_sent(unsent[-1], door.now)
                sent.append(unsent[-1].slot)
        elif running:
            waiter = running.pop(0)
            if waiter.slot.sent_at is None:
                sent.append(waiter.slot)
            door.end(waiter, min(sizes[2 * place + 1], waiter.slot.tokens) if what == "answer" else None)
        in_a_minute = [slot for slot in sent if _time(slot) > door.now - WINDOW]
        assert len(in_a_minute) <= limit
        assert sum(slot.tokens for slot in in_a_minute) <= tokens
    assert all(sum(start <= _time(each) < start + 60 for each in sent) <= limit for start in map(_time, sent))


def _time(slot: Slot) -> float:
    assert slot.sent_at is not None
    return slot.sent_at


def test_tokens_are_settled_by_what_was_used() -> None:
    """What an answer did not use, and all of a failed call, may be used by others at once."""
    door = Door(Limits(tokens=100))
    first, second = door.admitted(60), door.admitted(40)
    assert door.refused(50) == WINDOW
    door.end(first, used=10)
    door.end(door.admitted(50), used=50)
    door.end(second)
    door.admitted(40)
    assert door.refused(1) == WINDOW


def test_a_call_larger_than_the_limit_goes_alone() -> None:
    """A call that may use more than a minute's tokens waits until nothing else is counted, and then goes."""
    door = Door(Limits(tokens=100))
    door.admitted(1)
    assert door.refused(500) == WINDOW
    door.now += WINDOW
    door.admitted(500)
    assert door.refused(1) == WINDOW


def test_a_place_is_free_when_a_call_ends_and_nobody_overtakes() -> None:
    """Where as many calls run as may, the end of one wakes whoever is first; who comes later waits, as do others."""
    door = Door(Limits(calls=1))
    running, first, second, late = door.admitted(), Waiter(), Waiter(), Waiter()
    for waiter in (first, second):
        assert door.ask(waiter) == (None, INFINITE, 0.0)
    door.end(running)
    door.end(running)  # which changes nothing
    assert (first.wakeup.done(), second.wakeup.done()) == (True, False)
    assert [door.ask(waiter)[0] for waiter in (late, second, first)] == [None, None, "a"]
    door.end(second)  # its caller left: nobody is held up
    door.end(first)
    assert door.ask(late)[0] == "a"


def test_another_endpoint_is_asked_where_one_is_full() -> None:
    """Limits are those of each endpoint: of a pool, one that has room is asked, in turn."""
    door = Door(Limits(requests=2), "a", "b")
    for name in ("a", "b", "a", "b"):
        waiter = Waiter()
        assert door.ask(waiter)[0] == name
        door.end(waiter, 1)
    door.now += 1
    door.pool.rest(door.pool.endpoints[0], door.now + 500)
    assert door.refused() == WINDOW - 1
    door.now += WINDOW
    assert [door.ask(Waiter())[0] for _ in range(2)] == ["b", "b"]


def test_pools_share_the_state_of_an_endpoint() -> None:
    """Two clients that know an endpoint by the same name and address are limited together; another address is not."""
    states = EndpointStates()
    one, other = Door(Limits(requests=1), states=states), Door(Limits(requests=1), states=states)
    one.admitted()
    assert other.refused() == WINDOW
    other.pool.rest(other.pool.endpoints[0], other.now + 90)
    assert one.refused() == 90
    elsewhere = Door(Limits(requests=1), states=states)
    elsewhere.pool.endpoints = [Endpoint("a", base_url="http://elsewhere.example.org")]
    elsewhere.admitted()


def test_an_endpoint_that_is_left_out_is_waited_for_no_more() -> None:
    """A call that waits for two endpoints goes on with the one that remains."""
    door = Door(Limits(calls=1), "a", "b")
    first, second, waiting = door.admitted(), door.admitted(), Waiter()
    door.ask(waiting)
    door.pool.leave_out(door.pool.endpoints[0], door.now)
    door.ask(waiting)
    door.end(first)
    assert not waiting.wakeup.done()
    door.end(second)
    assert door.ask(waiting)[0] == "b"


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
    state = EndpointStates().of(Endpoint("a"))
    for ours, its in seen:
        state.compare("m", ours, its)
    assert (state.surplus("m", counted), state.surplus("other", counted)) == (more, 0)


SAID: list[tuple[str, str, str | None, Any]] = [
    ("59", "1s", "60", Quota(59, 1.0, 60)),
    ("149984", "20ms", "150000", Quota(149984, 0.02, 150000)),
    ("0", "6m0s", "100", Quota(0, 360.0, 100)),
    ("0", "1h2m3.5s", None, Quota(0, 3723.5, None)),
    ("-2", "1d", "60", Quota(-2, 86400.0, 60)),
    ("0", "99999999d", "60", Quota(0, LONGEST_WAIT, 60)),
    ("0", "1s", "-1", None),  # Azure's way to say that there is none
    ("0", "soon", "60", None),
    ("0", "", "60", None),
    ("few", "1s", "60", None),
    ("0", "1" * 100_000, "60", None),
]


@pytest.mark.parametrize(("left", "reset", "limit", "quota"), SAID)
@pytest.mark.parametrize("unit", ["requests", "tokens"])
def test_what_headers_say(unit: str, left: str, reset: str, limit: str | None, quota: Quota | None) -> None:
    """OpenAI's headers say what is left, until when, and how many there are; what cannot be read says nothing."""
    headers = {f"x-ratelimit-remaining-{unit}": left, f"x-ratelimit-reset-{unit}": reset}
    if limit is not None:
        headers[f"x-ratelimit-limit-{unit}"] = limit
    assert quotas_in(headers) == ({} if quota is None else {unit: quota})


def test_what_the_server_says_is_kept_to() -> None:
    """Where a server says that so much is left, no more is sent until it has come back; other models may be asked."""
    door = Door()
    door.say(remaining_requests="2", reset_requests="30s", remaining_tokens="100", reset_tokens="20s")
    assert door.refused(101) == 20
    door.admitted(90)
    assert door.refused(20) == 20
    door.admitted(10)
    assert door.refused(1) == 30
    door.admitted(model="another")
    door.now += 30
    door.admitted()


@given(
    left=st.integers(0, 5), limit=st.integers(6, 50), reset=st.integers(1, 600),
    pauses=st.lists(st.floats(0, 100), max_size=30),
)  # fmt: skip
def test_no_more_go_than_have_come_back(left: int, limit: int, reset: int, pauses: list[float]) -> None:
    """A limit refills evenly: calls are never more than were left and came back since, and no wait is in vain."""
    door = Door()
    door.say(remaining_requests=str(left), reset_requests=f"{reset}s", limit_requests=str(limit))
    for admitted, pause in enumerate(pauses, start=1):
        door.now += pause
        waiter = Waiter()
        name, wait, _ = door.ask(waiter)
        if name is None:
            door.now += wait
            assert door.ask(waiter)[0] == "a"
        assert admitted <= left + (limit - left) / reset * (door.now - 1000.0) + 1e-3
    door.now += 100_000
    for _ in range(limit):
        door.admitted()
    assert door.refused() > 0


def test_reset_forgets() -> None:
    """llmcall.reset() begins anew, and wakes whoever waits."""
    door = Door(Limits(requests=1), states=endpoint_states)
    door.admitted()
    waiting = Waiter()
    door.ask(waiting)
    llmcall.reset()
    assert waiting.wakeup.done()
    assert door.ask(waiting)[0] == "a"
