"""What the headers of a response say of a server's own limits.

There is no standard, so each way of saying it has the meaning that its servers document:

- ``x-ratelimit-remaining-requests``, ``…-reset-requests`` and ``…-limit-requests``, and the same of tokens, perhaps
  with a period (``…-requests-day``) or of a project (``…-project-tokens``):

  - a reset such as ``1s``, ``6m0s`` or ``20ms`` is the time until the limit is back at its *initial* state (OpenAI,
    guide "Rate limits", section "Rate limits in headers"; Groq, "Rate Limits", whose sample fits: of 14,400 requests a
    day 30 are used, and the reset is 2m59.56s). It refills evenly, so one request is there long before: after
    ``reset / (limit - remaining)``. So for a date of RFC 3339, at which the limit "will be fully replenished"
    (Anthropic, "Rate limits").
  - a number is the seconds until a window ends, after which all is there at once (Cerebras, "Rate Limits": in the
    sample the resets of the minute and of the day differ by whole minutes; Azure: what a client has to wait).
  - a number of more than a thousand million is the date at which there is enough, in seconds or milliseconds since
    1970 (DigitalOcean, "Quota-Specific Response Headers": "a forward projection").
  - a limit that is not positive is none (Azure sends -1).

- ``x-ratelimit-remaining`` with ``x-ratelimit-reset`` (OpenRouter: a date; others: seconds), and
  ``RateLimit-Remaining`` with ``RateLimit-Reset`` (draft-ietf-httpapi-ratelimit-headers-06: seconds), count requests
  in a window, and so does ``RateLimit: "name";r=0;t=30`` (version 08 and later of the draft; with a ``qu`` other than
  ``requests`` in its ``RateLimit-Policy`` it counts something else).

What cannot be read so says nothing; nor does what is left, without a time (Mistral).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["LONGEST_WAIT", "Quota", "ServerQuota", "date_in", "sent_at", "told_by"]

LONGEST_WAIT = 366 * 86400.0  # seconds; what no clock of the system can wait for would be an error of its own
EPOCH = 1e9  # a number of seconds that is a date
EPOCH_IN_MILLISECONDS = 1e12

LEFT = re.compile(r"(?:x-)?ratelimit-remaining(?P<kind>-(?:project-)?(?P<unit>req(?:uest)?s?|tokens)(?:[-_].*)?)?")
COUNT = re.compile(r"(-?\d{1,18})(?:\.0*)?")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?")
DATE = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)  # RFC 3339
SECONDS = (86400.0, 3600.0, 60.0, 1.0, 0.001)
ITEM = re.compile(r'(?:^|,)\s*("[^"]*"|[\w*.-]+)((?:\s*;\s*\w+=(?:"[^"]*"|[^;,"\s]+))*)')
PARAMETER = re.compile(r'(?<!\w)(\w+)=("[^"]*"|[^;,"\s]+)')


class Quota(NamedTuple):
    """Hold what a server says of one of its limits.

    :param unit: ``"requests"`` or ``"tokens"``.
    :param left: how many are left; below 0 where more were used than there were.
    :param seconds: until all of them are there again.
    :param limit: how many there are at most, where they come back evenly; ``None`` where all come at once.
    """

    unit: str
    left: int
    seconds: float
    limit: int | None = None


class ServerQuota(NamedTuple):
    """Hold what a server said is left, and what has gone and come back since.

    :param unit: ``"requests"`` or ``"tokens"``.
    :param left: of them, at the time ``since``.
    :param since: a monotonic time.
    :param until: the one at which all are there again at once; with a ``rate`` it does not count.
    :param rate: how many come back in a second; 0 where all come at once.
    :param most: how many there are at most.
    """

    unit: str
    left: float
    since: float
    until: float
    rate: float
    most: float

    @classmethod
    def of(cls, quota: Quota, now: float) -> ServerQuota:
        """Return what a quota says at a monotonic time."""
        until = now + quota.seconds
        if quota.limit is None or quota.seconds <= 0:
            return cls(quota.unit, quota.left, now, until, 0.0, float("inf"))
        return cls(quota.unit, quota.left, now, until, (quota.limit - quota.left) / quota.seconds, quota.limit)

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


def told_by(headers: Mapping[str, str]) -> dict[str, Quota]:
    """Return what a server says is left, by the name of the header that says so.

    :param headers: names in lower case.
    """
    found = dict(_items(headers))
    for name, text in headers.items():
        header = LEFT.fullmatch(name) if "ratelimit-rem" in name else None
        quota = _quota(headers, name, text, header["unit"] or "") if header else None
        if quota is not None:
            found[name] = quota
    return found


def _quota(headers: Mapping[str, str], name: str, text: str, unit: str) -> Quota | None:
    left = _count(text)
    reset = headers.get(name.replace("remaining", "reset", 1), "").strip()
    limit = _count(headers.get(name.replace("remaining", "limit", 1), ""))
    seconds, evenly = _until(reset, headers)
    if left is None or seconds is None or (unit and limit is not None and limit <= 0):
        return None
    refills = unit and evenly and limit is not None and left < limit
    return Quota("tokens" if unit == "tokens" else "requests", left, seconds, limit if refills else None)


def _count(text: str) -> int | None:
    found = COUNT.fullmatch(text.strip())
    return int(found[1]) if found else None


def _until(reset: str, headers: Mapping[str, str]) -> tuple[float | None, bool]:
    """Return the seconds until a reset, and whether it is the end of an even refill."""
    if NUMBER.fullmatch(reset):
        return _bounded(_from_now(float(reset), headers)), False
    seconds = _duration(reset)
    if seconds is None:
        seconds = _date(reset, headers)
    return None if seconds is None else _bounded(seconds), True


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), LONGEST_WAIT)


def _from_now(number: float, headers: Mapping[str, str]) -> float:
    if number < EPOCH:
        return number
    return (number / 1000 if number >= EPOCH_IN_MILLISECONDS else number) - sent_at(headers)


def _duration(text: str) -> float | None:
    parts = DURATION.fullmatch(text)
    if not text or parts is None:
        return None
    try:
        return sum(float(part or 0) * seconds for part, seconds in zip(parts.groups(), SECONDS, strict=True))
    except ValueError:  # 1.2.3s
        return None


def _date(text: str, headers: Mapping[str, str]) -> float | None:
    """Return the seconds until a date of RFC 3339."""
    from datetime import datetime

    parts = DATE.fullmatch(text)
    if parts is None:
        return None
    day, time, fraction, zone = parts.groups()
    try:
        date = datetime.fromisoformat(f"{day}T{time}{'+00:00' if zone in 'Zz' else zone}")
        return date.timestamp() + float(fraction or 0) - sent_at(headers)
    except (ValueError, OverflowError):  # the 32nd of a month
        return None


def _items(headers: Mapping[str, str]) -> Iterator[tuple[str, Quota]]:
    """Yield what ``RateLimit`` says of each policy."""
    text = headers.get("ratelimit")
    if not text or any(unit.strip('"') != "requests" for unit in _units(headers.get("ratelimit-policy", ""))):
        return
    for name, parameters in ITEM.findall(text):
        found = dict(PARAMETER.findall(parameters))
        left, seconds = _count(found.get("r", "")), _count(found.get("t", ""))
        if left is not None and seconds is not None:
            yield f"ratelimit {name}", Quota("requests", left, _bounded(seconds))


def _units(policy: str) -> list[str]:
    return [value for name, value in PARAMETER.findall(policy) if name == "qu"]


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
