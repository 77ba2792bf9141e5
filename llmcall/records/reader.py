"""A file of records, read."""

from __future__ import annotations

import os
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ..errors import CacheCorruptError, CacheError
from ..keys.keys import key_of
from ..values import Data, Record
from .header import header_differences, joined_headers
from .line import RESTORE, entry_of
from .references import resolved, text_in
from .served import from_header, joined_served, model_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from ..values import Days
    from .spool import Spool

# By scope path and by the request's key outside any scope: by the number of a draw, who asked.
Askers = dict[tuple[str, str], dict[int, str]]
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
TEXT_LINE = b'{"text": '  # how the line of a text begins, unless it was edited


class Lines:
    """The lines of a file of records, whose records are built one after the other.

    The headers and texts are read at once, since they may stand in any line.

    :param file: the file; it is read twice.
    :param name: the file's name in errors.
    :param add_text: takes the digest and the text of a line.
    :param text: returns the text with a digest, or ``None``.
    :ivar settings: the settings in the header; an empty file has none.
    :ivar run: the options of the ``llmcall run`` that recorded it, or ``None``.
    :ivar is_complete: whether the recording is complete.
    :ivar days: by model, the days in the header on which it answered.
    :raises CacheCorruptError: if a line is damaged, or a header differs from the first; with the
        number of the line.
    :raises CacheError: if another version wrote the file.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        add_text: Callable[[str, str], object],
        text: Callable[[str], str | None],
    ) -> None:
        self.settings: dict[str, Data] = {}
        self.run: dict[str, Data] | None = None
        self.days: dict[str, Days] = {}
        self.is_complete = True
        self._file = file
        self._name = name
        self._text = text
        self._header_number = 0  # of its line, from 1
        number = 0
        try:
            for number, line in _numbered(file):
                entry = entry_of(line)
                if "llmcall" in entry:
                    self._add_header(number, entry)
                elif not self._header_number:
                    raise _no_header()
                elif "text" in entry:
                    add_text(entry["text"], text_in(entry))
            if not self._header_number and file.tell():
                number = max(number, 1)
                raise _no_header()
        except CacheError as error:
            raise self.error(number, error) from None

    def numbered(self) -> Iterator[tuple[int, bytes, Record]]:
        """Yield the records, each with its line and the line's number.

        :raises CacheCorruptError: if one refers to a text that is not there, or has no key.
        """
        self._file.seek(0)
        for number, line in _numbered(self._file):
            if line.startswith(TEXT_LINE):
                continue
            entry = entry_of(line)
            if "kind" not in entry:
                continue
            try:
                record = self._record_of(entry)
                record.cache_key  # noqa: B018 - computes it
            except ValueError as error:  # half a character
                raise self.error(number, CacheCorruptError(f"{error}; {RESTORE}")) from None
            except CacheError as error:
                raise self.error(number, error) from None
            yield number, line, record

    def _record_of(self, entry: dict[str, Any], key: str | None = None) -> Record:
        """Return the record of a line's entry."""
        request = resolved(entry["request"], self._text)
        response = resolved(entry["response"], self._text)
        model = model_of(entry["kind"], request, response) if self.days else None
        return Record(
            key,
            entry["kind"],
            entry.get("sample"),
            request,
            response,
            entry.get("cost"),
            asker=entry.get("asker"),
            days=None if model is None else self.days.get(model),
        )

    def check_answer(self, number: int, record: Record, earlier: Record, place: str) -> None:
        """Check that two lines for one request have one answer.

        :param number: of the line with the record.
        :param place: of the earlier line, in words.
        :raises CacheCorruptError: if they have two.
        """
        if earlier.response != record.response:
            words = (
                f"{place} has a different answer to the same request; remove one of the two lines"
            )
            raise self.error(number, CacheCorruptError(words))

    def error(self, number: int, error: CacheError) -> CacheError:
        """Return an error with the file's name and the line's number."""
        return type(error)(f"{self._name}:{number}: {error}")

    def _add_header(self, number: int, entry: dict[str, Any]) -> None:
        self.is_complete = self.is_complete and entry.get("complete", True)
        settings, run = entry["settings"], entry.get("run")
        days = from_header(entry.get("served", {}))
        if not self._header_number:
            self.settings, self.run, self.days, self._header_number = settings, run, days, number
            return
        differences = header_differences(
            {**self.settings, "run": self.run}, {**settings, "run": run}
        )
        if differences:
            raise CacheCorruptError(
                f"this header differs from line {self._header_number} in {differences}: the records were made "
                "under different settings; keep one header and its records, and record the others again"
            )
        self.settings = joined_headers(self.settings, settings)
        self.days = joined_served(self.days, days)


def _numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file that are not blank, with their numbers."""
    for number, line in enumerate(file, 1):
        text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        if text.strip():
            yield number, text


class RecordFile(Lines):
    """The records of a file: ``len()``, iteration in the order of the file, and :meth:`get`.

    Everything is read and checked at once. Each record that is asked for is built from its line, so
    nobody can change it for others.

    :param data: the bytes of the file.
    :param name: the file's name in errors.
    :raises CacheCorruptError: if a line is damaged, refers to a text that is not there, or answers a
        request otherwise than another line; with the number of the line.
    :raises CacheError: if another version wrote the file.
    """

    def __init__(self, data: bytes, name: str) -> None:
        texts: dict[str, str] = {}
        super().__init__(BytesIO(data), name, texts.__setitem__, texts.get)
        self._lines: dict[str, tuple[int, bytes]] = {}  # of records, with their numbers, by key
        self._keys_with_askers: list[str] = []
        for number, line, record in self.numbered():
            key = record.cache_key
            first_number, _ = self._lines.setdefault(key, (number, line))
            if first_number != number:
                self.check_answer(number, record, self._record(key), f"line {first_number}")
            elif record.asker is not None:
                self._keys_with_askers.append(key)

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Record]:
        return (self._record(key) for key in self._lines)

    def keys(self) -> list[str]:
        """Return the keys of all records in the order of the file."""
        return list(self._lines)

    def records(self) -> list[Record]:
        """Return all records in the order of the file."""
        return list(self)

    def get(self, key: str) -> Record | None:
        """Return the record of a key, or ``None`` if there is none."""
        return self._record(key) if key in self._lines else None

    def askers(self) -> Askers:
        """Return who asked for numbered draws, for the records that say it."""
        askers: Askers = {}
        for record in map(self._record, self._keys_with_askers):
            scope, _, number = (record.sample or "").partition("#")
            if number.isdecimal():
                request_key = key_of(record.kind, record.request, None)
                askers.setdefault((scope, request_key), {})[int(number)] = str(record.asker)
        return askers

    def _record(self, key: str) -> Record:
        return self._record_of(entry_of(self._lines[key][1]), key)


def spooled(path: str | os.PathLike[str], spool: Spool) -> Lines:
    """Read a file, whose records and texts go to a spool and not to the memory; see :class:`RecordFile`
    for what it raises.
    """
    with _opened(path) as file:
        lines = Lines(file, os.fspath(path), spool.add_text, spool.text)
        for number, _, record in lines.numbered():
            if not spool.add(record) and (earlier := spool.get(record.cache_key)):
                lines.check_answer(number, record, earlier, "an earlier line")
    return lines


def _no_header() -> CacheCorruptError:
    return CacheCorruptError(
        'there is no header {"llmcall": …} before this; take the file from version control'
    )


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


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{os.fspath(path)} does not exist; give the path of a cassette or an exported file"
        ) from None
