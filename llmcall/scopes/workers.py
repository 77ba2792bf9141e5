"""The scopes that are open in this process, as its threads and the processes that it starts know them.

A worker without a scope must not draw if a scope was open in the process that started it, at that moment. A
forked worker has that process's memory; one that ``multiprocessing`` starts in another way (spawn, forkserver)
gets the state with the authentication key. An environment variable would not serve: a fork server keeps the one
of its own start, all other programs inherit it, and it must not be set while other threads run.
"""

from __future__ import annotations

import threading

from ..support.system import (
    after_fork_in_child,
    is_started_by_multiprocessing,
    multiprocessing_config,
)
from ..support.waits import Stops, stops

CONFIG_NAME = "llmcall scopes"  # in what multiprocessing passes to the processes it starts

# The scopes that are open here, each with the thread that opened it and the stops of its maps.
_open: dict[object, tuple[int, Stops]] = {}
# In a process that was forked or that multiprocessing started: whether its parent had a scope open at that moment.
_was_open_in_parent = False
_is_forked = False


def note_opened(active: object) -> None:
    """Note that the current thread opened a scope."""
    # Before any scope opens, a program need not import multiprocessing.
    if not _open:
        _read_parent_state()
        multiprocessing_config()[CONFIG_NAME] = _is_open
    _open[active] = threading.get_ident(), stops()


def note_closed(active: object) -> None:
    """Note that a scope was closed."""
    _open.pop(active, None)


def is_open_elsewhere() -> bool:
    """Return whether other threads of this process, and not the current one, have scopes open.

    Items of a ``map`` do not count in the thread that runs it: they did not start that thread, so
    it should not have their scopes.
    """
    if not _open:
        return False
    current = threading.get_ident()
    # Other threads may change the dict, but not while a list is made of it.
    opened = list(_open.values())
    if any(thread == current for thread, _ in opened):
        return False
    return any(all(stop.thread != current for stop in stops) for _, stops in opened)


def is_worker() -> bool:
    """Return whether this process was forked, or ``multiprocessing`` started it."""
    return _is_forked or is_started_by_multiprocessing()


def is_open_in_parent() -> bool:
    """Return whether a scope was open in the process that started this one, at that moment.

    A fork server forks workers, but others start them.
    """
    _read_parent_state()
    return _was_open_in_parent


class _IsOpen:
    """A flag for a new process: whether a scope is open here at the moment of pickling."""

    def __reduce__(self) -> tuple[object, ...]:
        return bool, (bool(_open),)


_is_open = _IsOpen()


def _read_parent_state() -> None:
    """Read the parent process's state before this process overwrites it.

    A worker may import this module before it has that state, so an import would be too early.
    """
    global _was_open_in_parent
    if is_started_by_multiprocessing() and multiprocessing_config().get(CONFIG_NAME) is True:
        _was_open_in_parent = True


def _leave_scopes() -> None:
    """Leave all scopes in a forked process, as a spawned one does."""
    global _is_forked, _was_open_in_parent
    _is_forked, _was_open_in_parent = True, bool(_open)
    _open.clear()


after_fork_in_child(_leave_scopes)
