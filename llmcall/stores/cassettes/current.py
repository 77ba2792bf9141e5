"""The cassettes that are open in this process, and the current one among them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...config import resolve as config
from ...support.system import ProcessLock, at_exit, lock
from .. import openers
from ..records.header import NAMESPACES

# Each is a Cassette. The innermost is last. One that is open several times appears as often; the one
# that the settings name is first.
open_cassettes: list[Any] = []
_lock = ProcessLock()


def push_cassette(cassette: Any) -> None:
    """Make a cassette the innermost one, until it closes."""
    with lock:
        open_cassettes.append(cassette)


def pop_cassette(cassette: Any) -> None:
    """Remove a closed cassette; if it was opened several times, only the innermost one."""
    with lock:
        indexes = [index for index, opened in enumerate(open_cassettes) if opened is cassette]
        if indexes:
            del open_cassettes[max(indexes)]


@contextmanager
def only_open(cassette: Any) -> Iterator[None]:
    """Make one cassette, or none, the only open one for a block; then those from before are open
    again, below those that were opened in the block and not closed.
    """
    with lock:
        before = open_cassettes.copy()
        open_cassettes[:] = [] if cassette is None else [cassette]
    try:
        yield
    finally:
        with lock:
            opened = [other for other in open_cassettes if other is not cassette]
            open_cassettes[:] = [*before, *opened]


def header_namespaces() -> dict[str, str] | None:
    """Return the models' namespaces in an open cassette's header, or ``None`` if no header was
    read.
    """
    for opened in reversed(tuple(open_cassettes)):
        if settings := opened.stored.header.settings:
            return dict(settings.get(NAMESPACES, {}))
    return None


def current_cassette() -> Any:
    """Return the cassette that code opened last, or else the one that ``[Cassette] PATH`` names, or
    ``None``.

    The first call opens the one that the settings name.
    """
    innermost = open_cassettes[-1:]  # a copy, since other threads may close it
    if innermost and not innermost[0].is_named_by_settings:
        return innermost[0]
    settings = config.settings()
    path, mode = settings.cassette_path, settings.cassette_mode
    if path is None and not innermost:
        return None
    with _lock:
        named = _named()
        if named is None or (str(named.path), named.mode) != (path, mode):
            close_named()  # what the settings named before
            if path is not None:
                for open_named in openers:
                    open_named(path, mode)
                at_exit(lambda: close_named(getattr(sys, "last_value", None)))
        return _named()


def _named() -> Any:
    """Return the cassette that the settings name, if it is open."""
    return next((opened for opened in tuple(open_cassettes) if opened.is_named_by_settings), None)


def close_named(error: BaseException | None = None) -> None:
    """Close the cassette that the settings name, and write it; the next call opens what they name
    then.

    :param error: what ended the run, or ``None``.
    """
    with _lock:
        cassette = _named()
        if cassette is not None:
            cassette.__exit__(None, error, None)


def forget_named() -> None:
    """Forget the cassette that the settings of the process named that forked this one."""
    pop_cassette(_named())
