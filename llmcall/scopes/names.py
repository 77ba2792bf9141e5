"""Scope names: users' own, and the names that a ``map`` gives to items and repeats."""

from __future__ import annotations

import re

from ..errors import ArgumentError

# A name that `reserved_name` returned, with the number that distinguishes equal items, in a path.
_RESERVED_NAME = re.compile(r"(?:^|/)~[0-9a-f]+(?:~\d+)?(?=/|\Z)")
# The name of a repeat: shorter than an item's name, which has 16 digits.
_REPEAT = re.compile(r"~(\d{1,15})")


def checked_name(name: object, label: str) -> str:
    """Return the name of a user's scope as text.

    :param label: what messages call the name.
    :raises TypeError: if it is neither text nor a number.
    :raises ValueError: if it is empty, contains ``/`` or ``#``, or is one that a ``map`` gives.
    """
    if not isinstance(name, str):
        from numbers import Real

        if isinstance(name, bool) or not isinstance(name, Real):
            raise TypeError(f"{label} must be a string or a number, not {type(name).__name__}")
        name = str(name)
    if not name or "/" in name or "#" in name:
        raise ArgumentError(
            f"{label} {name!r} must not be empty or contain '/' or '#', which separate a sample's parts"
        )
    if is_reserved_name(name):
        raise ArgumentError(
            f"{label} {name!r} is reserved for the items and repeats of llmcall.map; leave out the '~'"
        )
    # A member of a string enumeration becomes its value.
    return str.__str__(name)


def reserved_name(name: str | int) -> str:
    """Return a name for a ``map``'s scope, which no user's scope can have.

    :param name: an item's digest, or the number of a repeat.
    """
    return f"~{name}"


def is_reserved_name(name: str) -> bool:
    """Return whether a name is a ``map``'s: ``~``, hexadecimal digits, and a number among equal
    items.
    """
    return _RESERVED_NAME.fullmatch(name) is not None


def path_before_items(path: str) -> str:
    """Return the part of a scope path before the first item or repeat of a ``map``."""
    return _RESERVED_NAME.split(path, 1)[0]


def without_repeats(path: str) -> tuple[str, tuple[int, ...]]:
    """Return a scope path without the repeats of ``map``s, and the repeats' numbers.

    :returns: the path, and a number before its first name and after each name, because a ``map`` may
        run inside another's item; 0 stands for the first repeat, and for no repeat.
    """
    names = []
    repeats = [0]
    for name in path.split("/"):
        match = _REPEAT.fullmatch(name)
        if match is None:
            names.append(name)
            repeats.append(0)
        else:
            repeats[-1] += int(match[1])
    return "/".join(names), tuple(repeats)
