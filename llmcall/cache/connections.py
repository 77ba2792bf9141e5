"""SQLite's connections to the database of one cache: a few that read, and one that writes.

SQLite's handles do not survive a fork (sqlite.org, "How To Corrupt", 2.6), so all are closed, and none
is in use, while the process forks.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import CacheError
from ..system import around_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

DATABASE = "cache.db"  # diskcache.core.DBNAME, 5.6.3
LOG = "-wal"  # what SQLite adds to the name for the write-ahead log
LAST_TRIGGER = "Settings_size_delete"  # the last thing that diskcache makes in a new database
GITIGNORE = ".gitignore"
# The characters that mean something in SQLite's addresses.
ESCAPES = str.maketrans({sign: f"%{ord(sign):02X}" for sign in "%?#\\"})
BUSY_SECONDS = 60.0
# Connections that read, for each cache. Python's sqlite3 gives up the interpreter's lock around each of
# SQLite's functions, and the more threads then compete for that lock, the slower each of them becomes.
# So only two threads read at once, and others wait for a reader, which costs less. With one reader, two
# threads already wait for each other. "python -m benchmarks -c threads" measures this.
HAS_INTERPRETER_LOCK = getattr(sys, "_is_gil_enabled", lambda: True)()
READERS = 2 if HAS_INTERPRETER_LOCK else 8
# A look-up takes microseconds. A fork waits no longer than this for one that does not end.
FORK_SECONDS = 1.0

PRAGMAS = (
    "PRAGMA mmap_size = 0",  # a mapped file that is cut short kills the process (SIGBUS)
    "PRAGMA cache_size = -4000",  # KiB; by default 2,000, which 2,000 records fill
    "PRAGMA synchronous = NORMAL",  # in WAL mode a killed process loses nothing committed
    "PRAGMA wal_autocheckpoint = 4000",  # pages, 16 MB: a checkpoint waits for the disk
)


class Connections:
    """The connections of this process to the database in a folder; opens none until used.

    :ivar folder: the cache's directory, absolute.
    :ivar database: the path of its database.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.database = os.path.join(folder, DATABASE)
        self.readers = tuple(Reader(self.database) for _ in range(READERS))
        self.writer = Writer(folder, self.database)
        # Not at exit, since what runs then may still read and write.
        weakref.finalize(self, _close_all, self.readers, self.writer).atexit = False
        with _registry_lock:
            _all_connections.add(self)

    def read(self, statement: str, values: Sequence[object]) -> list[Any]:
        """Return the rows that a SELECT finds; none if there is no database.

        :raises sqlite3.DatabaseError, OSError, CacheError: as :meth:`Reader.connected` does.
        """
        reader = self._free_reader()
        try:
            connection = reader.connected()
            return [] if connection is None else connection.execute(statement, values).fetchall()
        finally:
            reader.lock.release()

    def _free_reader(self) -> Reader:
        """Return a reader that no other thread uses, locked; wait for the last one if all are busy."""
        for reader in self.readers:
            if reader.lock.acquire(blocking=False):
                return reader
        last_reader = self.readers[-1]
        last_reader.lock.acquire()
        return last_reader

    @property
    def write_lock(self) -> AbstractContextManager[object]:
        """Return the re-entrant lock of the thread that writes."""
        return _write_lock

    @property
    def in_transaction(self) -> bool:
        """Return whether the thread that writes is in the middle of a transaction."""
        return self.writer.in_transaction

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection that writes; one thread of the process at a time has it."""
        with _write_lock:
            connection = self.writer.connection()
            if connection is None:
                # Somebody may have deleted the directory: open files are no longer the database.
                for reader in self.readers:
                    reader.is_stale = True
                connection = self.writer.open()
            yield connection

    def close(self) -> None:
        """Close all connections; the next use opens them again."""
        _close_all(self.readers, self.writer)


def _close_all(readers: Iterable[Reader], writer: Writer) -> None:
    """Close connections; the writer last, which moves the write-ahead log into the database."""
    for reader in readers:
        with reader.lock:
            reader.close()
    with _write_lock:
        writer.close()


class Handle:
    """A connection that is open or not."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the connection, if it is open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Reader(Handle):
    """A connection that only reads, and the lock of the thread that uses it.

    :ivar lock: is re-entrant: the garbage collector may end a stream, which looks up a price, during a
        look-up.
    :ivar is_stale: whether the connection must be opened again before it is used.
    :param may_be_damaged: whether SQLite may read a file that was cut short.
    """

    def __init__(self, database: str, *, may_be_damaged: bool = False) -> None:
        super().__init__()
        self.lock = threading.RLock()
        self.is_stale = False
        self._database = database
        self._may_be_damaged = may_be_damaged
        # what the files were like when they were opened in a folder that nobody may write
        self._state_when_opened: object = None
        self._remove_copy: Callable[[], object] | None = None

    def close(self) -> None:
        """Close the connection, if it is open, and remove the copy that it read, if there is one."""
        super().close()
        if self._remove_copy is not None:
            self._remove_copy()
            self._remove_copy = None

    def connected(self) -> sqlite3.Connection | None:
        """Return the connection, opened if need be; ``None`` if there is no database.

        :raises sqlite3.DatabaseError: if the database is damaged, or another program's.
        :raises OSError: if it cannot be reached.
        :raises CacheError: if its folder is a file.
        """
        if self.is_stale or self._has_changed():
            self.close()
            self.is_stale = False
        if self._connection is None:
            self._connect()
        return self._connection

    def _has_changed(self) -> bool:
        """Return whether somebody wrote files that SQLite takes for unchanging ones."""
        return self._state_when_opened is not None and self._state_when_opened != _state(
            self._database
        )

    def _connect(self) -> None:
        _refuse_file(os.path.dirname(self._database))
        try:
            os.stat(self._database)
        except (FileNotFoundError, NotADirectoryError):
            return
        connection = self._open()
        if self._may_be_damaged or LAST_TRIGGER in _names(connection):
            self._connection = connection
        else:  # another process is about to make it
            connection.close()

    def _open(self) -> sqlite3.Connection:
        self._state_when_opened = None
        try:
            return connect(self._database, "mode=ro", may_be_damaged=self._may_be_damaged)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise
        # A folder that nobody may write has no room for the index of the write-ahead log.
        self._state_when_opened = _state(self._database)
        log = self._database + LOG
        if os.path.exists(log) and os.path.getsize(log) > 0:
            return connect(self._copy(), "mode=rw", may_be_damaged=self._may_be_damaged)
        return connect(self._database, "mode=ro&immutable=1", may_be_damaged=self._may_be_damaged)

    def _copy(self) -> str:
        """Return the path of a copy of the database and its write-ahead log, in a folder that can be
        written.
        """
        import shutil
        import tempfile

        folder = tempfile.mkdtemp(prefix="llmcall-")
        self._remove_copy = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        copy = os.path.join(folder, DATABASE)
        while True:
            for suffix in ("", LOG):
                shutil.copyfile(self._database + suffix, copy + suffix)
            state = _state(self._database)
            if state == self._state_when_opened:
                return copy
            self._state_when_opened = state  # somebody wrote meanwhile


class Writer(Handle):
    """The connection that writes."""

    def __init__(self, folder: str, database: str) -> None:
        super().__init__()
        self._folder = folder
        self._database = database
        self._file: tuple[int, int] | None = None  # the one that is open

    def connection(self) -> sqlite3.Connection | None:
        """Return the connection if it is open and its file is still the database, else ``None``."""
        if self._connection is None or self._file != _identity(self._database):
            return None
        return self._connection

    @property
    def in_transaction(self) -> bool:
        """Return whether a transaction has begun."""
        return self._connection is not None and self._connection.in_transaction

    def open(self) -> sqlite3.Connection:
        """Open the database, made if there is none, and return the connection.

        :raises OSError: if the directory cannot be written.
        """
        self.close()
        _refuse_file(self._folder)
        make_directory(self._folder)
        connection = connect(self._database, "mode=rwc")
        if LAST_TRIGGER not in _names(connection):
            connection.close()
            _make_database(self._folder)
            connection = connect(self._database, "mode=rw")
        self._connection = connection
        self._file = _identity(self._database)
        return connection


def connect(database: str, options: str, *, may_be_damaged: bool = False) -> sqlite3.Connection:
    """Return a connection to a database.

    :param options: of SQLite's address, such as ``mode=ro``.
    :param may_be_damaged: whether SQLite may read a file that was cut short.
    :raises sqlite3.DatabaseError: if it is damaged, or another program's.
    """
    connection = sqlite3.connect(
        f"file:{database.translate(ESCAPES)}?{options}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        if may_be_damaged:
            # without it, a file must be as long as it says
            connection.execute("PRAGMA writable_schema = ON")
        for pragma in PRAGMAS:
            connection.execute(pragma)
        names = _names(connection)
        if names and "Settings" not in names:
            raise sqlite3.DatabaseError("it is another program's")
    except (sqlite3.Error, UnicodeDecodeError):
        connection.close()
        raise
    return connection


def make_directory(directory: str | os.PathLike[str]) -> None:
    """Make a cache's directory if there is none; a new or empty one becomes private, and git ignores
    it.

    :raises OSError: if that is not possible.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    gitignore = os.path.join(directory, GITIGNORE)
    has_gitignore = os.path.exists(gitignore) and os.path.getsize(gitignore) > 0
    if has_gitignore or not set(os.listdir(directory)) <= {GITIGNORE}:
        return
    os.chmod(directory, 0o700)
    with open(gitignore, "w", encoding="utf-8") as file:
        file.write("*\n")


def _make_database(folder: str) -> None:
    import diskcache

    diskcache.Cache(
        folder, eviction_policy="none", cull_limit=0, size_limit=2**62, statistics=0
    ).close()


def _names(connection: sqlite3.Connection) -> set[str]:
    """Return the names of a database's tables, indexes and triggers."""
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def _refuse_file(folder: str) -> None:
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise CacheError(f"the cache path {folder} is a file; [Cache] PATH must name a directory")


def _state(database: str) -> object:
    """Return what changes whenever somebody writes a database or its log."""
    files: list[object] = []
    for suffix in ("", LOG):
        try:
            file = os.stat(database + suffix)
        except FileNotFoundError:
            files.append(None)
        else:
            files.append((file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns))
    return files


def _identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from another in its place; ``None`` if there is none."""
    try:
        file = os.stat(path)
    except FileNotFoundError:
        return None
    return file.st_dev, file.st_ino


_all_connections: weakref.WeakSet[Connections] = weakref.WeakSet()
_registry_lock = threading.RLock()
# Spares the threads of one process SQLite's busy sleeps. Re-entrant, since a stream may end while its
# thread writes.
_write_lock = threading.RLock()
_locked_for_fork: list[threading.RLock] = []


def _before_fork() -> None:
    for lock in (_write_lock, _registry_lock):
        lock.acquire()
        _locked_for_fork.append(lock)
    for connections in list(_all_connections):
        for reader in connections.readers:
            if reader.lock.acquire(timeout=FORK_SECONDS):
                _locked_for_fork.append(reader.lock)
                reader.close()
        connections.writer.close()


def _after_fork() -> None:
    while _locked_for_fork:
        _locked_for_fork.pop().release()


around_fork(_before_fork, _after_fork)
