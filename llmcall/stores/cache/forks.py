"""A gate that lets a process fork only while no thread uses a database.

SQLite's handles do not survive a fork, nor do the locks that another thread holds at that moment
(sqlite.org, "How To Corrupt An SQLite Database File", 2.6), and ``concurrent.futures`` forks on Linux
before Python 3.14. Three steps, in an order that is a decision:

1. Before the fork, wait for the look-ups and stores that run; they take microseconds. Not waiting was
   rejected: the child would inherit a transaction of a thread that it does not have. Closing all
   connections in the parent instead was rejected, too: the other threads are in the middle of using
   theirs, so one would have to wait in any case, and then pay for opening them again.
2. Fork with the gate shut. The wait ends after ten seconds all the same: a use that hangs, such as on a
   network disk, must not stop the program from forking.
3. In the child, close the inherited connections of all threads, before anything opens a new one. diskcache
   by itself only opens new ones, and leaves the inherited ones to the garbage collector. That loses data:
   beside an open inherited handle, what the child stored was lost.

A pid check at each use, without a gate, does the third step too late and cannot do the first one.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .database import Database

LONGEST_WAIT = 10.0  # seconds that a fork waits for a use that does not end


class _ForkGate:
    """Counts the running uses of databases: ``with using_database: …``."""

    def __init__(self) -> None:
        self.databases: weakref.WeakSet[Database] = weakref.WeakSet()
        self._lock = (
            threading.RLock()
        )  # a connection may be collected, and closed, during the counting
        self._use_count = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork_in_parent,
                after_in_child=self._after_fork_in_child,
            )

    def __enter__(self) -> None:
        with self._lock:
            self._use_count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._use_count -= 1

    def _before_fork(self) -> None:
        ends_at = time.monotonic() + LONGEST_WAIT
        self._lock.acquire()
        while self._use_count and time.monotonic() < ends_at:
            self._lock.release()
            time.sleep(0.0005)
            self._lock.acquire()

    def _after_fork_in_parent(self) -> None:
        self._lock.release()

    def _after_fork_in_child(self) -> None:
        self._use_count = 0
        for database in list(self.databases):
            database.close_all()
        self._lock.release()


using_database = _ForkGate()
