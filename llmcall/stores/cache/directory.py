"""A cache in a diskcache directory, which threads and processes of one machine share."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from ...errors import CacheCorruptError, CacheError
from ...support.system import ProcessLock, has_no_file_left, unwatched
from ...support.waits import NotAtOnceError, is_at_once
from .forks import using_database
from .storages import Change, Row, Storage, Stored

if TYPE_CHECKING:
    from .database import Database

DATABASE = "cache.db"  # diskcache.core.DBNAME
LONGEST_GAP = 20_000  # missing row numbers after which a salvage stops looking
# The errors of reading a damaged database: SQLite's message may quote a damaged name.
DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)
NO_FILES = (
    "this process can open no more files: use fewer workers, or raise the limit ('ulimit -n 4096')"
)
_NUMBERED_ROW = "SELECT key, CAST(value AS BLOB), store_time FROM Cache WHERE rowid = ?"
_KEYS = "SELECT key FROM Cache INDEXED BY Cache_key_raw"

_lock = ProcessLock()


class Directory(Storage):
    """Bytes under keys in a directory. The first use opens it; the first store creates it.

    When a method that stores returns, every process can read the bytes, and a crash of this one does not
    lose them. A look-up takes microseconds, so an event loop does it itself.

    :ivar name: the directory, absolute.
    :ivar outlives_system: ``False`` if its rows need not outlive a crash of the operating system: then nothing waits
        for the disk.
    :param path: may contain ``~`` and variables.
    """

    is_on_server = False

    @unwatched()
    def __init__(self, path: str) -> None:
        self.name = os.path.abspath(os.path.expandvars(os.path.expanduser(path)))
        self.outlives_system = True
        self._file = os.path.join(self.name, DATABASE)
        self._database: Database | None = None
        self._is_half_made = False  # the disk was full before the database was whole

    def exists(self) -> bool:
        """Return whether the database exists."""
        return os.path.exists(self._file)

    def get(self, key: str) -> Stored | None:
        """Return the bytes of a key and when they were stored, in seconds since the epoch. Return ``None``
        without the key, or if llmcall did not write them.

        :raises CacheCorruptError: if the database is damaged.
        :raises CacheError: if it cannot be opened.
        """
        try:
            database = self._database
            if database is None:  # not "or": the truth value of a database is a query
                with using_database:
                    database = self._ensure_open()
            return None if database is None else database.row(key)
        except DAMAGE as error:
            raise self._damaged(error) from error

    def rows(self) -> Iterator[Row]:
        """Yield all rows in the order of storing, read a page at a time."""
        with self._reading() as database:
            rows = () if database is None else database.rows()
        try:
            yield from rows
        except DAMAGE as error:
            raise self._damaged(error) from error

    def readable_rows(self) -> Iterator[Row]:
        """Yield the rows that SQLite can still read, some of them twice.

        :raises CacheCorruptError: if not even the beginning of the database can be read.
        """
        try:
            yield from _readable_rows(self._file)
        except DAMAGE as error:
            raise CacheCorruptError(
                f"nothing in the cache {self.name} can be read: {error}"
            ) from error

    def __len__(self) -> int:
        with self._reading() as database:
            return 0 if database is None else len(database)

    def size(self) -> int:
        """Return the bytes that the database takes on the disk."""
        with self._reading() as database:
            return 0 if database is None else int(database.volume())

    def put(self, key: str, value: bytes, *, replaces: bool = False) -> bool:
        """Store bytes under a key; return whether they were stored.

        :param replaces: ``True`` if they replace the key's bytes.
        :raises OSError: if the directory cannot be written, or the disk is full.
        :raises NotAtOnceError: if that would take a wait, and the code that runs may not wait.
        """
        is_short = is_at_once()
        if is_short and self._database is None:
            raise NotAtOnceError
        with self._writing() as database, database.at_once() if is_short else nullcontext():
            return database.put(key, value, replaces)

    def write(self, changes: Iterable[Change]) -> int:
        """Store and delete rows in one transaction; return how many changed.

        :param changes: may read the rows while they are written.
        :raises OSError: if the directory cannot be written, or the disk is full.
        """
        with self._writing() as database, database.transact():
            return sum(database.put(*change) for change in changes)

    def clear(self) -> int:
        """Delete all rows; return how many there were."""
        if not self.exists():
            return 0
        with self._writing() as database:
            return int(database.clear())

    def close(self) -> None:
        """Close this thread's connection, and forget the others; the next use opens the database again."""
        database, self._database = self._database, None
        if database is not None:
            with using_database:
                database.close()

    def _ensure_open(self, *, create: bool = False) -> Database | None:
        """Open the database at the first use, and return it; ``None`` if it does not exist."""
        with _lock:
            if self._database is None:
                if os.path.isfile(self.name):
                    raise CacheError(
                        f"the cache path {self.name} is a file; [Cache] PATH must name a directory"
                    )
                if create:
                    _make_private(self.name)
                exists = self.exists() and not self._is_half_made
                if create or exists:
                    self._is_half_made = not exists
                    self._database = self._open()
                    self._is_half_made = False
            return self._database

    def _open(self) -> Database:
        from .database import Database  # imports diskcache

        try:
            return Database(self.name, synchronous=self.outlives_system)
        except sqlite3.OperationalError as error:
            if has_no_file_left():
                raise self._damaged(error) from error
            raise CacheError(
                f"the cache {self.name} cannot be opened ({error}): SQLite writes to its folder even when it "
                "reads. If the disk is full, make room. With read-only access, ask someone with write access to run "
                f"'llmcall cache --path {self.name} export FILE.jsonl', and use that file as a cassette"
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    @contextmanager
    def _reading(self) -> Iterator[Database | None]:
        try:
            with using_database:
                yield self._ensure_open()
        except DAMAGE as error:
            raise self._damaged(error) from error

    @contextmanager
    def _writing(self) -> Iterator[Database]:
        if self._database is not None and not self.exists():
            self.close()  # the folder was deleted, as one does beside a notebook
        with using_database:
            database = self._ensure_open(create=True)
            assert database is not None
            try:
                yield database
            except database.write_errors as error:
                database.close()  # a transaction that failed to end is still open
                # If SQLite ended the transaction itself, diskcache's own end fails, and the reason is the
                # context. Any other context is an error that the program is handling.
                context = error.__context__
                reason: object = context if isinstance(context, sqlite3.Error) else error
                if has_no_file_left():
                    reason = f"{reason}; {NO_FILES}"
                raise OSError(f"{self.name}: {reason}") from error
            except sqlite3.DatabaseError as error:
                raise self._damaged(error) from error

    def _damaged(self, error: object) -> CacheError:
        if has_no_file_left():
            return CacheError(f"the cache {self.name} cannot be read ({error}): {NO_FILES}")
        return CacheCorruptError(
            f"the cache database {self._file} is damaged ({error}); run 'llmcall cache --path {self.name} salvage "
            "NEW_FOLDER', which copies what can be read, and set PATH = NEW_FOLDER in [Cache]"
        )


def _make_private(folder: str) -> None:
    """Make a cache's folder; a new or empty one becomes private and ignored by git."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if not os.listdir(folder):
        os.chmod(folder, 0o700)
        with open(os.path.join(folder, ".gitignore"), "w", encoding="utf-8") as file:
            file.write("*\n")


def _readable_rows(file: str) -> Iterator[tuple[str, bytes | None, float]]:
    """Yield the rows that SQLite can still read in a damaged database, number by number."""
    from .database import ROW

    connection = sqlite3.connect(file, isolation_level=None)
    try:
        connection.execute("PRAGMA writable_schema = ON")  # lets SQLite open a file cut short
        connection.execute("SELECT key, value, store_time FROM Cache LIMIT 0")
        number = last = 0
        while number - last < LONGEST_GAP:
            number += 1
            with suppress(*DAMAGE):
                for key, value, stored_at in connection.execute(_NUMBERED_ROW, (number,)):
                    last = number
                    yield str(key), value, stored_at if isinstance(stored_at, float) else 0.0
        # A row whose key is damaged may be intact under the key in the index.
        keys: list[str] = []
        with suppress(*DAMAGE):
            keys.extend(str(key) for (key,) in connection.execute(_KEYS))
        for key in keys:
            with suppress(*DAMAGE):
                for value, stored_at in connection.execute(ROW, (key,)):
                    yield key, value, stored_at if isinstance(stored_at, float) else 0.0
    finally:
        connection.close()
