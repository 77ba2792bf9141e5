"""What reading TinyTroupe's files adds."""

from __future__ import annotations

from .. import Feature

FEATURE = Feature(
    formats={"TinyTroupe's cache": "features.tinytroupe.cache_file:read_if_pickled"},
    other_keys={"TinyTroupe": "features.tinytroupe.ini:KEYS"},
)
