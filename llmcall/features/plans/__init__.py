"""Dry runs: what of a map is recorded, and what the rest would cost; the rest as a batch, at half the price."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(
    needs=("importing",),
    types={"features.plans.plan": "Plan"},
    map_options={"dry_run": "features.plans.planner:plan_map"},
)
