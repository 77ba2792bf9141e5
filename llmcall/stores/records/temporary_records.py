"""Records in a temporary file, in the order of a file of records, so that exporting a cache and loading a
file take little memory at any size.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from ...keys.keys import key_of
from ..record import Record
from .packed import pack, unpack

# ``equal`` names the request and the scope of a record that names its caller.
TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA cache_size = -32000;
CREATE TABLE Records (
    number INTEGER PRIMARY KEY, key TEXT UNIQUE, path BLOB, packed BLOB, stored_at REAL, equal TEXT,
    caller TEXT, draw INTEGER
);
CREATE INDEX Equals ON Records (equal, caller, draw) WHERE equal IS NOT NULL;
CREATE TABLE Texts (digest TEXT PRIMARY KEY, text BLOB);
CREATE TABLE Counts (name BLOB PRIMARY KEY, number INTEGER);
"""
ADD = "INSERT OR REPLACE INTO Records VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)"
ALL = """
SELECT key, packed, stored_at, equal IS NOT NULL AND (
    SELECT COUNT(DISTINCT caller) = 1 AND COUNT(*) > MAX(draw)
    FROM Records AS other WHERE other.equal = Records.equal
) FROM Records ORDER BY path, number
"""
ADD_DIGEST = "INSERT OR IGNORE INTO Texts (digest) VALUES (?)"
ADD_TEXT = "INSERT OR REPLACE INTO Texts VALUES (?, ?)"
TEXT = "SELECT text FROM Texts WHERE digest = ?"
COUNT = "SELECT number FROM Counts WHERE name = ?"
SET_COUNT = "INSERT OR REPLACE INTO Counts VALUES (?, ?)"


class Spool:
    """Records by key, and long texts by digest, in a file that SQLite deletes when it is closed.

    ``len()``; iteration by scope path, then in the order of adding. A caller's name is left out if no other caller
    sent the same request in the scope, and no earlier draw is missing.
    """

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None)
        self._connection.executescript(TABLES)

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._connection.close()
        if isinstance(error, sqlite3.OperationalError):
            raise OSError(
                f"the records do not fit into a temporary file ({error}): free space on its disk, or set SQLITE_TMPDIR "
                "to a folder on another disk"
            ) from error

    def add(self, record: Record) -> None:
        """Add a record, or replace the one with its key."""
        key = record.cache_key
        levels = () if record.sample is None else ("", *record.scope.split("/"))
        equal = draw = None
        if record.caller is not None and record.sample is not None:
            equal = f"{key_of(record.kind, record.request, None)} {record.scope}"
            name = record.sample.partition("#")[2]
            draw = int(name) if name.isdecimal() else None
        path = "\0".join(levels).encode()
        row = key, path, pack(record), record.stored_at, equal, record.caller, draw
        self._connection.execute(ADD, row)

    def __len__(self) -> int:
        count: int = self._value("SELECT COUNT(*) FROM Records")
        return count

    def __iter__(self) -> Iterator[Record]:
        for key, packed, stored_at, is_only_caller in self._connection.execute(ALL):
            record = unpack(key, packed, stored_at)
            yield record.replace(caller=None) if is_only_caller else record

    def add_text(self, digest: str, text: str) -> None:
        """Add a long text."""
        self._connection.execute(ADD_TEXT, (digest, text.encode("utf-8", "surrogatepass")))

    def is_first_use(self, digest: str) -> bool:
        """Return whether a text's digest is new, and remember it."""
        return self._connection.execute(ADD_DIGEST, (digest,)).rowcount == 1

    def text(self, digest: str) -> str | None:
        """Return the long text with a digest, or ``None``."""
        encoded = self._value(TEXT, digest)
        return None if encoded is None else encoded.decode("utf-8", "surrogatepass")

    def counted_before(self, name: bytes) -> int:
        """Return how often a name was counted so far, and count it once more."""
        number: int = self._value(COUNT, name) or 0
        self._connection.execute(SET_COUNT, (name, number + 1))
        return number

    def _value(self, query: str, *arguments: object) -> Any:
        row = self._connection.execute(query, arguments).fetchone()
        return None if row is None else row[0]
