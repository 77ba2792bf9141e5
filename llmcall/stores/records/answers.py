"""Equality of two recorded answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...apis.http_answers import lasting_parts, without_new_fields
from ...apis.shapes import as_chat, choices_of
from ...keys.call_ids import without_call_ids

if TYPE_CHECKING:
    from ...keys.request import Data
    from ..record import Record

# Fields that tell what an answer used, and at which tier.
CIRCUMSTANCES = ("service_tier", "usage")
# Fields of a model's response that are new in each; the last is of llama.cpp.
VOLATILE = ("id", "created", "system_fingerprint", "timings")


def lasting(response: dict[str, Data]) -> dict[str, Data]:
    """Return a response without the fields that always differ. A function's result has none."""
    if "value" in response:
        return response
    kept = without_new_fields(response) if "output" in response else response
    return {name: kept[name] for name in kept if name not in VOLATILE}


def said(record: Record) -> Any:
    """Return what a response tells a reader: neither fields that always differ nor what it used, nor
    which of two APIs it came from.
    """
    if record.kind == "http":
        return without_call_ids(lasting_parts(record.response, CIRCUMSTANCES))
    if "value" in record.response:
        return record.response
    fields = {
        name: value
        for name, value in lasting(dict(as_chat(record.response))).items()
        if name not in (*CIRCUMSTANCES, "object")
    }
    if "choices" in fields:
        fields["choices"] = [_without_nothing(choice) for choice in choices_of(fields)]
    return without_call_ids(fields)


def _without_nothing(fields: dict[str, Data]) -> dict[str, Data]:
    """Return fields without those that are null or empty, which only one of two APIs gives."""
    return {
        name: _without_nothing(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if value not in (None, [], {})
    }


def same_answer(record: Record, other: Record) -> bool:
    """Return whether two records hold the same answer, apart from fields that always differ."""
    return record.response == other.response or _compared(record) == _compared(other)


def _compared(record: Record) -> Any:
    if record.kind == "http":
        return without_call_ids(lasting_parts(record.response))
    if "value" in record.response:  # a function's
        return record.response
    return without_call_ids(lasting(record.response))
