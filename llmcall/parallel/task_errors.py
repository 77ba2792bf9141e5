"""The errors of tasks, and how an error travels between processes."""

from __future__ import annotations

import pickle

from ..errors import LLMCallError

__all__ = ["HaltedError", "WorkerError", "portable", "traceback_of"]


def portable(error: BaseException) -> BaseException:
    """Return an error as it is, where it can be unpickled; one that cannot would break the pool of processes."""
    try:
        pickle.loads(pickle.dumps(error))
    except (pickle.PickleError, TypeError, AttributeError, ValueError, KeyError, ImportError) as reason:
        return LLMCallError(f"{type(error).__name__}: {error} (it cannot be sent between processes: {reason})")
    return error


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an error as text."""
    from traceback import format_exception

    return "".join(format_exception(type(error), error, error.__traceback__))


class HaltedError(BaseException):
    """Say that a task did not begin, since the map had ended by then."""


class WorkerError(Exception):
    """Show, as the cause of an error from another process, its traceback there."""
