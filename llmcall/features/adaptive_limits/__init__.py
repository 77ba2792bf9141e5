"""Endpoints that find how many calls they take at a time."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(slots={"auto": "features.adaptive_limits.slots:AdaptiveSlot"})
