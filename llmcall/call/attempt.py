"""Attempts: how often and when a failed call is tried again, and what follows the failure of one
endpoint: the attempt goes on at another one, with a fresh key or without a parameter, or it has failed.
"""

from __future__ import annotations

import random
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..errors import (
    APIError,
    AuthenticationError,
    InvalidRequestError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
)
from ..interrupts import check_stops, current_stops
from ..keys.parameters import ESSENTIAL_FIELDS
from ..notices import logger, notice, warn_once
from .effects import wait
from .limits import LEFT_OUT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tenacity import RetryCallState

    from ..config.endpoints import Endpoint
    from .calls import Call
    from .limits import Pool
    from .options import Options


JITTER = 0.25  # the largest share of a wait that is added at random
REST_SECONDS = 1.0  # how long an endpoint rests after a 429 that named no time
# the API's error codes
UNSUPPORTED_CODES = frozenset({"unsupported_parameter", "unsupported_value"})

T = TypeVar("T")
log = logger()
# Not the module's own: our waits must not change what a simulation's seed draws.
_random = random.Random()


class RetryPolicy(NamedTuple):
    """How often and when a failed call is tried again.

    :param options: how the call is made.
    :param max_waiting_time: the longest wait between attempts, in seconds.
    :param deadline_at: the monotonic time after which nothing is tried, or ``None``.
    """

    options: Options
    max_waiting_time: float
    deadline_at: float | None

    @classmethod
    def of(cls, call: Call) -> RetryPolicy:
        """Return the policy of a call; its deadline starts to run now."""
        deadline = call.options.deadline
        deadline_at = None if deadline is None else time.monotonic() + deadline
        return cls(call.options, call.settings.retry_max_waiting_time, deadline_at)

    def time_left(self) -> float | None:
        """Return the seconds until the deadline, or ``None`` if there is none."""
        return None if self.deadline_at is None else self.deadline_at - time.monotonic()

    def ended_by_deadline(self, error: APIError) -> bool:
        """Return whether the call failed only because its own deadline came."""
        seconds_left = self.time_left()
        if seconds_left is None:
            return False
        if seconds_left <= 0:
            return True
        if error.retryable:
            return error.attempts < self.options.max_attempts
        # The limits, or another call's flight, would have kept it waiting past the deadline.
        is_wait = isinstance(error, (RateLimitError, RequestTimeoutError))
        return is_wait and error.status_code is None


async def retry(policy: RetryPolicy, label: str, attempt: Callable[[int], Awaitable[T]]) -> T:
    """Make attempts until one succeeds or the policy forbids another, and return its result.

    :param label: what is tried, for the log.
    :param attempt: makes one attempt; takes its number, from 1 on.
    :raises APIError: the last attempt's, with ``attempts`` set.
    """
    import tenacity

    options = policy.options
    exponential = tenacity.wait_exponential(
        multiplier=options.waiting_time,
        exp_base=options.exponential_backoff_factor,
        max=policy.max_waiting_time,
    )
    waits: list[float] = []

    def is_last(state: RetryCallState) -> bool:
        return state.attempt_number >= _most_attempts(options, _error_of(state))

    def seconds_after(state: RetryCallState) -> float:
        jitter = 1 + JITTER * _random.random()
        return max(exponential(state) * jitter, _error_of(state).retry_after or 0.0)

    def before_wait(state: RetryCallState) -> None:
        assert state.next_action is not None
        error, seconds = _error_of(state), state.next_action.sleep
        seconds_left = policy.time_left()
        if seconds_left is not None and seconds > seconds_left:
            raise error
        check_stops(current_stops.get())
        _announce(options, label, error, seconds)

    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: getattr(error, "retryable", False)),
        stop=is_last,
        wait=seconds_after,
        before_sleep=before_wait,
        sleep=waits.append,
        reraise=True,
    )
    for each in attempts:
        if waits:
            await wait(Future(), waits.pop())
        number = each.retry_state.attempt_number
        with each:
            try:
                result = await attempt(number)
            except APIError as error:
                error.attempts = number
                raise
    return result


def _error_of(state: RetryCallState) -> APIError:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, APIError)
    return error


def _most_attempts(options: Options, error: APIError) -> int:
    """Return the number of attempts; two where nobody listens at an address of this machine."""
    return min(options.max_attempts, 2) if error.is_loopback_unreachable else options.max_attempts


def _announce(options: Options, label: str, error: APIError, seconds: float) -> None:
    """Log an attempt that failed: a warning for the first of its kind at an endpoint."""
    error_name = type(error).__name__
    endpoint = error.endpoint or "the endpoint"
    line = (
        f"trying again in {seconds:.2f} s: attempt {error.attempts} of {_most_attempts(options, error)} of "
        f"{label} failed at {endpoint} ({error_name}: {error})"
    )
    is_first = warn_once(
        f"{line}; llmcall.usage() counts further retries", about=("retry", endpoint, error_name)
    )
    if not is_first:
        log.debug("%s", line)


class EndpointFailures:
    """The failures of endpoints in one attempt.

    :param body: what is sent; parameters that are refused are taken out of it.
    """

    def __init__(self, call: Call, pool: Pool, policy: RetryPolicy, body: dict[str, Any]) -> None:
        self._call = call
        self._pool = pool
        self._policy = policy
        self._body = body
        # The statuses with which endpoints failed; each endpoint gets another chance only once
        # for each status.
        self._statuses: set[tuple[str, int]] = set()

    def can_go_on(self, endpoint: Endpoint, error: APIError, *, reader_has_text: bool) -> bool:
        """Return whether the attempt can go on: at another endpoint, with a fresh key, or without a
        parameter.

        :param endpoint: the one that failed.
        :param reader_has_text: whether the reader of a stream has read a part of the answer.
        """
        if reader_has_text:
            error.retryable = False  # another answer would begin again
        if isinstance(error, RateLimitError) and not isinstance(error, QuotaExceededError):
            return self._can_use_another(endpoint, error)
        if reader_has_text:
            return False
        if isinstance(error, QuotaExceededError):
            return self._can_leave_out(endpoint, "has no quota left", error)
        if isinstance(error, AuthenticationError):
            return self._can_renew_key(endpoint, error) or self._can_leave_out(
                endpoint, "refused its API key", error
            )
        return isinstance(error, InvalidRequestError) and _drop_unsupported(self._body, error)

    def _can_use_another(self, endpoint: Endpoint, error: APIError) -> bool:
        """Let an endpoint rest after a 429; return whether another one is free."""
        now = time.monotonic()
        has_others = len(self._pool.endpoints) > 1
        seconds = error.retry_after
        if seconds is None:
            seconds = REST_SECONDS if has_others else self._policy.options.waiting_time
        another_is_free = self._pool.rest(endpoint, now + seconds)
        if not error.retryable:
            return False
        if another_is_free and self._is_first_status(429, endpoint):
            warn_once(
                f"{self._call.label}: endpoint {endpoint.name} is not used for {seconds:.2f} s "
                f"({type(error).__name__}: {error}); llmcall uses another one, now and whenever this "
                "happens again",
                about=("rests", endpoint.name),
            )
            return True
        if has_others:
            error.retry_after = self._pool.free_after(now)
        return False

    def _can_renew_key(self, endpoint: Endpoint, error: APIError) -> bool:
        """Return whether a function gives the key, and can be asked for a fresh one."""
        transport = self._call.transport_of(endpoint)
        if not getattr(transport, "renewable", False) or error.status_code != 401:
            return False
        return self._is_first_status(401, endpoint)

    def _can_leave_out(self, endpoint: Endpoint, problem: str, error: APIError) -> bool:
        """Leave an endpoint out that will refuse further calls; return whether others remain."""
        others_remain = self._pool.leave_out(endpoint, time.monotonic())
        if others_remain:
            notice(
                "endpoint %s %s and is not used for %.0f minutes: %s",
                endpoint.name,
                problem,
                LEFT_OUT_SECONDS / 60,
                error,
            )
        return others_remain

    def _is_first_status(self, status: int, endpoint: Endpoint) -> bool:
        """Return whether an endpoint answers the attempt with a status for the first time, and note
        it.
        """
        is_first = (endpoint.name, status) not in self._statuses
        self._statuses.add((endpoint.name, status))
        return is_first


def _drop_unsupported(body: dict[str, Any], error: APIError) -> bool:
    """Take the parameter out of the body that the API does not support; return whether there is one."""
    if "stream_options" in str(error) and body.pop("stream_options", None):
        return True  # an older server, which then reports no usage
    name = error.param
    if error.code not in UNSUPPORTED_CODES or not isinstance(name, str) or name in ESSENTIAL_FIELDS:
        return False
    if name == "max_tokens" and name in body and "max_completion_tokens" not in body:
        body["max_completion_tokens"] = body.pop(name)
        return True
    if body.pop(name, None) is None:
        return False
    model = body.get("model")
    warn_once(
        f"{model} does not support {name}, so llmcall leaves it out: {error}",
        about=("unsupported", model, name),
    )
    return True
