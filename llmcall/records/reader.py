"""A file of records, read."""

from __future__ import annotations

import os
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ..errors import CacheCorruptError, CacheError
from ..values import Data, Record
from .askers import askers_of
from .header import header_differences, joined_headers
from .line import RESTORE, entry_of
from .references import resolved, text_in
from .served import from_header, joined_served, model_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..values import Days, Request
    from .askers import Askers

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class RecordFile:
    """The records of a file: ``len()``, iteration in the order of the file, and :meth:`get`.

    Everything is read and checked at once. Each record that is asked for is built from its line, so
    nobody can change it for others.

    :param data: the bytes of the file.
    :param name: the file's name in errors.
    :ivar settings: the settings in the header; an empty file has none.
    :ivar run: the options of the ``llmcall run`` that recorded it, or ``None``.
    :ivar is_complete: whether the recording is complete.
    :ivar days: by model, the days in the header on which it answered.
    :raises CacheCorruptError: if a line is damaged, refers to a text that is not there, or answers a
        request otherwise than another line; with the number of the line.
    :raises CacheError: if another version wrote the file.
    """

    is_complete: bool = True

    def __init__(self, data: bytes, name: str) -> None:
        self.settings: dict[str, Data] = {}
        self.run: dict[str, Data] | None = None
        self.days: dict[str, Days] = {}
        self._texts: dict[str, str] = {}  # by digest
        self._lines: dict[str, tuple[int, bytes]] = {}  # of records, with their numbers, by key
        self._keys_with_askers: list[str] = []
        self._header_number = 0  # of its line, from 1
        records = []
        number = 1
        try:
            for number, line in enumerate(BytesIO(data), 1):
                text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
                if not text.strip():
                    continue
                entry = entry_of(text)
                if "llmcall" in entry:
                    self._add_header(number, entry)
                elif not self._header_number:
                    raise _no_header()
                elif "kind" in entry:
                    records.append((number, line, entry))
                else:
                    self._texts[entry["text"]] = text_in(entry)
            if data and not self._header_number:
                raise _no_header()
            for number, line, entry in records:
                self._add_record(number, line, entry)
        except CacheError as error:
            raise type(error)(f"{name}:{number}: {error}") from None

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

    def get(self, request_or_key: Request | str) -> Record | None:
        """Return the record of a request or of a key, or ``None`` if there is none."""
        key = request_or_key if isinstance(request_or_key, str) else request_or_key.cache_key
        return self._record(key) if key in self._lines else None

    def askers(self) -> Askers:
        """Return who asked, for the records that name their asker."""
        return askers_of(map(self._record, self._keys_with_askers))

    def _record(self, key: str) -> Record:
        return self._record_of(entry_of(self._lines[key][1]), key)

    def _record_of(self, entry: dict[str, Any], key: str | None = None) -> Record:
        request = resolved(entry["request"], self._texts)
        response = resolved(entry["response"], self._texts)
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

    def _add_record(self, number: int, line: bytes, entry: dict[str, Any]) -> None:
        record = self._record_of(entry)
        try:
            key = record.cache_key
        except ValueError as error:  # half a character
            raise CacheCorruptError(f"{error}; {RESTORE}") from None
        first_number, _ = self._lines.setdefault(key, (number, line))
        if first_number == number:
            if record.asker is not None:
                self._keys_with_askers.append(key)
        elif self._record(key).response != record.response:
            raise CacheCorruptError(
                f"line {first_number} has a different answer to the same request; remove one of the two lines"
            )


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
        for line in file:
            stripped = line.removeprefix(BYTE_ORDER_MARK).strip()
            if stripped:
                entry = entry_of(stripped)
                if "llmcall" not in entry:
                    raise _no_header()
                return entry
    return None


def read(path: str | os.PathLike[str]) -> RecordFile:
    """Read a file; see :class:`RecordFile` for what else it raises.

    :raises FileNotFoundError: if there is no such file.
    """
    try:
        with open(path, "rb") as file:
            return RecordFile(file.read(), os.fspath(path))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{os.fspath(path)} does not exist; give the path of a cassette or an exported file"
        ) from None
