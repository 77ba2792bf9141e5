"""A file of records, read."""

from __future__ import annotations

import os
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ..errors import CacheCorruptError, CacheError
from ..values import Data, Record
from .header import header_differences, joined_headers
from .line import RESTORE, entry_of, resolved, text_in
from .served import from_header, joined_served, model_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from ..values import Days
    from .spool import Spool

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# How the lines of records and texts begin, unless they were edited.
RECORD_LINE, TEXT_LINE = b'{"kind": ', b'{"text": '


class Headers:
    """What the headers of a file say. A merge may leave several, which differ only in ``served``.

    :ivar settings: the settings that decide keys; an empty file has none.
    :ivar run: the options of the ``llmcall run`` that recorded it, or ``None``.
    :ivar is_complete: whether the recording is complete.
    :ivar days: by model, the days on which it answered.
    """

    def __init__(self) -> None:
        self.settings: dict[str, Data] = {}
        self.run: dict[str, Data] | None = None
        self.is_complete = True
        self.days: dict[str, Days] = {}
        self._number = 0  # of the first one's line, from 1

    def read(self, file: BinaryIO, name: str, store: RecordFile | Spool) -> None:
        """Read a file, whose headers and texts may stand in any line.

        :param file: is read twice.
        :param name: the file's name in errors.
        :param store: gets the texts, and the records.
        """
        number = 0
        try:
            for number, line in _numbered(file):
                entry = {} if line.startswith(RECORD_LINE) else entry_of(line)
                if "llmcall" in entry:
                    self._add(number, entry)
                elif not self._number:
                    raise _no_header()
                elif "text" in entry:
                    store.add_text(entry["text"], text_in(entry))
            if not self._number and file.tell():
                number = max(number, 1)
                raise _no_header()
            file.seek(0)
            for number, line in _numbered(file):
                if line.startswith(TEXT_LINE) or "kind" not in (entry := entry_of(line)):
                    continue
                record = self._record_of(entry, store)
                earlier = store.find(record.cache_key)
                if earlier is None:
                    store.add(record, number)
                elif earlier[1].response != record.response:
                    raise CacheCorruptError(
                        f"line {earlier[0]} has a different answer to the same request; remove one of the two lines"
                    )
        except ValueError as error:  # half a character in a request, which has no key
            raise CacheCorruptError(f"{name}:{number}: {error}; {RESTORE}") from None
        except CacheError as error:
            raise type(error)(f"{name}:{number}: {error}") from None

    def _add(self, number: int, entry: dict[str, Any]) -> None:
        self.is_complete = self.is_complete and entry.get("complete", True)
        settings, run = entry["settings"], entry.get("run")
        days = from_header(entry.get("served", {}))
        if not self._number:
            self.settings, self.run, self.days, self._number = settings, run, days, number
            return
        differences = header_differences(
            {**self.settings, "run": self.run}, {**settings, "run": run}
        )
        if differences:
            raise CacheCorruptError(
                f"this header differs from line {self._number} in {differences}: the records were made "
                "under different settings; keep one header and its records, and record the others again"
            )
        self.settings = joined_headers(self.settings, settings)
        self.days = joined_served(self.days, days)

    def _record_of(self, entry: dict[str, Any], store: RecordFile | Spool) -> Record:
        request = resolved(entry["request"], store.text)
        response = resolved(entry["response"], store.text)
        kind, sample, cost = entry["kind"], entry.get("sample"), entry.get("cost")
        record = Record(None, kind, sample, request, response, cost, asker=entry.get("asker"))
        if self.days:
            record.noted_days = self.days.get(model_of(record) or "")
        return record


def _numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file that are not blank, with their numbers."""
    for number, line in enumerate(file, 1):
        text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        if text.strip():
            yield number, text


def _no_header() -> CacheCorruptError:
    return CacheCorruptError(
        'there is no header {"llmcall": …} before this; take the file from version control'
    )


class RecordFile(Headers):
    """The records of a file by their keys: ``len()``, ``in``, and iteration in the order of the file.

    :param data: the bytes of the file.
    :param name: the file's name in errors.
    :raises CacheCorruptError: if a line is damaged, refers to a text that is not there, or answers a
        request otherwise than another line, or if two headers differ; with the number of the line.
    :raises CacheError: if another version wrote the file.
    """

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__()
        self._records: dict[str, tuple[int, Record]] = {}  # with the numbers of their lines
        self._texts: dict[str, str] = {}  # by digest
        self.add_text = self._texts.__setitem__
        self.text = self._texts.get
        self.find = self._records.get
        self.read(BytesIO(data), name, self)

    def add(self, record: Record, number: int) -> None:
        """Add the record of a line."""
        self._records[record.cache_key] = number, record

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return (record for _, record in self._records.values())

    def __contains__(self, key: object) -> bool:
        return key in self._records

    def get(self, key: str) -> Record | None:
        """Return a copy of the record of a key, or ``None`` if there is none."""
        found = self._records.get(key)
        return None if found is None else copy_of(found[1])


def copy_of(record: Record) -> Record:
    """Return a copy of a record that shares with it nothing that can change."""
    return record.replace(request=_copied(record.request), response=_copied(record.response))


def _copied(data: Data) -> Data:
    if type(data) is dict:
        return {name: _copied(item) for name, item in data.items()}
    return [_copied(item) for item in data] if type(data) is list else data


def header_in(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the header of a file, or ``None`` if there is no file or it is empty.

    Only the first line is read and checked.

    :raises CacheCorruptError: if the first line is not a header, or is damaged.
    :raises CacheError: if a newer version wrote the file.
    """
    with suppress(FileNotFoundError), open(path, "rb") as file:
        for _, line in _numbered(file):
            entry = entry_of(line)
            if "llmcall" not in entry:
                raise _no_header()
            return entry
    return None


def read(path: str | os.PathLike[str]) -> RecordFile:
    """Read a file; see :class:`RecordFile` for what else it raises.

    :raises FileNotFoundError: if there is no such file.
    """
    with _opened(path) as file:
        return RecordFile(file.read(), os.fspath(path))


def spooled(path: str | os.PathLike[str], spool: Spool) -> Headers:
    """Read a file, whose records and texts go to a spool and not to the memory; see :func:`read`."""
    headers = Headers()
    with _opened(path) as file:
        headers.read(file, os.fspath(path), spool)
    return headers


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{os.fspath(path)} does not exist; give the path of a cassette or an exported file"
        ) from None
