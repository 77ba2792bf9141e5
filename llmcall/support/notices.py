"""Notices in the log: once in a process, or at the end of a run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from .display import visible

if TYPE_CHECKING:
    import logging

T = TypeVar("T")

# By subject: the value of the first call for it.
_firsts: dict[object, object] = {}
_collections: list[dict[str, None]] = []  # ordered sets of messages, while notices are kept
_are_held = False
# Send a recorded process's warnings to its recording process, the innermost last; each returns whether it could.
tellers: list[Callable[[str], bool]] = []


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

    In a recorded process, the recording process logs it: each child would repeat its siblings' warnings, on a standard
    error that the program may read.

    :param message: a format for ``args``, as for ``Logger.warning``, without secrets.
    """
    text = visible(message % args if args else message)
    for collection in tuple(_collections):
        collection[text] = None
    if _are_held or any(tell(text) for tell in tellers[-1:]):
        return
    logger().warning("%s", text, stacklevel=2)


def keep_notices() -> dict[str, None]:
    """Keep every warning from now on, since a program or pytest may hide the log.

    :returns: an ordered set, to which each warning is added once.
    """
    collection: dict[str, None] = {}
    _collections.append(collection)
    return collection


def hold_notices() -> dict[str, None]:
    """Keep every warning for the end of the process, where the caller prints it, and log none.

    :returns: see :func:`keep_notices`.
    """
    global _are_held
    _are_held = True
    return keep_notices()


def stop_keeping_notices(collection: dict[str, None]) -> None:
    """Add no more warnings to what :func:`keep_notices` returned."""
    _collections[:] = [other for other in _collections if other is not collection]


def is_new(subject: object) -> bool:
    """Return whether this is the first call for a subject. Of several threads, only one gets ``True``."""
    this_call = object()
    return first(subject, this_call) is this_call


def first(subject: object, value: T) -> T:
    """Return the value of the first call for a subject."""
    return _firsts.setdefault(subject, value)  # type: ignore[return-value]


def forget_notices() -> None:
    """Forget what was logged, so that every warning can be logged once more."""
    _firsts.clear()


def _escape(record: logging.LogRecord) -> bool:
    """Escape what a terminal would obey: a line may quote a server, or a program's file names."""
    record.msg, record.args = visible(record.getMessage()), None
    return True


def logger() -> logging.Logger:
    """Return the logger ``llmcall``."""
    import logging  # takes 4 ms, which a run without notices does not need

    package_logger = logging.getLogger("llmcall")
    package_logger.addFilter(_escape)  # once, however often it is added
    # Without a handler, logging prints to standard error, and raises if that is closed.
    if getattr(sys.stderr, "closed", False) and not package_logger.hasHandlers():
        package_logger.addHandler(logging.NullHandler())
    return package_logger
