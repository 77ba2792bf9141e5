"""Plain JSON-like data: checking, copying, ordering, comparing and changing it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn

from ..apis.bodies import nan_as_none
from ..support.data import Data, check_unicode, joined_surrogates

FIRST_FIELDS = ("role", "content")  # the fields of a message that come first in a file
# Of objects and lists in each other. Reading a level takes two of Python's frames, of which there are 1,000.
MOST_LEVELS = 200
LARGEST = 2**14_000 - 1  # 4,214 digits: Python refuses decimal numbers of more than 4,300


def plain(value: object, location: str) -> Data:
    """Return a copy of JSON-like data in which a number has one form (1.0 is 1), as in a request's key.

    :param value: plain data; mappings, tuples and other kinds of numbers are converted.
    :param location: where the value is, for messages, e.g. ``messages[2].content``.
    :raises TypeError: for anything else; names the location.
    :raises ValueError: for NaN and the infinities.
    """
    if value is None or isinstance(value, bool) or type(value) is int:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (dict, Mapping)):  # the first is faster
        _check_names(value, location)
        return {
            str.__str__(name): plain(item, f"{location}.{name}") for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{location}[{index}]") for index, item in enumerate(value)]
    return _plain_number(value, location, for_record=False)


def recordable(
    value: object, location: str, *, surrogates: bool = False, is_ordered: bool = True
) -> Data:
    """Return a copy of plain data as a cassette returns it: each object's names have :func:`ordered_names`' order.

    An object that is the content of a message keeps its own order, since a prompt may quote it.

    :param value: plain data, in which 1.0 stays 1.0, or bytes; mappings and tuples are converted.
    :param location: where the value is, for messages.
    :param surrogates: ``True`` if lone surrogates are allowed, as in an answer; JSON can escape them. Two that
        make one character become it.
    :param is_ordered: ``False`` if objects keep their own order.
    :raises TypeError: for anything else; names the location.
    :raises ValueError: for NaN, the infinities, numbers with too many digits, and lone surrogates.
    """
    if value is None or isinstance(value, bool):
        return value
    if type(value) is int and -LARGEST <= value <= LARGEST:
        return value
    if isinstance(value, str):
        return joined_surrogates(str.__str__(value)) if surrogates else _checked(value, location)
    if isinstance(value, (dict, Mapping)):
        _check_names(value, location)
        has_object = "role" in value and isinstance(value.get("content"), dict)
        return {
            str.__str__(name) if surrogates else _checked(name, location): recordable(
                value[name],
                f"{location}.{name}",
                surrogates=surrogates,
                is_ordered=is_ordered and not (has_object and name == "content"),
            )
            for name in (ordered_names(value) if is_ordered else value)
        }
    if isinstance(value, (list, tuple)):
        return [
            recordable(item, f"{location}[{index}]", surrogates=surrogates, is_ordered=is_ordered)
            for index, item in enumerate(value)
        ]
    if isinstance(value, bytes):
        return bytes(value)
    return _plain_number(value, location, for_record=True)


def recordable_answer(answer: object, location: str) -> Data:
    """Return a copy of an answer as :func:`recordable` does, with ``None`` for NaN and the infinities.

    :raises TypeError: for anything but plain data; names the location.
    """
    try:
        return recordable(answer, location, surrogates=True)
    except ValueError:  # rare: NaN or an infinity
        return recordable(nan_as_none(answer), location, surrogates=True)


def _check_names(data: Mapping[Any, object], location: str) -> None:
    for name in data:
        if not isinstance(name, str):
            raise TypeError(f"{location} has the key {name!r}; keys must be strings")


def _checked(text: str, location: str) -> str:
    check_unicode(text, location)
    return str.__str__(text)


def _plain_number(value: object, location: str, *, for_record: bool) -> int | float:
    if type(value) is not float:
        from numbers import Integral, Rational, Real

        if isinstance(value, Integral):
            if for_record and not -LARGEST <= int(value) <= LARGEST:
                raise ValueError(f"{location} is a number with too many digits to be recorded")
            return int(value)
        # NumPy's truth value, which Python's abstract classes do not know
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.bool_):
            return bool(value)
        if not isinstance(value, Real) or (for_record and isinstance(value, Rational)):
            kinds = (
                "dict, list, str, number, bool, None or bytes"
                if for_record
                else "dict, list, str, number, bool or None"
            )
            raise TypeError(f"{location} is {with_article(value)}; it must be plain data ({kinds})")
        value = float(value)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{location} is {value}, which JSON cannot represent")
    return int(value) if value.is_integer() and not for_record else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


# Reads JSON as the standard has it: without NaN and the infinities.
STRICT_JSON = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def with_article(value: object) -> str:
    """Return a value's type with its article, for an error message."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def ordered_names(data: Mapping[str, object]) -> list[str]:
    """Return the names of an object in the order of a cassette: sorted, a message's role and content first."""
    names = sorted(data)
    if "role" not in data:
        return names
    return [name for name in FIRST_FIELDS if name in data] + [
        name for name in names if name not in FIRST_FIELDS
    ]


def is_too_deep(data: object, text: str | bytes) -> bool:
    """Return whether plain data has more levels than can be read and written.

    :param text: its JSON, which seldom has so many brackets.
    """
    brackets: tuple[Any, Any] = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    if sum(map(text.count, brackets)) <= MOST_LEVELS:
        return False
    level, depth = [data], 0
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [
            item for part in level for item in (part.values() if isinstance(part, dict) else part)
        ]
    return depth > MOST_LEVELS


def is_same(value: Data, other: Data) -> bool:
    """Return whether two pieces of plain data have the same canonical JSON, in which ``True`` is not 1."""
    value_type = type(value)
    if value_type is not type(other):
        return False
    if value_type is dict:
        if value.keys() != other.keys():
            return False
        for name, item in value.items():
            other_item = other[name]
            # a shortcut for texts, as most items are
            are_same = item == other_item if type(item) is str else is_same(item, other_item)
            if not are_same:
                return False
        return True
    if value_type is list:
        return len(value) == len(other) and all(map(is_same, value, other))
    return bool(value == other)


def map_texts(value: object, change: Callable[[str], str], unchanged: Collection[str] = ()) -> Data:
    """Return a copy of plain data with each text changed, but not the names of fields.

    :param change: returns the new text.
    :param unchanged: names of fields whose values stay.
    """
    if isinstance(value, dict):
        return {
            name: item if name in unchanged else map_texts(item, change, unchanged)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [map_texts(item, change, unchanged) for item in value]
    return change(value) if isinstance(value, str) else value
