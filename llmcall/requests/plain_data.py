"""Plain data: dicts with string keys, lists, strings, numbers, booleans and ``None``; checked, copied and walked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..text import check_unicode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["DEPTH", "a", "is_deep", "leaves", "map_leaves", "plain"]

DEPTH = 100  # levels; a response of the API has about ten


INTEGER_BITS = 14_000  # 4,214 digits: Python reads and writes no decimal number of more than 4,300


def plain(value: Any, place: str, *, exact: bool = False) -> Any:
    """Return a copy of JSON-like data in which a number has one form (1.0 is 1).

    :param value: plain data, in which mappings, tuples and other kinds of numbers may stand for its own.
    :param place: how messages name the value, e.g. ``messages[2].content``.
    :param exact: copy what will be recorded: 1.0 stays what it is, bytes are plain data, and what no file can hold
        (a lone surrogate, a number of too many digits) is refused.
    :raises TypeError: for anything else, naming its place.
    :raises ValueError: for NaN and the infinities, or where the nesting is too deep.
    """
    try:
        return _plain(value, place, exact)
    except RecursionError:
        raise ValueError(f"{place} is nested too deeply") from None


def _plain(value: Any, place: str, exact: bool) -> Any:
    kind = type(value)
    if value is None or kind is bool or ((kind is str or kind is int) and not exact):
        return value
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"{place} has the key {name!r}; keys must be strings")
        return {_text(name, place, exact): _plain(item, f"{place}.{name}", exact) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{place}[{index}]", exact) for index, item in enumerate(value)]
    if isinstance(value, str):
        return _text(value, place, exact)
    return bytes(value) if exact and isinstance(value, bytes) else _number(value, place, exact)


def _text(text: str, place: str, exact: bool) -> str:
    if exact:
        check_unicode(text, place)
    return str.__str__(text)


def _number(value: Any, place: str, exact: bool) -> int | float:
    if type(value) is not float:
        from numbers import Integral, Rational, Real

        if isinstance(value, Integral):
            if exact and int(value).bit_length() > INTEGER_BITS:
                raise ValueError(f"{place} is a number of too many digits to be recorded")
            return int(value)
        if not isinstance(value, Real) or (exact and isinstance(value, Rational)):
            kinds = "dict, list, str, number, bool, None or bytes" if exact else "dict, list, str, number, bool or None"
            raise TypeError(f"{place} is {a(value)}; it must be plain data ({kinds})")
        value = float(value)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{place} is {value}, which JSON cannot hold")
    return int(value) if value.is_integer() and not exact else value


def a(value: Any) -> str:
    """Name a value's type with its article, for an error message."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each string, number, boolean and ``None`` in plain data with its place, such as ``messages[2].content``.

    The names of a dict come as strings too, at the place of the dict.
    """
    if isinstance(value, dict):
        for name, item in value.items():
            yield place, name
            yield from leaves(item, f"{place}.{name}" if place else name)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from leaves(item, f"{place}[{index}]")
    else:
        yield place, value


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a copy of plain data in which each string, number, boolean and ``None`` has been changed; no names.

    :param change: takes and returns one of these.
    """
    if isinstance(value, dict):
        return {name: map_leaves(item, change) for name, item in value.items()}
    return [map_leaves(item, change) for item in value] if isinstance(value, list) else change(value)


def is_deep(value: Any) -> bool:
    """Return whether plain data is nested more than ``DEPTH`` levels deep: it can neither be copied nor recorded."""
    level = _nested([value])
    for _ in range(DEPTH):
        if not level:
            return False
        level = [inner for each in level for inner in _nested(each.values() if isinstance(each, dict) else each)]
    return bool(level)


def _nested(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, (dict, list))]
