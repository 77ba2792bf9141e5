"""A key → bytes store: a diskcache directory, made by diskcache, its rows read and written with one statement each.

diskcache's defaults lose data or run code, so they are off: it would evict above 1 GB (``size_limit``), cull old rows
at each write (``cull_limit``), and unpickle values and keys (CVE-2025-69872, diskcache 5.6.3). No row here names a file
or holds a pickle of diskcache's; one that does is unreadable, and its file is left alone. Statements of our own take
half the time of diskcache's methods, and one connection serves all threads, where diskcache would open one in each.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from ..errors import CacheCorruptError, CacheError
from .statements import ADD, CLEAR, COUNT, DELETE, FIND, LAST, PAGE_OF_ROWS, SET, STARTING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from .storage import Change, Row

__all__ = ["SqliteStorage"]

DATABASE = "cache.db"  # diskcache.core.DBNAME, 5.6.3
UNQUOTED = frozenset("%?#\\")  # signs that mean something in an address of SQLite's
BUSY_SECONDS = 60.0
PAGES = 8192  # of 4 KiB, kept in memory at most: diskcache.core.DEFAULT_SETTINGS["sqlite_cache_size"], 5.6.3
ANOTHER_ROW = "its index leads to the row of another key"
DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)  # the latter where SQLite quotes a damaged name

_stores: weakref.WeakSet[SqliteStorage] = weakref.WeakSet()
_forking = threading.Lock()
_held: list[SqliteStorage] = []  # while the process is being forked


class SqliteStorage:
    """Keep bytes under keys in a directory that many threads and processes share. Opens nothing until used."""

    takes_one_at_a_time = is_near = True

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        # diskcache expands variables in a path; so must whoever shares the directory with it.
        self._folder = os.path.abspath(os.path.expandvars(os.path.expanduser(directory)))
        self._database = os.path.join(self._folder, DATABASE)
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._written: tuple[int, int] | None = None  # which file the writer has open
        with _forking:  # one that came after the others were closed would be open in the child
            _stores.add(self)

    @property
    def directory(self) -> Path:
        """Return the directory."""
        from pathlib import Path  # costs 4 ms, which a look-up need not pay

        return Path(self._folder)

    place = directory

    def exists(self) -> bool:
        """Return whether there is a database."""
        return os.path.exists(self._database)

    def get(self, key: str) -> tuple[bytes, float] | None:
        """Return the bytes of a key and when they were stored (seconds since the epoch), or ``None``.

        :raises CacheCorruptError: where the database is damaged.
        """
        with self._lock:
            try:
                reader = self._reader or self._open_reader()
                found = reader.execute(FIND, (key,)).fetchone() if reader else None
            except DAMAGE as error:
                raise self._failure(error) from error
        if found is not None and found[2] != key:
            raise self._failure(sqlite3.DatabaseError(ANOTHER_ROW))
        return found and found[:2]

    def _read(self, statement: str, *values: object) -> list[Any]:
        """Return the rows that a SELECT finds, none without a database; raise CacheCorruptError for a damaged one."""
        with self._lock:
            try:
                reader = self._reader or self._open_reader()
                return reader.execute(statement, values).fetchall() if reader else []
            except DAMAGE as error:
                raise self._failure(error) from error

    def _open_reader(self) -> sqlite3.Connection | None:
        try:
            os.stat(self._database)
        except (FileNotFoundError, NotADirectoryError):
            if self.directory.exists() and not self.directory.is_dir():
                raise CacheError(self._is_a_file()) from None
            return None
        except OSError as error:  # somebody else's folder, or a link to itself
            raise self._failure(error) from error
        try:
            self._reader = self._connect("mode=ro")
        except sqlite3.OperationalError:
            # A directory that nobody may write has no room for the index of the write-ahead log.
            self._reader = self._connect("mode=ro&immutable=1")
        return self._reader

    def _is_a_file(self) -> str:
        return f"the cache path {self.directory} is a file; [Cache] PATH must name a directory"

    def _connect(self, options: str) -> sqlite3.Connection:
        path = self._database
        if not UNQUOTED.isdisjoint(path):
            from urllib.parse import quote  # costs 3 ms

            path = quote(path)
        address = f"file:{path}?{options}"
        connection = sqlite3.connect(
            address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA mmap_size = 0")  # a mapped file that is cut short kills the process (SIGBUS)
            connection.execute(f"PRAGMA cache_size = {PAGES}")
            connection.execute("SELECT 1 FROM Cache LIMIT 1")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            connection.close()
            if "no such table" in str(error):
                raise sqlite3.DatabaseError(str(error)) from error
            raise
        return connection

    def add(self, key: str, value: bytes) -> bool:
        """Store bytes under a key that has none; return whether they were stored.

        :raises OSError: where the directory cannot be written, or the disk is full.
        """
        return self._write(lambda writer: writer.execute(ADD, (key, time.time(), value)).rowcount) > 0

    def set(self, key: str, value: bytes) -> None:
        """Store bytes under a key, in place of what is there.

        :raises OSError: where the directory cannot be written, or the disk is full.
        """
        self._write(lambda writer: _stored(writer, SET, key, time.time(), value))

    def add_all(self, rows: Iterable[tuple[str, bytes, bool]], stored_at: Mapping[str, float] | None = None) -> int:
        """Store many rows (key, value, whether it replaces what is there), all or none; return how many were stored."""
        times, now = stored_at or {}, time.time()

        def store(writer: sqlite3.Connection) -> int:
            """Store all in one go."""
            return sum(
                _stored(writer, SET if replace else ADD, key, times.get(key, now), value)
                for key, value, replace in rows
            )

        return self._change(store)

    def clear(self) -> int:
        """Delete all rows, those of others included; return how many there were."""
        return self._write(lambda writer: writer.execute(CLEAR).rowcount) if self.exists() else 0

    def delete(self, keys: Iterable[str]) -> int:
        """Delete keys, all or none; return how many were there."""

        def remove(writer: sqlite3.Connection) -> int:
            """Delete all in one go."""
            return sum(writer.execute(DELETE, (key,)).rowcount for key in keys)

        return self._change(remove) if self.exists() else 0

    def rewrite(self, changes: Callable[[], Iterable[Change]]) -> int:
        """Give rows (key, new key, new value) other keys and bytes, all or none; return how many there were.

        :param changes: is called within the transaction; the reading connection goes on seeing the rows as they were.
        """
        from .databases import rewrite

        return self._change(lambda writer: rewrite(writer, changes()))

    def _change(self, action: Callable[[sqlite3.Connection], int]) -> int:
        """Run an action on the writing connection, all of it or nothing; return the number of rows that it returns."""
        from .databases import transaction

        return self._write(lambda writer: transaction(writer, action))

    def _write(self, action: Any) -> int:
        # A lock here spares SQLite's busy sleeps between the threads of one process.
        with self._write_lock:
            try:
                return int(action(self._current_writer()))
            except sqlite3.OperationalError as error:
                raise OSError(f"{self.directory}: {error}") from error
            except DAMAGE as error:
                raise self._failure(error) from error

    def _current_writer(self) -> sqlite3.Connection:
        from .databases import file_identity

        if self._writer is not None and self._written == file_identity(self._database):
            return self._writer
        with self._lock:
            self._forget()  # somebody deleted the directory: what is written to its open files is lost
        return self._open_writer()

    def _open_writer(self) -> sqlite3.Connection:
        from .databases import file_identity, make_database, remove_left

        if not self.exists():
            if self.directory.exists() and not self.directory.is_dir():
                raise NotADirectoryError(self._is_a_file())
            make_database(self.directory / DATABASE)
        remove_left(self.directory)
        self._writer = self._connect("mode=rw")
        self._writer.execute("PRAGMA synchronous = NORMAL")  # in WAL mode, a killed process loses nothing committed
        self._written = file_identity(self._database)
        return self._writer

    def page(self, after: int, size: int) -> list[Row]:
        """Return the next rows after a place, which is SQLite's number of a row; at most ``size``."""
        found = [(place, str(key), value, at) for place, key, value, at in self._read(PAGE_OF_ROWS, after, size)]
        if found and found[-1][0] <= after:  # a damaged tree would be read in circles
            raise self._failure(sqlite3.DatabaseError("its rows are out of order"))
        return found

    def last(self) -> int:
        """Return the place of the last row, or 0."""
        found = self._read(LAST)
        return (found[0][0] if found else None) or 0

    def rows(self) -> Iterator[tuple[str, bytes | None, float]]:
        """Yield key, bytes and time of every row, in the order of storing; the bytes are ``None`` where unreadable."""
        from .storage import each_row

        return each_row(self)

    def starting(self, prefix: str, limit: int) -> list[str]:
        """Return the keys that begin with a prefix, sorted, at most ``limit`` of them; found by the index."""
        return [str(key) for (key,) in self._read(STARTING, prefix, prefix + "\U0010ffff", limit)]

    def __len__(self) -> int:
        count = self._read(COUNT)
        return int(count[0][0]) if count else 0

    def size(self) -> int:
        """Return the bytes that the database takes on the disk."""
        files = (self.directory / f"{DATABASE}{suffix}" for suffix in ("", "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def close(self) -> None:
        """Close the handles; the next use opens them again."""
        with self._write_lock, self._lock:
            self._forget()

    def _forget(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    def __del__(self) -> None:
        self._forget()

    def _failure(self, error: Exception) -> CacheError:
        return CacheCorruptError(
            f"the cache database {self._database} is damaged or cannot be read ({error}); "
            f"'llmcall cache salvage NEW_FOLDER --path {self.directory}' saves what can be read"
        )


def _stored(writer: sqlite3.Connection, statement: str, *values: object) -> int:
    count = writer.execute(statement, values).rowcount
    if not count and statement is SET:
        raise sqlite3.DatabaseError(ANOTHER_ROW)
    return count


def _before_fork() -> None:
    """Leave nothing open: SQLite's handles do not survive a fork (sqlite.org, "How To Corrupt", 2.6)."""
    _forking.acquire()
    for store in list(_stores):
        store._write_lock.acquire()
        store._lock.acquire()
        store._forget()
        _held.append(store)


def _after_fork() -> None:
    while _held:
        store = _held.pop()
        store._lock.release()
        store._write_lock.release()
    _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
