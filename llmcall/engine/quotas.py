"""What a server says is left of its limits of requests and tokens.

``x-ratelimit-remaining-requests`` and ``-tokens`` say what is left, ``x-ratelimit-limit-…`` how
many there are, and ``x-ratelimit-reset-…`` (``1s``, ``6m0s``, ``20ms``) how long it takes until the
limit is back at its initial state (OpenAI, guide "Rate limits", section "Rate limits in headers").
A limit refills evenly, so one request is there long before: after ``reset / (limit - remaining)``.
Headers of other forms are ignored: a 429 tells the rest.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import NamedTuple

UNITS = ("requests", "tokens")
NEVER = float("inf")
LONGEST_WAIT = 366 * 86400.0  # seconds; a longer one would be an error of the system's clock
COUNT = re.compile(r"-?\d{1,18}")
DURATION = re.compile(
    r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?"
)
SECONDS = (86400.0, 3600.0, 60.0, 1.0, 0.001)  # of each group of DURATION


class Quota(NamedTuple):
    """What a server says is left of a limit.

    :param remaining: how many were left at the monotonic time ``since``; below 0 if more were used.
    :param until: the time at which all are there again; it does not count if there is a ``rate``.
    :param rate: how many come back in a second; 0 if all come at once.
    :param limit: how many there are at most.
    """

    remaining: float
    since: float
    until: float
    rate: float = 0.0
    limit: float = NEVER

    def wait(self, needed: int, now: float) -> float:
        """Return the seconds until so many are there, or all if there are never so many."""
        missing = min(needed, self.limit) - self.remaining
        if missing <= 0:
            return 0.0
        ends = self.since + missing / self.rate if self.rate else self.until
        # Rounded, or a wait could end a rounding error before what it waits for.
        return max(0.0, round(ends - now, 6))

    def less(self, amount: int, now: float) -> Quota:
        """Return the quota without those that a call uses."""
        remaining = min(self.limit, self.remaining + self.rate * (now - self.since))
        return self._replace(remaining=remaining - amount, since=now)


def quotas_in(headers: Mapping[str, str]) -> dict[str, Quota]:
    """Return what a response says is left now of ``"requests"`` and ``"tokens"``.

    :param headers: names in lower case.
    """
    now = time.monotonic()
    quotas = {}
    for unit in UNITS:
        remaining = _count(headers.get(f"x-ratelimit-remaining-{unit}"))
        limit = _count(headers.get(f"x-ratelimit-limit-{unit}"))
        seconds = _duration(headers.get(f"x-ratelimit-reset-{unit}"))
        if remaining is None or seconds is None:
            continue
        if limit is not None and limit <= 0:  # Azure sends -1 if there is no limit
            continue
        quota = Quota(remaining, now, now + seconds)
        if limit is not None and seconds > 0 and remaining < limit:
            quota = quota._replace(rate=(limit - remaining) / seconds, limit=limit)
        quotas[unit] = quota
    return quotas


def _count(text: str | None) -> int | None:
    return int(text) if text and COUNT.fullmatch(text.strip()) else None


def _duration(text: str | None) -> float | None:
    """Return the seconds that a duration such as ``6m0s`` has."""
    if not text:
        return None
    match = DURATION.fullmatch(text[:100].strip())
    if match is None:
        return None
    parts = zip(match.groups(), SECONDS, strict=True)
    seconds = sum(float(number or 0) * unit for number, unit in parts)
    return min(seconds, LONGEST_WAIT)
