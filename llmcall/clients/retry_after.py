"""Retry-After: how long a server asks to wait before the next attempt."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_WAIT = 366 * 86400.0  # seconds; a longer one would be an error of the system's clock


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait: ``retry-after-ms``, or ``Retry-After`` in
    seconds or as a date.

    Source: RFC 9110, section 10.2.3; ``retry-after-ms`` is OpenAI's and Azure's own. A date comes
    from the server's clock, which may differ from this machine's, so the response's own ``Date``
    (section 6.6.1) is subtracted from it.
    """
    milliseconds = _positive_number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    retry_after = headers.get("retry-after")
    seconds = _positive_number(retry_after)
    if seconds is not None:
        return seconds
    until = _date(retry_after)
    sent_at = _date(headers.get("date"))
    if until is None:
        return None
    return min(max(0.0, until - (time.time() if sent_at is None else sent_at)), LONGEST_WAIT)


def _date(text: str | None) -> float | None:
    """Return an HTTP date in seconds since 1970, or ``None`` if it is not a possible date."""
    from datetime import timezone
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(text or "")
        return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _positive_number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return min(value, LONGEST_WAIT) if 0 <= value < float("inf") else None
