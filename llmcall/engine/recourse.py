"""What can still be done about an attempt that an endpoint refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import AuthenticationError, InvalidRequestError, QuotaExceededError, RateLimitError
from ..notices import warn_once
from .demands import demand_of

if TYPE_CHECKING:
    from ..config.settings import Endpoint
    from ..errors import APIError
    from .calls import Call
    from .limits import Pool

__all__ = ["another_way"]

UNSUPPORTED = frozenset({"unsupported_parameter", "unsupported_value"})
REST = 1.0  # seconds that an endpoint rests after a 429 that named no time


def another_way(
    call: Call, endpoint: Endpoint, body: dict[str, Any], error: APIError, refused: set[str], now: float
) -> bool:
    """Return whether the same attempt can go on: with another endpoint, a fresh token, or without a parameter.

    :param endpoint: the one that refused.
    :param body: what was sent; it loses what is unsupported.
    :param refused: which endpoints refused in this attempt, and how; grows. None may do so twice in the same way.
    :param now: the monotonic time.
    """
    if isinstance(error, RateLimitError) and not isinstance(error, QuotaExceededError):
        return _passed_on(call, endpoint, body, error, refused, now)
    if isinstance(error, AuthenticationError):
        # A function gives the key: api_key=, azure_ad_token_provider= or Entra ID.
        renewable = getattr(call.transport(endpoint), "renewable", False)
        if renewable and error.status_code == 401 and _is_new(refused, f"401 {endpoint.name}"):
            return True
        return _left_out(call.pool, endpoint, error)
    return isinstance(error, InvalidRequestError) and _without(body, error)


def _is_new(refused: set[str], how: str) -> bool:
    known = how in refused
    refused.add(how)
    return not known


def _passed_on(
    call: Call, endpoint: Endpoint, body: dict[str, Any], error: APIError, refused: set[str], now: float
) -> bool:
    """Let an endpoint rest; return whether another one, or the first that has rested, is asked in its place."""
    seconds = _rest(call, endpoint, body, error, now)
    another = call.pool.rest(endpoint, now + seconds)
    if not error.retryable:
        return False  # a stream's reader has the first half already
    if another and _is_new(refused, f"429 {endpoint.name}"):
        _log().warning(
            "%s request %s to %s: endpoint %s rests for %.2f s (%s: %s); another is asked",
            call.request.kind, call.request.cache_key[:12], call.request.model,
            endpoint.name, seconds, type(error).__name__, error,
        )  # fmt: skip
        return True
    if len(call.pool.endpoints) > 1:
        error.retry_after = call.pool.free_after(now)
    return False


def _rest(call: Call, endpoint: Endpoint, body: dict[str, Any], error: APIError, now: float) -> float:
    """Return the seconds that an endpoint rests: those it asked for, else some, in which another may be asked.

    Where it asked for none, but said what is left of its limits, it rests until there is enough for the call, which
    does not come back before either.
    """
    if error.retry_after is not None:
        return error.retry_after
    own = REST if len(call.pool.endpoints) > 1 else call.policy.waiting_time
    if not error.quotas:
        return own
    demand = demand_of(call.request.kind, body, call.capabilities)
    refill = call.pool.hear(endpoint, error.quotas, demand, call.request.model, now)
    error.retry_after = refill or None
    return max(own, refill)


def _left_out(pool: Pool, endpoint: Endpoint, error: APIError) -> bool:
    remains = pool.leave_out(endpoint)
    if remains:
        _log().warning("endpoint %s refused its key and is left out: %s", endpoint.name, error)
    return remains


def _without(body: dict[str, Any], error: APIError) -> bool:
    """Take the parameter that the API says it does not support out of the body; say so."""
    if "stream_options" in str(error) and body.pop("stream_options", None):
        return True  # an older server; the usage is then unknown
    name = error.param
    if error.code not in UNSUPPORTED or not isinstance(name, str) or name in ("model", "messages", "input"):
        return False
    if name == "max_tokens" and name in body and "max_completion_tokens" not in body:
        body["max_completion_tokens"] = body.pop(name)
        return True
    if body.pop(name, None) is None:
        return False
    model = body.get("model")
    warn_once(f"{model} does not support {name}, which is dropped: {error}", about=("unsupported", model, name))
    return True


def _log() -> Any:
    import logging

    return logging.getLogger("llmcall")
