"""Dry runs: which calls of a map are recorded, what the rest would cost, and the rest as a half-price batch."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(
    needs=("importing",),
    types={"features.plans.plan": "Plan"},
    map_options={"dry_run": "features.plans.planner:plan_map"},
)
