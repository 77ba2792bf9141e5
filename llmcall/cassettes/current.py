"""The cassette that counts for a call; reading and writing one is imported only where one is open."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import resolve as config
from . import tapes

if TYPE_CHECKING:
    from ..config.settings import Settings
    from ..types import Record, Request
    from .cassette import Cassette
    from .tapes import Place

__all__ = ["Tape", "close_named", "current_cassette", "open_tape"]

_lock = threading.RLock()
_at_exit: list[Any] = []


class Tape(NamedTuple):
    """Be the cassette that counts for one call, and the call's place in it."""

    cassette: Cassette
    place: Place

    def find(self, request: Request) -> Record | None:
        """Return the recorded answer of the call's request, or ``None``."""
        return self.cassette.find(request, self.place)

    def find_key(self, cache_key: str) -> Record | None:
        """Return the record of a key, or ``None``."""
        return self.cassette.find_key(cache_key, self.place)

    def keep(self, record: Record) -> Record:
        """Take in an answer and return the one that counts: whatever was recorded first."""
        return self.cassette.add(record, self.place)


def open_tape(base: Settings | None = None) -> Tape | None:
    """Return the cassette that counts and the call's place in it, or ``None`` where none does.

    It comes before the settings of the call are looked at: a cassette's own stand above them.

    :param base: the settings that the calling client was given, or ``None``.
    :raises ConfigError: where the client disagrees with the cassette that it is recorded on.
    """
    found = current_cassette()
    if found is None:
        return None
    if found.asks:
        found.agree(base)
    return Tape(found, found.place())


def current_cassette() -> Cassette | None:
    """Return the cassette that counts, or ``None`` where none is open and ``[Cassette] PATH`` names none."""
    opened = tapes.innermost()
    if opened is not None:
        return opened
    settings = config.settings()
    named = tapes.named()
    if settings.cassette_path is None and named is None:
        return None
    return _renamed(settings)


def _renamed(settings: Settings) -> Cassette | None:
    """Open what the settings name, in place of what they named before."""
    path, mode = settings.cassette_path, settings.cassette_mode
    with _lock:
        named = tapes.named()
        if named is not None and path is not None and (str(named.path), named.mode) == (path, mode):
            return named
        close_named()
        if path is None:
            return None
        from .cassette import Cassette

        made = Cassette(path, mode)
        made.open()
        tapes.name(made)
        _close_at_exit()
        return made


def _close_at_exit() -> None:
    if not _at_exit:
        import atexit
        import logging  # its own end comes after ours, if it is imported before

        _at_exit.append(logging)
        atexit.register(lambda: close_named(getattr(sys, "last_value", None)))


def close_named(error: BaseException | None = None) -> None:
    """Close the cassette that the settings name, and write it; the next call opens what they name then.

    :param error: what ended the run, or ``None``.
    """
    with _lock:
        named = tapes.named()
        if named is not None:
            tapes.name(None)
            named.close(error)


def _leave_parent() -> None:
    """Begin anew in a forked process: another thread may have held the lock."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_parent)
