"""What adaptive limits add."""

from __future__ import annotations

from .. import Feature

FEATURE = Feature(slots={"auto": "features.adaptive_limits.slots:AdaptiveSlot"})
