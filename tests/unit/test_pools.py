"""The endpoints of a model: taken in turn, rested, left out."""

from __future__ import annotations

import threading
from collections import Counter

import hypothesis.strategies as st
from hypothesis import given

from llmcall.config.settings import Endpoint
from llmcall.engine.limits import LEFT_OUT, NO_LIMITS, Pool, Waiter

NAMES = ("a", "b", "c")


def pool_of(*names: str) -> Pool:
    """Return a pool of endpoints with these names."""
    return Pool([Endpoint(name=name) for name in names])


def chosen(pool: Pool, now: float = 0.0) -> str:
    """Return the name of the endpoint whose turn it is, which must be free."""
    name, seconds = asked(pool, now)
    assert name is not None and seconds == 0.0
    return name


def asked(pool: Pool, now: float) -> tuple[str | None, float]:
    """Return the name of the endpoint whose turn it is and 0, or nothing and the seconds until one is free."""
    waiter = Waiter()
    endpoint, seconds, _ = pool.acquire(waiter, NO_LIMITS, None, "m", now)
    pool.release(waiter, now, answered=True)
    return endpoint and endpoint.name, seconds


def test_round_robin() -> None:
    """Endpoints are taken in turn."""
    pool = pool_of(*NAMES)
    assert [chosen(pool) for _ in range(7)] == ["a", "b", "c", "a", "b", "c", "a"]


def test_a_resting_endpoint_is_passed_over() -> None:
    """While one rests the others go on, and afterwards it has its turn again."""
    pool = pool_of(*NAMES)
    assert pool.rest(pool.endpoints[1], until=10.0)
    assert [chosen(pool, 9.9) for _ in range(4)] == ["a", "c", "a", "c"]
    assert sorted(chosen(pool, 10.0) for _ in range(3)) == ["a", "b", "c"]


def test_all_rest() -> None:
    """Where all rest, the first to be free is named with the seconds until then."""
    pool = pool_of("a", "b")
    assert pool.rest(pool.endpoints[0], until=10.0)
    assert not pool.rest(pool.endpoints[1], until=7.0)
    assert asked(pool, 2.0) == (None, 5.0)
    assert chosen(pool, 7.0) == "b"
    assert [pool.free_after(now) for now in (2.0, 8.0)] == [5.0, 0.0]


def test_a_rest_is_never_shortened() -> None:
    """A later answer that asks for a shorter rest does not wake an endpoint."""
    pool = pool_of("a")
    pool.rest(pool.endpoints[0], until=10.0)
    pool.rest(pool.endpoints[0], until=5.0)
    assert asked(pool, 6.0) == (None, 4.0)


def test_a_refused_endpoint_comes_back() -> None:
    """An endpoint that refused its key is left out for some minutes, but never the last one."""
    pool = pool_of("a", "b")
    first, second = pool.endpoints
    assert pool.leave_out(first, 0.0)
    assert [chosen(pool) for _ in range(3)] == ["b", "b", "b"]
    assert not pool.leave_out(second, 0.0)
    assert chosen(pool) == "b"
    assert {chosen(pool, LEFT_OUT) for _ in range(2)} == {"a", "b"}


@given(
    rests=st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.floats(0, 100)), max_size=6),
    now=st.floats(0, 100),
)
def test_the_choice_is_right_after_any_rests(rests: list[tuple[int, float]], now: float) -> None:
    """Whatever rested until when, an endpoint is free exactly if its last rest is over."""
    pool = pool_of(*NAMES)
    until = dict.fromkeys(NAMES, 0.0)
    for number, end in rests:
        pool.rest(pool.endpoints[number], end)
        until[NAMES[number]] = max(end, until[NAMES[number]])
    name, seconds = asked(pool, now)
    assert (name is not None) == (seconds == 0.0) == (min(until.values()) <= now)
    assert seconds == max(0.0, min(until.values()) - now)
    assert name is None or until[name] <= now


def test_many_threads_share_fairly() -> None:
    """From many threads, each endpoint gets its share exactly."""
    pool, names = pool_of(*NAMES), []
    threads = [threading.Thread(target=lambda: names.extend(chosen(pool) for _ in range(30))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(names) == dict.fromkeys(NAMES, 60)
