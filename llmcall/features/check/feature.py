"""What checking a replay adds."""

from __future__ import annotations

from .. import Feature

FEATURE = Feature(
    run_options={
        "replays": "features.check.run_options:CHECK_OPTION",
        "held_back": "features.check.run_options:HELD_BACK_OPTION",
    },
)
