"""A clock that goes on where a test freezes Python's own: a wait that it measures ends."""

from __future__ import annotations

import time


def monotonic() -> float:
    """Return seconds as ``time.monotonic``, which freezegun replaces, but not this."""
    # Windows has no such clock.
    if hasattr(time, "CLOCK_MONOTONIC"):
        return time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.monotonic()
