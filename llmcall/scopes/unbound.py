"""The warning for a forgotten ``llmcall.bind``: a thread that opens its own scope beside the scope of
the thread that started it, and makes a draw that it made before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..notices import warn_once
from ..system import process_lock
from .numbers import ArmPath, DrawNumber

MOST_DRAWS = 10_000  # that are remembered: a mistake shows earlier

_lock = process_lock(__name__)


class OpenScope(NamedTuple):
    """A scope that is open in another thread.

    :param active: the scope as that thread is in it.
    :param path: its path.
    :param arm: the arm that it stands in, or ``None``.
    """

    active: object
    path: str
    arm: ArmPath | None


# The scopes beside which each draw was made first.
_scopes_beside: dict[DrawNumber, Sequence[OpenScope]] = {}


def warn_of_forgotten_bind(taken: DrawNumber, scopes_beside: Sequence[OpenScope]) -> None:
    """Warn if a thread that has no scope makes a draw that one made before, beside other scopes.

    Beside scopes of the same paths that were opened anew, such as in a cell of a notebook that runs
    again, equal answers are what the program wants.

    :param scopes_beside: those that threads had open that may have started this one.
    """
    with _lock:
        if taken not in _scopes_beside and len(_scopes_beside) >= MOST_DRAWS:
            return
        earlier = _scopes_beside.setdefault(taken, scopes_beside)
    if earlier is scopes_beside:
        return
    places = {(each.path, each.arm) for each in scopes_beside}
    earlier_places = {(each.path, each.arm) for each in earlier}
    shares_one = any(each.active is other.active for each in scopes_beside for other in earlier)
    if places == earlier_places and not shares_one:
        return
    path = taken.request.path
    warn_once(
        f"a thread that has no scope opened the scope {path!r} again, beside the scope {scopes_beside[-1].path!r} of "
        f"another thread. It is not inside that scope, so it is the same {path!r} as before and gets the same answers, "
        "in every trial, round and arm. Pass the function to the thread with llmcall.bind(function)",
        about=warn_of_forgotten_bind,
    )


def forget_draws() -> None:
    """Forget which draws were made."""
    with _lock:
        _scopes_beside.clear()
