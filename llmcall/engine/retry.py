"""When a failed attempt is worth another one, and how long to wait for it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import APIError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState, Retrying

__all__ = ["RetryPolicy", "retrying"]

JITTER = 0.25  # the share of a wait that is added at random at most
_random = random.Random()  # not the module's own: a simulation's seeded draws must not depend on our retries


class RetryPolicy(NamedTuple):
    """Hold how often and when a failed call is tried again.

    :param max_attempts: attempts in all.
    :param waiting_time: seconds before the second attempt.
    :param factor: what each further wait is multiplied by.
    :param max_waiting_time: seconds that no wait of our own exceeds.
    :param deadline_at: the monotonic time after which nothing is tried, or ``None``.
    """

    max_attempts: int = 5
    waiting_time: float = 1.0
    factor: float = 2.0
    max_waiting_time: float = 60.0
    deadline_at: float | None = None

    def wait(self, attempt: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait after an attempt (counted from 1); the server's longer wish wins."""
        try:
            growing = self.waiting_time * self.factor ** (attempt - 1)
        except OverflowError:
            growing = self.max_waiting_time
        ours = min(growing, self.max_waiting_time) * (1 + JITTER * _random.random())
        return max(ours, retry_after or 0.0)


def retrying(policy: RetryPolicy, sleep: Callable[[float], Any], now: Callable[[], float], name: str) -> Retrying:
    """Return tenacity's loop for a policy: ``for attempt in retrying(…): with attempt: …``.

    The last error is raised as it is, its ``attempts`` set; a wait that would pass the deadline is not begun.

    :param sleep: what takes the seconds to wait.
    :param now: the monotonic clock.
    :param name: how the log names the call.
    """
    import tenacity

    waits: dict[int, float] = {}

    def wait(state: RetryCallState) -> float:
        """Return the seconds before the next attempt, the same however often it is asked."""
        # Up to tenacity 8.2 stop is asked before wait, later on after it: whoever comes first draws the jitter.
        number = state.attempt_number
        if number not in waits:
            waits[number] = policy.wait(number, getattr(_error(state), "retry_after", None))
        return waits[number]

    def stop(state: RetryCallState) -> bool:
        """Tell whether there is no further attempt, or no time for one."""
        too_late = policy.deadline_at is not None and now() + wait(state) > policy.deadline_at
        return too_late or state.attempt_number >= policy.max_attempts

    return tenacity.Retrying(
        sleep=sleep,
        wait=wait,
        stop=stop,
        retry=_worth_another,
        before_sleep=lambda state: _announce(state, policy, name, wait(state)),
        reraise=True,
    )


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _worth_another(state: RetryCallState) -> bool:
    error = _error(state)
    if not isinstance(error, APIError):
        return False
    error.attempts = state.attempt_number
    return error.retryable


def _announce(state: RetryCallState, policy: RetryPolicy, name: str, seconds: float) -> None:
    import logging

    logging.getLogger("llmcall").warning(
        "%s: attempt %d of %d failed at %s (%s: %s); trying again in %.2f s",
        name,
        state.attempt_number,
        policy.max_attempts,
        getattr(_error(state), "endpoint", None) or "the endpoint",
        type(_error(state)).__name__,
        _error(state),
        seconds,
    )
