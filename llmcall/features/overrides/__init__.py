"""The user's own answers instead of the model's."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(
    names={"features.overrides.override": "override"},
    run_options={"overrides": "features.overrides.run_option:OVERRIDE_OPTION"},
    notes={"override": "features.overrides.notes:OVERRIDE"},
    given={"override": "overridden"},
)
