"""Which scopes are open in this process, and what the processes that it starts know of them.

A worker without a scope must not draw while a scope is open in the process that started it. It
knows of that in one of two ways:

- A forked worker shares a byte of anonymous memory with the process that forked it. It also sees
  the scopes that open and close later.
- A worker that ``multiprocessing`` starts in another way (spawn, forkserver) is told once, at its
  start, the way it is told the authentication key.

Both end with the processes. An environment variable would not do for the second: a fork server
keeps that of its own start, all other programs inherit it, and it must not be set while other
threads run.
"""

from __future__ import annotations

import sys
import threading
from mmap import mmap
from typing import Any

from ..system import after_fork_in_child

CONFIG_NAME = "llmcall scopes"  # in what multiprocessing hands on to the processes it starts

# The scopes that are open here, each with the thread that opened it.
_open: dict[object, int] = {}
# In a process that multiprocessing started: whether a scope was open then in the one that did.
_was_told = False
# A byte that forked processes share: 1 while a scope is open here.
_byte = mmap(-1, 1)
# That of the process that forked this one.
_byte_of_parent: mmap | None = None


def note_opened(active: object) -> None:
    """Note that the present thread opened a scope."""
    _open[active] = threading.get_ident()
    _tell()


def note_closed(active: object) -> None:
    """Note that a scope is not open any more; the garbage collector may call it in any thread."""
    if _open.pop(active, None) is not None:
        _tell()


def is_open_elsewhere() -> bool:
    """Return whether scopes are open in this process, and the present thread opened none of them."""
    # A list is made at once, whatever other threads do.
    return bool(_open) and threading.get_ident() not in list(_open.values())


def is_worker() -> bool:
    """Return whether this process was forked, or ``multiprocessing`` started it."""
    return _byte_of_parent is not None or _has_parent()


def is_open_in_parent() -> bool:
    """Return whether a scope is open in the process that forked this one."""
    return _byte_of_parent is not None and bool(_byte_of_parent[0])


def was_open_in_parent() -> bool:
    """Return whether a scope was open in the process that started this one, unless it forked it."""
    _listen()
    return _byte_of_parent is None and _was_told


class _IsOpen:
    """Says whether a scope is open here, at the moment it is pickled for a new process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return bool, (bool(_open),)


_is_open = _IsOpen()


def _tell() -> None:
    """Let the processes that this one has started, and will start, know whether a scope is open."""
    # Until it holds, since another thread may open or close a scope meanwhile. A lock would not
    # do: the garbage collector may run this while the thread holds it.
    while _byte[0] != bool(_open):
        _byte[0] = bool(_open)
    if "multiprocessing.process" in sys.modules:
        _listen()
        _handed_on()[CONFIG_NAME] = _is_open


def _has_parent() -> bool:
    """Return whether ``multiprocessing`` started this process."""
    processes = sys.modules.get("multiprocessing.process")
    return processes is not None and processes.parent_process() is not None


def _listen() -> None:
    """Take in what the process that started this one told it, before it is written over.

    A worker imports its program's main module, and with it this one, before it gets what it is
    told. So one look at the import would not do.
    """
    global _was_told
    if _has_parent() and _handed_on().get(CONFIG_NAME) is True:
        _was_told = True


def _handed_on() -> dict[str, Any]:
    """Return what ``multiprocessing`` hands on to the processes that it starts, pickled with each.

    It is private, but has been there since Python 2.6. If it goes, such processes are not told.
    """
    this = sys.modules["multiprocessing.process"].current_process()
    return getattr(this, "_config", {})


def _begin_anew() -> None:
    """Stand outside any scope in a forked process, as in one that was spawned."""
    global _byte, _byte_of_parent
    _byte, _byte_of_parent = mmap(-1, 1), _byte
    _open.clear()


after_fork_in_child(_begin_anew)
_tell()
