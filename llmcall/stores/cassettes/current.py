"""The open cassettes of this process, and the current one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...config import resolve as config
from ...errors import CacheError
from ...support.system import (
    ProcessLock,
    at_exit,
    is_started_by_multiprocessing,
    lock,
    multiprocessing_config,
)
from .. import openers

if TYPE_CHECKING:
    from collections.abc import Callable

    from .cassette import Cassette

# Cassettes, the innermost last; one that is open several times appears several times. The one that the
# settings name is first.
open_cassettes: list[Cassette] = []
_lock = ProcessLock()

CONFIG_NAME = "llmcall cassette"  # in what multiprocessing passes to the processes it starts
# In a process that multiprocessing started, but did not fork: the path of the cassette that was open in
# its parent at that moment, or "", and whether that cassette may record.
_in_parent = ("", False)
_hides_parent = False  # in a block of only_open, or in a process that its parent answers
# The path and the mode by which the settings named the cassette that they have open.
_opened_as = ("", "")


class _OpenCassette:
    """The innermost open cassette, or the parent's, pickled for a new process as its path and whether it may
    record.
    """

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        states = [(str(cassette.path), cassette.may_record) for cassette in open_cassettes[-1:]]
        return tuple, (states[0] if states else _in_parent,)


_open_cassette = _OpenCassette()


def push_cassette(cassette: Cassette) -> None:
    """Make a cassette the innermost one, until it closes; processes that are started meanwhile know of it."""
    _read_parent_state()
    with lock:
        open_cassettes.append(cassette)
    multiprocessing_config()[CONFIG_NAME] = _open_cassette


def _read_parent_state() -> None:
    """Read the parent process's state before this process overwrites it."""
    global _in_parent
    state = multiprocessing_config().get(CONFIG_NAME)
    if isinstance(state, tuple):
        _in_parent = state


def _refuse_beside_parent(named_path: str | None) -> None:
    """Refuse a call that the cassette of the parent process would not see."""
    _read_parent_state()
    path, may_record = _in_parent
    if path and (may_record or path != named_path):
        raise CacheError(
            f"{path} was open in the process that started this one, which does not see calls made here. "
            "Run the function with llmcall.map(…, executor=…), or open another cassette in this process"
        )


def pop_cassette(cassette: Cassette) -> None:
    """Remove a closed cassette; if it was opened several times, only the innermost one."""
    with lock:
        indexes = [index for index, opened in enumerate(open_cassettes) if opened is cassette]
        if indexes:
            del open_cassettes[max(indexes)]


@contextmanager
def only_open(cassette: Cassette | None) -> Iterator[None]:
    """Hide the open cassettes for a block, except one, or all of them, and that of the parent process.
    Cassettes that the block opens and leaves open stay on top.

    :param cassette: the one that stays, or ``None``.
    """
    global _hides_parent
    with lock:
        before, hid_parent = open_cassettes.copy(), _hides_parent
        open_cassettes[:] = [] if cassette is None else [cassette]
        _hides_parent = True
    try:
        yield
    finally:
        with lock:
            opened = [other for other in open_cassettes if other is not cassette]
            open_cassettes[:] = [*before, *opened]
            _hides_parent = hid_parent


@contextmanager
def all_hidden() -> Iterator[None]:
    """Forget the cassettes of the process that started this one, which answers its calls, for a block."""
    global _hides_parent
    with lock:
        open_cassettes.clear()
        hid_parent, _hides_parent = _hides_parent, True
    try:
        yield
    finally:
        _hides_parent = hid_parent


def current_cassette() -> Cassette | None:
    """Return the cassette that code opened last, else the one that ``[Cassette] PATH`` names, else
    ``None``. The first call opens the one that the settings name.

    :raises CacheError: in a process that was started, not forked, while its parent had a cassette open.
    """
    global _opened_as
    innermost = open_cassettes[-1:]  # a copy, since other threads may close it
    if innermost and not innermost[0].owner.is_settings:
        return innermost[0]
    settings = config.settings()
    path, mode = settings.cassette_path, settings.cassette_mode
    if not innermost and not _hides_parent and is_started_by_multiprocessing():
        _refuse_beside_parent(path)
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

    :param error: what ended the run, or ``None``.
    """
    with _lock:
        cassette = _named()
        if cassette is not None:
            cassette.__exit__(None, error, None)
