"""Dry runs: what of a map is recorded, and what the rest would cost."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(
    types={"features.plans.plan": "Plan"},
    map_options={"dry_run": "features.plans.planner:plan_map"},
)
