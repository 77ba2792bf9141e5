"""The current cassette: the one that code opened last, or else the one that the settings name."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING

from ..config import resolve as config
from ..system import after_fork_in_child, at_exit, process_lock
from .stack import open_cassettes, pop

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config.settings import Settings
    from .cassette import Cassette

# Each is given the client and the current cassette of a call that no record answers, and raises an
# error if the call may not be sent.
guards: list[Callable[[object, Cassette | None], None]] = []
_lock = process_lock(__name__)


def check_may_send(client: object, cassette: Cassette | None) -> None:
    """Raise an error if a guard forbids to send a call that no record answers.

    :param client: makes the call; ``None`` if no client does.
    :param cassette: the current one, or ``None``.
    """
    for guard in guards:
        guard(client, cassette)


def opened_by_code() -> Cassette | None:
    """Return the cassette that code opened last, or ``None`` if code has none open.

    The one that the settings name is left out.
    """
    innermost: list[Cassette] = open_cassettes[-1:]  # a copy, since other threads may close it
    return innermost[0] if innermost and not innermost[0].is_named_by_settings else None


def cassette_for(base_settings: Settings | None) -> Cassette | None:
    """Return the current cassette for a call, whose header then has the caller's settings.

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
    if path is None and _named() is None:
        return None
    with _lock:
        named = _named()
        if named is None or (str(named.path), named.mode) != (path, mode):
            close_named()  # what the settings named before
            if path is not None:
                _open_named(path, mode)
        return _named()


def _named() -> Cassette | None:
    """Return the cassette that the settings name, if it is open."""
    outermost: list[Cassette] = open_cassettes[:1]
    return outermost[0] if outermost and outermost[0].is_named_by_settings else None


def _open_named(path: str, mode: str) -> None:
    """Open the cassette that the settings name, until they name another one or the process ends."""
    import pkgutil

    from .cassette import Cassette

    # By its name: programs stand above this room, and their requests are recorded from now on, too.
    recording_programs = pkgutil.resolve_name("llmcall.programs.blocks:recording_programs")
    recording_programs(Cassette(path, mode, is_named_by_settings=True)).__enter__()
    _close_at_exit()


@functools.cache
def _close_at_exit() -> None:
    at_exit(lambda: close_named(getattr(sys, "last_value", None)))


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
    with _lock:
        cassette = _named()
        if cassette is not None:
            pop(cassette)


after_fork_in_child(_close_at_exit.cache_clear)
