"""What packing and verifying a study add."""

from __future__ import annotations

from .. import Feature

FEATURE = Feature(
    needs=("report",),
    names={"features.packing.pack": "pack", "features.packing.verify": "verify"},
    commands={
        "pack": "features.packing.commands:pack",
        "verify": "features.packing.commands:verify",
    },
)
