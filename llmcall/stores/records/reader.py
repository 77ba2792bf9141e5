"""The reading of a file of records."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ...errors import CacheCorruptError, CacheError
from ..record import Record
from .header import Header
from .line import (
    CONFLICT,
    RESTORE,
    checked_text,
    parse_line,
    refuse_folder,
    resolve_markers,
)
from .readable import unreadable
from .served import model_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from .spool import Spool

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# The beginnings of the lines of records, texts and headers, unless somebody edited them.
RECORD_LINE, TEXT_LINE = b'{"kind": ', b'{"text": '
HEADER_LINE = b'{"llmcall": '


def _read_into(store: RecordFile | Spool, file: BinaryIO, name: str) -> Header:
    """Read a file and return its header. Headers and texts may be in any line; a merge may leave several
    headers, which differ only in ``served``.

    :param store: takes the texts and the records.
    :param file: is read twice.
    :param name: the file's name in errors.
    """
    header: Header | None = None
    header_number = number = 0
    try:
        for number, line in _numbered(file):
            if header is None:
                header, header_number = _first_header(line), number
                continue
            entry = {} if line.startswith(RECORD_LINE) else parse_line(line)
            if "llmcall" in entry:
                found = Header.of(entry)
                if differences := header.differences(found):
                    raise CacheCorruptError(
                        f"this header differs from line {header_number} in {differences}: the records were made "
                        "under different settings; keep one header and its records, and record the others again"
                    )
                else:
                    header = header.joined(found)
            elif "text" in entry:
                store.add_text(entry["text"], checked_text(entry))
        if header is None:
            if not file.tell():
                return Header({})
            number = max(number, 1)
            raise _no_header()
        file.seek(0)
        for number, line in _numbered(file):
            if line.startswith(TEXT_LINE) or "kind" not in (entry := parse_line(line)):
                continue
            record = _parse_record(entry, store.text, header)
            if problem := unreadable(record):
                raise CacheCorruptError(f"{problem}; {RESTORE}")
            earlier = store.find(record.cache_key)
            if earlier is None:
                store.add(record, number)
            elif earlier[1].response != record.response:
                raise CacheCorruptError(
                    f"line {earlier[0]} has a different answer to the same request; remove one of the two lines"
                )
            elif record.arms:
                store.add(earlier[1].with_arms(record.arms), earlier[0])
    except ValueError as error:  # a request with a lone surrogate has no key
        raise CacheCorruptError(f"{name}:{number}: {error}; {RESTORE}") from None
    except CacheError as error:
        raise type(error)(f"{name}:{number}: {error}") from None
    return header


def _parse_record(
    entry: dict[str, Any], find_text: Callable[[str], str | None], header: Header
) -> Record:
    """Return the record of a line, with what its file's header says of it."""
    request, response = (
        resolve_markers(entry[name], find_text) for name in ("request", "response")
    )
    kind, sample, cost = entry["kind"], entry.get("sample"), entry.get("cost")
    asker, arms = entry.get("asker"), tuple(entry.get("arms", ()))
    record = Record(None, kind, sample, request, response, cost, asker=asker, arms=arms)
    record.imported = header.imported
    if header.days:
        record.noted_days = header.days.get(model_of(record) or "")
    return record


def _numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file that are not blank, with their numbers."""
    for number, line in enumerate(file, 1):
        text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        if text.strip():
            yield number, text


def _first_header(line: bytes) -> Header:
    """Return the header in the first line of a file.

    :raises CacheCorruptError: if it is anything else; the message says what the file is.
    """
    try:
        entry = parse_line(line)
    except CacheCorruptError:
        if line.startswith((HEADER_LINE, *CONFLICT)):
            raise
        raise _foreign(line) from None
    if "llmcall" not in entry:
        raise _no_header()
    return Header.of(entry)


def _no_header() -> CacheCorruptError:
    return CacheCorruptError(
        'there is no header {"llmcall": …} before this; take the file from version control'
    )


def _foreign(line: bytes) -> CacheCorruptError:
    """Return the error for a file that is not a cassette, by its first line."""
    if line.startswith(b"version https://git-lfs.github.com/"):
        return CacheCorruptError(
            "this is a Git LFS pointer, and the cassette itself is not here: fetch it with 'git lfs pull'"
        )
    names: set[str] = set()
    with suppress(ValueError, RecursionError):
        data = json.loads(line)
        names = set(data) if isinstance(data, dict) else names
    importable = {
        "a cassette of VCR": line.startswith(b"interactions:"),
        "the input or output of a batch": "custom_id" in names,
        "a file of conversations, as for fine-tuning": "messages" in names,
        "a file of prompts and answers": names >= {"prompt", "answer"},
    }
    remedy = "'llmcall import' makes a cassette of it"
    kind = next((kind for kind, is_met in importable.items() if is_met), None)
    if kind is None:
        is_tuning = names >= {"prompt", "completion"} or "preferred_output" in names
        kind = "a file for fine-tuning" if is_tuning else "not a cassette of llmcall"
        remedy = "give another file, or take the cassette from version control"
    return CacheCorruptError(
        f'this is {kind}: the first line is not the header {{"llmcall": …}}; {remedy}'
    )


class RecordFile:
    """The records of a file by their keys: ``len()``, ``in``, and iteration in the order of the file.

    :param data: the bytes of the file.
    :param name: the file's name in errors.
    :ivar header: the file's header.
    :raises CacheCorruptError: if a line is damaged, refers to a missing text, holds a chat that cannot be
        read, or answers a request differently than another line, or if two headers differ; names the
        line.
    :raises CacheError: if another version wrote the file.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self._records: dict[str, tuple[int, Record]] = {}  # with the numbers of their lines
        self._texts: dict[str, str] = {}  # by digest
        self.add_text = self._texts.__setitem__
        self.text = self._texts.get
        self.find = self._records.get
        self.header = _read_into(self, BytesIO(data), name)

    def add(self, record: Record, number: int) -> None:
        """Add the record of a line, or replace the one with its key."""
        self._records[record.cache_key] = number, record

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return (record for _, record in self._records.values())

    def __contains__(self, key: object) -> bool:
        return key in self._records

    def get(self, key: str) -> Record | None:
        """Return a copy of the record of a key, or ``None``."""
        found = self._records.get(key)
        return None if found is None else found[1].copy()


def header_in(path: str | os.PathLike[str]) -> Header | None:
    """Return the header of a file, or ``None`` if the file is missing or empty.

    Only the first line is read and checked.

    :raises CacheCorruptError: if the first line is not a header, or is damaged.
    :raises CacheError: if a newer version wrote the file.
    """
    with suppress(FileNotFoundError), open(path, "rb") as file:
        for number, line in _numbered(file):
            try:
                return _first_header(line)
            except CacheError as error:
                raise type(error)(f"{os.fspath(path)}:{number}: {error}") from None
    return None


def read(path: str | os.PathLike[str]) -> RecordFile:
    """Read a file; see :class:`RecordFile` for what else it raises.

    :raises FileNotFoundError: if there is no such file.
    :raises CacheError: if it is a folder.
    """
    with _open_file(path) as file:
        return RecordFile(file.read(), os.fspath(path))


def spooled(path: str | os.PathLike[str], spool: Spool) -> Header:
    """Read a file's records and texts into a spool, to save memory; return its header."""
    with _open_file(path) as file:
        return _read_into(spool, file, os.fspath(path))


def _open_file(path: str | os.PathLike[str]) -> BinaryIO:
    path = os.path.expanduser(path)
    refuse_folder(path)
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{os.fspath(path)} does not exist; give the path of a cassette or an exported file"
        ) from None
