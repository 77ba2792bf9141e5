"""One call, as the road knows it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from .limits import NO_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..cache.cache import ResponseCache
    from ..config.settings import Endpoint
    from ..models.capabilities import Capabilities
    from ..types import Request
    from .limits import Pool
    from .retry import RetryPolicy

__all__ = ["Call", "time_left"]


class Call(NamedTuple):
    """Hold all that the road needs to know of one call.

    :param request: what is asked.
    :param cache: where it is recorded; ``None`` where the disk takes no part.
    :param mode: the cache's mode.
    :param pool: the endpoints that serve the model.
    :param transport: gives the transport of an endpoint.
    :param capabilities: what is known of the model.
    :param policy: how often and when it is tried again.
    :param timeout: seconds for one attempt, or ``None``.
    :param whole: tells whether the server read the whole prompt, as far as a response's token counts show.
    :param count: adds a response or its tokens, and amounts, to the usage; gives the response's USD, or ``None``.
    :param api_type: recorded beside the answer.
    :param host: gives the host of an endpoint, recorded likewise.
    :param stream: whether the text is handed on as it comes.
    :param wants_room: whether an answer that the context window cut is an error: there is a larger one to try.
    :param limits: of each endpoint.
    :param price: gives, for a number of prompt tokens, USD per million tokens in and out, or ``None``.
    """

    request: Request
    cache: ResponseCache | None
    mode: str
    pool: Pool
    transport: Callable[[Endpoint], Any]
    capabilities: Capabilities
    policy: RetryPolicy
    timeout: float | None
    whole: Callable[[Any], bool]
    count: Callable[..., float | None]  # type: ignore[assignment]
    api_type: str
    host: Callable[[Endpoint], str]
    stream: bool = False
    wants_room: bool = False
    limits: Limits = NO_LIMITS
    price: Callable[[int], tuple[float, float] | None] = lambda tokens: None


def time_left(policy: RetryPolicy) -> float | None:
    """Return the seconds until a call's deadline, or ``None`` where it has none."""
    return None if policy.deadline_at is None else policy.deadline_at - time.monotonic()
