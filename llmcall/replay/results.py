"""The results of recorded functions, in the form in which live equals replay."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from numbers import Integral, Rational, Real
from typing import TYPE_CHECKING, Any

from ..cassettes.references import check_unicode, ordered

if TYPE_CHECKING:
    from ..types import Data

__all__ = ["recordable"]

INTEGER_BITS = 14_000  # 4,214 digits: Python reads and writes no decimal number of more than 4,300


def recordable(result: Any, function: str) -> Data:
    """Return a copy of a result as a replay gives it: lists for tuples, an object's names in the order of the file.

    :param result: dicts with text keys, lists, tuples, strings, numbers, booleans, bytes and ``None``, nested.
    :param function: the function's name, for the errors.
    :raises TypeError: for anything else, naming the function and the place.
    :raises ValueError: for what no file can hold: NaN, an infinity, a lone surrogate, too deep a nesting.
    """
    try:
        return ordered(_copied(result, f"{function}: the result"))
    except RecursionError:
        raise ValueError(f"{function}: the result is nested too deeply to be recorded") from None


def _copied(value: Any, place: str) -> Data:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        check_unicode(value, place)
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, Mapping):
        return {_key(name, place): _copied(item, f"{place}.{name}") for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(item, f"{place}[{index}]") for index, item in enumerate(value)]
    return _number(value, place)


def _number(value: Any, place: str) -> int | float:
    if isinstance(value, Integral):
        if int(value).bit_length() > INTEGER_BITS:
            raise ValueError(f"{place} is a number of too many digits to be recorded")
        return int(value)
    if not isinstance(value, Real) or isinstance(value, Rational):
        raise TypeError(
            f"{place} is of type {type(value).__name__}; "
            "only dict, list, str, int, float, bool, None and bytes can be recorded"
        )
    number = float(value)
    if not isfinite(number):
        raise ValueError(f"{place} is {number}, which JSON cannot hold; use None or a text")
    return number


def _key(name: Any, place: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{place} has a key of type {type(name).__name__}; only text keys can be recorded")
    check_unicode(name, f"a key of {place}")
    return str.__str__(name)
