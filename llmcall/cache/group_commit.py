"""Rows that threads store at the same time, written together by one of them.

Each statement gives up the interpreter's lock several times. If every thread wrote its own row, all
would wait for the one that waits for that lock, and a thread that computes keeps it for 5 ms each time.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from . import statements

if TYPE_CHECKING:
    from .connections import Connections

    # A row's values as the statement takes them: its key, when it is stored (seconds since the
    # epoch), and its bytes.
    RowValues = tuple[str, float, bytes]

# SQLite before 3.32 takes 999 values in a statement, and a row has three.
LARGEST_GROUP = 300


class _WaitingRow:
    """A row that a thread wants to store.

    :ivar is_taken: whether a thread has begun to write it.
    :ivar was_stored: whether all rows of its group were stored; ``None`` until they are written.
    """

    def __init__(self, row: RowValues) -> None:
        self.row = row
        self.is_taken = False
        self.was_stored: bool | None = None


class GroupCommit:
    """Store rows in groups, each with one statement.

    :param connections: to the database.
    :param replace: whether rows replace those of the same keys; else they are left out.
    """

    def __init__(self, connections: Connections, *, replace: bool) -> None:
        self._connections = connections
        self._replace = replace
        self._waiting: deque[_WaitingRow] = deque()

    def put(self, row: RowValues) -> bool:
        """Store a row, together with those of other threads that wait to store theirs.

        :returns: whether all rows of the group were stored.
        """
        own_row = _WaitingRow(row)
        self._waiting.append(own_row)
        with self._connections.write_lock:
            while own_row.was_stored is None:
                # A row is alone if storing its group failed, or if the collector ended a stream in
                # the middle of a transaction of this thread: that may still fail.
                is_alone = own_row.is_taken or self._connections.in_transaction
                self._write([own_row] if is_alone else self._group())
        return own_row.was_stored

    def _group(self) -> list[_WaitingRow]:
        """Return the rows that wait, as many as one statement takes."""
        group: list[_WaitingRow] = []
        while self._waiting and len(group) < LARGEST_GROUP:
            waiting_row = self._waiting.popleft()
            if not waiting_row.is_taken:
                group.append(waiting_row)
        return group

    def _write(self, group: list[_WaitingRow]) -> None:
        for waiting_row in group:
            waiting_row.is_taken = True
        statement = statements.add(len(group), replace=self._replace)
        values = [value for waiting_row in group for value in waiting_row.row]
        with self._connections.writing() as writer:
            count = writer.execute(statement, values).rowcount
        for waiting_row in group:
            waiting_row.was_stored = count == len(group)
