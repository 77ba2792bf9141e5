"""Models that answered, and on which days: ``served`` in a header."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ...errors import CacheCorruptError
from ...support.display.printable import printable
from ..days import Days, joined_days
from .line import RESTORE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..record import Record

    # By the name of a model: its days, or None if they are unknown.
    Served = Mapping[str, Days | None]

_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def model_of(record: Record) -> str | None:
    """Return the model that gave an answer, by the server's name if it gave one, else by the name
    that was asked for; ``None`` if no model answered, but a function.
    """
    if record.kind == "function" or not record.model_answer:
        return None
    model = record.served or record.model
    return None if model is None else model.encode(errors="replace").decode()  # no half characters


def served_by(records: Iterable[Record]) -> dict[str, Days | None]:
    """Return the models that gave the answers of some records, sorted, each with its days."""
    days_by_model: dict[str, Days | None] = {}
    for record in records:
        model = model_of(record)
        if model is not None:
            days = record.days
            if model in days_by_model:
                days = joined_days(days_by_model[model], days)
            days_by_model[model] = days
    return dict(sorted(days_by_model.items()))


def served_words(served: Served) -> list[str]:
    """Return words for each model: its name and its days, such as
    ``gpt-4o-mini-2024-07-18 (2026-11-22)``.
    """
    return [f"{printable(model)} ({days or 'days not recorded'})" for model, days in served.items()]


def days_entry(days: Days) -> dict[str, Any]:
    """Return some days as JSON data."""
    entry: dict[str, Any] = {"first": days.first, "last": days.last}
    return {**entry, "fingerprints": list(days.fingerprints)} if days.fingerprints else entry


def parse_served(served: Mapping[str, Any]) -> dict[str, Days]:
    """Return what a header says of the models that answered.

    :raises CacheCorruptError: for a damaged one.
    """
    days_by_model = {}
    for model, entry in served.items():
        days = parse_days(entry)
        if days is None:
            raise CacheCorruptError(
                f"what 'served' says of {printable(model)[:64]} is damaged; {RESTORE}"
            )
        days_by_model[model] = days
    return days_by_model


def parse_days(entry: Any) -> Days | None:
    """Return the days that :func:`days_entry` made JSON data of; ``None`` of anything else."""
    if not isinstance(entry, dict):
        return None
    days = entry.get("first", ""), entry.get("last", "")
    fingerprints = entry.get("fingerprints", [])
    are_days = all(isinstance(day, str) and _DAY.fullmatch(day) for day in days)
    are_texts = isinstance(fingerprints, list) and all(isinstance(x, str) for x in fingerprints)
    return Days(*days, tuple(fingerprints)) if are_days and are_texts else None


def joined_served(served: Mapping[str, Days], other_served: Mapping[str, Days]) -> dict[str, Days]:
    """Return what two headers of one file say of the models that answered."""
    joined = dict(served)
    for model, days in other_served.items():
        joined[model] = joined_days(served.get(model), days) or days
    return joined
