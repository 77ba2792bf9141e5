"""What annotations need at run time, where nobody evaluates them: the module ``typing`` takes 2 ms of every start."""

from __future__ import annotations

__all__ = ["TYPE_CHECKING", "Any", "overload"]

TYPE_CHECKING = False  # type checkers take any variable of this name for true

if TYPE_CHECKING:
    from typing import Any, overload
else:
    Any = object

    def overload(function):
        """Return a signature as it is; the last definition takes its place."""
        return function
