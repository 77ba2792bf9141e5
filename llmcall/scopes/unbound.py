"""The warning for a forgotten ``llmcall.bind``: a thread that opens its own scope beside the scope of
the thread that started it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..notices import warn_once
from ..system import process_lock
from .numbers import ArmPath

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


class _Opening(NamedTuple):
    """When a thread without a scope opened one.

    :param scope: what it entered: entered again, it goes on counting draws.
    :param open_scopes: those that other threads had open then.
    """

    scope: object
    open_scopes: Sequence[OpenScope]


# The first opening of each scope, by its name.
_openings: dict[str, _Opening] = {}


def warn_of_forgotten_bind(name: str, scope: object, open_scopes: Sequence[OpenScope]) -> None:
    """Warn if a thread without a scope opens one again that it opened beside other scopes before.

    Beside scopes of the same paths that were opened anew, such as in a cell of a notebook that runs
    again, equal answers are what the program wants.

    :param open_scopes: those that threads have open that may have started this one.
    """
    if not open_scopes:
        return
    opening = _Opening(scope, open_scopes)
    with _lock:
        earlier = _openings.setdefault(name, opening)
    if earlier is opening or earlier.scope is scope:
        return
    places = {(each.path, each.arm) for each in open_scopes}
    earlier_places = {(each.path, each.arm) for each in earlier.open_scopes}
    shares_one = any(
        each.active is other.active for each in open_scopes for other in earlier.open_scopes
    )
    if places == earlier_places and not shares_one:
        return
    warn_once(
        f"a thread that has no scope opened the scope {name!r} again, beside the scope {open_scopes[-1].path!r} of "
        f"another thread. It is not inside that scope, so it is the same {name!r} as before and gets the same answers, "
        "in every trial, round and arm. Pass the function to the thread with llmcall.bind(function)",
        about=warn_of_forgotten_bind,
    )


def forget_openings() -> None:
    """Forget which scopes were opened."""
    with _lock:
        _openings.clear()
