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

import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from ...support import clock
from ...support.system import register_at_fork

if TYPE_CHECKING:
    from .database import Database

LONGEST_WAIT = 10.0  # seconds that a fork waits for a use that does not end


class _ForkGate:
    """A counter of the running uses of databases: ``with using_database: …``.

    :ivar lock: is held by each look-up, which is not counted, and during a fork. So threads take turns to look up:
        sqlite3 gives up the interpreter's lock ten times for a look-up, and threads on two cores would pass it to
        one another each time (a map's replay took a third longer).
    """

    def __init__(self) -> None:
        self.databases: weakref.WeakSet[Database] = weakref.WeakSet()
        # Re-entrant: a connection may be collected, and closed, while it is held.
        self.lock = threading.RLock()
        self._use_count = 0
        register_at_fork(
            before=self._before_fork,
            after_in_parent=self._after_fork_in_parent,
            after_in_child=self._after_fork_in_child,
        )

    def __enter__(self) -> None:
        with self.lock:
            self._use_count += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self._use_count -= 1

    def _before_fork(self) -> None:
        ends_at = clock.monotonic() + LONGEST_WAIT
        is_locked = self.lock.acquire(timeout=LONGEST_WAIT)
        while is_locked and self._use_count and clock.monotonic() < ends_at:
            self.lock.release()
            time.sleep(0.0005)
            is_locked = self.lock.acquire(timeout=LONGEST_WAIT)

    def _after_fork_in_parent(self) -> None:
        with suppress(RuntimeError):  # the wait ended without the lock
            self.lock.release()

    def _after_fork_in_child(self) -> None:
        self.lock = threading.RLock()  # another thread's look-up that hangs may hold the other
        self._use_count = 0
        for database in list(self.databases):
            database.close_all()


using_database = _ForkGate()
