"""A directory of diskcache's as a store of bytes under keys.

diskcache makes the database, and may open it beside us. Its defaults are off: it would evict above
1 GB, cull old rows at each write, and unpickle values and keys. Rows are read and written here by
statements of our own, on two connections that all threads share: diskcache would hold one open in
each thread, also over a fork, and tells a full disk from a busy one only now and then. No row of
ours names a file or holds a pickle of diskcache's; one that does is unreadable.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from contextlib import contextmanager, suppress
from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CacheCorruptError, CacheError
from ..system import around_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    # its key, its bytes (None where unreadable), and when it was stored
    Row = tuple[str, bytes | None, float]
    # Of a row to be stored: its key, its bytes, whether it replaces what is there, and when it was
    # stored (None: now).
    NewRow = tuple[str, bytes, bool, float | None]
    # Of a row that changes: its key, its key from now on, and its bytes from now on.
    Change = tuple[str, str, bytes]

    T = TypeVar("T")

# A directory of diskcache's

DATABASE = "cache.db"  # diskcache.core.DBNAME, 5.6.3
LOG = "-wal"  # what SQLite adds to the name for the write-ahead log
LAST_MADE = "Settings_size_delete"  # the last thing that diskcache makes in a new database
IGNORED = ".gitignore"
# what means something in SQLite's addresses
QUOTED = str.maketrans({sign: f"%{ord(sign):02X}" for sign in "%?#\\"})
BUSY_SECONDS = 60.0
PAGE = 500  # rows that are read at a time

# Values are cast, since those of others may be texts that cannot be decoded. raw = 1 is a key that
# is not pickled, and mode = 1 bytes as they are (diskcache.core.MODE_RAW, 5.6.3).
FIND = "SELECT CAST(value AS BLOB), store_time FROM Cache WHERE key = ? AND raw = 1"
PAGE_OF_ROWS = "SELECT rowid, key, CAST(value AS BLOB), store_time FROM Cache WHERE rowid > ? ORDER BY rowid LIMIT ?"
ROWS_BETWEEN = "SELECT key, CAST(value AS BLOB), store_time FROM Cache WHERE rowid BETWEEN ? AND ?"
ROW_AT = "SELECT key, CAST(value AS BLOB), store_time FROM Cache WHERE rowid = ?"
STARTING = "SELECT key FROM Cache WHERE key >= ? AND key < ? AND raw = 1 ORDER BY key LIMIT ?"
LAST = "SELECT max(rowid) FROM Cache"
# where the table's last page is damaged
LAST_BY_INDEX = "SELECT max(rowid) FROM Cache INDEXED BY Cache_key_raw"
INDEXED = (
    "SELECT key, rowid FROM Cache INDEXED BY Cache_key_raw WHERE key >= ? AND key < ? AND raw = 1"
)
DIGITS, SOUGHT_DIGITS = "0123456789abcdef", 3
COUNT = "SELECT value FROM Settings WHERE key = 'count'"  # kept by diskcache's triggers
ADD = (
    "INSERT OR IGNORE INTO Cache (key, raw, store_time, access_time, access_count, size, mode, filename, value) "
    "VALUES (?, 1, ?, 0, 0, 0, 1, NULL, ?)"
)
SET = ADD.replace("OR IGNORE ", "") + (
    " ON CONFLICT (key, raw) DO UPDATE SET store_time = excluded.store_time, size = 0, mode = 1, filename = NULL, "
    "value = excluded.value"
)
DELETE = "DELETE FROM Cache WHERE key = ?"
CLEAR = "DELETE FROM Cache"
BUDGETS = "CREATE TABLE IF NOT EXISTS Budgets (name TEXT PRIMARY KEY, state TEXT)"
BUDGET = "SELECT state FROM Budgets WHERE name = ?"
SET_BUDGET = "INSERT OR REPLACE INTO Budgets VALUES (?, ?)"
MOVE = "UPDATE Cache SET key = ?, value = ? WHERE key = ? AND raw = 1"

_storages: weakref.WeakSet[SqliteStorage] = weakref.WeakSet()
# Of all storages of the process: SQLite's handles do not survive a fork (sqlite.org, "How To
# Corrupt", 2.6), so none is open or in use while the process is forked.
# the garbage collector may end a stream, which asks for a price, during a look-up
_reading = threading.RLock()
# spares the threads of one process SQLite's busy sleeps; a stream may end here as well
_writing = threading.RLock()


class SqliteStorage:
    """Bytes under keys in a directory that many threads and processes share. Opens nothing until
    used.

    What is stored is there for everybody when the method returns, and stays whatever happens to the
    process. A method that reads raises ``CacheError`` where the place cannot be reached or is
    damaged; one that writes, that or an ``OSError``. Neither a look-up nor storing costs more the
    more rows there are, save by the depth of an index.
    :class:`~llmcall.cache.redis.RedisStorage` has the same methods.

    :ivar is_near: whether a look-up takes microseconds and waits for nobody, so that an event loop
        may stand still.
    :param directory: with ``~`` and variables as diskcache expands them.
    """

    is_near = True

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._open: dict[str, sqlite3.Connection] = {}  # "reader" and "writer"
        weakref.finalize(
            self, _close, self._open
        ).atexit = False  # a collector may take them before their owner
        self._written: tuple[int, int] | None = None  # which file the writer has open
        # what the files were like when they were opened in a folder that may not be written
        self._read_as: object = None
        self._folder = os.path.abspath(os.path.expandvars(os.path.expanduser(directory)))
        self._database = os.path.join(self._folder, DATABASE)
        with _reading:
            _storages.add(self)

    @property
    def place(self) -> Path:
        """Return the directory."""
        from pathlib import Path  # costs 4 ms, which a look-up need not pay

        return Path(self._folder)

    def exists(self) -> bool:
        """Return whether there is a database."""
        return os.path.exists(self._database)

    def get(self, key: str) -> tuple[bytes | None, float] | None:
        """Return the bytes of a key and when they were stored (seconds since the epoch), or
        ``None``.

        :raises CacheCorruptError: if the database is damaged.
        """
        found = self._read(FIND, key)
        return found[0] if found else None

    def rows(self) -> Iterator[Row]:
        """Yield all rows in the order of storing, by SQLite's numbers of them."""
        last = 0
        while page := self._read(PAGE_OF_ROWS, last, PAGE):
            for _, key, value, stored_at in page:
                yield str(key), value, stored_at
            if page[-1][0] <= last:  # a damaged tree would be read in circles
                raise self._damaged("its rows are out of order")
            last = page[-1][0]

    def readable_rows(self) -> Iterator[Row]:
        """Yield the rows that SQLite can give, whatever became of the others; some of them twice.

        Rows are sought by their numbers, as the table has them, and by their keys, as its index has
        them and a look-up finds them.

        :raises CacheCorruptError: if not even the beginning of the database can be read.
        """
        try:
            reader, _ = self._connect_reader(damaged=True)
        except (sqlite3.DatabaseError, OSError, UnicodeDecodeError) as error:
            raise CacheCorruptError(
                f"nothing of the cache {self.place} can be read: {error}"
            ) from error
        try:
            indexed = list(_keys_and_numbers(reader))
            numbers = [row[0] for query in (LAST, LAST_BY_INDEX) for row in _given(reader, query)]
            numbers += [number for _, number in indexed]
            # a larger number is damage: every row took more than a byte
            most = os.path.getsize(self._database)
            last = max((n for n in numbers if isinstance(n, int) and n <= most), default=0)
            for first in range(1, last + 1, PAGE):
                rows = _given(reader, ROWS_BETWEEN, first, first + PAGE - 1)
                if len(rows) < PAGE:  # some are deleted, or cannot be read with the others
                    # A search for a range steps to the row behind it, and loses the last one if
                    # that is damaged.
                    places = range(first, first + PAGE)
                    rows = [row for place in places for row in _given(reader, ROW_AT, place)]
                for key, value, stored_at in rows:
                    yield str(key), value, _time(stored_at)
            for key, _ in indexed:
                for value, stored_at in _given(reader, FIND, key):
                    yield key, value, _time(stored_at)
        finally:
            reader.close()

    def starting(self, prefix: str, limit: int) -> list[str]:
        """Return the keys that begin with a prefix, sorted, at most ``limit`` of them; found by the
        index.
        """
        return [str(key) for (key,) in self._read(STARTING, prefix, prefix + "\U0010ffff", limit)]

    def __len__(self) -> int:
        count = self._read(COUNT)
        return int(count[0][0]) if count else 0

    def size(self) -> int:
        """Return the bytes that the database takes on the disk."""
        files = (self._database + suffix for suffix in ("", LOG))
        return sum(os.path.getsize(file) for file in files if os.path.exists(file))

    def put(self, key: str, value: bytes, *, replace: bool) -> bool:
        """Store bytes under a key that has none, or in place of what is there; return whether they
        were stored.

        :raises OSError: if the directory cannot be written, or the disk is full.
        """
        with self._writer() as writer:
            return writer.execute(SET if replace else ADD, (key, time.time(), value)).rowcount > 0

    def add_all(self, rows: Iterable[NewRow]) -> int:
        """Store many rows, all or none; return how many were stored."""
        now = time.time()
        with self._transaction() as writer:
            return sum(
                writer.execute(
                    SET if replaces else ADD, (key, now if at is None else at, value)
                ).rowcount
                for key, value, replaces, at in rows
            )

    def delete(self, keys: Iterable[str]) -> int:
        """Delete keys, all or none; return how many were there."""
        if not self.exists():
            return 0
        with self._transaction() as writer:
            return sum(writer.execute(DELETE, (key,)).rowcount for key in keys)

    def clear(self) -> int:
        """Delete all rows, those of others included; return how many there were."""
        if not self.exists():
            return 0
        with self._writer() as writer:
            return writer.execute(CLEAR).rowcount

    def rewrite(self, changes: Callable[[], Iterable[Change]]) -> int:
        """Give rows (key, new key, new value) other keys and bytes, all or none; return how many
        there were.

        :param changes: is called within the transaction; the reading connection goes on seeing the
            rows as they were.
        """
        with self._transaction() as writer:
            return sum(
                writer.execute(MOVE, (new, value, key)).rowcount for key, new, value in changes()
            )

    def keep(self, name: str, change: Callable[[str | None], tuple[str | None, T]]) -> T:
        """Replace the text of a budget while nobody else does; reading one makes no database.

        :param change: takes the text, or ``None``, and returns the new one, or ``None`` if it stays,
            and a result; it may be called again.
        :returns: the result.
        """
        if not self.exists():
            text, result = change(None)
            if text is None:
                return result
        with self._transaction() as writer:
            writer.execute(BUDGETS)
            while True:
                row = writer.execute(BUDGET, (name,)).fetchone()
                text, result = change(row[0] if row else None)
                # A stream that the garbage collector ended meanwhile has settled in this transaction.
                if writer.execute(BUDGET, (name,)).fetchone() == row:
                    break
            if text is not None:
                writer.execute(SET_BUDGET, (name, text))
        return result

    def close(self) -> None:
        """Close the handles; the next use opens them again."""
        with _writing, _reading:
            _close(self._open)

    def _read(self, statement: str, *values: object) -> list[Any]:
        """Return the rows that a SELECT finds, none without a database; raise CacheCorruptError for
        a damaged one.
        """
        with _reading:
            if self._read_as is not None and self._read_as != _state(self._database):
                _close(self._open)  # somebody wrote: these files are not looked at by themselves
            try:
                reader = self._open.get("reader") or self._open_reader()
                return reader.execute(statement, values).fetchall() if reader else []
            except (
                sqlite3.DatabaseError,
                OSError,
                UnicodeDecodeError,  # SQLite quotes a damaged name
            ) as error:
                raise self._damaged(error) from error

    def _open_reader(self) -> sqlite3.Connection | None:
        self._refuse_file()
        try:
            os.stat(self._database)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:  # somebody else's folder, or a link to itself
            raise self._damaged(error) from error
        reader, made = self._connect_reader()
        if not made:  # another process is about to make it
            reader.close()
            return None
        self._open["reader"] = reader
        return reader

    def _connect_reader(self, *, damaged: bool = False) -> tuple[sqlite3.Connection, bool]:
        """Return a connection that only reads; see :meth:`_connect`."""
        self._read_as = None
        try:
            return self._connect("mode=ro", damaged=damaged)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise
        # A folder that nobody may write has no room for the index of the write-ahead log.
        self._read_as = _state(self._database)
        if not _has_records(self._database + LOG):
            return self._connect("mode=ro&immutable=1", damaged=damaged)
        return self._connect("mode=rw", damaged=damaged, database=self._copied())

    def _copied(self) -> str:
        """Return the path of a copy of the database, with its write-ahead log, where there is room."""
        import shutil
        import tempfile

        folder = tempfile.mkdtemp(prefix="llmcall-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        copy = os.path.join(folder, DATABASE)
        while True:
            for suffix in ("", LOG):
                shutil.copyfile(self._database + suffix, copy + suffix)
            now = _state(self._database)
            if now == self._read_as:  # else somebody wrote meanwhile
                return copy
            self._read_as = now

    def _connect(
        self, options: str, *, damaged: bool = False, database: str = ""
    ) -> tuple[sqlite3.Connection, bool]:
        """Return a connection, and whether the database is as diskcache makes it.

        :param damaged: whether SQLite may read a file that was cut short.
        :param database: the path of another one than the storage's own.
        """
        path = (database or self._database).translate(QUOTED)
        connection = sqlite3.connect(
            f"file:{path}?{options}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            if damaged:
                # without it, a file must be as long as it says
                connection.execute("PRAGMA writable_schema = ON")
            # a mapped file that is cut short kills the process (SIGBUS)
            connection.execute("PRAGMA mmap_size = 0")
            # KiB; by default 2,000, which 2,000 records fill
            connection.execute("PRAGMA cache_size = -4000")
            # in WAL mode a killed process loses nothing committed
            connection.execute("PRAGMA synchronous = NORMAL")
            # pages, 16 MB: a checkpoint waits for the disk
            connection.execute("PRAGMA wal_autocheckpoint = 4000")
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            if names and "Settings" not in names:
                raise sqlite3.DatabaseError("it is another program's")
        except (sqlite3.Error, UnicodeDecodeError):
            connection.close()
            raise
        return connection, LAST_MADE in names

    @contextmanager
    def _writer(self) -> Iterator[sqlite3.Connection]:
        """Give the writing connection to one thread at a time."""
        with _writing:
            try:
                writer = self._open.get("writer")
                if writer is None or self._written != _identity(self._database):
                    writer = self._open_writer()
                yield writer
            except sqlite3.OperationalError as error:
                raise OSError(f"{self.place}: {error}") from error
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                raise self._damaged(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the writing connection, while no other process writes, to what is done as a whole or
        not at all.
        """
        with self._writer() as writer:
            if (
                writer.in_transaction
            ):  # of a call in whose middle the garbage collector ends a stream
                yield writer
                return
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
            except BaseException:
                if writer.in_transaction:  # SQLite itself rolls back where the disk is full
                    writer.execute("ROLLBACK")
                raise
            writer.execute("COMMIT")

    def _open_writer(self) -> sqlite3.Connection:
        with _reading:
            # somebody deleted the directory: what is written to its open files is lost
            _close(self._open)
        self._refuse_file()
        make_directory(self._folder)
        writer, made = self._connect("mode=rwc")
        if not made:
            import diskcache

            writer.close()
            diskcache.Cache(
                self._folder, eviction_policy="none", cull_limit=0, size_limit=2**62, statistics=0
            ).close()
            writer, _ = self._connect("mode=rw")
        self._open["writer"], self._written = writer, _identity(self._database)
        return writer

    def _refuse_file(self) -> None:
        if os.path.exists(self._folder) and not os.path.isdir(self._folder):
            raise CacheError(
                f"the cache path {self._folder} is a file; [Cache] PATH must name a directory"
            )

    def _damaged(self, error: object) -> CacheError:
        return CacheCorruptError(
            f"the cache database {self._database} is damaged or cannot be read ({error}); "
            f"'llmcall cache salvage NEW_FOLDER --path {self._folder}' saves what can be read"
        )


def _close(connections: dict[str, sqlite3.Connection]) -> None:
    while connections:
        connections.popitem()[1].close()


def _keys_and_numbers(reader: sqlite3.Connection) -> Iterator[tuple[str, int]]:
    """Yield the keys that the table's index has, and the numbers of their rows.

    They are sought by their first digits: what is damaged hides only its neighbours.
    """
    for digits in product(DIGITS, repeat=SOUGHT_DIGITS):
        prefix = "".join(digits)
        for key, number in _given(reader, INDEXED, prefix, prefix + "g"):
            if isinstance(key, str):
                yield key, number


def _time(stored_at: object) -> float:
    return stored_at if isinstance(stored_at, float) else 0.0


def _given(reader: sqlite3.Connection, query: str, *values: int | str) -> list[Any]:
    """Return the rows that a query finds before SQLite fails to read further."""
    rows = []
    with suppress(sqlite3.DatabaseError, UnicodeDecodeError):
        for row in reader.execute(query, values):
            rows.append(row)
    return rows


def _has_records(log: str) -> bool:
    return os.path.exists(log) and os.path.getsize(log) > 0


def _state(database: str) -> object:
    """Return what changes whenever somebody writes a database, its log included."""
    found: list[object] = []
    for suffix in ("", LOG):
        try:
            file = os.stat(database + suffix)
        except FileNotFoundError:
            found.append(None)
        else:
            found.append((file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns))
    return found


def _identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from one that was put in its place; ``None`` where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def make_directory(directory: str | os.PathLike[str]) -> None:
    """Make a cache's directory where there is none; one that is new or empty becomes private and is
    left out of git.

    :raises OSError: where that is not possible.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    ignored = os.path.join(directory, IGNORED)
    if set(os.listdir(directory)) <= {IGNORED} and not (
        os.path.exists(ignored) and os.path.getsize(ignored)
    ):
        os.chmod(directory, 0o700)
        with open(ignored, "w", encoding="utf-8") as file:
            file.write("*\n")


def _before_fork() -> None:
    _writing.acquire()
    _reading.acquire()
    for storage in list(_storages):
        _close(storage._open)


def _after_fork() -> None:
    _reading.release()
    _writing.release()


around_fork(_before_fork, _after_fork)
