"""What experiments with several arms add."""

from __future__ import annotations

from .. import Feature

FEATURE = Feature(
    needs=("effects",),
    names={"features.arms.arms": "arms"},
    types={"features.arms.arms": "Arms"},
)
