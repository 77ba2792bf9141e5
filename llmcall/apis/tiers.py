"""The service tiers and windows that requests and responses name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .decisions import TIER as DECISIONS
from .decisions import is_decision, questions_in
from .objects import object_in

if TYPE_CHECKING:
    from collections.abc import Mapping


def tier_of(data: object, window: str | None = None) -> str | None:
    """Return the service tier that a request's body or a response names, or ``None``. A window counts as
    a tier.

    :param window: the window that was asked for; it counts if the response was made in the background.
    """
    if not isinstance(data, dict):
        return None
    if window is not None and data.get("background") is True:
        return window
    if is_decision(data) or questions_in(data):
        return DECISIONS
    of_gemini = object_in(data.get("usageMetadata")).get("serviceTier")
    tier = (
        window_of(data)
        or data.get("service_tier")
        or _dearer(data)
        or _dearer(data.get("usage"))
        or str(of_gemini or "").lower()
        or None
    )
    return tier if isinstance(tier, str) else None


def _dearer(fields: object) -> str | None:
    """Return the more expensive tier that a body, or a usage, of the Messages API names in its own way."""
    if not isinstance(fields, dict):
        return None
    if fields.get("speed") == "fast":
        return "fast"
    return "us" if fields.get("inference_geo") == "us" else None


def window_of(body: Mapping[str, object]) -> str | None:
    """Return the window in which a request is to be answered, or ``None`` for at once.

    :param body: the body that is sent.
    """
    options = body.get("background_options")
    return options.get("completion_window") if isinstance(options, dict) else None
