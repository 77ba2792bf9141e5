"""Completion windows: answers that may take hours, for a lower price."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(
    settings={"window": "features.windows.settings:WINDOW"},
    options={"window": "features.windows.option:WINDOW"},
    # "Background mode", OpenAI's guide: 30 % and 40 % below the standard price for answers within 2 and 8 hours.
    tiers={"2h": 0.7, "8h": 0.6},
    cache_parts={"awaited": "features.windows.cache_part:AWAITED"},
)
