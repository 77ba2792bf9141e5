"""Service tiers: how long flex may take, what its refusals mean, and which models lack it.

Sources, November 2026: OpenAI's guide "Flex processing" (the example waits 900 s; without capacity
the API answers 429 "Resource Unavailable" and charges nothing); Azure's "Use Flex processing" (a
model without the tier is refused by 400); Groq's "Flex Processing" (498, ``capacity_exceeded``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequestError
from ..notices import warn_once

if TYPE_CHECKING:
    from ..errors import APIError

FLEX = "flex"
STANDARD = "default"  # the API's name of the tier at full price
FLEX_TIMEOUT = 900.0  # seconds
NO_CAPACITY = re.compile(r"resource[ _]unavailable|capacity_exceeded", re.IGNORECASE)
NO_CAPACITY_STATUSES = (429, 498)
PARAMETER = "service_tier"
# Those that a model may lack; any other name is a mistake of the caller's.
TIERS = ("flex", "priority", "fast", "scale")

# The models that were refused at a tier, until llmcall.reset().
_without_tier: set[tuple[str, str | None]] = set()


def tier_of(data: Any) -> str | None:
    """Return the tier that a request's body or a response names, or ``None``."""
    tier = data.get(PARAMETER) if isinstance(data, dict) else None
    return tier if isinstance(tier, str) else None


def lacks_capacity(error: APIError, body: Any) -> bool:
    """Return whether an error says that flex has no capacity now.

    :param body: what was sent.
    """
    if tier_of(body) != FLEX or error.status_code not in NO_CAPACITY_STATUSES:
        return False
    return bool(NO_CAPACITY.search(f"{error.code} {error}"))


def ask_at_standard_price(body: dict[str, Any]) -> None:
    """Change a body so that it asks for the standard tier, and say so once for each model."""
    model = body.get("model")
    body[PARAMETER] = STANDARD
    warn_once(
        f"{model}: the flex tier has no capacity, and calls are made at full price instead "
        "(llmcall.usage() counts them as full_price_calls). To prevent that, set FLEX_FALLBACK in "
        "[OpenAI] to wait or to fail",
        about=("flex fallback", model),
    )


def drop_refused_tier(body: dict[str, Any], error: APIError) -> bool:
    """Take a tier that the model does not have out of the body; return whether there was one.

    It is said once, and :func:`without_refused_tier` remembers it.
    """
    tier = tier_of(body)
    if tier not in TIERS or not isinstance(error, InvalidRequestError):
        return False
    if error.param != PARAMETER and PARAMETER not in str(error):
        return False
    model = str(body.get("model"))
    del body[PARAMETER]
    _without_tier.add((model, tier))
    warn_once(
        f"{model} has no service tier {tier!r}; llmcall leaves out service_tier, so the call "
        f"costs the full price: {error}",
        about=("no tier", model, tier),
    )
    return True


def without_refused_tier(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body without a tier that its model was found not to have."""
    if (str(body.get("model")), tier_of(body)) not in _without_tier:
        return body
    return {name: value for name, value in body.items() if name != PARAMETER}


def forget() -> None:
    """Ask every model at every tier again."""
    _without_tier.clear()
