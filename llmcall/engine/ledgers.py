"""Named budgets: what is spent and reserved under a name, kept beside the cache and shared by processes.

``budgets.db`` in the cache's directory is a SQLite database with a row for each name and one for each reservation. A
transaction looks and reserves at once, so that two processes never pass a limit together. What a killed process had
reserved counts as spent: the server may have billed it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..cache.sqlite import make_directory
from ..errors import CacheError
from ..files import alone
from .accounts import NOTHING, Spending, check

if TYPE_CHECKING:
    from collections.abc import Callable

    from .accounts import Amounts

    T = TypeVar("T")

__all__ = ["LEASE", "Ledger", "is_running"]

DATABASE = "budgets.db"
BUSY_SECONDS = 60.0
# Reservations that are older belong to no running call: the process's number was given to another one.
LEASE = 24 * 3600.0
CLOCK_ERROR = 0.5  # seconds by which the clocks of a process's beginning and of its reservations may differ
_of_the_parent: list[sqlite3.Connection] = []
TABLES = (
    "CREATE TABLE IF NOT EXISTS Spent "
    "(name TEXT PRIMARY KEY, usd INTEGER, tokens INTEGER, calls INTEGER, unknown INTEGER)",
    "CREATE TABLE IF NOT EXISTS Reserved (id TEXT PRIMARY KEY, name TEXT, usd INTEGER, tokens INTEGER, calls INTEGER, "
    "unknown INTEGER, process INTEGER, since REAL)",
)
ADD = (
    "INSERT INTO Spent VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET usd = usd + excluded.usd, "
    "tokens = tokens + excluded.tokens, calls = calls + excluded.calls, unknown = unknown + excluded.unknown"
)
SPENT = "SELECT usd, tokens, calls, unknown FROM Spent WHERE name = ?"
RESERVED = "SELECT id, process, since, usd, tokens, calls, unknown FROM Reserved WHERE name = ?"


class Ledger:
    """Keep what is spent and reserved under a name in a directory that many processes share; see ``Account``.

    :param name: the budget's.
    :param directory: the cache's.
    """

    shared = True

    def __init__(self, name: str, directory: str | os.PathLike[str]) -> None:
        self.name = name
        self.title = f"the budget {name!r}"
        self.directory = Path(directory)
        self.place = str(directory)
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self.kept_open = False  # between two transactions

    def reserve(self, need: Spending, limit: Amounts) -> str | None:
        """Reserve an amount and return what it is known by; ``None`` where it has to wait for others.

        :raises BudgetExceededError: where it would go past the limit whatever the others use.
        :raises CacheError: where the directory cannot be written.
        """

        def reserve(database: sqlite3.Connection) -> str | None:
            """Do it in a transaction."""
            self._count_the_dead(database)
            if not check(self.title, limit, self._sum(database), self._reserved(database), need):
                return None
            key = os.urandom(16).hex()
            row = (key, self.name, *need, os.getpid(), time.time())
            database.execute("INSERT INTO Reserved VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            return key

        return self._changed(reserve)

    def settle(self, key: str, reserved: Spending, used: Spending) -> None:
        """Put what was used in place of what was reserved.

        The call is over and paid for: where the disk takes nothing, a warning says so, and the reservation stays.
        """

        def settle(database: sqlite3.Connection) -> None:
            """Do it in a transaction."""
            found = database.execute("DELETE FROM Reserved WHERE id = ?", (key,)).rowcount
            # Where it is gone, another process took this one for dead and counted it as spent.
            database.execute(ADD, (self.name, *(used if found else used.plus(reserved, -1))))

        try:
            self._changed(settle)
        except CacheError as error:
            import logging

            logging.getLogger("llmcall").warning("%s; what the call had reserved counts as spent", error)

    def spent(self) -> Spending:
        """Return what is settled, by this and by earlier runs, and what killed processes had reserved."""
        if not (self.directory / DATABASE).exists():
            return NOTHING

        def spent(database: sqlite3.Connection) -> Spending:
            """Read it in a transaction."""
            self._count_the_dead(database)
            return self._sum(database)

        return self._changed(spent)

    def forget(self) -> None:
        """Count from nothing again; what running calls have reserved stays reserved."""
        if (self.directory / DATABASE).exists():
            self._changed(lambda database: database.execute("DELETE FROM Spent WHERE name = ?", (self.name,)).rowcount)

    def close(self) -> None:
        """Close the database; what comes after opens it for a moment."""
        with self._lock:
            self.kept_open = False
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    def renew(self) -> None:
        """Leave lock and connection to the process that this one was forked from: closing it here would disturb it."""
        self._lock = threading.RLock()
        if self._connection is not None:
            _of_the_parent.append(self._connection)
        self._connection = None

    def _sum(self, database: sqlite3.Connection) -> Spending:
        row = database.execute(SPENT, (self.name,)).fetchone()
        return Spending(*row) if row else NOTHING

    def _reserved(self, database: sqlite3.Connection) -> Spending:
        total = NOTHING
        for row in database.execute(RESERVED, (self.name,)).fetchall():
            total = total.plus(Spending(*row[3:]))
        return total

    def _count_the_dead(self, database: sqlite3.Connection) -> None:
        """Count as spent what processes that are gone had reserved."""
        for key, process, since, *amounts in database.execute(RESERVED, (self.name,)).fetchall():
            if not is_running(process, since) or time.time() - since > LEASE:
                database.execute("DELETE FROM Reserved WHERE id = ?", (key,))
                database.execute(ADD, (self.name, *amounts))

    def _changed(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Run an action, all of it or nothing, while no other process runs one."""
        with self._lock:
            try:
                database = self._opened()
                database.execute("BEGIN IMMEDIATE")
                try:
                    result = action(database)
                except BaseException:
                    database.execute("ROLLBACK")
                    raise
                database.execute("COMMIT")
            except (sqlite3.Error, OSError) as error:
                raise CacheError(f"{self.title} cannot be kept in {self.directory / DATABASE} ({error})") from error
            finally:
                if not self.kept_open:
                    self.close()
            return result

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and (self.directory / DATABASE).exists():
            return self._connection
        if self._connection is not None:  # somebody deleted the directory
            self._connection.close()
        self._connection, self._process = self._made(), os.getpid()
        return self._connection

    def _made(self) -> sqlite3.Connection:
        make_directory(self.directory)
        made = sqlite3.connect(
            self.directory / DATABASE, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        with alone(self.directory):  # the first to open it changes its mode, for which SQLite would not wait
            made.execute("PRAGMA journal_mode = WAL")
            for table in TABLES:
                made.execute(table)
        made.execute("PRAGMA synchronous = NORMAL")  # a killed process loses nothing committed
        return made


def is_running(process: int, since: float) -> bool:
    """Return whether the process of this machine that did something then seems to run still.

    A number is given out again (in a container, the first process always has the same): a process that began later is
    another one.

    :param process: its number.
    :param since: when it did something, in seconds since the epoch.
    """
    if process == os.getpid():
        return _begun_here(process) <= since + CLOCK_ERROR
    if os.name == "nt":  # Windows has no harmless signal to ask by
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return _begun(process) <= since + CLOCK_ERROR


@lru_cache(maxsize=1)
def _begun_here(process: int) -> float:
    """Return when this process began, asked once: most reservations are its own."""
    return _begun(process)


def _begun(process: int) -> float:
    """Return when a process began, in seconds since the epoch: 0 where only Linux would say, infinite once it ended.

    Source: proc_pid_stat(5), the fields ``state`` and ``starttime``.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    if fields[0] in (b"Z", b"X"):  # nobody asked yet how it ended
        return float("inf")
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + int(fields[19]) / os.sysconf("SC_CLK_TCK")
