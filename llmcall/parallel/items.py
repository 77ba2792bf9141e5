"""The items of a ``map``: what tells one from the others, and the name of the scope that each gets."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from ..requests.keys import canonical
from .tallies import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ItemNames", "digest", "key_function"]

DIGEST_LENGTH = 16  # hexadecimal digits; among a million items, two share one with a chance of 1 in 40 million
OCCURRENCE = "~"  # between a name and how often it came before; doubled where the name itself holds it
# Of these, str() says all.
TEXTUAL = frozenset({"date", "datetime", "time", "timedelta", "Decimal", "Fraction", "UUID", "NAType"})


class ItemNames:
    """Name the scopes of a map's items: by their keys, and by their occurrence among equal ones.

    The same item gets the same name whatever stands before or after it.

    :param key: gives an item's key, a text or a whole number; ``None`` means a digest of the item.
    :param identity: gives what of an item is digested; ``None`` means the whole item.
    """

    def __init__(self, key: Callable[[Any], Any] | None = None, identity: Callable[[Any], Any] | None = None) -> None:
        self._key = key
        self._identity = identity
        self._seen = Tally()

    def name(self, item: Any, index: int) -> str:
        """Return the name of the next item's scope.

        :param index: its place, for errors.
        :raises TypeError: where a key is neither a text nor a whole number, or an item is not plain data.
        :raises ValueError: where a key is empty or holds ``/`` or ``#``.
        """
        if self._key is None:
            key = digest(item if self._identity is None else self._identity(item), index)
            count = self._seen.count(int(key, 16))
        else:
            key = _checked(self._key(item), index)
            count = self._seen.count(int(_hashed(key.encode("utf-8", "surrogatepass")), 16))
        name = key.replace(OCCURRENCE, 2 * OCCURRENCE)
        return f"{name}{OCCURRENCE}{count}" if count else name


def key_function(key: Any) -> Callable[[Any], Any] | None:
    """Return what gives an item's key.

    :param key: a function of the item, or the name of a column of its row; ``None`` means that none is given.
    :raises TypeError: where it is anything else.
    """
    if key is None or callable(key):
        return key  # type: ignore[no-any-return]
    if not isinstance(key, str):
        raise TypeError(f"key is {key!r}; it must be a function of the item, or the name of a column")

    def column(item: Any) -> Any:
        """Return what an item has in the column."""
        if not isinstance(item, Mapping):
            raise TypeError(f"key={key!r} names a column, but an item is {type(item).__name__}, not a row (a dict)")
        if key not in item:
            raise ValueError(f"key={key!r} names a column that a row lacks; it has {', '.join(map(str, item))}")
        return item[key]

    return column


def _checked(key: Any, index: int) -> str:
    if hasattr(key, "__index__") and not isinstance(key, bool):
        key = str(key.__index__())  # a whole number of NumPy's as well
    if not isinstance(key, str):
        raise TypeError(f"the key of item {index} is {key!r}; it must be a text or a whole number")
    if not key or "/" in key or "#" in key:
        raise ValueError(
            f"the key of item {index} is {key!r}; it names a scope, so it must not be empty or hold '/' or '#'"
        )
    return str.__str__(key)


def digest(identity: Any, index: int) -> str:
    """Return the digest of an item, 16 hexadecimal digits of a SHA-256.

    Numbers have one form (1 is 1.0), the order of a dict's keys does not matter, a tuple is a list.

    :param identity: plain data; dates, decimals, enumerations, dataclasses, pydantic models and NumPy's values too.
    :raises TypeError: for anything else.
    """
    try:
        data = _plain(identity)
    except RecursionError:
        raise ValueError(f"item {index} is nested too deeply for a digest: give a key= that tells them apart") from None
    except _NotPlainError as error:
        raise TypeError(
            f"item {index} holds {error}, which is not plain data: give a key= that tells items apart (a function of "
            "the item, or a column), for the scope of each"
        ) from None
    return _hashed(canonical(data, f"item {index}"))


def _hashed(data: bytes) -> str:
    return sha256(data).hexdigest()[:DIGEST_LENGTH]


class _NotPlainError(Exception):
    """Carry the name of a type that is not plain data."""


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is bool or kind is int or value is None:
        return value
    if kind is float:
        return _number(value)
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _unusual(value)


def _number(value: float) -> Any:
    if value != value or value in (float("inf"), float("-inf")):
        return _tagged("float", str(value))
    return int(value) if value == int(value) else value


def _mapping(value: Mapping[Any, Any]) -> Any:
    if all(isinstance(name, str) for name in value):
        return {str.__str__(name): _plain(item) for name, item in value.items()}
    pairs = [[_plain(name), _plain(item)] for name, item in value.items()]
    return _tagged("dict", sorted(pairs, key=lambda pair: canonical(pair[0])))


def _tagged(kind: str, value: Any) -> dict[str, Any]:
    return {f"\0{kind}": value}  # no JSON-like data has such a key, so that no item looks like another


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
        return _tagged(kind, {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__})
    return _scalar(value)


def _scalar(value: Any) -> Any:
    for base in type(value).__mro__:
        if base.__module__ == "enum":
            return _tagged(type(value).__name__, value.name)
        if base.__name__ in TEXTUAL:
            return _tagged(base.__name__, str(value))
        if hasattr(value, "__fspath__"):
            return _tagged("path", str(value))
        if base in (str, int, float):
            return _plain(base.__str__(value)) if base is str else _plain(base(value))
    raise _NotPlainError(type(value).__name__)
