"""Experiments with several arms: one function, run with different arguments on the same answers."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(
    needs=("effects",),
    names={"features.arms.arms": "arms"},
    types={"features.arms.arms": "Arms"},
)
