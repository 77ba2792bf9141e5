"""Effects: the mean difference between two arms, with its interval, and the units that one needs."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(
    names={"features.effects.effects": "effect units_needed"},
    types={"features.effects.effects": "UnitsNeeded"},
    remedies={
        "a table not yet asked": "llmcall.units_needed says from the answers to a few rows how many an interval "
        "needs, and their cost",
    },
)
