"""What the user is told in the log, once in a process however often the reason for it comes up."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

__all__ = ["forget_notices", "inform_once", "warn_once"]

_said: set[object] = set()


def warn_once(message: str, *, about: object = None) -> None:
    """Log a warning to the logger ``llmcall`` unless it was logged before.

    :param message: the whole sentence; it must hold no secret.
    :param about: what is warned of only once, whatever the words; ``None`` means the words themselves.
    """
    subject = message if about is None else about
    if subject not in _said:
        _said.add(subject)
        _logger().warning("%s", message)


def inform_once(message: str) -> None:
    """Log an information to the logger ``llmcall`` unless the same words were logged before.

    :param message: the whole sentence; it must hold no secret.
    """
    if message not in _said:
        _said.add(message)
        _logger().info("%s", message)


def forget_notices() -> None:
    """Let everything be said once more."""
    _said.clear()


def _logger() -> logging.Logger:
    import logging  # costs 4 ms, which a run without notices need not pay

    return logging.getLogger("llmcall")
