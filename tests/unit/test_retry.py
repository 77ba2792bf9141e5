"""How often a failed call is tried again, and how long it waits: policy and loop, fed by hand."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Iterable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from llmcall import errors
from llmcall.engine.retry import JITTER, RetryPolicy, retrying
from llmcall.errors import APIError, CacheError, InvalidRequestError, RateLimitError, ServiceError

SECONDS = st.floats(0, 1000)
POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 12),
    waiting_time=SECONDS,
    factor=st.floats(0.1, 10),
    max_waiting_time=SECONDS,
    deadline_at=st.none(),
)


def run(policy: RetryPolicy, outcomes: Iterable[Any], now: float = 0.0) -> tuple[Any, list[float]]:
    """Run the loop over outcomes, exceptions raised and anything else returned; give the end and the waits."""
    waits: list[float] = []
    script = iter(outcomes)
    try:
        for attempt in retrying(policy, waits.append, lambda: now, "the call"):
            with attempt:
                outcome = next(script)
                if isinstance(outcome, BaseException):
                    raise outcome
    except Exception as error:
        return error, waits
    return outcome, waits


@given(policy=POLICIES, attempt=st.integers(1, 12))
def test_a_wait_grows_within_its_bounds(policy: RetryPolicy, attempt: int) -> None:
    """Attempt k waits the first wait times the factor to the k-1, at most the longest, and up to a quarter more."""
    growing = min(policy.waiting_time * policy.factor ** (attempt - 1), policy.max_waiting_time)
    assert growing <= policy.wait(attempt) <= growing * (1 + JITTER)


@given(policy=POLICIES, attempt=st.integers(1, 12), asked=st.none() | SECONDS)
def test_the_servers_wait_wins_where_it_is_longer(policy: RetryPolicy, attempt: int, asked: float | None) -> None:
    """A wait is never shorter than the server's, and exactly it where that is longer than any of ours."""
    longest = min(policy.waiting_time * policy.factor ** (attempt - 1), policy.max_waiting_time) * (1 + JITTER)
    waited = policy.wait(attempt, asked)
    assert waited >= (asked or 0)
    assert waited <= max(longest, asked or 0)


def test_waits_differ() -> None:
    """The jitter is drawn anew for each wait, so that many callers do not come back together."""
    assert len({RetryPolicy().wait(1) for _ in range(20)}) > 1


def test_a_wait_that_overflows() -> None:
    """A wait too large for a number is the longest one."""
    assert RetryPolicy(factor=10.0, max_waiting_time=60.0).wait(100_000) <= 60 * (1 + JITTER)


def test_the_global_random_state_is_untouched() -> None:
    """A simulation's seeded draws do not depend on how often a call was tried again."""
    random.seed(7)
    before = random.getstate()
    run(RetryPolicy(waiting_time=0.1), [ServiceError("a"), ServiceError("b"), "fine"])
    assert random.getstate() == before


@given(policy=POLICIES, failures=st.integers(0, 14))
def test_attempts_are_counted(policy: RetryPolicy, failures: int) -> None:
    """A call is tried until it succeeds or the attempts are used up, with a wait between any two."""
    made = [ServiceError(str(number)) for number in range(failures)]
    end, waits = run(policy, [*made, "fine"])
    if failures < policy.max_attempts:
        assert end == "fine"
        assert len(waits) == failures
    else:
        assert end is made[policy.max_attempts - 1]
        assert end.attempts == policy.max_attempts
        assert len(waits) == policy.max_attempts - 1


@pytest.mark.parametrize("error", [InvalidRequestError("no"), CacheError("no"), ValueError("no"), KeyboardInterrupt()])
def test_what_is_not_tried_again(error: BaseException) -> None:
    """An error that another attempt would not change is raised as it is, at once."""
    waits: list[float] = []
    with pytest.raises(type(error)) as caught:
        for attempt in retrying(RetryPolicy(), waits.append, lambda: 0.0, "the call"):
            with attempt:
                raise error
    assert caught.value is error
    assert waits == []


def test_which_classes_are_tried_again() -> None:
    """Of all classes of API errors, exactly those that waiting may help are worth another attempt."""
    kinds = [getattr(errors, name) for name in errors.__all__ if issubclass(getattr(errors, name), APIError)]
    again = {kind.__name__ for kind in kinds if run(RetryPolicy(), [kind("no"), "fine"])[0] == "fine"}
    assert again == {"RateLimitError", "ServiceError", "RequestTimeoutError"}


def test_the_attempts_of_an_error_that_ends_the_retries() -> None:
    """An error that is not worth another attempt still tells how many there were."""
    end, waits = run(RetryPolicy(), [ServiceError("busy"), ServiceError("busy"), InvalidRequestError("no")])
    assert isinstance(end, InvalidRequestError)
    assert end.attempts == 3
    assert len(waits) == 2


def test_the_cause_survives() -> None:
    """The last error is raised with the cause that it had."""
    error = ServiceError("busy")
    error.__cause__ = OSError("the line")
    end, _ = run(RetryPolicy(max_attempts=1), [error])
    assert end.__cause__ is error.__cause__


def test_a_wait_past_the_deadline_fails_at_once() -> None:
    """A wait that would end after the deadline is not begun."""
    policy = RetryPolicy(max_attempts=9, waiting_time=1.0, factor=1.0, deadline_at=100.0)
    assert len(run(policy, itertools.repeat(ServiceError("busy")), now=98.0)[1]) == 8
    assert run(policy, itertools.repeat(ServiceError("busy")), now=99.5)[1] == []


def test_the_servers_wait_is_bounded_by_the_deadline() -> None:
    """A Retry-After that ends after the deadline fails at once; without a deadline it is waited for."""
    limited = RateLimitError("slow down", retry_after=3600.0)
    end, waits = run(RetryPolicy(deadline_at=100.0), [limited, "fine"], now=0.0)
    assert (end, waits) == (limited, [])
    assert run(RetryPolicy(), [limited, "fine"]) == ("fine", [3600.0])


def test_one_line_for_each_retry(caplog: pytest.LogCaptureFixture) -> None:
    """Each retry is one line in the log, with its reason and the very wait that follows it."""
    with caplog.at_level(logging.INFO, "llmcall"):
        _, waits = run(RetryPolicy(waiting_time=2.0), [ServiceError("502: bad gateway"), RateLimitError("429: x"), 1])
    assert [record.getMessage() for record in caplog.records] == [
        "the call: attempt 1 of 5 failed at the endpoint (ServiceError: 502: bad gateway); "
        f"trying again in {waits[0]:.2f} s",
        f"the call: attempt 2 of 5 failed at the endpoint (RateLimitError: 429: x); trying again in {waits[1]:.2f} s",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
