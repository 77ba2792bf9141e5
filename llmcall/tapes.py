"""Which cassette is open: looked at by every call, so kept apart from what reading and writing one needs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cassettes import Cassette

__all__ = ["begin", "end", "innermost"]

_open: list[Cassette] = []
_lock = threading.Lock()


def begin(opened: Cassette, *, below: bool = False) -> None:
    """Let a cassette count until it ends, or until one begins inside it.

    :param below: put it under those that are open, as the one that the settings name is.
    """
    with _lock:
        _open.insert(0 if below else len(_open), opened)


def end(closed: Cassette) -> None:
    """Let a cassette count no more."""
    with _lock:
        _open.remove(closed)


def innermost() -> Cassette | None:
    """Return the cassette that was opened last, or ``None`` where none is open."""
    return _open[-1] if _open else None
