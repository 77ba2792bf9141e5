"""The time limit of an attempt's reads from the network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# The monotonic time at which the attempt of the current context has to end.
_ends_at: ContextVar[float | None] = ContextVar("llmcall end of an attempt", default=None)


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Limit how long a block may read from the network; ``None`` sets no limit.

    :param seconds: for the whole block.
    """
    token = _ends_at.set(None if seconds is None else time.monotonic() + seconds)
    try:
        yield
    finally:
        _ends_at.reset(token)


def time_left() -> float | None:
    """Return the seconds that are left of the current :func:`time_limit`, or ``None`` without one.

    Whoever reads from the network in a thread asks this before each step.
    """
    ends_at = _ends_at.get()
    return None if ends_at is None else ends_at - time.monotonic()
