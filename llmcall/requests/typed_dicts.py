"""``typing.TypedDict`` on Python below 3.12, which pydantic refuses: it reads ``typing_extensions.TypedDict`` there."""

from __future__ import annotations

import sys
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal, get_args, get_origin

__all__ = ["readable"]


def readable(output_type: Any) -> Any:
    """Return a type in which every ``typing.TypedDict`` is one that pydantic reads; on Python 3.12 the type itself.

    :param output_type: a type, or one made of several, such as ``list[T]``; what classes have inside is left alone.
    :raises NameError: for a field's type that is not found by its name.
    """
    return output_type if sys.version_info >= (3, 12) else _readable(output_type, {})


def _readable(given: Any, made: dict[Any, Any]) -> Any:
    """Return a readable type.

    :param made: what each ``TypedDict`` has become already, since one may have fields of its own type.
    """
    if type(given).__module__ == "typing" and hasattr(given, "__required_keys__"):
        return made[given] if given in made else _remade(given, made)
    origin: Any = get_origin(given)
    arguments = get_args(given)
    if not arguments or origin is Literal:
        return given
    if origin is Annotated:
        return Annotated[(_readable(arguments[0], made), *arguments[1:])]
    changed = tuple(_readable(each, made) for each in arguments)
    if all(new is old for new, old in zip(changed, arguments, strict=True)):
        return given
    if hasattr(given, "copy_with"):
        return given.copy_with(changed)
    return origin[changed] if hasattr(origin, "__class_getitem__") else reduce(or_, changed)  # of X | Y


def _remade(given: Any, made: dict[Any, Any]) -> Any:
    from typing_extensions import NotRequired, Required, TypedDict, get_type_hints

    copied: Any = made.setdefault(given, TypedDict(given.__name__, {}))  # type: ignore[operator]
    for name in ("__doc__", "__module__", "__qualname__", "__pydantic_config__"):
        if hasattr(given, name):
            setattr(copied, name, getattr(given, name))
    required = set()
    for name, hint in get_type_hints(given, include_extras=True).items():
        # Python 3.10 takes no note of these words, and 3.11 none in postponed annotations.
        mark: Any = get_origin(hint)
        is_marked = mark in (Required, NotRequired)
        if mark is Required or (not is_marked and name in given.__required_keys__):
            required.add(name)
        copied.__annotations__[name] = _readable(get_args(hint)[0] if is_marked else hint, made)
    copied.__required_keys__ = frozenset(required)
    copied.__optional_keys__ = frozenset(copied.__annotations__.keys() - required)
    return copied
