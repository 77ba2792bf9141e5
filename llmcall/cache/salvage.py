"""What can still be read of a damaged cache, and which of its records are damaged.

Each record carries its own request and a checksum, so that neither its key nor anything around it is needed: what
SQLite does not read is sought in the file's pages, and in a page that is none any more, byte by byte.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CacheCorruptError, CacheError
from ..requests.keys import key_of
from .long_work import with_bar
from .pages import Pages
from .record import CHECKSUM_BYTES, FRAME, FRAME_BYTES, pack, unpack, unpack_keyed
from .sqlite import DATABASE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..types import Record
    from .cache import ResponseCache
    from .storage import Storage

__all__ = ["damaged", "salvage"]

KEY, STORE_TIME = 1, 3  # diskcache's columns of these names, 5.6.3; the value is the last one
BATCH = 500  # records stored at a time


def damaged(cache: ResponseCache) -> list[str]:
    """Return the keys of damaged records. See :meth:`ResponseCache.verify`."""
    rows = with_bar(cache.storage.rows(), len(cache.storage), "verifying")
    return [key for key, packed, _ in rows if not _sound(key, packed)]


def _sound(key: str, packed: bytes | None) -> bool:
    try:
        record = unpack(key, packed or b"")
    except CacheCorruptError:
        return False
    return _key_of(record) == key or "fallback" in record.response


def salvage(cache: ResponseCache, to: str | os.PathLike[str]) -> int:
    """Write every record that can still be read to a new cache. See :meth:`ResponseCache.salvage`.

    :raises CacheError: where there is no cache, or the new place is the old one.
    """
    if not cache.exists():
        raise CacheError(f"{cache.path} holds no cache; name the damaged one's place")
    with type(cache)(to) as target:
        if _resolved(target.path) == _resolved(cache.path):
            raise CacheError(f"{cache.path} cannot be salvaged into itself; name a new directory")
        return _stored(_records(cache.storage), target.store)


def _resolved(place: Path | str) -> Path | str:
    return place.resolve() if isinstance(place, Path) else place


def _stored(records: Iterable[Record], target: Storage) -> int:
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


def _add(target: Storage, batch: list[Record]) -> None:
    rows = [(record.cache_key, pack(record), False) for record in batch]
    target.add_all(rows, {record.cache_key: record.stored_at or 0.0 for record in batch})


def _records(store: Storage) -> Iterator[Record]:
    """Yield all readable records, in the order of storing as far as the database itself can be read."""
    read = lost = 0
    try:
        for key, packed, stored_at in with_bar(store.rows(), len(store), "reading records"):
            record = _readable(packed, stored_at, key)
            read, lost = read + 1, lost + (record is None)
            if record is not None:
                yield record
        if not lost and read == len(store):
            if isinstance(store.place, Path):  # SQLite passes over a damaged log in silence
                yield from _records_in_pages(store.place / DATABASE, _records_in_log)
            return
    except (CacheError, OSError) as error:
        if not isinstance(store.place, Path):  # a server has no pages to look into
            raise
        _log().warning("%s; it is read page by page now", str(error).partition(";")[0])
    if isinstance(store.place, Path):
        yield from _records_in_pages(store.place / DATABASE, _records_anywhere)


def _records_in_pages(database: Path, read: Callable[[Pages], Iterator[Record]]) -> Iterator[Record]:
    """Yield what ``read`` finds in the pages of a database and its write-ahead log."""
    log = database.with_name(f"{DATABASE}-wal")
    logged = log.read_bytes() if log.exists() else b""
    with open(database, "rb") as file:
        if os.fstat(file.fileno()).st_size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                yield from read(Pages(mapped, logged))


def _records_in_log(pages: Pages) -> Iterator[Record]:
    """Yield the records in the rows of the pages that stand in the log."""
    for number in pages.logged_numbers():
        yield from filter(None, (_record_in(columns) for columns in pages.rows(number) if columns))


def _records_anywhere(pages: Pages) -> Iterator[Record]:
    for number in with_bar(pages.numbers(), len(pages), "reading pages"):
        yield from _records_in_page(pages, number)


def _records_in_page(pages: Pages, number: int) -> Iterator[Record]:
    sound = True
    for columns in pages.rows(number):
        record = _record_in(columns) if columns else None
        sound = sound and record is not None
        if record is not None:
            yield record
    if not sound or not pages.adds_up(number):
        yield from _framed_records(pages.page(number))


def _record_in(columns: list[Any]) -> Record | None:
    key, stored_at = (columns[KEY], columns[STORE_TIME]) if len(columns) > STORE_TIME else (None, None)
    name = key.decode("utf-8", "replace") if isinstance(key, bytes) else ""
    return _readable(columns[-1], stored_at if isinstance(stored_at, float) else None, name)


def _framed_records(page: bytes) -> Iterator[Record]:
    """Yield the records that stand in a page whole, whatever became of the rest of it."""
    begin = page.find(FRAME)
    while begin >= 0:
        length_at = begin + len(FRAME)
        frame = int.from_bytes(page[length_at : length_at + FRAME_BYTES], "little")
        record = _readable(page[begin : length_at + FRAME_BYTES + frame + CHECKSUM_BYTES], None)
        if record is not None:
            yield record
        begin = page.find(FRAME, begin + 1)


def _readable(packed: bytes | None, stored_at: float | None, key: str = "") -> Record | None:
    """Return the record in some bytes, its key made anew from its request; ``None`` where they hold none.

    :param key: under which they stand, if it is known; a damaged one does no harm.
    """
    try:
        record = unpack_keyed(packed or b"", (lambda _: key, _key_of), stored_at)
        return record._replace(cache_key=_key_of(record))
    except (CacheCorruptError, ValueError, TypeError):
        return None


def _key_of(record: Record) -> str:
    return key_of(record.kind, record.request, record.sample)


def _log() -> Any:
    import logging

    return logging.getLogger("llmcall")
