"""Values that pydantic reads against their meaning: a year as seconds since 1970, "NaN" as a number."""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import OutputError

_NUMBER = re.compile(r"\s*[-+]?\d+(?:\.\d*)?\s*")


def refuse_misread(given: Any, converted: Any) -> None:
    """Refuse a value if pydantic misread a part of it.

    :param given: the JSON value.
    :param converted: what pydantic made of it.
    :raises OutputError: if a number became a date or time, or a text an infinite number or none.
    """
    if isinstance(converted, float) and not math.isfinite(converted):
        raise OutputError(f"{converted} is no number")
    if isinstance(converted, (datetime.date, datetime.time)) and _is_number(given):
        raise OutputError(f"{given!r} is a number, and no date or time")
    for given_part, converted_part in _parts(given, converted):
        refuse_misread(given_part, converted_part)


def _is_number(given: Any) -> bool:
    if isinstance(given, str):
        return _NUMBER.fullmatch(given) is not None
    return isinstance(given, (int, float))


def _parts(given: Any, converted: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each part of a value that is made of others, after what it was made from, or ``None``."""
    if isinstance(converted, (list, tuple)) and isinstance(given, list):
        yield from zip(given, converted, strict=False)
        return
    names = given if isinstance(given, Mapping) else {}
    for name, part in _fields(converted):
        yield names.get(name), part


def _fields(converted: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of a dict or of an object's fields; names are as in JSON."""
    if isinstance(converted, Mapping):
        yield from converted.items()
    elif dataclasses.is_dataclass(converted):
        for field in dataclasses.fields(converted):
            yield field.name, getattr(converted, field.name)
    else:
        model_fields = getattr(type(converted), "model_fields", {})
        for name, model_field in model_fields.items():
            yield model_field.alias or name, getattr(converted, name)
