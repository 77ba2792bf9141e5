"""The rows that SQLite can still read in a damaged database.

They are searched by their numbers in the table, and by their keys in its index.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from itertools import product
from typing import TYPE_CHECKING, Any

from ..errors import CacheCorruptError
from . import statements
from .connections import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Row = tuple[str, bytes | None, float]  # of a key: its bytes, and when they were stored

RANGE = 500  # rows that are searched at a time
DIGITS = "0123456789abcdef"
PREFIX_DIGITS = 3


def readable_rows(database: str) -> Iterator[Row]:
    """Yield the rows that SQLite can still read; some of them twice.

    :param database: the path of the file.
    :raises CacheCorruptError: if not even the beginning of the database can be read.
    """
    handle = Reader(database, may_be_damaged=True)
    try:
        reader = handle.connected()
    except (sqlite3.DatabaseError, OSError, UnicodeDecodeError) as error:
        raise CacheCorruptError(
            f"nothing in the cache {os.path.dirname(database)} can be read: {error}"
        ) from error
    if reader is None:
        return
    try:
        indexed_rows = list(_keys_and_numbers(reader))
        numbers = [number for _, number in indexed_rows]
        yield from _by_number(reader, _last_number(reader, numbers, os.path.getsize(database)))
        yield from _by_key(reader, [key for key, _ in indexed_rows])
    finally:
        handle.close()


def _keys_and_numbers(reader: sqlite3.Connection) -> Iterator[tuple[str, Any]]:
    """Yield the keys in the table's index, and the numbers of their rows.

    Keys are searched by their first digits, so that damage hides only the keys next to it.
    """
    for digits in product(DIGITS, repeat=PREFIX_DIGITS):
        prefix = "".join(digits)
        for key, number in _rows_before_failure(reader, statements.INDEXED, prefix, prefix + "g"):
            if isinstance(key, str):
                yield key, number


def _last_number(reader: sqlite3.Connection, indexed_numbers: Sequence[Any], size: int) -> int:
    """Return the highest number of a row that anything names; 0 if there is none.

    :param indexed_numbers: the numbers in the index.
    :param size: of the file, in bytes. A larger number is damage: every row takes more than a byte.
    """
    last_numbers = [
        number
        for query in (statements.LAST, statements.LAST_BY_INDEX)
        for (number,) in _rows_before_failure(reader, query)
    ]
    numbers = (*last_numbers, *indexed_numbers)
    return max(
        (number for number in numbers if isinstance(number, int) and number <= size), default=0
    )


def _by_number(reader: sqlite3.Connection, last: int) -> Iterator[Row]:
    """Yield the rows that are found by their numbers, up to the last one."""
    for first in range(1, last + 1, RANGE):
        rows = _rows_before_failure(reader, statements.ROWS_BETWEEN, first, first + RANGE - 1)
        if len(rows) < RANGE:
            # Some are deleted, or cannot be read with the others: a search for a range steps to the
            # row behind it, and loses the last one if that is damaged.
            rows = [
                row
                for number in range(first, first + RANGE)
                for row in _rows_before_failure(reader, statements.ROW_AT, number)
            ]
        for key, value, stored_at in rows:
            yield str(key), value, _time(stored_at)


def _by_key(reader: sqlite3.Connection, keys: Sequence[str]) -> Iterator[Row]:
    """Yield the rows that are found by their keys."""
    for key in keys:
        for value, stored_at in _rows_before_failure(reader, statements.FIND, key):
            yield key, value, _time(stored_at)


def _time(stored_at: object) -> float:
    return stored_at if isinstance(stored_at, float) else 0.0


def _rows_before_failure(reader: sqlite3.Connection, query: str, *values: int | str) -> list[Any]:
    """Return the rows that a query finds before SQLite fails to read further."""
    rows = []
    with suppress(sqlite3.DatabaseError, UnicodeDecodeError):
        for row in reader.execute(query, values):
            rows.append(row)
    return rows
