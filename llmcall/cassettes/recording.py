"""The records of an open cassette: those of its file, and those gained since."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..config import resolve as config
from ..errors import CacheError
from ..records.packed import pack, unpack
from ..records.reader import RecordFile, header_in
from ..records.writer import write
from ..values import FROM_FUNCTION, FROM_SERVER, POINTER, day_of

if TYPE_CHECKING:
    from ..values import Days, Record


class Recording:
    """Records by key, each built anew for whoever gets it, and the file that holds them at the end.

    :param path: the file.
    :param reads: whether the records of the file answer.
    :ivar stored: the records of the file, or ``None`` if none were read.
    :raises CacheCorruptError: if the file is damaged, or no cassette.
    :raises CacheError: if a newer version wrote the file.
    """

    def __init__(self, path: str | os.PathLike[str], *, reads: bool) -> None:
        self.file = os.path.realpath(path)
        self._path = path
        content = _content_of(self.file)
        self._digest = hashlib.sha256(content).digest()
        self.stored: RecordFile | None = None
        if content and reads:
            self.stored = RecordFile(content, self.file)
        elif content:
            header_in(self.file)
        self._gained: dict[str, tuple[bytes, str]] = {}  # packed, with the source, by key

    def __len__(self) -> int:
        stored = () if self.stored is None else self.stored.keys()
        return len(self._gained.keys() | set(stored))

    @property
    def is_complete(self) -> bool:
        """Return whether the recording in the file is complete; one that an exception ended goes on."""
        return self.stored is None or self.stored.is_complete

    def get(self, key: str) -> Record | None:
        """Return the record of a key, or ``None``."""
        if key in self._gained:
            return unpack(key, self._gained[key][0])
        return None if self.stored is None else self.stored.get(key)

    def add(self, record: Record, source: str) -> Record:
        """Add a record, in place of one with its key; return it with the days of its answer.

        :param source: ``FROM_SERVER``, ``FROM_CACHE``, ``FROM_FUNCTION`` or ``POINTER``.
        """
        record = record.replace(days=_days_of(record, source))
        self._gained[record.cache_key] = pack(record), source
        return record

    def gained(self) -> list[str]:
        """Return the keys of the records that were added, in the order in which they came."""
        return list(self._gained)

    def count(self, source: str) -> int:
        """Return the number of added records that came from a source."""
        return sum(each == source for _, each in list(self._gained.values()))

    def kept(self) -> list[Record]:
        """Return the records of the file that no added one replaces."""
        return [each for each in self.stored or () if each.cache_key not in self._gained]

    def write(
        self,
        header: dict[str, Any],
        records: list[Record],
        *,
        run: dict[str, Any] | None,
        complete: bool,
    ) -> None:
        """Write the file, whole or not at all.

        :param run: the options of ``llmcall run``, or ``None``.
        :param complete: whether the recording is complete.
        :raises CacheError: if another process wrote the file, or a text looks like a credential.
        """
        if hashlib.sha256(_content_of(self.file)).digest() != self._digest:
            raise CacheError(
                f"{self._path} was written by another process while it was being recorded here, so it is not "
                "overwritten. The answers are in the disk cache: record again, one process at a time"
            )
        allow = config.settings().cassette_allow
        write(self.file, header, records, run=run, allow=allow, complete=complete)
        self._digest = hashlib.sha256(_content_of(self.file)).digest()


def _content_of(path: str) -> bytes:
    with suppress(FileNotFoundError), open(path, "rb") as file:
        return file.read()
    return b""


def _days_of(record: Record, source: str) -> Days | None:
    """Return the days of an added answer; ``None`` if they are unknown."""
    if record.days is not None or source in (FROM_FUNCTION, POINTER):
        return record.days
    # The answer of an equal call that was under way also came from a server just now; no cache holds
    # it yet.
    is_new = source == FROM_SERVER or (record.stored_at is None and record.was_asked)
    return record.answered_on(day_of(time.time())) if is_new else None
