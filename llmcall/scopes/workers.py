"""The scopes that are open in this process, as the processes that it starts know them.

A worker without a scope must not draw while a scope is open in the process that started it. It
knows about that in one of two ways:

- A forked worker shares a byte of anonymous memory with the process that forked it. It also sees
  the scopes that open and close later.
- A worker that ``multiprocessing`` starts in another way (spawn, forkserver) gets the state once, at
  its start, with the authentication key.

Neither outlives the processes. An environment variable would not serve the second way: a fork
server keeps the one of its own start, all other programs inherit it, and it must not be set while
other threads run.
"""

from __future__ import annotations

import threading
from mmap import mmap

from ..support.system import (
    after_fork_in_child,
    is_started_by_multiprocessing,
    multiprocessing_config,
)
from ..support.waits import Stops, waits

CONFIG_NAME = "llmcall scopes"  # in what multiprocessing passes to the processes it starts

# The scopes that are open here, each with the thread that opened it and the stops of its maps.
_open: dict[object, tuple[int, Stops]] = {}
# In a process that multiprocessing started: whether its parent had a scope open at that moment.
_was_open_in_parent = False
# A byte that forked processes share: 1 while a scope is open here.
_byte = mmap(-1, 1)
# The byte of the process that forked this one.
_byte_of_parent: mmap | None = None


def note_opened(active: object) -> None:
    """Note that the current thread opened a scope."""
    _open[active] = threading.get_ident(), waits().stops
    _publish()


def note_closed(active: object) -> None:
    """Note that a scope was closed."""
    if _open.pop(active, None) is not None:
        _publish()


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
    return _byte_of_parent is not None or is_started_by_multiprocessing()


def is_open_in_parent() -> bool:
    """Return whether a scope is open in the process that forked this one, or was when the process
    that started this one in another way did so.

    A fork server forks workers, but others start them.
    """
    _read_parent_state()
    return _was_open_in_parent or (_byte_of_parent is not None and bool(_byte_of_parent[0]))


class _IsOpen:
    """Says whether a scope is open here, at the moment it is pickled for a new process."""

    def __reduce__(self) -> tuple[object, ...]:
        return bool, (bool(_open),)


_is_open = _IsOpen()


def _publish() -> None:
    """Publish whether a scope is open, to the processes that this one has started and will start."""
    # Before any scope opens, a program need not import multiprocessing.
    if _open and not _byte[0]:
        _read_parent_state()
        multiprocessing_config()[CONFIG_NAME] = _is_open
    # Another thread may open or close a scope meanwhile, so this repeats until the byte is right.
    while _byte[0] != bool(_open):
        _byte[0] = bool(_open)


def _read_parent_state() -> None:
    """Read the parent process's state before this process overwrites it.

    A worker may import this module before it has that state, so an import would be too early.
    """
    global _was_open_in_parent
    if is_started_by_multiprocessing() and multiprocessing_config().get(CONFIG_NAME) is True:
        _was_open_in_parent = True


def _leave_scopes() -> None:
    """Leave all scopes in a forked process, as a spawned one does."""
    global _byte, _byte_of_parent
    _byte, _byte_of_parent = mmap(-1, 1), _byte
    _open.clear()


after_fork_in_child(_leave_scopes)
