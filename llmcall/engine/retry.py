"""How often and when a failed call is tried again."""

from __future__ import annotations

import random
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..errors import APIError, RateLimitError, RequestTimeoutError
from ..notices import logger, warn_once
from .drivers import Wait, check_stops, current_stops

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tenacity import RetryCallState

    from ..config.settings import Settings
    from .drivers import Flow
    from .options import Options


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
        """Return whether it was the caller's own deadline that ended a call, which others need not
        share.
        """
        left = self.time_left()
        if left is None:
            return False
        waits = (
            isinstance(error, (RateLimitError, RequestTimeoutError)) and error.status_code is None
        )
        return left <= 0 or (error.attempts < self.max_attempts if error.retryable else waits)


JITTER = 0.25  # the share of a wait between two attempts that is added at random at most


T = TypeVar("T")


log = logger()


# not the module's own: a simulation's seeded draws must not depend on our retries
_random = random.Random()


def repeated(policy: RetryPolicy, name: str, act: Callable[[int], Flow[T]]) -> Flow[T]:
    """Act in tenacity's loop until there is a result or the policy ends.

    The last error is raised as it is, its ``attempts`` set; a wait that would pass the deadline is
    not begun.

    :param name: what is tried, for the log.
    :param act: takes the number of the attempt, from 1 on.
    """
    import tenacity

    growing = tenacity.wait_exponential(
        multiplier=policy.waiting_time, exp_base=policy.factor, max=policy.max_waiting_time
    )
    failures: list[APIError] = []
    pauses: list[float] = []  # the seconds after each of them

    def wait(state: RetryCallState) -> float:
        """Return the seconds before the next attempt."""
        return max(
            growing(state) * (1 + JITTER * _random.random()), failures[-1].retry_after or 0.0
        )

    for attempt in tenacity.Retrying(
        sleep=pauses.append,
        wait=wait,
        stop=tenacity.stop_after_attempt(policy.max_attempts),
        retry=lambda state: failures[-1].retryable and not _is_refused_again(failures),
        reraise=True,
    ):
        if pauses:
            yield Wait(Future(), _announced(policy, name, failures[-1], pauses[-1]))
        number = attempt.retry_state.attempt_number
        try:
            return (yield from act(number))
        except APIError as error:
            error.attempts = number
            failures.append(error)
            attempt.retry_state.set_exception((type(error), error, error.__traceback__))
    raise AssertionError("the loop ends with a result, or raises")


def _is_refused_again(failures: Sequence[APIError]) -> bool:
    """Return whether nobody listens at an address of this machine, twice in a row."""
    last = failures[-2:]
    return len(last) == 2 and all(error.is_refused_here for error in last)


def _announced(policy: RetryPolicy, name: str, error: APIError, seconds: float) -> float:
    """Return the seconds before the next attempt; tell of the first failure of its kind at an
    endpoint.

    The others are counted, as retries. Where there is no time for a further attempt, the error is
    raised.
    """
    check_stops(current_stops.get())
    left = policy.time_left()
    if left is not None and seconds > left:
        raise error
    kind, endpoint = type(error).__name__, error.endpoint or "the endpoint"
    told = (
        f"{name}: attempt {error.attempts} of {policy.max_attempts} failed at {endpoint} ({kind}: {error}); "
        f"trying again in {seconds:.2f} s"
    )
    if not warn_once(
        f"{told} (further ones are counted in llmcall.usage())", about=("retry", endpoint, kind)
    ):
        log.debug("%s", told)
    return seconds
