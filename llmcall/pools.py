"""The endpoints that serve a model: asked in turn, rested when they ask for it, left out when they refuse the key."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .config import Endpoint

__all__ = ["Pool"]


class Pool:
    """Choose among endpoints, round-robin and fairly, from any number of threads."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._lock = threading.Lock()
        self.endpoints = list(endpoints)
        self._next = 0
        self._rested_at: dict[str, float] = {}  # endpoint's name → monotonic time

    def choose(self, now: float) -> tuple[Endpoint, float]:
        """Return the endpoint whose turn it is and the seconds until it may be asked (0.0 where one is free).

        :param now: the monotonic time.
        """
        with self._lock:
            count = len(self.endpoints)
            for step in range(count):
                endpoint = self.endpoints[(self._next + step) % count]
                if self._rested_at.get(endpoint.name, now) <= now:
                    self._next = (self._next + step + 1) % count
                    return endpoint, 0.0
            first = min(self.endpoints, key=lambda endpoint: self._rested_at[endpoint.name])
            return first, self._rested_at[first.name] - now

    def rest(self, endpoint: Endpoint, until: float) -> bool:
        """Let an endpoint rest until a monotonic time; return whether another one is free before that."""
        with self._lock:
            self._rested_at[endpoint.name] = max(until, self._rested_at.get(endpoint.name, until))
            return any(
                self._rested_at.get(other.name, 0.0) < until for other in self.endpoints if other is not endpoint
            )

    def leave_out(self, endpoint: Endpoint) -> bool:
        """Leave an endpoint out for good; return whether others remain (the last one stays)."""
        with self._lock:
            others = [other for other in self.endpoints if other is not endpoint]
            if others:
                self.endpoints = others
            return bool(others)
