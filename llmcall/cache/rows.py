"""The rows of a storage: bytes under keys."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

# its key, its bytes (None if they are none of ours), and when they were stored: seconds since the epoch
Row = tuple[str, "bytes | None", float]

# What the reading of a damaged database raises: SQLite quotes a damaged name.
DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)


class Change(NamedTuple):
    """A row to be stored or deleted.

    :param value: the new bytes, or ``None`` to delete the key.
    :param replaces: whether they replace what the key has.
    :param stored_at: when they were first stored, in seconds since the epoch; ``None`` means now.
    """

    key: str
    value: bytes | None
    replaces: bool = False
    stored_at: float | None = None
