"""Replies made of records' bytes; what was read and checked of them is remembered while the same bytes stand there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import CacheCorruptError
from ..types import Reply
from .record import head_of, response_of, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..types import Record
    from .record import Head

__all__ = ["Rows", "reply_of"]

MOST = 4096  # records that are remembered
MOST_BYTES = 4 * 2**20  # that these take


def reply_of(record: Record, parse: Callable[[str], Any] | None = None) -> Reply:
    """Return the reply of a chat call's record.

    :param parse: as of :meth:`Reply.of`.
    :raises CacheCorruptError: where the record holds no answer, which no call stores.
    """
    try:
        return Reply.of(record, parse=parse)
    except (LookupError, TypeError, AttributeError) as error:
        key = record.cache_key[:12]
        remedy = f"'llmcall cache delete {key}', or without its line in the cassette, it is asked anew"
        raise CacheCorruptError(f"the record {key}… holds no answer of a model; after {remedy}") from error


class Rows:
    """Remember the heads of records by the records' bytes, as many as there is room for."""

    __slots__ = ("_heads", "_size")

    def __init__(self) -> None:
        self._heads: dict[str, tuple[bytes, Head]] = {}
        self._size = 0

    def reply(self, key: str, packed: bytes) -> tuple[Head, Reply] | None:
        """Return a chat call's record, as far as a reply needs it, and the reply; ``None`` where it points to another.

        :raises CacheCorruptError: where the bytes hold no record.
        """
        kept = self._heads.get(key)
        head = kept[1] if kept is not None and kept[0] == packed else self._learned(key, packed)
        if head.role is not None:
            message = {"role": head.role, "content": head.content}
            return head, Reply.recalled(key, head.sample, head.cost, message, (response_of, key, packed))
        record = unpack(key, packed)
        return (head, reply_of(record)) if "choices" in record.response else None

    def _learned(self, key: str, packed: bytes) -> Head:
        head = head_of(key, packed)
        self._size += len(packed)
        if self._size > MOST_BYTES or len(self._heads) >= MOST:
            self._heads, self._size = {}, len(packed)
        if self._size <= MOST_BYTES:
            self._heads[key] = packed, head
        return head
