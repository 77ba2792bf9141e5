"""diskcache, set up so that it takes and gives bytes only, and evicts nothing.

By default it would unpickle what lies in a directory, which is what CVE-2025-69872 is about, write long
values to files of their own, and drop the oldest above 1 GB.
"""

from __future__ import annotations

import os
import sqlite3
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...support.libraries import diskcache
from .forks import using_database

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = 100  # rows that are read at a time
SETTINGS = {
    "eviction_policy": "none",
    "cull_limit": 0,
    "size_limit": 2**62,
    "statistics": 0,
    "sqlite_mmap_size": 0,  # a mapped file that is cut short kills the process (SIGBUS)
    "sqlite_cache_size": -4000,  # KiB, for each thread
}
WRITE_ERRORS = (sqlite3.OperationalError, diskcache.Timeout)

# Others may have stored a text, even one that cannot be decoded, where bytes belong.
ROW = "SELECT CAST(value AS BLOB), store_time FROM Cache WHERE key = ? AND raw = 1"
_ROWS = (
    "SELECT rowid, key, CAST(value AS BLOB), store_time FROM Cache "
    "WHERE rowid > ? ORDER BY rowid LIMIT ?"
)
# A statement of its own each: diskcache's add and set take four, between which another thread may get
# Python's lock while this one has SQLite's.
_ADD = (
    "INSERT INTO Cache (key, raw, store_time, access_time, mode, value) VALUES (?, 1, ?, ?, ?, ?) "
    "ON CONFLICT (key, raw) DO NOTHING"
)
# A row of plain diskcache's may have expired, and diskcache deletes none that has.
_REPLACE = _ADD.replace(
    "NOTHING",
    "UPDATE SET store_time = excluded.store_time, expire_time = NULL, value = excluded.value",
)


class BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """Keeps bytes and whole numbers in the database, under text keys, and reads no pickle."""

    def put(self, key: str) -> tuple[str, bool]:
        """Return what the database holds of a key."""
        return key, True

    def get(self, key: object, raw: bool) -> str:
        """Return a key; one that somebody else stored may be no text."""
        return str(key)

    def store(self, value: Any, read: bool, key: object = None) -> tuple[int, int, None, Any]:
        """Return what the database holds of a value."""
        return 0, diskcache.core.MODE_RAW, None, value

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> bytes:
        """Return a value; what somebody else stored may be none."""
        return value if isinstance(value, bytes) else b""


class Database(diskcache.Cache):  # type: ignore[misc]
    """A diskcache directory. It has a connection for each thread, and new ones in a forked process."""

    def __init__(self, folder: str) -> None:
        self._closers: weakref.WeakSet[_Closer] = weakref.WeakSet()
        try:
            super().__init__(folder, disk=BytesDisk, **SETTINGS)
        except BaseException:
            self.close()
            raise
        using_database.databases.add(self)

    @property
    def _con(self) -> sqlite3.Connection:
        local = self._local
        if getattr(local, "con", None) is None or local.pid != os.getpid():
            # as diskcache makes it, but any thread may close it: a forked process closes all
            local.con = sqlite3.connect(
                os.path.join(self._directory, diskcache.core.DBNAME),
                timeout=self._timeout,
                isolation_level=None,
                check_same_thread=False,
            )
            local.pid, local.closer = os.getpid(), _Closer(local.con)
            self._closers.add(local.closer)
            try:
                for name, value in self._connection_settings(local.con):
                    self.reset(name, value, update=False)
            except sqlite3.Error:
                self.close()
                raise
        connection: sqlite3.Connection = local.con
        return connection

    @staticmethod
    def _connection_settings(connection: sqlite3.Connection) -> list[Any]:
        try:
            rows = connection.execute("SELECT key, value FROM Settings").fetchall()
        except sqlite3.OperationalError:  # the database is being made
            return []
        return [row for row in rows if row[0].startswith("sqlite_")]

    def close_all(self) -> None:
        """Close the connections of all threads, in a forked process that inherited them."""
        for closer in list(self._closers):
            closer.connection.close()

    def row(self, key: str) -> tuple[bytes | None, float] | None:
        """Return the bytes of a key and when they were stored, which diskcache does not say."""
        row: tuple[bytes | None, float] | None = self._sql(ROW, (key,)).fetchone()
        return row

    def rows(self) -> Iterator[tuple[str, bytes | None, float]]:
        """Yield all rows in the order of storing.

        :raises sqlite3.DatabaseError: if a damaged tree leads in circles.
        """
        last = 0
        while page := self._page(last):
            for number, key, value, stored_at in page:
                if number <= last:
                    raise sqlite3.DatabaseError("its rows are out of order")
                last = number
                yield str(key), value, stored_at

    def _page(self, last: int) -> list[Any]:
        with using_database:
            rows: list[Any] = self._sql(_ROWS, (last, PAGE)).fetchall()
        return rows

    def put(
        self, key: str, value: bytes | None, replaces: bool, stored_at: float | None = None
    ) -> bool:
        """Store or delete a row; return whether that changed anything."""
        if value is None:
            return bool(self.delete(key))
        if stored_at is None:
            stored_at = time.time()
        row = (key, stored_at, stored_at, diskcache.core.MODE_RAW, value)
        return bool(self._sql(_REPLACE if replaces else _ADD, row).rowcount)


class _Closer:
    """Closes a connection when its thread ends: from Python 3.13 on, one left open is warned of."""

    # Kept here: when a pool's worker ends, the names of its modules are gone before its connection.
    _unless_forgotten = suppress(sqlite3.ProgrammingError)  # by another thread
    _gate = using_database

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def __del__(self) -> None:
        with self._unless_forgotten, self._gate:
            self.connection.close()
