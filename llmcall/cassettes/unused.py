"""Records of a cassette that no call used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cache.shared import shared_cache
from ..config import resolve as config
from ..display.formatting import counted
from ..records.reader import read
from ..records.writer import write

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Container

    from ..types import Record


def unused_words(count: int, mode: str, kept: str = "") -> str:
    """Return how many records no call used, and what becomes of them, in words.

    :param kept: why the mode ``update`` leaves them in the file; empty if it does not.
    """
    told = f"{counted(count, 'record')} no call used"
    if mode != "update":
        return f"{told}; the mode 'update' removes such records from the file"
    if kept:
        return f"{told}; the file keeps such records, because {kept}"
    return f"{told}; moved to the disk cache"


def drop_records(path: str | os.PathLike[str], keys: Container[str]) -> None:
    """Move records from a file that is not open to the disk cache.

    :param keys: the keys of the records.
    """
    recording = read(path)
    kept: list[Record] = []
    dropped: list[Record] = []
    for record in recording.records():
        (dropped if record.cache_key in keys else kept).append(record)
    keep_in_cache(dropped)
    allow = config.settings().cassette_allow
    write(
        path,
        recording.settings,
        kept,
        run=recording.run,
        allow=allow,
        complete=recording.is_complete,
    )


def keep_in_cache(records: Collection[Record]) -> None:
    """Add records that leave a cassette to the disk cache."""
    if records:
        shared_cache(config.settings().cache_path).add_all(records)
