"""Which models gave the answers of some records, and on which days: ``served`` in a header."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..display.printable import printable
from ..errors import CacheCorruptError
from ..types import Days, asked_model, joined_days, model_answer
from .line import RESTORE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..types import Record

    # By the name of a model: its days, or None if they are unknown.
    Served = Mapping[str, Days | None]

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_TYPES = {"first": str, "last": str, "fingerprints": list, "unknown": bool}


def model_of(kind: str, request: Mapping[str, Any], response: Mapping[str, Any]) -> str | None:
    """Return the model that gave an answer, by the server's name if it gave one, else by the name
    that was asked for; ``None`` if no model answered.
    """
    if kind == "http":
        told = model_answer(request, response)
        if told is None:
            return None
        served = told.model
    elif kind in ("chat", "embedding") and "fallback" not in response:
        served = response.get("model")
    else:
        return None
    model = served if isinstance(served, str) and served else asked_model(kind, request)
    return None if model is None else model.encode(errors="replace").decode()  # no half characters


def served_by(records: Iterable[Record]) -> dict[str, Days | None]:
    """Return the models that gave the answers of some records, sorted, each with its days."""
    found: dict[str, Days | None] = {}
    for record in records:
        model = model_of(record.kind, record.request, record.response)
        if model is not None:
            days = record.days
            found[model] = joined_days(found[model], days) if model in found else days
    return dict(sorted(found.items()))


def served_words(served: Served) -> list[str]:
    """Return words for each model: its name and its days, such as
    ``gpt-4o-mini-2024-07-18 (2026-11-22)``.
    """
    return [f"{printable(model)} ({days or 'days not recorded'})" for model, days in served.items()]


def as_header(served: Served) -> dict[str, Any]:
    """Return what a header holds of the models that answered; of unknown days it says nothing."""
    return {model: entry_of(days) for model, days in served.items() if days is not None}


def entry_of(days: Days) -> dict[str, Any]:
    """Return some days as JSON data."""
    entry: dict[str, Any] = {"first": days.first, "last": days.last}
    if days.fingerprints:
        entry["fingerprints"] = list(days.fingerprints)
    if not days.is_whole:
        entry["unknown"] = True
    return entry


def from_header(held: Mapping[str, Any]) -> dict[str, Days]:
    """Return what a header says of the models that answered.

    :raises CacheCorruptError: for a damaged one.
    """
    found = {}
    for model, entry in held.items():
        days = days_of(entry)
        if days is None:
            raise CacheCorruptError(
                f"what 'served' says of {printable(model)[:64]} is damaged; {RESTORE}"
            )
        found[model] = days
    return found


def days_of(entry: Any) -> Days | None:
    """Return the days that :func:`entry_of` made JSON data of; ``None`` of anything else."""
    is_sound = isinstance(entry, dict) and all(
        isinstance(value, _TYPES.get(name, ())) for name, value in entry.items()
    )
    if is_sound:
        days = entry.get("first", ""), entry.get("last", "")
        prints = entry.get("fingerprints", [])
        if all(map(_DAY.fullmatch, days)) and all(isinstance(each, str) for each in prints):
            return Days(*days, tuple(prints), is_whole=not entry.get("unknown", False))
    return None


def joined_served(one: Mapping[str, Days], other: Mapping[str, Days]) -> dict[str, Days]:
    """Return what two headers of one file say of the models that answered.

    A header that says nothing was written before headers did: its answers may be of any model.
    """
    if not one or not other:
        known = one or other
        return {model: days._replace(is_whole=False) for model, days in known.items()}
    joined = dict(one)
    for model, days in other.items():
        joined[model] = joined_days(one.get(model, days), days) or days
    return joined
