"""The names of the scopes of a map's items: keys, or digests of plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from hashlib import sha256
from math import isfinite
from os import PathLike
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias

from ..keys.keys import canonical_json
from ..scopes.position import reserved_name
from ..support.arguments import nearest
from ..support.display import one_line, printable, shortened
from ..support.notices import warn_once

if TYPE_CHECKING:
    # What names an item's scope: a function of the item, a column of its row, or several columns
    Key: TypeAlias = Callable[[Any], object] | str | Sequence[str]
    # The labels of an item's cell, and its name
    CellName: TypeAlias = tuple[tuple[object, ...], str]


def item_label(index: int) -> str:
    """Return an item's name in messages, which count from 1: the last of three is item 3.

    :param index: its number, from 0.
    """
    return f"item {index + 1}"


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
    except _NotPlainError as error:
        raise TypeError(
            f"{item_label(index)} contains {error}, which is not plain data: give a key= that identifies each item "
            "(a column, or a function of the item), to name its scope"
        ) from None
    return sha256(canonical_json(data, item_label(index))).digest()


class _NotPlainError(Exception):
    """The error for a value that is not plain data; the message names its type."""


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
        raise _NotPlainError("a dict with a name that is not a text")
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
    if hasattr(value, "model_dump") and not isinstance(value, type):
        return _tagged(kind, _as_plain_data(value.model_dump()))
    if is_dataclass(value) and not isinstance(value, type):
        fields = {name: _as_plain_data(getattr(value, name)) for name in value.__dataclass_fields__}
        return _tagged(kind, fields)
    for base in type(value).__mro__:
        if base.__module__ == "enum":
            return _tagged(kind, value.name)
        if base.__name__ in TEXTUAL:
            return _tagged(base.__name__, str(value))
        if isinstance(value, PathLike):
            return _tagged("path", str(value))
    raise _NotPlainError(kind)


DIGEST_BYTES = 8  # of a SHA-256, in an item's name
# Between a name and its number of earlier occurrences; doubled within the name itself.
OCCURRENCE = "~"
# In a name made of several columns: the separators of samples, and of the columns.
_ESCAPES = str.maketrans({"%": "%25", "/": "%2F", "#": "%23", ",": "%2C"})
MAX_TEXT_CHARACTERS = 60  # of an item in a message


class ItemNames:
    """The names of the scopes of a map's items: a key or a digest, and a number if items share it.

    An item's name does not depend on the other items, except that items with the same name are
    numbered in their order; :meth:`warn` warns if such items differ.

    :param key: returns an item's key; ``None`` means to use a digest.
    :param identity: returns the data to digest.
    """

    def __init__(
        self, key: Callable[[Any], object] | None, identity: Callable[[Any], object]
    ) -> None:
        self._key = key
        self._identity = identity
        self._counts: Counter[CellName] = Counter()
        # The digest of the whole first item, or None if it is not plain data
        self._first_contents: dict[CellName, bytes | None] = {}
        # In words, the first item that differs from it
        self._differing: dict[CellName, str] = {}

    def name(self, item: object, index: int, cell: tuple[object, ...], *, takes_all: bool) -> str:
        """Return the name of the next item's scope.

        :param index: the item's number, from 0.
        :param cell: the labels of its cell, in a table that varies. Equal rows of two cells have the
            same name.
        :param takes_all: ``True`` to name an item that is not plain data by its class.
        :raises TypeError: if the key is neither a text nor a whole number, or, without one, the
            item is not plain data.
        :raises ValueError: if the key is empty or contains ``/`` or ``#``.
        """
        content = None
        if self._key is None:
            identity = self._identity(item)
            try:
                item_digest = digest(identity, index)
                # a dict may hold the whole item; other classes decide themselves what equals them
                is_whole = identity is item or (type(item) is dict and identity == item)
                content = item_digest if is_whole else None
            except (TypeError, ValueError):
                if not takes_all:
                    raise
                item_digest = digest(type(item).__qualname__, index)
            name = reserved_name(item_digest[:DIGEST_BYTES].hex())
        else:
            name = _key_text(self._key(item), index).replace(OCCURRENCE, 2 * OCCURRENCE)
        content = content or _content_digest(item, index)
        cell_name = cell, name
        count = self._counts[cell_name]
        self._counts[cell_name] += 1
        first_content = self._first_contents.setdefault(cell_name, content)
        differs = content is None or content != first_content
        if count and differs and cell_name not in self._differing:
            item_text = one_line(printable(repr(item)), MAX_TEXT_CHARACTERS)
            self._differing[cell_name] = f"{item_label(index)}, {item_text}"
        return f"{name}{OCCURRENCE}{count}" if count else name

    def warn(self) -> None:
        """Warn if different items share a name; once for the same items."""
        if not self._differing:
            return
        count = sum(self._counts[cell_name] for cell_name in self._differing)
        example = next(iter(self._differing.values()))
        warn_once(
            f"{count} items have the same scope name as a different item (for example {example}), so they swap their "
            "answers if you sort, insert or drop items. Give map a key= that differs for each item, such as "
            'key="id" or key=["country", "id"]'
        )


def _content_digest(item: object, index: int) -> bytes | None:
    """Return the digest of a whole item, or ``None`` if it is not plain data and cannot be compared."""
    try:
        return digest(item, index)
    except (TypeError, ValueError):
        return None


class _Columns(tuple[Any, ...]):
    """The values of an item in several columns, which together name its scope."""


def key_function(key: Key | None) -> Callable[[Any], object] | None:
    """Return a function that returns an item's key, or ``None`` without a key.

    :param key: a function of the item, a column of its row, or a list of columns.
    :raises TypeError: if it is anything else.
    :raises ValueError: if it is an empty list.
    """
    if key is None or callable(key):
        return key
    if isinstance(key, str):
        return partial(_column, key)
    if not isinstance(key, (list, tuple)) or not all(isinstance(name, str) for name in key):
        raise TypeError(
            f"key is {key!r}; it must be a function of the item, the name of a column, or a list of such names"
        )
    if not key:
        raise ValueError(f"key is {key!r}; it must name at least one column")
    columns = tuple(key)
    return lambda item: _Columns(_column(name, item) for name in columns)


def _column(name: str, item: object) -> object:
    """Return an item's value in a column, or in the field of that name."""
    if isinstance(item, Mapping):
        if name in item:
            return item[name]
        columns = [str(column) for column in item]
        # A table may have hundreds of columns.
        listing = shortened(", ".join(columns) or "none", 300)
        raise ValueError(
            f"key={name!r} names a column that a row lacks; it has {listing}{nearest(name, columns)}"
        )
    if hasattr(item, name):
        return getattr(item, name)
    raise TypeError(
        f"key={name!r} names a column, but an item is {type(item).__name__} without it, not a row (a dict)"
    )


def _key_text(key: object, index: int) -> str:
    """Return the name of the scope for a key."""
    if isinstance(key, _Columns):
        values = [_plain_text(value, index).translate(_ESCAPES) for value in key]
        return ",".join(values) or "%"
    text = _plain_text(key, index)
    if not text or "/" in text or "#" in text:
        raise ValueError(
            f"the key of {item_label(index)} is {key!r}; it names a scope, so it must not be empty or contain '/' or "
            "'#' (if key= is a list of columns, even of one, it may)"
        )
    return text


def _plain_text(value: object, index: int) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        return str(value.__index__())  # also for NumPy's whole numbers
    raise TypeError(
        f"the key of {item_label(index)} is {value!r}; it must be a string or a whole number"
    )
