"""The digests of a map's items, which name their scopes, and the plain data that is digested."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from math import isfinite
from typing import Any

from ..keys.keys import canonical_json
from .rows import item_label

# Types whose str() is a complete description of the value
TEXTUAL = frozenset(
    {"date", "datetime", "time", "timedelta", "Decimal", "Fraction", "UUID", "NAType"}
)


def digest(identity: object, index: int) -> bytes:
    """Return an item's SHA-256 digest.

    Equal numbers (1 and 1.0) have the same digest, and so do equal lists and tuples; the order of a
    dict's keys does not matter.

    :param identity: plain data, dates, decimals, enumerations, dataclasses, pydantic models, or
        NumPy's values.
    :raises TypeError: if it is anything else.
    """
    try:
        data = _as_plain_data(identity)
    except RecursionError:
        raise ValueError(
            f"{item_label(index)} is nested too deeply for a digest: give a key= that identifies each item"
        ) from None
    except _NotPlainError as error:
        raise TypeError(
            f"{item_label(index)} contains {error}, which is not plain data: give a key= that identifies each item "
            "(a column, or a function of the item), to name its scope"
        ) from None
    return sha256(canonical_json(data, item_label(index))).digest()


class _NotPlainError(Exception):
    """The value is not plain data; the message names its type."""


def _as_plain_data(value: Any) -> object:
    kind = type(value)
    if kind is str or kind is bool or kind is int or value is None:
        return value
    if kind is dict or isinstance(value, Mapping):
        if all(isinstance(name, str) for name in value):
            return {
                str.__str__(name): item if type(item) is str else _as_plain_data(item)
                for name, item in value.items()
            }
        pairs = [[_as_plain_data(name), _as_plain_data(item)] for name, item in value.items()]
        return _tagged("dict", sorted(pairs, key=lambda pair: canonical_json(pair[0])))
    if isinstance(value, (list, tuple)):
        return [_as_plain_data(item) for item in value]
    if kind is not float:
        return _unusual_as_plain_data(value)
    if not isfinite(value):
        return _tagged("float", str(value))
    return int(value) if value.is_integer() else value


def _tagged(kind: str, value: object) -> dict[str, object]:
    # Plain data has no such key, so no item can look like another.
    return {f"\0{kind}": value}


def _unusual_as_plain_data(value: Any) -> object:
    kind = type(value).__name__
    if hasattr(value, "tolist"):  # arrays and scalars of NumPy's, columns of pandas'
        return _as_plain_data(value.tolist())
    if isinstance(value, (bytes, bytearray)):
        return _tagged("bytes", bytes(value).hex())
    if isinstance(value, (set, frozenset)):
        return _tagged("set", sorted(map(_as_plain_data, value), key=canonical_json))
    if isinstance(value, type):
        raise _NotPlainError(f"the class {value.__name__}")
    if hasattr(value, "model_dump"):
        return _tagged(kind, _as_plain_data(value.model_dump()))
    if hasattr(value, "__dataclass_fields__"):
        return _tagged(
            kind,
            {name: _as_plain_data(getattr(value, name)) for name in value.__dataclass_fields__},
        )
    for base in type(value).__mro__:
        if base.__module__ == "enum":
            return _tagged(kind, value.name)
        if base.__name__ in TEXTUAL:
            return _tagged(base.__name__, str(value))
        if hasattr(value, "__fspath__"):
            return _tagged("path", str(value))
        if base in (str, int, float):
            return (
                _as_plain_data(base.__str__(value)) if base is str else _as_plain_data(base(value))
            )
    raise _NotPlainError(kind)
