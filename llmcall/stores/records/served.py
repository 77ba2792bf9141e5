"""Models that answered, with their days and hosts: ``served`` in a header."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ...errors import CacheCorruptError
from ...keys.keys import short_key
from ...keys.request import Data
from ...support.display import printable
from ..days import Days, days_counted, days_entry, is_day, joined_days, parse_days
from ..record import Record
from .line import RESTORE

# By the name of a model: its days, or None if they are unknown.
Served = Mapping[str, Days | None]


def model_of(record: Record) -> str | None:
    """Return the model that gave an answer, by the server's name, else by the requested name; ``None`` if
    no model answered.
    """
    if record.kind == "function" or record.given or not record.model_answer:
        return None
    model = record.served or record.model
    return None if model is None else model.encode(errors="replace").decode()  # no lone surrogates


# The model that gave an answer, or None, and the answer's days
Answered = tuple[str | None, Days | None]


def answered(record: Record) -> Answered:
    """Return the model and the days of an answer."""
    model = model_of(record)
    return model, None if model is None else record.days


def served_by(records: Iterable[Record]) -> dict[str, Days | None]:
    """Return the models that gave the answers of some records, sorted, each with its days."""
    return _served(map(answered, records))


def _served(found: Iterable[Answered]) -> dict[str, Days | None]:
    days_by_model: dict[str, Days | None] = {}
    counts: dict[str, Counter[str]] = {}
    for model, days in found:
        if model is not None:
            counts.setdefault(model, Counter())[days.day if days else ""] += 1
            days_by_model[model] = joined_days(days_by_model.get(model), days)
    return {
        model: days and days._replace(counts=tuple(sorted(counts[model].items())))
        for model, days in sorted(days_by_model.items())
    }


def served_words(served: Served, *, has_counts: bool = True) -> list[str]:
    """Return each model with its days in words, such as ``gpt-4o-mini-2024-07-18 (2026-11-22)``.

    :param has_counts: adds to several days the number of answers on each, where it is known.
    """
    return [
        f"{printable(model)}{via(days)} ({days_words(days, has_counts=has_counts)})"
        for model, days in served.items()
    ]


def via(days: Days | None) -> str:
    """Return in words which providers answered behind a gateway; empty if none is known."""
    return f" via {printable(' and '.join(days.providers))}" if days and days.providers else ""


def days_words(days: Days | None, *, has_counts: bool = True) -> str:
    """Return some days in words; see :func:`served_words`."""
    if days is None:
        return "days not recorded"
    counts = dict(days.counts)
    is_counted = has_counts and len(counts) > 1 and any(counts)
    return days_counted(counts) if is_counted else str(days)


class ServedDays(NamedTuple):
    """The days on which a model gave the answers of a file, as a header has them.

    The first day's answers are not listed: most files have no other day. A list of keys, not a number, is what
    git's union of two branches cannot count twice, and what an answer's removal needs.

    :param days: those of all answers.
    :param until: the last day of the answers that are not listed: the first one, unless that is not known.
    :param listed: the days of the others, by their short keys; empty if not known.
    """

    days: Days
    until: str
    listed: Mapping[str, str] = MappingProxyType({})

    def of(self, record: Record) -> Days | None:
        """Return the days of an answer; ``None`` if they are unknown."""
        first, last = self.days.first, self.until
        if self.listed:
            day = self.listed.get(short_key(record.cache_key))
            if day == "" and self.days.day:
                return None
            if day is not None:
                first, last = (day, day) if day else self.days[:2]
        return self.days._replace(first=first, last=last)

    def joined(self, other: ServedDays) -> ServedDays:
        """Return the days of two headers of one file together."""
        return ServedDays(
            joined_days(self.days, other.days) or self.days,
            max(self.until, other.until),
            {**self.listed, **other.listed},
        )


def served_entry(records: Sequence[Record], found: Sequence[Answered]) -> dict[str, Data]:
    """Return the models that gave the answers of some records, with their days, as a header's JSON data.

    :param found: what :func:`answered` returns of each.
    """
    listed: dict[str, list[tuple[str, str]]] = {}
    served = {model: days for model, days in _served(found).items() if days is not None}
    for number, (model, days) in enumerate(found):
        of_model = served.get(model or "")
        # Without any day that is known, there is nothing to list.
        if of_model is not None and any(day for day, _ in of_model.counts):
            day = days.day if days else ""
            if day != of_model.first:
                key = short_key(records[number].cache_key)
                listed.setdefault(model or "", []).append((day, key))
    return {
        model: {**days_entry(days), **_lists(sorted(listed.get(model, ())))}
        for model, days in served.items()
    }


def _lists(pairs: Iterable[tuple[str, str]]) -> dict[str, Data]:
    keys: dict[str, list[str]] = {}
    for day, key in pairs:
        keys.setdefault(day, []).append(key)
    return {"days": keys} if keys else {}


def parse_served(served: Mapping[str, Data]) -> dict[str, ServedDays]:
    """Return the days by model from a header's ``served``.

    :raises CacheCorruptError: if it is damaged.
    """
    days_by_model = {}
    for model, entry in served.items():
        days = parse_days(entry)
        lists = entry.get("days", {}) if isinstance(entry, dict) else {}
        if days is None or not _are_lists(lists):
            raise CacheCorruptError(
                f"the entry of {printable(model)[:64]} in 'served' is damaged; {RESTORE}"
            )
        listed = {key: day for day, keys in lists.items() for key in keys}
        days_by_model[model] = ServedDays(days, days.first if lists else days.last, listed)
    return days_by_model


def _are_lists(lists: Data) -> bool:
    """Return whether data has lists of keys by day."""
    return isinstance(lists, dict) and all(
        (not day or is_day(day))
        and isinstance(keys, list)
        and all(isinstance(k, str) for k in keys)
        for day, keys in lists.items()
    )


def joined_served(
    served: Mapping[str, ServedDays], other_served: Mapping[str, ServedDays]
) -> dict[str, ServedDays]:
    """Return the joined ``served`` of two headers of one file."""
    joined = dict(served)
    for model, days in other_served.items():
        joined[model] = served[model].joined(days) if model in served else days
    return joined
