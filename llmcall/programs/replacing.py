"""Replacements of other libraries' methods, which a block takes back."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any


def replace(
    undo: contextlib.ExitStack, owner: Any, name: str, replacement: Callable[..., Any]
) -> None:
    """Replace a method, or a module's function, by one that takes the original as its first argument.

    :param undo: gets the callback that restores it.
    """
    original = getattr(owner, name)

    @functools.wraps(original)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        return replacement(original, *args, **kwargs)

    is_inherited = name not in vars(owner)
    setattr(owner, name, replaced)
    if is_inherited:
        undo.callback(delattr, owner, name)
    else:
        undo.callback(setattr, owner, name, original)
