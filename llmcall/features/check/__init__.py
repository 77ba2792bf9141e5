"""Does a recording replay? The program runs again, with answers held back, and must do the same."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(
    run_options={
        "replays": "features.check.check:CHECK_OPTION",
        "held_back": "features.check.check:HELD_BACK_OPTION",
    },
)
