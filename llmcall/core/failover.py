"""After the failure of one endpoint: another send of the attempt, at another endpoint, with a fresh key, or without
a parameter.
"""

from __future__ import annotations

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
from ..support.notices import warn_once
from .calls import Call
from .seams import Gate, Transport

LONGEST_RETRY_AFTER = 3600.0  # seconds; a longer MAX_WAITING_TIME is the bound instead
REST_SECONDS = 1.0  # how long an endpoint rests after a 429 that named no time
# the API's error codes
UNSUPPORTED_CODES = frozenset({"unsupported_parameter", "unsupported_value"})


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
                f"{endpoint.name or self._call.name} asks to wait {error.retry_after:,.0f} s; llmcall waits "
                f"{longest:,.0f} s at most, and never beyond a call's deadline",
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
        was_retryable = error.retryable
        if error.failure.is_read:
            error.retryable = False
        if isinstance(error, RateLimitError) and not isinstance(error, QuotaExceededError):
            return was_retryable and self._let_rest(error, endpoint, gate)
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
        """Let an endpoint rest after a 429, for all calls; return whether another one is free. If none is,
        this call waits before its next attempt.
        """
        has_others = len(self._call.site.endpoints) > 1
        seconds = error.retry_after
        if seconds is None:
            seconds = REST_SECONDS if has_others else self._call.options.waiting_time
        named_by_server = error.retry_after is not None
        free_after = gate.rest(endpoint, seconds, named_by_server=named_by_server)
        if not error.retryable:
            return False
        if free_after < seconds and self._is_first_status(endpoint, 429):
            warn_once(
                f"{self._call.label}: endpoint {endpoint.name} is not used for {seconds:.2f} s "
                f"({type(error).__name__}: {error}); llmcall uses another one, now and whenever this "
                "happens again",
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
