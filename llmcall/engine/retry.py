"""How often and when a failed call is tried again: tenacity's loop for a call's own numbers."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..errors import APIError, RateLimitError, RequestTimeoutError
from ..notices import logger, warn_once
from .drivers import Sleep, check_stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState, Retrying

    from ..config.settings import Settings
    from .drivers import Flow
    from .prepare import Options

__all__ = ["RetryPolicy", "repeated"]

T = TypeVar("T")
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

    @classmethod
    def of(cls, options: Options, settings: Settings) -> RetryPolicy:
        """Return that of a call; its deadline begins now."""
        deadline = settings.deadline if options.deadline is None else options.deadline
        factor = options.exponential_backoff_factor
        return cls(
            settings.retry_max_attempts if options.max_attempts is None else options.max_attempts,
            settings.retry_waiting_time if options.waiting_time is None else options.waiting_time,
            settings.retry_exponential_backoff_factor if factor is None else factor,
            settings.retry_max_waiting_time,
            None if deadline is None else time.monotonic() + deadline,
        )

    def time_left(self) -> float | None:
        """Return the seconds until the deadline, or ``None`` where there is none."""
        return None if self.deadline_at is None else self.deadline_at - time.monotonic()

    def ended(self, error: APIError) -> bool:
        """Return whether it was the caller's own deadline that ended a call, which others need not share."""
        left = self.time_left()
        if left is None:
            return False
        waits = isinstance(error, (RateLimitError, RequestTimeoutError)) and error.status_code is None
        return left <= 0 or (error.attempts < self.max_attempts if error.retryable else waits)


def repeated(policy: RetryPolicy, name: str, act: Callable[[int], Flow[T]]) -> Flow[tuple[T, int]]:
    """Act until there is a result or the policy ends; return the result and the number of attempts.

    :param name: what is tried, for the log.
    :param act: takes the number of the attempt, from 1 on.
    """
    pauses: list[float] = []
    for attempt in _retrying(policy, pauses.append, name):
        if pauses:
            yield Sleep(pauses.pop())
        number = attempt.retry_state.attempt_number
        with attempt:
            return (yield from act(number)), number
        left = _failure(attempt.retry_state)
        if left is not None and not isinstance(left, Exception):
            raise left  # at once: where garbage is collected, tenacity's generator may have ended before this one
    raise AssertionError("the loop ends with a result, or raises")


def _retrying(policy: RetryPolicy, sleep: Callable[[float], None], name: str) -> Retrying:
    """Return tenacity's loop for a policy: ``for attempt in _retrying(…): with attempt: …``.

    The last error is raised as it is, its ``attempts`` set; a wait that would pass the deadline is not begun.

    :param sleep: takes the seconds before the next attempt.
    :param name: what is tried, for the log.
    """
    import tenacity

    growing = tenacity.wait_exponential(
        multiplier=policy.waiting_time, exp_base=policy.factor, max=policy.max_waiting_time
    )
    waits: dict[int, float] = {}

    def wait(state: RetryCallState) -> float:
        """Return the seconds before the next attempt, the same however often it is asked."""
        # Up to tenacity 8.2 stop is asked before wait, later on after it: whoever comes first draws the jitter.
        ours = growing(state) * (1 + JITTER * _random.random())
        asked_for = getattr(_failure(state), "retry_after", None) or 0.0
        return waits.setdefault(state.attempt_number, max(ours, asked_for))

    def stop(state: RetryCallState) -> bool:
        """Tell whether there is no further attempt, or no time for one."""
        left = policy.time_left()
        return state.attempt_number >= policy.max_attempts or (left is not None and wait(state) > left)

    def announce(state: RetryCallState) -> None:
        """Tell of the first failed attempt of its kind at an endpoint; the others are counted, as retries."""
        check_stop()  # else it would be told of a further attempt that is none
        error = _failure(state)
        kind, endpoint = type(error).__name__, getattr(error, "endpoint", None) or "the endpoint"
        told = (
            f"{name}: attempt {state.attempt_number} of {policy.max_attempts} failed at {endpoint} ({kind}: {error}); "
            f"trying again in {wait(state):.2f} s"
        )
        if not warn_once(f"{told} (further ones are counted in llmcall.usage())", about=("retry", endpoint, kind)):
            logger().debug("%s", told)

    return tenacity.Retrying(
        sleep=sleep, wait=wait, stop=stop, retry=_is_worth_another, before_sleep=announce, reraise=True
    )


def _failure(state: RetryCallState) -> BaseException | None:
    """Return what an attempt ended with, or ``None`` where it had an answer."""
    return state.outcome.exception() if state.outcome else None


def _is_worth_another(state: RetryCallState) -> bool:
    error = _failure(state)
    if not isinstance(error, APIError):
        return False
    error.attempts = state.attempt_number
    return error.retryable
