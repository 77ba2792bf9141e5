"""Digests of plain data, which name the scopes of items that have no key."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from math import isfinite
from typing import Any

from ..requests.keys import canonical
from .rows import item_label

# Types whose values str() describes completely.
TEXTUAL = frozenset(
    {"date", "datetime", "time", "timedelta", "Decimal", "Fraction", "UUID", "NAType"}
)


def digest(identity: Any, index: int) -> bytes:
    """Return an item's SHA-256 digest.

    Equal numbers have one form (1 and 1.0), as have lists and tuples; the order of a dict's keys does
    not matter.

    :param identity: plain data, dates, decimals, enumerations, dataclasses, pydantic models, or
        NumPy's values.
    :raises TypeError: if it is anything else.
    """
    try:
        data = _plain(identity)
    except RecursionError:
        raise ValueError(
            f"{item_label(index)} is nested too deeply for a digest: give a key= that identifies each item"
        ) from None
    except _NotPlainError as error:
        raise TypeError(
            f"{item_label(index)} contains {error}, which is not plain data: give a key= that identifies each item "
            "(a column, or a function of the item), to name its scope"
        ) from None
    return sha256(canonical(data, item_label(index))).digest()


class _NotPlainError(Exception):
    """Raised with the name of a type that is not plain data."""


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is bool or kind is int or value is None:
        return value
    if kind is dict or isinstance(value, Mapping):
        if all(isinstance(name, str) for name in value):
            return {
                str.__str__(name): item if type(item) is str else _plain(item)
                for name, item in value.items()
            }
        pairs = [[_plain(name), _plain(item)] for name, item in value.items()]
        return _tagged("dict", sorted(pairs, key=lambda pair: canonical(pair[0])))
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if kind is not float:
        return _unusual(value)
    if not isfinite(value):
        return _tagged("float", str(value))
    return int(value) if value.is_integer() else value


def _tagged(kind: str, value: Any) -> dict[str, Any]:
    # Plain data has no such key, so no item can look like another.
    return {f"\0{kind}": value}


def _unusual(value: Any) -> Any:
    kind = type(value).__name__
    if hasattr(value, "tolist"):  # arrays and scalars of NumPy's, columns of pandas'
        return _plain(value.tolist())
    if isinstance(value, (bytes, bytearray)):
        return _tagged("bytes", bytes(value).hex())
    if isinstance(value, (set, frozenset)):
        return _tagged("set", sorted(map(_plain, value), key=canonical))
    if isinstance(value, type):
        raise _NotPlainError(f"the class {value.__name__}")
    if hasattr(value, "model_dump"):
        return _tagged(kind, _plain(value.model_dump()))
    if hasattr(value, "__dataclass_fields__"):
        return _tagged(
            kind, {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
        )
    for base in type(value).__mro__:
        if base.__module__ == "enum":
            return _tagged(kind, value.name)
        if base.__name__ in TEXTUAL:
            return _tagged(base.__name__, str(value))
        if hasattr(value, "__fspath__"):
            return _tagged("path", str(value))
        if base in (str, int, float):
            return _plain(base.__str__(value)) if base is str else _plain(base(value))
    raise _NotPlainError(kind)
