"""What the headers of a response say of a server's own limits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["told_by"]

HEADERS = {"requests": ("-requests", ""), "tokens": ("-tokens",)}
DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?")
SECONDS = (86400.0, 3600.0, 60.0, 1.0, 0.001)
EPOCH = 1e9  # a number of seconds that is a date
EPOCH_IN_MILLISECONDS = 1e12


def told_by(headers: Mapping[str, str]) -> dict[str, tuple[int, float]]:
    """Return what a server says is left: for ``requests`` and ``tokens``, how many and for how long.

    Read are ``x-ratelimit-remaining-requests`` with ``x-ratelimit-reset-requests``, the same of tokens (OpenAI's guide
    "Rate limits", section "Rate limits in headers": resets such as ``1s``, ``6m0s``, ``20ms``; of other servers a
    number of seconds), and ``x-ratelimit-remaining`` with ``x-ratelimit-reset`` (of some a date, in seconds or
    milliseconds since 1970). One without the other says nothing.

    :param headers: names in lower case.
    :returns: how many are left, and the seconds until the server counts anew.
    """
    found = {}
    for what, endings in HEADERS.items():
        for ending in endings:
            left = headers.get(f"x-ratelimit-remaining{ending}", "").strip()
            if not left:
                continue
            seconds = _seconds(headers.get(f"x-ratelimit-reset{ending}", "").strip())
            if re.fullmatch(r"-?\d+(\.0*)?", left) and seconds is not None:
                found[what] = (int(float(left)), seconds)
                break
    return found


def _seconds(text: str) -> float | None:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return _from_now(float(text))
    parts = DURATION.fullmatch(text)
    if not text or parts is None:
        return None
    try:
        return sum(float(part or 0) * seconds for part, seconds in zip(parts.groups(), SECONDS, strict=True))
    except ValueError:  # 1.2.3s
        return None


def _from_now(number: float) -> float:
    if number < EPOCH:
        return number
    import time

    date = number / 1000 if number >= EPOCH_IN_MILLISECONDS else number
    return max(0.0, date - time.time())
