"""What overrides add."""

from __future__ import annotations

from ..features import Feature

FEATURE = Feature(
    names={"overrides.override": "override"},
    run_options={"overrides": "overrides.run_option:OVERRIDE_OPTION"},
    notes={"override": "overrides.notes:OVERRIDE"},
)
