"""What can still be read of a damaged cache, and which of its records are damaged.

Each record carries its own request and a checksum, so that neither its key nor anything around it is needed: what
SQLite does not read is sought in the file's pages, and in a page that is none any more, byte by byte.
"""

from __future__ import annotations

import mmap
import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ..errors import CacheCorruptError, CacheError
from ..requests.keys import key_of
from .long_work import with_bar
from .packing import CHECKSUM_BYTES, PROTOCOL, pack, unpack
from .pages import Pages
from .store import ADD, DATABASE, DiskStore

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from ..types import Record
    from .cache import ResponseCache

__all__ = ["damaged", "salvage"]

STORE_TIME = 3  # diskcache's column of that name, 5.6.3; the value is the last one
BATCH = 500  # records stored at a time
# A pickle that fits into a page is one frame: its protocol, the frame's opcode, and the frame's length in eight bytes.
FRAMED = b"\x80" + bytes([PROTOCOL]) + b"\x95"
LENGTH_BYTES = 8


def damaged(cache: ResponseCache) -> list[str]:
    """Return the keys of damaged records. See :meth:`ResponseCache.verify`."""
    with closing(DiskStore(cache.path)) as store:
        rows = with_bar(store.rows(), len(store), "verifying")
        return [key for key, packed, _ in rows if not _sound(key, packed)]


def _sound(key: str, packed: bytes | None) -> bool:
    try:
        record = unpack(key, packed or b"")
    except CacheCorruptError:
        return False
    return key_of(record.kind, record.request, record.sample) == key or "fallback" in record.response


def salvage(cache: ResponseCache, to: str | os.PathLike[str]) -> int:
    """Write every record that can still be read to a new cache. See :meth:`ResponseCache.salvage`."""
    if not cache.exists():
        raise CacheError(f"{cache.path} holds no cache; name the damaged cache's directory")
    with closing(DiskStore(to)) as target:
        if target.directory.resolve() == cache.path.resolve():
            raise CacheError(f"{cache.path} cannot be salvaged into itself; name a new directory")
        return _stored(_records(cache.path), target)


def _stored(records: Iterable[Record], target: DiskStore) -> int:
    """Store records, a batch at a time; return how many different ones there were."""
    seen: set[str] = set()
    batch: list[Record] = []
    for record in records:
        if record.cache_key not in seen:
            seen.add(record.cache_key)
            batch.append(record)
        if len(batch) == BATCH:
            _add(target, batch)
            batch.clear()
    if batch:
        _add(target, batch)
    return len(seen)


def _add(target: DiskStore, batch: list[Record]) -> None:
    rows = [(record.cache_key, record.stored_at or 0.0, pack(record)) for record in batch]

    def add(writer: sqlite3.Connection) -> int:
        return writer.executemany(ADD, rows).rowcount

    target.change(add)


def _records(folder: Path) -> Iterator[Record]:
    """Yield all readable records, in the order of storing as far as the database itself can be read."""
    read = lost = 0
    try:
        with closing(DiskStore(folder)) as store:
            rows = with_bar(store.rows(), len(store), "reading records")
            for _, packed, stored_at in rows:
                record = _readable(packed, stored_at)
                read, lost = read + 1, lost + (record is None)
                if record is not None:
                    yield record
            if not lost and read == len(store):
                return
    except (CacheError, OSError) as error:
        _log().warning("%s; it is read page by page now", str(error).partition(";")[0])
    yield from _records_in_pages(folder / DATABASE)


def _records_in_pages(database: Path) -> Iterator[Record]:
    log = database.with_name(f"{DATABASE}-wal")
    logged = log.read_bytes() if log.exists() else b""
    with open(database, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            pages = Pages(mapped, logged)
            for number in with_bar(pages.numbers(), len(pages), "reading pages"):
                yield from _records_in_page(pages, number)


def _records_in_page(pages: Pages, number: int) -> Iterator[Record]:
    sound = True
    for columns in pages.rows(number):
        record = _record_in(columns) if columns else None
        sound = sound and record is not None
        if record is not None:
            yield record
    if not sound:
        yield from _framed_records(pages.page(number))


def _record_in(columns: list[Any]) -> Record | None:
    stored_at = columns[STORE_TIME] if len(columns) > STORE_TIME else None
    return _readable(columns[-1], stored_at if isinstance(stored_at, float) else None)


def _framed_records(page: bytes) -> Iterator[Record]:
    """Yield the records that stand in a page whole, whatever became of the rest of it."""
    begin = page.find(FRAMED)
    while begin >= 0:
        length_at = begin + len(FRAMED)
        frame = int.from_bytes(page[length_at : length_at + LENGTH_BYTES], "little")
        record = _readable(page[begin : length_at + LENGTH_BYTES + frame + CHECKSUM_BYTES], None)
        if record is not None:
            yield record
        begin = page.find(FRAMED, begin + 1)


def _readable(packed: bytes | None, stored_at: float | None) -> Record | None:
    """Return the record in some bytes, its key made anew from its request; ``None`` where they hold none."""
    try:
        record = unpack("", packed or b"", stored_at)
        return record._replace(cache_key=key_of(record.kind, record.request, record.sample))
    except (CacheCorruptError, ValueError, TypeError):
        return None


def _log() -> Any:
    import logging

    return logging.getLogger("llmcall")
