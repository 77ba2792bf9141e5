"""diskcache, restricted to bytes and without eviction.

By default it unpickles what it finds in a directory (CVE-2025-69872), writes long values to separate
files, and evicts the oldest entries above 1 GB.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager

from ...errors import ConfigError
from ...support.libraries import diskcache
from ...support.system import this_process
from ...support.waits import NotAtOnceError
from .forks import using_database

# Settings that each program which opens a directory with limits of its own leaves there.
LIMITS = ("eviction_policy", "cull_limit", "size_limit")
_LIMITS = "SELECT key, value FROM Settings WHERE key IN (?, ?, ?)"
PAGE = 100  # rows that are read at a time
SETTINGS = {
    "eviction_policy": "none",
    "cull_limit": 0,
    "size_limit": 2**62,
    "statistics": 0,
    "sqlite_mmap_size": 0,  # a mapped file that is cut short kills the process (SIGBUS)
    "sqlite_cache_size": -4000,  # KiB, for each thread
}

# Another program may have stored a text here, even one that cannot be decoded.
ROW = "SELECT CAST(value AS BLOB), store_time FROM Cache WHERE key = ? AND raw = 1"
_ROWS = (
    "SELECT rowid, key, CAST(value AS BLOB), store_time FROM Cache "
    "WHERE rowid > ? ORDER BY rowid LIMIT ?"
)
# One statement each. diskcache's add and set take four, and between them another thread may hold
# Python's lock while this one holds SQLite's.
_ADD = (
    "INSERT INTO Cache (key, raw, store_time, access_time, mode, value) VALUES (?, 1, ?, ?, ?, ?) "
    "ON CONFLICT (key, raw) DO NOTHING"
)
# A row that plain diskcache wrote may have an expiry, and diskcache's delete skips expired rows.
_REPLACE = _ADD.replace(
    "NOTHING",
    "UPDATE SET store_time = excluded.store_time, expire_time = NULL, value = excluded.value",
)


class BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """A disk that keeps bytes and whole numbers in the database, under text keys, and reads no pickle."""

    def put(self, key: str) -> tuple[str, bool]:
        """Return a key as the database stores it."""
        return key, True

    def get(self, key: object, raw: bool) -> str:
        """Return a key as text; another program's key may be something else."""
        return str(key)

    def store(self, value: bytes, read: bool, key: object = None) -> tuple[int, int, None, bytes]:
        """Return a value as the database stores it."""
        return 0, diskcache.core.MODE_RAW, None, value

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> bytes:
        """Return a value; another program's value that is not bytes counts as empty."""
        return value if isinstance(value, bytes) else b""


class Database(diskcache.Cache):  # type: ignore[misc]
    """A diskcache directory, with new connections in a forked process.

    A thread that only looks up has no connection of its own, since opening one takes as long as fifty
    look-ups, and each map starts new threads.
    """

    write_errors = (sqlite3.OperationalError, diskcache.Timeout)

    def __init__(self, folder: str, *, synchronous: bool = True) -> None:
        self._closers: weakref.WeakSet[_Closer] = weakref.WeakSet()
        self._reader: _Closer | None = None  # for look-ups of threads without one
        _check_limits(folder)
        settings = {**SETTINGS, "sqlite_synchronous": int(synchronous)}
        known = {**diskcache.DEFAULT_SETTINGS, **settings}
        self._pragmas = {name: known[name] for name in known if name.startswith("sqlite_")}
        super().__init__(folder, disk=BytesDisk, **settings)
        using_database.databases.add(self)

    @property
    def _con(self) -> sqlite3.Connection:
        local = self._local
        if getattr(local, "con", None) is None or local.pid != this_process():
            local.closer = self._connect()
            local.con, local.pid = local.closer.connection, this_process()
            for name, value in self._pragmas.items():
                self.reset(name, value, update=False)
        connection: sqlite3.Connection = local.con
        return connection

    def _connect(self) -> _Closer:
        """Connect as diskcache does, but any thread may use or close the connection: a forked process closes all."""
        closer = _Closer(
            sqlite3.connect(
                os.path.join(self._directory, diskcache.core.DBNAME),
                timeout=self._timeout,
                isolation_level=None,
                check_same_thread=False,
            )
        )
        self._closers.add(closer)
        return closer

    def close_all(self) -> None:
        """Close the connections of all threads, which a forked process inherited."""
        for closer in list(self._closers):
            closer.connection.close()
        self._reader = None

    def close(self) -> None:
        """Close this thread's connection, and the one for look-ups."""
        super().close()
        with using_database.lock:
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.connection.close()

    def row(self, key: str) -> tuple[bytes | None, float] | None:
        """Return the bytes of a key and their time of storing, which diskcache's own methods omit."""
        row: tuple[bytes | None, float] | None
        with using_database.lock:
            if hasattr(self._local, "con"):  # it may be in a transaction
                row = self._con.execute(ROW, (key,)).fetchone()
                return row
            reader = self._reader
            if reader is None:
                reader = self._reader = self._connect()
                for name in ("sqlite_mmap_size", "sqlite_cache_size"):
                    reader.connection.execute(
                        f"PRAGMA {name.removeprefix('sqlite_')} = {SETTINGS[name]}"
                    )
            row = reader.connection.execute(ROW, (key,)).fetchone()
        return row

    def rows(self) -> Iterator[tuple[str, bytes | None, float]]:
        """Yield all rows in the order of storing.

        :raises sqlite3.DatabaseError: if a damaged tree leads in circles.
        """
        last = 0
        while True:
            with using_database:
                page = self._sql(_ROWS, (last, PAGE)).fetchall()
            if not page:
                return
            for number, key, value, stored_at in page:
                if number <= last:
                    raise sqlite3.DatabaseError("its rows are out of order")
                last = number
                yield str(key), value, stored_at

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise an error in a block where this thread would else wait for another writer.

        :raises NotAtOnceError: instead of a wait.
        """
        connection = self._con
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            yield
        except sqlite3.OperationalError as error:
            if str(error) != "database is locked":
                raise
            raise NotAtOnceError from None
        finally:
            connection.execute(f"PRAGMA busy_timeout = {round(self._timeout * 1000)}")

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


def _check_limits(folder: str) -> None:
    """Refuse a directory in which another program keeps limits: it evicts rows when it reopens the directory,
    and opening it here would end the limits.

    :raises ConfigError: if it is one.
    """
    file = os.path.join(folder, diskcache.core.DBNAME)
    if not os.path.exists(file):
        return
    with closing(sqlite3.connect(file)) as connection:
        try:
            limits = dict(connection.execute(_LIMITS, LIMITS))
        except sqlite3.OperationalError:  # the database is being made
            return
    others = [f"{name} {value}" for name, value in limits.items() if value != SETTINGS[name]]
    if others:
        raise ConfigError(
            f"[Cache] PATH: {folder} is a directory of another program that uses diskcache ({', '.join(others)}), "
            "which may evict answers. Name another directory. If it has answers of llmcall, 'llmcall cache --path "
            f"{folder} salvage NEW_FOLDER' copies them"
        )


class _Closer:
    """A guard that closes a connection when its thread ends; Python 3.13 and newer warn of one left open."""

    # This is a trick: __del__ finds both on the class, because a worker process that ends may have cleared
    # the module's names already.
    _gate = using_database
    _is_exiting = staticmethod(sys.is_finalizing)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        # At exit, a daemon thread that was stopped in a look-up keeps the gate's lock.
        if self._is_exiting():
            self.connection.close()
        else:
            with self._gate:
                self.connection.close()
