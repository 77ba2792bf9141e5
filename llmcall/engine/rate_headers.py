"""What the headers of a response say of a server's own limits, in the way of OpenAI's.

``x-ratelimit-remaining-requests`` and ``-tokens`` say what is left, ``x-ratelimit-limit-…`` how many there are, and
``x-ratelimit-reset-…`` (``1s``, ``6m0s``, ``20ms``) the time until the limit is back at its initial state (OpenAI,
guide "Rate limits", section "Rate limits in headers"). It refills evenly, so one request is there long before: after
``reset / (limit - remaining)``. Other servers' ways of saying it are passed over: a 429 tells the rest.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LONGEST_WAIT", "Quota", "ServerQuota", "date_in", "quotas_in", "sent_at"]

LONGEST_WAIT = 366 * 86400.0  # seconds; what no clock of the system can wait for would be an error of its own
COUNT = re.compile(r"-?\d{1,18}")
DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
SECONDS = (86400.0, 3600.0, 60.0, 1.0, 0.001)


class Quota(NamedTuple):
    """Hold what a server says of its limit of requests, or of tokens.

    :param left: how many are left; below 0 where more were used than there were.
    :param seconds: until all of them are there again.
    :param limit: how many there are at most; ``None`` where it does not say.
    """

    left: int
    seconds: float
    limit: int | None = None


class ServerQuota(NamedTuple):
    """Hold what is left of a server's limit, as far as it said.

    :param left: at the monotonic time ``since``.
    :param until: the time at which all are there again; where there is a ``rate`` it does not count.
    :param rate: how many come back in a second; 0 where all come at once.
    :param most: how many there are at most.
    """

    left: float
    since: float
    until: float
    rate: float
    most: float

    @classmethod
    def of(cls, quota: Quota, now: float) -> ServerQuota:
        """Return what a quota says at a monotonic time."""
        until = now + quota.seconds
        if quota.limit is None or quota.seconds <= 0 or quota.left >= quota.limit:
            return cls(quota.left, now, until, 0.0, float("inf"))
        return cls(quota.left, now, until, (quota.limit - quota.left) / quota.seconds, quota.limit)

    def wait(self, needed: int, now: float) -> float:
        """Return the seconds until so many are there; where there are never so many, until all are."""
        short = min(needed, self.most) - self.left
        if short <= 0:
            return 0.0
        ends = self.since + short / self.rate if self.rate else self.until
        return max(0.0, round(ends - now, 6))  # else a wait could end a rounding error before what it waits for

    def less(self, used: int, now: float) -> ServerQuota:
        """Return it without those that a call uses."""
        left = min(self.most, self.left + self.rate * (now - self.since))
        return self._replace(left=left - used, since=now)


def quotas_in(headers: Mapping[str, str]) -> dict[str, Quota]:
    """Return what a server says is left of ``"requests"`` and ``"tokens"``.

    :param headers: names in lower case.
    """
    found = {}
    for unit in ("requests", "tokens"):
        left, limit = (_count(headers.get(f"x-ratelimit-{what}-{unit}")) for what in ("remaining", "limit"))
        seconds = _duration(headers.get(f"x-ratelimit-reset-{unit}"))
        if left is not None and seconds is not None and (limit is None or limit > 0):  # Azure sends -1 for none
            found[unit] = Quota(left, seconds, limit)
    return found


def _count(text: str | None) -> int | None:
    return int(text) if text and COUNT.fullmatch(text.strip()) else None


def _duration(text: str | None) -> float | None:
    parts = DURATION.fullmatch((text or "")[:100].strip())
    if not text or parts is None:
        return None
    return min(sum(float(part or 0) * each for part, each in zip(parts.groups(), SECONDS, strict=True)), LONGEST_WAIT)


def sent_at(headers: Mapping[str, str]) -> float:
    """Return when a response was sent, in seconds since 1970 by its server's clock, of which its dates speak.

    Source: RFC 9110, section 6.6.1 (``Date``). Without that header it is the time of this machine.
    """
    date = date_in(headers.get("date"))
    if date is not None:
        return date
    import time

    return time.time()


def date_in(text: str | None) -> float | None:
    """Return an HTTP date in seconds since 1970, or ``None`` where it is none, or one that no clock knows."""
    if not text:
        return None
    from datetime import timezone
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
