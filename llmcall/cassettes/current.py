"""The current cassette: the one that code opened last, or else the one that the settings name."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING

from ..config import resolve as config
from ..system import after_fork_in_child, at_exit, process_lock
from .stack import innermost, pop, push_outermost

if TYPE_CHECKING:
    from ..config.settings import Settings
    from .cassette import Cassette

_named_cassette: Cassette | None = None  # the one that the settings name
_lock = process_lock(__name__)


def forget_named() -> None:
    """Forget the cassette that the settings of this process, or of the one that forked it, named."""
    global _named_cassette
    with _lock:
        if _named_cassette is not None:
            pop(_named_cassette)
            _named_cassette = None


def opened_by_code() -> Cassette | None:
    """Return the cassette that code opened last, or ``None`` if code has none open.

    The one that the settings name is left out.
    """
    cassette: Cassette | None = innermost()
    return None if cassette is None or cassette.is_named_by_settings else cassette


def cassette_for(base_settings: Settings | None) -> Cassette | None:
    """Return the current cassette for a call, after checking that the caller's settings fit it.

    Do this before you read the settings of the call: a cassette's settings override them.

    :param base_settings: the settings that the calling client was given, or ``None`` for the
        process's.
    """
    cassette = current_cassette()
    if cassette is not None and cassette.may_record:
        cassette.agree(base_settings)
    return cassette


def current_cassette() -> Cassette | None:
    """Return the cassette that code opened last, or else the one that ``[Cassette] PATH`` names, or
    ``None``.

    The first call opens the one that the settings name.
    """
    code_cassette = opened_by_code()
    if code_cassette is not None:
        return code_cassette
    settings = config.settings()
    path, mode = settings.cassette_path, settings.cassette_mode
    if path is None and _named_cassette is None:
        return None
    with _lock:
        named = _named_cassette
        if named is None or (str(named.path), named.mode) != (path, mode):
            close_named()  # what the settings named before
            if path is not None:
                _open_named(path, mode)
        return _named_cassette


def _open_named(path: str, mode: str) -> None:
    """Open the cassette that the settings name, until they name another one or the process ends."""
    global _named_cassette
    from .cassette import Cassette

    cassette = Cassette(path, mode, is_named_by_settings=True)
    cassette.start()
    push_outermost(cassette)
    _named_cassette = cassette
    _close_at_exit()


@functools.cache
def _close_at_exit() -> None:
    at_exit(lambda: close_named(getattr(sys, "last_value", None)))


def close_named(error: BaseException | None = None) -> None:
    """Close the cassette that the settings name, and write it; the next call opens what they name
    then.

    :param error: what ended the run, or ``None``.
    """
    global _named_cassette
    with _lock:
        cassette, _named_cassette = _named_cassette, None
        if cassette is not None:
            pop(cassette)
            cassette.stop(error)


after_fork_in_child(_close_at_exit.cache_clear)
