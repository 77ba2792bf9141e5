"""TinyTroupe's files: its cache, and its keys in config.ini."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(
    formats={"TinyTroupe's cache": "features.tinytroupe.cache_file:read_if_pickled"},
    other_keys={"TinyTroupe": "features.tinytroupe.ini:KEYS"},
)
