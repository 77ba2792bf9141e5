"""Checks of calls that no record answers: whoever runs the program may keep them from their models."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..cassettes.current import Tape

    Guard = Callable[[object, Tape | None], None]

__all__ = ["guards"]

guards: list[Guard] = []  # each is given the client and the tape that the call has, and raises what forbids the call
