"""Models that answered, and on which days: ``served`` in a header."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..display.printable import printable
from ..errors import CacheCorruptError
from ..values import Days, asked_model, joined_days, model_answer
from . import pointers
from .line import RESTORE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..values import Record

    # By the name of a model: its days, or None if they are unknown.
    Served = Mapping[str, Days | None]

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_TYPES = {"first": str, "last": str, "fingerprints": list, "unknown": bool}


def model_of(kind: str, request: Mapping[str, Any], response: Mapping[str, Any]) -> str | None:
    """Return the model that gave an answer, by the server's name if it gave one, else by the name
    that was asked for; ``None`` if no model answered.
    """
    if kind == "http":
        http_answer = model_answer(request, response)
        if http_answer is None:
            return None
        served = http_answer["model"]
    elif kind in ("chat", "embedding") and pointers.FIELD not in response:
        served = response.get("model")
    else:
        return None
    model = served if isinstance(served, str) and served else asked_model(kind, request)
    return None if model is None else model.encode(errors="replace").decode()  # no half characters


def is_given_by_model(record: Record) -> bool:
    """Return whether a record holds a model's answer, not a function's result or a pointer."""
    return model_of(record.kind, record.request, record.response) is not None


def served_by(records: Iterable[Record]) -> dict[str, Days | None]:
    """Return the models that gave the answers of some records, sorted, each with its days."""
    days_by_model: dict[str, Days | None] = {}
    for record in records:
        model = model_of(record.kind, record.request, record.response)
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


def as_header(served: Served) -> dict[str, Any]:
    """Return what a header holds of the models that answered; of unknown days it says nothing."""
    return {model: days_entry(days) for model, days in served.items() if days is not None}


def days_entry(days: Days) -> dict[str, Any]:
    """Return some days as JSON data."""
    entry: dict[str, Any] = {"first": days.first, "last": days.last}
    if days.fingerprints:
        entry["fingerprints"] = list(days.fingerprints)
    if not days.is_whole:
        entry["unknown"] = True
    return entry


def from_header(served: Mapping[str, Any]) -> dict[str, Days]:
    """Return what a header says of the models that answered.

    :raises CacheCorruptError: for a damaged one.
    """
    days_by_model = {}
    for model, entry in served.items():
        days = days_of(entry)
        if days is None:
            raise CacheCorruptError(
                f"what 'served' says of {printable(model)[:64]} is damaged; {RESTORE}"
            )
        days_by_model[model] = days
    return days_by_model


def days_of(entry: Any) -> Days | None:
    """Return the days that :func:`days_entry` made JSON data of; ``None`` of anything else."""
    is_sound = isinstance(entry, dict) and all(
        isinstance(value, _TYPES.get(name, ())) for name, value in entry.items()
    )
    if is_sound:
        days = entry.get("first", ""), entry.get("last", "")
        fingerprints = entry.get("fingerprints", [])
        if all(map(_DAY.fullmatch, days)) and all(isinstance(each, str) for each in fingerprints):
            return Days(*days, tuple(fingerprints), is_whole=not entry.get("unknown", False))
    return None


def joined_served(served: Mapping[str, Days], other_served: Mapping[str, Days]) -> dict[str, Days]:
    """Return what two headers of one file say of the models that answered.

    A header that says nothing was written before headers did: its answers may be of any model.
    """
    if not served or not other_served:
        days_by_model = served or other_served
        return {model: days._replace(is_whole=False) for model, days in days_by_model.items()}
    joined = dict(served)
    for model, days in other_served.items():
        joined[model] = joined_days(served.get(model, days), days) or days
    return joined
