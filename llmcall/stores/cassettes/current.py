"""The open cassettes of this process, and the current one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...config import resolve as config
from ...support.system import ProcessLock, at_exit, lock
from .. import openers

if TYPE_CHECKING:
    from .cassette import Cassette

# Cassettes, the innermost last; one that is open several times appears several times. The one that the
# settings name is first.
open_cassettes: list[Cassette] = []
_lock = ProcessLock()

# The path and the mode by which the settings named the cassette that they have open.
_opened_as = ("", "")


@contextmanager
def none_open() -> Iterator[None]:
    """Hide the open cassettes for a block. Cassettes that the block opens and leaves open stay on top."""
    with lock:
        before = open_cassettes.copy()
        open_cassettes.clear()
    try:
        yield
    finally:
        with lock:
            open_cassettes[:0] = before


def forget_all() -> None:
    """Forget the open cassettes that a fork inherited: the recording process answers this process's calls."""
    with lock:
        open_cassettes.clear()


def open_current_cassette() -> Cassette | None:
    """Return the cassette that code opened last, else that of ``[Cassette] PATH``, else ``None``. Opens the
    latter if it is not open, and closes the cassette that the settings named before.
    """
    global _opened_as
    innermost = open_cassettes[-1:]  # a copy, since other threads may close it
    if innermost and not innermost[0].owner.is_settings:
        return innermost[0]
    settings = config.settings()
    path, mode = settings.cassette_path, settings.cassette_mode
    if path is None and not innermost:
        return None
    with _lock:
        named = _named()
        if named is None or _opened_as != (path, mode):
            close_named()  # what the settings named before
            if path is not None:
                _opened_as = (path, mode)
                for open_named in openers:
                    open_named(path, mode)
                at_exit(lambda: close_named(getattr(sys, "last_value", None)))
        return _named()


def _named() -> Cassette | None:
    """Return the cassette that the settings name, if it is open."""
    return next((opened for opened in tuple(open_cassettes) if opened.owner.is_settings), None)


def close_named(error: BaseException | None = None) -> None:
    """Close and write the cassette that the settings name; the next call opens it anew.

    :param error: the exception that ended the run, or ``None``.
    """
    with _lock:
        cassette = _named()
        if cassette is not None:
            cassette.__exit__(None, error, None)
