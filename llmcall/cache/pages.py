"""The rows that stand in the pages of an SQLite file, read without SQLite: it gives up where one page is damaged.

The format is that of sqlite.org/fileformat2.html, sections 1.3 (header), 1.5 (freelist), 1.6 (b-tree pages and
overflow), 2.1 (records) and 4.1 (write-ahead log).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Pages"]

MAGIC = b"SQLite format 3\0"
PAGE_SIZES = [2**power for power in range(9, 17)]
PAGE_SIZE = 4096  # SQLite's default, which diskcache leaves
HEADER_BYTES = 100
LOG_HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
SALT = 8  # where it begins in a frame's header; eight bytes
MOST_BYTES = 65536  # of a page; written as 0
GAP_BYTES = 4  # the least that a cell takes, or a gap that is listed
LEAF = 13  # a leaf of a table's b-tree
NUMBER_BYTES = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 7: 8, 8: 0, 9: 0}  # by serial type
BLOBS = 12  # the first serial type of blobs (even) and texts (odd)
REAL = 7
# What made-up numbers lead to when they are taken for lengths and offsets.
BROKEN = (IndexError, ValueError, KeyError, OverflowError)


class Pages:
    """Read the pages of a database, those in its write-ahead log in place of its own.

    :param database: the bytes of the file.
    :param log: the bytes of its ``-wal`` file; empty where there is none.
    """

    def __init__(self, database: Any, log: bytes = b"") -> None:
        self._database = database
        headed = database[: len(MAGIC)] == MAGIC
        self.size = _page_size(database[:32] if headed else b"", len(database), log)
        self._usable = self.size - (database[20] if headed and database[20] < self.size // 2 else 0)
        self._logged = dict(_logged_pages(log, self.size))
        self._free = self._free_pages() if headed else set()

    def __len__(self) -> int:
        """Return how many pages there are, those included that are not in use."""
        return len(self._numbers())

    def _numbers(self) -> list[int]:
        """Return the numbers of all pages; of a database that was cut off, the log may hold later ones."""
        kept = -(-len(self._database) // self.size)
        return [*range(1, kept + 1), *sorted(number for number in self._logged if number > kept)]

    def page(self, number: int) -> bytes:
        """Return a page by its number, from 1 on; shorter or empty where the file ends."""
        begin = (number - 1) * self.size
        return self._logged.get(number) or bytes(self._database[begin : begin + self.size])

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of the pages that are in use."""
        return (number for number in self._numbers() if number not in self._free)

    def logged_numbers(self) -> list[int]:
        """Return the numbers of the pages in use that stand in the write-ahead log."""
        return sorted(self._logged.keys() - self._free)

    def _kind(self, number: int) -> int | None:
        start = HEADER_BYTES if number == 1 else 0
        found = self.page(number)[start : start + 1]
        return found[0] if found else None

    def rows(self, number: int) -> Iterator[list[Any] | None]:
        """Yield the columns of each row that begins in a page, ``None`` for one that cannot be read.

        A column is ``bytes`` (of texts too), a float, or ``None`` for the rest.
        """
        if self._kind(number) != LEAF:
            yield None
            return
        page, start = self.page(number), HEADER_BYTES if number == 1 else 0
        for cell in range(_number(page, start + 3, 2)):
            try:
                yield _columns(self._payload(page, _number(page, start + 8 + 2 * cell, 2)))
            except BROKEN:
                yield None

    def adds_up(self, number: int) -> bool:
        """Return whether the cells of a leaf and the gaps between them fill it: else there may be more than it says."""
        page, start = self.page(number), HEADER_BYTES if number == 1 else 0
        begin = _number(page, start + 5, 2) or MOST_BYTES
        try:
            cells = range(start + 8, start + 8 + 2 * _number(page, start + 3, 2), 2)
            used = page[start + 7] + sum(self._cell_bytes(page, _number(page, cell, 2)) for cell in cells)
            gap = _number(page, start + 1, 2)
            while gap and used <= self._usable:
                used += max(GAP_BYTES, _number(page, gap + 2, 2))
                gap = _number(page, gap, 2)
        except BROKEN:
            return False
        return used == self._usable - begin

    def _cell_bytes(self, page: bytes, at: int) -> int:
        length, behind = _varint(page, at)
        _, behind = _varint(page, behind)
        local = _local_bytes(length, self._usable)
        return max(GAP_BYTES, behind - at + local + (4 if local < length else 0))

    def _payload(self, page: bytes, at: int) -> bytes:
        length, at = _varint(page, at)
        _, at = _varint(page, at)  # the rowid
        if length > len(self._database) + self.size * len(self._logged):
            raise ValueError("the payload is longer than the file")
        local = _local_bytes(length, self._usable)
        if local == length:
            return page[at : at + length]
        pieces = [page[at : at + local]]
        following, missing = _number(page, at + local, 4), length - local
        while missing > 0:
            if not following:
                raise ValueError("the chain of overflow pages is broken")
            overflow = self.page(following)
            pieces.append(overflow[4 : 4 + min(missing, self._usable - 4)])
            following, missing = _number(overflow, 0, 4), missing - (self._usable - 4)
        return b"".join(pieces)

    def _free_pages(self) -> set[int]:
        """Collect the pages that were given back: what stands in them was deleted. None, where their list is broken."""
        free: set[int] = set()
        first = self.page(1)
        trunk, expected = _number(first, 32, 4), _number(first, 36, 4)
        while trunk and trunk not in free:
            free.add(trunk)
            page = self.page(trunk)
            count = min(_number(page, 4, 4), self.size // 4 - 2)
            free.update(_number(page, 8 + 4 * entry, 4) for entry in range(count))
            trunk = _number(page, 0, 4)
        return free if len(free) == expected else set()


def _page_size(header: bytes, length: int, log: bytes) -> int:
    """Return what the header says, if the file is as long as it says; else what the log says, else the default."""
    stored, logged = _number(header, 16, 2), _number(log, 8, 4)
    size = 65536 if stored == 1 else stored
    if size in PAGE_SIZES and size * _number(header, 28, 4) == length:
        return size
    return logged if logged in PAGE_SIZES else PAGE_SIZE


def _logged_pages(log: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield the committed pages of a write-ahead log, in order; those of an earlier run of it have another salt.

    A frame is known by the salt alone, wherever it stands, so that damage to one does not hide those behind it.
    """
    salt, pending = _salt(log, size), []
    at = log.find(salt, LOG_HEADER_BYTES) if salt else -1
    while at >= 0:
        begin = at - SALT
        page = begin + FRAME_HEADER_BYTES
        if page + size > len(log):
            return
        pending.append((_number(log, begin, 4), log[page : page + size]))
        if _number(log, begin + 4, 4):
            yield from pending
            pending.clear()
        at = log.find(salt, page)


def _salt(log: bytes, size: int) -> bytes:
    """Return the salt in a log's header or, where no frame has it, that of most frames; empty where there is none."""
    stated = log[16:24]
    if not any(stated) or log.find(stated, LOG_HEADER_BYTES) < 0:
        frames = range(LOG_HEADER_BYTES + SALT, len(log) - size, FRAME_HEADER_BYTES + size)
        found = Counter(log[begin : begin + 8] for begin in frames if any(log[begin : begin + 8]))
        return found.most_common(1)[0][0] if found else b""
    return stated


def _number(data: bytes, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length], "big")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length integer at a place, and the place after it."""
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 127
        if byte < 128:
            return value, at + index + 1
    return value << 8 | data[at + 8], at + 9


def _local_bytes(length: int, usable: int) -> int:
    """Return how much of a payload stands in the leaf itself."""
    if length <= usable - 35:
        return length
    least = (usable - 12) * 32 // 255 - 23
    fitting = least + (length - least) % (usable - 4)
    return fitting if fitting <= usable - 35 else least


def _columns(payload: bytes) -> list[Any]:
    header, at = _varint(payload, 0)
    columns, begin = [], header
    while at < header:
        kind, at = _varint(payload, at)
        length = NUMBER_BYTES[kind] if kind < BLOBS else (kind - BLOBS) // 2
        columns.append(_column(kind, payload[begin : begin + length]))
        begin += length
    return columns


def _column(kind: int, data: bytes) -> Any:
    if kind == REAL:
        if len(data) < NUMBER_BYTES[REAL]:
            raise ValueError("the row is cut off")
        import struct

        return struct.unpack(">d", data)[0]
    return data if kind >= BLOBS else None
