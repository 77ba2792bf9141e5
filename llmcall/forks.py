"""What a forked process must renew: locks that a thread which stayed behind may have held, handles, who is at work."""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["after_fork_in_child"]

_functions: list[Callable[[], object]] = []


def after_fork_in_child(function: Callable[[], object]) -> Callable[[], object]:
    """Call a function in every process that is forked from this one, in the order of registration."""
    _functions.append(function)
    return function


def _renew() -> None:
    for function in _functions:
        function()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
