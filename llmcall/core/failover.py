"""After a failure: another send of the attempt, at another endpoint, with a fresh key, or without a parameter; or a
pause, and another attempt.

Whether that may be is the error's ``retryable``, set where the error is made: for an API's errors in
``clients/api_errors.py``.
"""

from __future__ import annotations

import random

from ..config.endpoints import Endpoint
from ..errors import (
    APIError,
    AuthenticationError,
    InvalidRequestError,
    QuotaExceededError,
    RateLimitError,
)
from ..keys.parameters import ESSENTIAL_FIELDS
from ..keys.request import Data
from ..support.display import sentence
from ..support.notices import logger, warn_once
from .calls import Call
from .seams import Gate, Transport

JITTER = 0.25  # the largest share of a wait that is added at random
# After a 429 that names no wait, waits are this times longer: with the defaults, four of them (5, 10, 20 and
# 40 s) last longer than the minute of most limits.
LIMIT_FACTOR = 5
LONGEST_RETRY_AFTER = 3600.0  # seconds; a longer MAX_WAITING_TIME is the bound instead
REST_SECONDS = 1.0  # how long an endpoint rests after a 429 that named no time
# the API's error codes
UNSUPPORTED_CODES = frozenset({"unsupported_parameter", "unsupported_value"})
# The system's: our waits must change neither what a seed draws nor which generators a program makes.
_random = random.SystemRandom()


class Failover:
    """The search for another way to send a request after an endpoint failed, in one attempt.

    :param call: its call.
    :param body: the body that is sent; unsupported parameters are removed from it.
    """

    def __init__(self, call: Call, body: dict[str, Data]) -> None:
        self._call = call
        self._body = body
        # The statuses with which endpoints failed. Each endpoint gets another chance once for each status.
        self._statuses: set[tuple[str, int]] = set()

    def bound_wait(self, error: APIError, endpoint: Endpoint) -> None:
        """Bound the wait that a server names, which may be years, and say so."""
        longest = max(LONGEST_RETRY_AFTER, self._call.settings.retry_max_waiting_time)
        if error.retry_after is not None and error.retry_after > longest:
            warn_once(
                f"{endpoint.name or self._call.name} asks for a wait of {error.retry_after:,.0f} s; llmcall "
                f"waits at most {longest:,.0f} s, and never beyond a call's deadline",
                about=("long wait", endpoint.name),
            )
            error.retry_after = longest

    def prepare_another_send(
        self, error: APIError, endpoint: Endpoint, gate: Gate, transport: Transport | None
    ) -> bool:
        """Prepare another send of the attempt, at another endpoint, with a fresh key, or without a parameter;
        return whether there is such a way.

        :param endpoint: the one that failed.
        :param gate: the gate of the send that failed.
        :param transport: what sent it, or ``None`` if there was none yet.
        """
        if isinstance(error, RateLimitError) and not isinstance(error, QuotaExceededError):
            return error.retryable and self._let_rest(error, endpoint, gate)
        if error.failure.is_read:
            return False
        if isinstance(error, QuotaExceededError):
            return self._leave_out(endpoint, "has no quota left", error)
        if isinstance(error, AuthenticationError):
            # A key function can give a fresh key.
            is_renewable = transport is not None and transport.renewable
            if is_renewable and error.status_code == 401 and self._is_first_status(endpoint, 401):
                return True
            return error.refuses_key and self._leave_out(endpoint, "refused its API key", error)
        return isinstance(error, InvalidRequestError) and _drop_unsupported(self._body, error)

    def _let_rest(self, error: APIError, endpoint: Endpoint, gate: Gate) -> bool:
        """Let an endpoint rest after a 429, for all calls. Return whether another one is free; if none is,
        this call waits before its next attempt.
        """
        has_others = len(self._call.site.endpoints) > 1
        seconds = error.retry_after
        if seconds is None:
            seconds = REST_SECONDS if has_others else self._call.options.waiting_time
        named_by_server = error.retry_after is not None
        free_after = gate.rest(endpoint, seconds, named_by_server=named_by_server)
        if error.failure.is_read:
            return False
        if free_after < seconds and self._is_first_status(endpoint, 429):
            warn_once(
                f"{self._call.label}: llmcall does not use endpoint {endpoint.name} for {seconds:.2f} s "
                f"({type(error).__name__}: {error}), and calls another one. It does so whenever this happens again",
                about=("rests", endpoint.name),
            )
            return True
        if has_others:
            error.retry_after = min(free_after, seconds)
        return False

    def _leave_out(self, endpoint: Endpoint, problem: str, error: APIError) -> bool:
        """Exclude an endpoint that will refuse further calls; return whether others remain."""
        return self._call.site.pool.leave_out(endpoint, problem, error)

    def _is_first_status(self, endpoint: Endpoint, status: int) -> bool:
        """Note that an endpoint answered the attempt with a status; return whether it is the first time."""
        is_first = (endpoint.name, status) not in self._statuses
        self._statuses.add((endpoint.name, status))
        return is_first


def _drop_unsupported(body: dict[str, Data], error: APIError) -> bool:
    """Remove the unsupported parameter from the body; return whether there was one."""
    if "stream_options" in str(error) and body.pop("stream_options", None):
        return True  # an older server, which then reports no usage
    name = error.param
    if error.code not in UNSUPPORTED_CODES or not isinstance(name, str) or name in ESSENTIAL_FIELDS:
        return False
    if name == "max_tokens" and name in body and "max_completion_tokens" not in body:
        body["max_completion_tokens"] = body.pop(name)
        return True
    extra_body = body.get("extra_body") or {}
    if name in extra_body:
        body["extra_body"] = {key: value for key, value in extra_body.items() if key != name}
    elif body.pop(name, None) is None:
        return False
    model = body.get("model")
    warn_once(
        f"{model} does not support {name}, so llmcall leaves it out: {error}",
        about=("unsupported", model, name),
    )
    return True


# Attempts


def pause_after(error: APIError, call: Call) -> float | None:
    """Return the seconds to wait after a failed attempt: exponentially more, or as the server says. Return ``None`` if
    no other attempt may follow.

    :param error: the attempt's; its ``attempts`` are how many were made.
    """
    options = call.options
    if not error.retryable or error.failure.is_read or error.failure.is_retried_by_program:
        return None
    if options.max_attempts == 1:  # as of a recorded function
        return None
    from ..support.libraries import tenacity

    state = tenacity.RetryCallState(None, None, (), {})  # type: ignore[arg-type] # of no Retrying
    state.attempt_number = error.attempts
    if tenacity.stop_after_attempt(options.max_attempts)(state):
        return None
    is_limit = isinstance(error, RateLimitError) and error.retry_after is None
    exponential = tenacity.wait_exponential(
        multiplier=options.waiting_time * (LIMIT_FACTOR if is_limit else 1),
        exp_base=options.exponential_backoff_factor,
        max=call.settings.retry_max_waiting_time,
    )
    jitter = 1 + JITTER * _random.random()
    seconds = max(exponential(state) * jitter, error.retry_after or 0.0)
    seconds_left = call.deadline.time_left()
    if seconds_left is not None and seconds > seconds_left:
        error.note(is_late=True)
        return None
    return seconds


def announce(call: Call, error: APIError, seconds: float) -> None:
    """Log an attempt that failed: a warning for the first of its kind at an endpoint."""
    error_name = type(error).__name__
    endpoint = error.endpoint or "the endpoint"
    line = (
        f"{call.label} failed at {endpoint} (attempt {error.attempts} of {call.options.max_attempts}): "
        f"{error_name}: {sentence(error)} Retrying in {seconds:.2f} s"
    )
    is_first = warn_once(
        f"{line}. llmcall.usage() counts further retries", about=("retry", endpoint, error_name)
    )
    if not is_first:
        logger().debug("%s", line)
