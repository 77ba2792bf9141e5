"""What the user is told in the log: once in a process, or at the end of a run."""

from __future__ import annotations

import itertools
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

COUNTED_FOR = 60.0  # seconds, after which how_often() counts from 1 again

_said: dict[object, object] = {}
_counts: dict[object, tuple[float, itertools.count[int]]] = {}  # with the time when each began
_kept: dict[str, None] | None = None  # an ordered set, once notices are kept


def warn_once(message: str, *, about: object = None) -> bool:
    """Log a warning unless it was logged before; return whether it was logged now.

    :param message: the whole sentence, without secrets.
    :param about: the subject to warn about once, whatever the words; by default the words
        themselves.
    """
    is_first = is_new(message if about is None else about)
    if is_first:
        notice("%s", message)
    return is_first


def notice(message: str, *args: object) -> None:
    """Log a warning to the logger ``llmcall``, and keep it for the end of a command.

    :param message: a format for ``args``, as for ``Logger.warning``, without secrets.
    """
    if _kept is not None:
        _kept[message % args if args else message] = None
    logger().warning(message, *args, stacklevel=2)


def keep_notices() -> None:
    """Keep every warning from now on: a program may set up logging and hide them."""
    global _kept
    _kept = {}


def kept_notices() -> list[str]:
    """Return each kept warning once, in order."""
    return list(_kept or ())


def how_often(subject: object) -> int:
    """Count a subject; return how often it was counted in the last minute, including this time."""
    now = time.monotonic()
    begun, numbers = _counts.setdefault(subject, (now, itertools.count(1)))
    if now - begun >= COUNTED_FOR:
        numbers = itertools.count(1)
        _counts[subject] = now, numbers
    return next(numbers)


def is_new(subject: object) -> bool:
    """Return whether this is the first call for a subject; true for only one of several threads."""
    mine = object()
    return _said.setdefault(subject, mine) is mine


def forget_notices() -> None:
    """Log every warning once more, and count from 1 again."""
    _said.clear()
    _counts.clear()


def logger() -> logging.Logger:
    """Return the logger ``llmcall``."""
    import logging  # takes 4 ms, which a run without notices does not need

    found = logging.getLogger("llmcall")
    # Without a handler, logging prints to standard error, and raises if that is closed.
    if getattr(sys.stderr, "closed", False) and not found.hasHandlers():
        found.addHandler(logging.NullHandler())
    return found
