"""Models that answered, with their days and hosts: ``served`` in a header."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...errors import CacheCorruptError
from ...keys.request import Data
from ...support.display import printable
from ..days import Days, joined_days, parse_days
from ..record import Record
from .line import RESTORE

# By the name of a model: its days, or None if they are unknown.
Served = Mapping[str, Days | None]


def model_of(record: Record) -> str | None:
    """Return the model that gave an answer, by the server's name, else by the requested name; ``None`` if
    no model answered.
    """
    if record.kind == "function" or not record.model_answer:
        return None
    model = record.served or record.model
    return None if model is None else model.encode(errors="replace").decode()  # no lone surrogates


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
    """Return each model with its days in words, such as ``gpt-4o-mini-2024-07-18 (2026-11-22)``."""
    return [f"{printable(model)} ({days or 'days not recorded'})" for model, days in served.items()]


def parse_served(served: Mapping[str, Data]) -> dict[str, Days]:
    """Return the days by model from a header's ``served``.

    :raises CacheCorruptError: if it is damaged.
    """
    days_by_model = {}
    for model, entry in served.items():
        days = parse_days(entry)
        if days is None:
            raise CacheCorruptError(
                f"the entry of {printable(model)[:64]} in 'served' is damaged; {RESTORE}"
            )
        days_by_model[model] = days
    return days_by_model


def joined_served(served: Mapping[str, Days], other_served: Mapping[str, Days]) -> dict[str, Days]:
    """Return the joined ``served`` of two headers of one file."""
    joined = dict(served)
    for model, days in other_served.items():
        joined[model] = joined_days(served.get(model), days) or days
    return joined
