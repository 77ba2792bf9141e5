"""A study packed for others, and verified by them."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(
    needs=("report",),
    names={"features.packing.pack": "pack", "features.packing.verify": "verify"},
    commands={
        "pack": "features.packing.commands:pack",
        "verify": "features.packing.commands:verify",
    },
)
