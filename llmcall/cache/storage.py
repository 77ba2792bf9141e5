"""A diskcache directory as a store of bytes under keys.

diskcache makes the database, and other programs may open it with diskcache. Its defaults are off: it
would evict above 1 GB, cull old rows at each write, and unpickle values and keys. Rows are read and
written here by statements of our own: diskcache would keep a connection open in each thread, also
over a fork, and it does not tell a full disk from a busy one. None of our rows names a file or holds
one of diskcache's pickles; a row that does is unreadable.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CacheCorruptError, CacheError
from . import statements
from .connections import LOG, Connections
from .damaged_rows import readable_rows
from .group_commit import GroupCommit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    # its key, its bytes (None if unreadable), and when it was stored
    Row = tuple[str, bytes | None, float]
    # Of a row to be stored: its key, its bytes, whether it replaces what is there, and when it was
    # stored (None: now).
    NewRow = tuple[str, bytes, bool, float | None]
    # Of a row that changes: its key, its key from now on, and its bytes from now on.
    Change = tuple[str, str, bytes]

    T = TypeVar("T")

PAGE = 500  # rows that are read at a time


class SqliteStorage:
    """Store bytes under keys in a directory that many threads and processes share. The first use
    opens it.

    Once a method that stores returns, everybody can read the bytes, and a crash of the process does
    not lose them. Methods raise ``CacheError`` if the directory cannot be reached or is damaged;
    those that write may also raise ``OSError``. The number of rows hardly affects the time for
    reading or storing one. :class:`~llmcall.cache.redis.RedisStorage` has the same methods.

    :ivar is_on_server: whether a look-up waits for a server, as an event loop must not. Here it takes
        microseconds.
    :param directory: with ``~`` and variables as diskcache expands them.
    """

    is_on_server = False

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        folder = os.path.abspath(os.path.expandvars(os.path.expanduser(directory)))
        self._connections = Connections(folder)
        self._commits = {
            replace: GroupCommit(self._connections, replace=replace) for replace in (False, True)
        }
        self._folder = folder
        self._database = self._connections.database

    @cached_property
    def location(self) -> Path:
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
        rows = self._read(statements.FIND, key)
        return rows[0] if rows else None

    def rows(self) -> Iterator[Row]:
        """Yield all rows in the order of storing, by SQLite's numbers of them."""
        last = 0
        while page := self._read(statements.PAGE_OF_ROWS, last, PAGE):
            for number, key, value, stored_at in page:
                if number <= last:  # a damaged tree may be read in circles
                    raise self._damaged("its rows are out of order")
                last = number
                yield str(key), value, stored_at

    def readable_rows(self) -> Iterator[Row]:
        """Yield the rows that SQLite can still read; some of them twice.

        :raises CacheCorruptError: if not even the beginning of the database can be read.
        """
        return readable_rows(self._database)

    def keys_starting_with(self, prefix: str, limit: int) -> list[str]:
        """Return the keys that begin with a prefix, sorted, at most ``limit`` of them; found by the
        index.
        """
        rows = self._read(statements.KEYS_WITH_PREFIX, prefix, prefix + "\U0010ffff", limit)
        return [str(key) for (key,) in rows]

    def __len__(self) -> int:
        count = self._read(statements.COUNT)
        return int(count[0][0]) if count else 0

    def size(self) -> int:
        """Return the bytes that the database takes on the disk."""
        files = (self._database + suffix for suffix in ("", LOG))
        return sum(os.path.getsize(file) for file in files if os.path.exists(file))

    def put(self, key: str, value: bytes, *, replace: bool) -> bool:
        """Store bytes under a key.

        Of the threads that do so at the same time, one writes the rows of all, as a group.

        :param replace: whether to replace bytes that the key has already.
        :returns: whether all rows of the group were stored, this one included.
        :raises OSError: if the directory cannot be written, or the disk is full.
        """
        with self._errors():
            return self._commits[replace].put((key, time.time(), value))

    def add_all(self, rows: Iterable[NewRow]) -> int:
        """Store many rows, all or none; return how many were stored."""
        now = time.time()
        stored_count = 0
        with self._transaction() as writer:
            for key, value, replaces, stored_at in rows:
                statement = statements.add(1, replace=replaces)
                row = key, now if stored_at is None else stored_at, value
                stored_count += writer.execute(statement, row).rowcount
        return stored_count

    def delete(self, keys: Iterable[str]) -> int:
        """Delete keys, all or none; return how many were there."""
        if not self.exists():
            return 0
        with self._transaction() as writer:
            return sum(writer.execute(statements.DELETE, (key,)).rowcount for key in keys)

    def clear(self) -> int:
        """Delete all rows, those of others included; return how many there were."""
        if not self.exists():
            return 0
        with self._writer() as writer:
            return writer.execute(statements.CLEAR).rowcount

    def rewrite(self, changes: Callable[[], Iterable[Change]]) -> int:
        """Change rows' keys and values, all or none; return the number of changed rows.

        :param changes: returns rows of key, new key and new value. It is called in the transaction;
            the reading connection still sees the rows as they were.
        """
        with self._transaction() as writer:
            return sum(
                writer.execute(statements.MOVE, (new_key, value, key)).rowcount
                for key, new_key, value in changes()
            )

    def change_budget(self, name: str, change: Callable[[str | None], tuple[str | None, T]]) -> T:
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
            writer.execute(statements.BUDGETS)
            while True:
                row = writer.execute(statements.BUDGET, (name,)).fetchone()
                text, result = change(row[0] if row else None)
                # A stream that the garbage collector ended meanwhile has settled in this transaction.
                if writer.execute(statements.BUDGET, (name,)).fetchone() == row:
                    break
            if text is not None:
                writer.execute(statements.SET_BUDGET, (name, text))
        return result

    def close(self) -> None:
        """Close the handles; the next use opens them again."""
        self._connections.close()

    def _read(self, statement: str, *values: object) -> list[Any]:
        """Return the rows that a SELECT finds; none if there is no database.

        :raises CacheCorruptError: if the database is damaged.
        """
        try:
            return self._connections.read(statement, values)
        # UnicodeDecodeError: SQLite quotes a damaged name.
        except (sqlite3.DatabaseError, OSError, UnicodeDecodeError) as error:
            raise self._damaged(error) from error

    @contextmanager
    def _writer(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection that writes; one thread at a time has it."""
        with self._errors(), self._connections.writing() as writer:
            yield writer

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise what is wrong while something is written as :class:`SqliteStorage` says."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(f"{self.location}: {error}") from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise self._damaged(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield the writing connection for a transaction, while no other process writes."""
        with self._writer() as writer:
            if writer.in_transaction:  # the collector ended a stream in the middle of another one
                yield writer
                return
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
            except BaseException:
                if writer.in_transaction:  # SQLite itself rolls back if the disk is full
                    writer.execute("ROLLBACK")
                raise
            writer.execute("COMMIT")

    def _damaged(self, error: object) -> CacheError:
        return CacheCorruptError(
            f"the cache database {self._database} is damaged or cannot be read ({error}); "
            f"'llmcall cache --path {self._folder} salvage NEW_FOLDER' copies what can be read to a new cache; then "
            "set PATH = NEW_FOLDER below [Cache] in config.ini"
        )
