"""Which cassette is open: looked at by every call, so kept apart from what reading and writing one needs."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .cassette import Cassette

    Place = tuple[int, ...]

__all__ = ["all_open", "at", "begin", "end", "innermost", "is_any_open", "name", "named", "namespaces", "position"]

_open: list[Cassette] = []
_named: list[Cassette] = []  # the one that the settings name, which stands under those that code opens
_lock = threading.Lock()
_position: ContextVar[Place] = ContextVar("llmcall place in a cassette", default=())


def begin(opened: Cassette) -> None:
    """Let a cassette count until it ends, or until one begins inside it."""
    with _lock:
        _open.append(opened)


def end(closed: Cassette) -> None:
    """Let a cassette count no more; of one that began several times, the last beginning ends."""
    with _lock:
        last = max(index for index, each in enumerate(_open) if each is closed)
        del _open[last]


def name(cassette: Cassette | None) -> None:
    """Let a cassette count wherever code opens none; ``None`` lets none."""
    _named[:] = [] if cassette is None else [cassette]


def named() -> Cassette | None:
    """Return the cassette that counts wherever code opens none, or ``None``."""
    return _named[0] if _named else None


def innermost() -> Cassette | None:
    """Return the cassette that code opened last, or ``None`` where it opened none."""
    return _open[-1] if _open else None


def all_open() -> tuple[Cassette, ...]:
    """Return the cassettes that are open, the innermost last; one that began several times stands there as often."""
    return (*_named, *_open)


def is_any_open() -> bool:
    """Return whether a cassette is open, in code or by the settings."""
    return bool(_open or _named)


def namespaces() -> dict[str, str] | None:
    """Return the namespaces of models that an open cassette's header holds, or ``None`` where no header was read."""
    for each in reversed(all_open()):
        if each.namespaces is not None:
            return each.namespaces
    return None


def position() -> Place:
    """Return where in the order of the calls the present context stands: empty, or an item of a ``map``."""
    return _position.get()


@contextmanager
def at(place: Place) -> Iterator[None]:
    """Let the calls of a block stand at a place in the order of the calls, whenever they are made.

    :param place: the place of the whole, from :meth:`Cassette.place`, and in it the item's.
    """
    token = _position.set(place)
    try:
        yield
    finally:
        _position.reset(token)


def _leave_parent() -> None:
    """Begin anew in a forked process: other threads may have held the locks, and the files are the parent's."""
    global _lock
    _lock = threading.Lock()
    for each in all_open():
        each.leave_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_parent)
