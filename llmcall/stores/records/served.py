"""Models that answered, with their days and hosts: ``served`` in a header."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...errors import CacheCorruptError
from ...keys.request import Data
from ...support.display import printable
from ..days import Days, days_entry, joined_days, parse_days
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
    served: dict[str, Days | None] = {}
    for model, days in found:
        if model is not None:
            served[model] = joined_days(served.get(model), days)
    return dict(sorted(served.items()))


def served_words(served: Served) -> list[str]:
    """Return each model with its days in words, such as ``gpt-4o-mini-2024-07-18 (2026-11-22)``."""
    return [f"{printable(model)}{via(days)} ({days_words(days)})" for model, days in served.items()]


def via(days: Days | None) -> str:
    """Return in words which providers answered behind a gateway; empty if none is known."""
    return f" via {printable(' and '.join(days.providers))}" if days and days.providers else ""


def days_words(days: Days | None) -> str:
    """Return some days in words."""
    return "days not recorded" if days is None else str(days)


def served_entry(found: Iterable[Answered]) -> dict[str, Data]:
    """Return the models that gave some answers, with their days, as a header's JSON data.

    :param found: what :func:`answered` returns of each.
    """
    return {model: days_entry(days) for model, days in _served(found).items() if days is not None}


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
    both = (*served.items(), *other_served.items())
    return {model: days for model, days in _served(both).items() if days is not None}
