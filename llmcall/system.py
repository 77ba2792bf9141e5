"""What the operating system does: processes that are forked or end, and locks between processes.

A forked process must renew locks that a thread which stayed behind may have held, handles, and who
is at work.

A lock leaves no file behind and ends with the process that holds it. Windows has none, and some
file systems of other machines have none: there, nobody is kept out.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


def after_fork_in_child(function: Callable[[], object]) -> Callable[[], object]:
    """Call a function in every process that is forked from this one, in the order of registration."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)
    return function


_this_process = object()


def this_process() -> object:
    """Return an object that stands for this process; a forked process has another one."""
    return _this_process


@after_fork_in_child
def _begin_anew() -> None:
    global _this_process
    _this_process = object()


def process_lock(module: str) -> AbstractContextManager[bool]:
    """Return a lock for the variable ``_lock`` of a module, which gets a new one in every forked
    process.

    It is re-entrant: the garbage collector may end a stream, which gives back what it held, at any
    moment.
    """
    after_fork_in_child(lambda: setattr(sys.modules[module], "_lock", threading.RLock()))
    return threading.RLock()


def around_fork(before: Callable[[], object], after: Callable[[], object]) -> None:
    """Call one function before the process is forked, and one after it, in the parent and in the
    child.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_parent=after, after_in_child=after)


def at_exit(function: Callable[[], object]) -> None:
    """Call a function when this process ends.

    One that multiprocessing started ends with its main function, before its other threads: there it
    is called then, and once more, unless it was forked, when they have ended.
    """
    import atexit
    import logging  # noqa: F401  # its own end comes after ours, if it is imported before

    atexit.register(function)
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, function, exitpriority=0)


@contextmanager
def alone(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes that ask for it out of a folder while a block runs."""
    handle = None
    with suppress(ImportError, OSError):
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):
                # for forked processes, too, which hold the same lock
                fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)
