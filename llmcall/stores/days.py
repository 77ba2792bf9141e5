"""The days on which a model answered, and the hosts that answered for it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from ..keys.request import Data
from ..support.lazy_names import pattern

EARLIEST, LATEST = 10**9, 10**11  # seconds since the epoch: 2001 and the year 5138
_DAY = pattern(r"\d{4}-\d\d-\d\d")
_FRACTION = pattern(r"\.\d+")  # of a second


class Days(NamedTuple):
    """The days on which a model gave some answers, in UTC, and what answered.

    :param first: the first day, such as ``"2026-11-22"``.
    :param last: the last day.
    :param fingerprints: the model's ``system_fingerprint`` values, sorted.
    :param hosts: the hosts that gave the answers, without ports, sorted; empty if unknown.
    :param providers: those that answered behind a gateway, as it names them, sorted.
    """

    first: str
    last: str
    fingerprints: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.first if self.first == self.last else f"{self.first} to {self.last}"


def day_of(seconds: float) -> str:
    """Return the day of a time, in UTC.

    :param seconds: since the epoch.
    """
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def creation_time(response: Mapping[str, Data]) -> float | None:
    """Return the creation time in a response, in seconds since the epoch, or ``None``."""
    seconds = response.get("created") or response.get("created_at")
    if isinstance(seconds, str):  # an interaction's, in ISO 8601
        seconds = _seconds(seconds)
    # Mock servers send 0 or a counter.
    if not isinstance(seconds, (int, float)) or not EARLIEST < seconds < LATEST:
        return None
    return seconds


def _seconds(text: str) -> float | None:
    from datetime import datetime, timezone

    # Ollama writes 9 digits of a second, of which Python 3.10 reads 3 or 6.
    text = _FRACTION.sub("", text).replace("Z", "+00:00")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp()


def day_created(response: Mapping[str, Data]) -> str | None:
    """Return the day of the creation time in a response, in UTC, or ``None``."""
    seconds = creation_time(response)
    return None if seconds is None else day_of(seconds)


def joined_days(days: Days | None, other_days: Days | None) -> Days | None:
    """Return the days that cover two sets of answers of one model; an unknown one is ``None``."""
    if days is None or other_days is None:
        return days or other_days
    return Days(
        min(days.first, other_days.first),
        max(days.last, other_days.last),
        tuple(sorted({*days.fingerprints, *other_days.fingerprints})),
        tuple(sorted({*days.hosts, *other_days.hosts})),
        tuple(sorted({*days.providers, *other_days.providers})),
    )


def days_entry(days: Days) -> dict[str, Data]:
    """Return some days as JSON data."""
    lists = {"hosts": days.hosts, "providers": days.providers, "fingerprints": days.fingerprints}
    known = {name: list(texts) for name, texts in lists.items() if texts}
    return {"first": days.first, "last": days.last, **known}


def parse_days(entry: Data) -> Days | None:
    """Return the days from the JSON data of :func:`days_entry`, or ``None`` from anything else."""
    if not isinstance(entry, dict):
        return None
    days = entry.get("first", ""), entry.get("last", "")
    lists = [entry.get(name, []) for name in ("fingerprints", "hosts", "providers")]
    are_days = all(isinstance(day, str) and _DAY.fullmatch(day) for day in days)
    are_texts = all(
        isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists
    )
    return Days(*days, *map(tuple, lists)) if are_days and are_texts else None
