"""What follows a failure of an endpoint: the same attempt goes on at another endpoint, with a fresh
key or without a parameter, or it has failed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..errors import (
    APIError,
    AuthenticationError,
    InvalidRequestError,
    QuotaExceededError,
    RateLimitError,
)
from ..notices import notice, warn_once
from ..requests.parameters import ESSENTIAL_FIELDS
from .limits import LEFT_OUT_SECONDS

if TYPE_CHECKING:
    from ..config.endpoints import Endpoint
    from .attempt import RetryPolicy
    from .limits import Pool
    from .model_call import ModelCall

REST_SECONDS = 1.0  # how long an endpoint rests after a 429 that named no time
# the API's error codes
UNSUPPORTED_CODES = frozenset({"unsupported_parameter", "unsupported_value"})


class EndpointFailures:
    """The failures of endpoints in one attempt.

    :param body: what is sent; parameters that are refused are taken out of it.
    """

    def __init__(
        self, call: ModelCall, pool: Pool, policy: RetryPolicy, body: dict[str, Any]
    ) -> None:
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
            seconds = REST_SECONDS if has_others else self._policy.waiting_time
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
        transport = self._call.client.transport_of(endpoint)
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
