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

    from ..values import Record


def unused_words(count: int, mode: str, reason: str = "") -> str:
    """Return how many records no call used, and what becomes of them, in words.

    :param reason: why the mode ``update`` leaves them in the file; empty if it does not.
    """
    count_words = f"{counted(count, 'record')} {'was' if count == 1 else 'were'} not used"
    if mode != "update":
        return f"{count_words}; the mode 'update' moves such records to the disk cache"
    if reason:
        return f"{count_words}; the file keeps such records, because {reason}"
    return f"{count_words}; moved to the disk cache"


def drop_records(path: str | os.PathLike[str], keys: Container[str]) -> None:
    """Move records from a file that is not open to the disk cache.

    :param keys: the keys of the records.
    """
    recording = read(path)
    records = recording.records()
    keep_in_cache([record for record in records if record.cache_key in keys])
    write(
        path,
        recording.settings,
        [record for record in records if record.cache_key not in keys],
        run=recording.run,
        allow=config.settings().cassette_allow,
        complete=recording.is_complete,
    )


def keep_in_cache(records: Collection[Record]) -> None:
    """Add records that leave a cassette to the disk cache."""
    if records:
        shared_cache(config.settings().cache_path).add_all(records)
