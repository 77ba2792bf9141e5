"""What plans add."""

from __future__ import annotations

from .. import Feature

FEATURE = Feature(map_options={"dry_run": "features.plans.planner:plan_map"})
