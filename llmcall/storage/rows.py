"""Records that were read and checked before; while the same bytes stand in the cache, that need not be done again."""

from __future__ import annotations

from marshal import dumps
from typing import TYPE_CHECKING, Any

from ..types import Reply, message_of
from .packing import unpack

if TYPE_CHECKING:
    from ..types import Record

    # A record's bytes, the record without what could be changed, the message of a reply that is a text and nothing else
    # (of any other, None), and the response as marshal writes it.
    Row = tuple[bytes, Record, dict[str, Any] | None, bytes]

__all__ = ["Rows"]

PLAIN = 2  # the version of marshal's format that is read the quickest
MOST = 4096  # records that are remembered
MOST_BYTES = 4 * 2**20  # that these take
TEXTS = (str, type(None))


class Rows:
    """Remember records of chat calls by their bytes, as many as there is room for.

    Those that were stored here, and those that are asked for a second time: a run that asks for each once is not kept
    up by it.
    """

    __slots__ = ("_asked_for", "_rows", "_size")

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._size = 0
        self._asked_for: set[str] = set()

    def reply(self, key: str, packed: bytes, stored_at: float | None) -> tuple[Record, Reply] | None:
        """Return the record that bytes hold, and the reply that it is; ``None`` where it points to another record.

        :raises CacheCorruptError: where the bytes hold no record.
        """
        row = self._rows.get(key)
        if row is not None and row[0] == packed:
            return row[1], Reply.again(row[1], row[3], row[2])
        record = unpack(key, packed, stored_at)
        if key in self._asked_for:
            self.learn(key, packed, record)
        else:
            self.expect(key)
        return (record, Reply.of(record)) if "choices" in record.response else None

    def expect(self, key: str) -> None:
        """Remember the record of a key when it is asked for the next time."""
        if len(self._asked_for) < MOST:
            self._asked_for.add(key)
        else:
            self._asked_for = {key}

    def learn(self, key: str, packed: bytes, record: Record) -> Record:
        """Remember a record, and return it.

        :param packed: its bytes, of which the record was made.
        """
        message = _message(record.response)
        if message is None:
            return record
        try:
            response = dumps(record.response, PLAIN)
        except ValueError:  # nested deeper than marshal goes, and than any answer
            return record
        plain = message.keys() == {"role", "content"} and type(message["content"]) in TEXTS
        kept = record._replace(request={}, response={})
        self._put(key, (packed, kept, message if plain else None, response))
        return record

    def _put(self, key: str, row: Row) -> None:
        size = len(row[0]) + len(row[3])
        if self._size + size > MOST_BYTES or len(self._rows) >= MOST:
            self._rows, self._size = {}, 0
        if size <= MOST_BYTES:
            self._rows[key] = row
            self._size += size


def _message(response: dict[str, Any]) -> dict[str, Any] | None:
    """Return the message of a chat response; ``None`` where that is none, as with a pointer to another record."""
    choices = response.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return message_of(first) if isinstance(first, dict) and isinstance(first.get("message"), dict) else None
