"""Read a file of records."""

from __future__ import annotations

import os
from contextlib import suppress
from io import BytesIO
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import CacheCorruptError, CacheError
from ..requests.plain_data import is_same
from ..types import Data, Record
from .askers import askers_of
from .header import header_differences, joined_headers
from .line import entry_of, line_at
from .references import INLINE_CHARACTERS, TEXT, digest_of
from .resolver import Resolver
from .served import from_header, joined_served, model_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..types import Days, Request
    from .askers import Askers

# between a record's request and its response, as the writer writes it
RESPONSE = b', "response": '
REFERENCES = b'"$', b'"\\u0024'  # a line with a reference in it holds one of these
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# What tells a request from most others: its kind, its sample, and its last text.
Traits = tuple[str, "str | None", str]


class _RecordLine(NamedTuple):
    """The line of a record.

    :param begin: where it begins in the file, in bytes.
    :param has_references: whether it may refer to other lines.
    """

    begin: int
    has_references: bool


class RecordFile:
    """The records of a file: ``len()``, iteration in the order of the file, and :meth:`get`.

    A *position* is a record's index among the records, a *number* that of a line, from 1, as errors
    give it, and *begin* the byte at which a line begins.

    All lines are read and checked at once. References are resolved when a record is needed.

    :param data: the bytes of the file.
    :param name: the file's name in errors.
    :ivar settings: the settings in the header; an empty file has none.
    :ivar run: the options of the ``llmcall run`` that recorded it, or ``None``.
    :ivar is_complete: whether the recording is complete.
    :ivar days: by model, the days in the header on which it answered.
    :raises CacheCorruptError: if a line is damaged. Later, when a record is resolved: if it refers
        to a line that is not there, or if another record answers the same request differently.
    :raises CacheError: if a newer version wrote the file.
    """

    is_complete: bool = True

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        self.settings: dict[str, Data] = {}
        self.run: dict[str, Data] | None = None
        self.days: dict[str, Days] = {}
        self._header_number: int | None = None  # of its line
        self._records: list[_RecordLine] = []
        self._positions_with_askers: list[int] = []  # of the records that name their asker
        self._resolver = Resolver()
        # By all of a line that stands before the response: the first position.
        self._beginnings: dict[bytes, int] = {}
        # Computing a key takes long, so it is only done for records that a request may mean.
        self._positions_without_key: dict[Traits, list[int]] = {}
        self._positions: dict[str, int] = {}  # by key
        self._load()

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return self.records_without(())

    def records_without(self, keys: Iterable[str]) -> Iterator[Record]:
        """Yield the records in the order of the file, without those that were looked up and have one
        of some keys.

        :param keys: the keys.
        """
        looked_up_positions = {self._positions.get(key) for key in keys}
        without_key = self._positions_without_key.copy().values()
        unique_positions = {positions[0] for positions in without_key if len(positions) == 1}
        for position in range(len(self)):
            if position in looked_up_positions:
                continue
            record = self.record(position)
            if position in unique_positions or self._first_position(record, position) == position:
                yield record

    def records(self) -> list[Record]:
        """Return all records in the order of the file."""
        return list(self)

    def get(self, request: Request | str) -> Record | None:
        """Return the record of a request or of a key, or ``None`` if there is none.

        The first look-up of a key alone reads all records. Threads may look up at once: they may
        compute the same key twice, which changes nothing.
        """
        if isinstance(request, str):
            self._compute_keys()
            return self._record_with_key(request)
        key = request.cache_key
        traits = _traits(request.kind, request.sample, request.asked)
        match = None
        # No early return: all records with these traits get their keys, so that nobody looks at
        # them again, and two answers to one request are refused.
        for position in self._positions_without_key.get(traits, ()):
            record = self.record(position)
            if _answers(record, request):
                record = record.replace(cache_key=key)
            if self._first_position(record, position) == position and record.cache_key == key:
                match = record
        self._positions_without_key.pop(traits, None)
        return match or self._record_with_key(key)

    def _compute_keys(self) -> None:
        """Compute the keys that are not known yet, in the order of the file."""
        without_key = self._positions_without_key.copy()
        for position in sorted(chain.from_iterable(without_key.values())):
            self._first_position(self.record(position), position)
        for traits in without_key:
            self._positions_without_key.pop(traits, None)

    def askers(self) -> Askers:
        """Return who asked, for the records that name their asker."""
        return askers_of(self.record(position) for position in self._positions_with_askers)

    def _record_with_key(self, key: str) -> Record | None:
        position = self._positions.get(key)
        return None if position is None else self.record(position, key)

    def _first_position(self, record: Record, position: int) -> int:
        """Return the first known position of a record's key.

        :raises CacheCorruptError: if the record there has another answer.
        """
        first = self._positions.setdefault(record.cache_key, position)
        if first != position and self.record(first).response != record.response:
            raise self._located(self._line_number(position), self._two_answers(first))
        return first

    def _load(self) -> None:
        number, begin = 1, 0
        try:
            for number, line in enumerate(BytesIO(self._data), 1):
                text = line if begin else line.removeprefix(BYTE_ORDER_MARK)
                if text and not text.isspace():
                    self._add(number, begin, text)
                begin += len(line)
            if self._data and self._header_number is None:
                raise _no_header()
        except CacheError as error:
            raise self._located(number, error) from None

    def _located(self, number: int, error: CacheError) -> CacheError:
        return type(error)(f"{self._name}:{number}: {error}")

    def _line_number(self, position: int) -> int:
        return self._data.count(b"\n", 0, self._records[position].begin) + 1

    def _two_answers(self, first: int) -> CacheCorruptError:
        line = self._line_number(first)
        return CacheCorruptError(
            f"line {line} has a different answer to the same request; remove one of the two lines"
        )

    def _add(self, number: int, begin: int, line: bytes) -> None:
        entry = entry_of(line)
        if "llmcall" in entry:
            self.is_complete = self.is_complete and entry.get("complete", True)
            self._add_header(number, entry)
        elif self._header_number is None:
            raise _no_header()
        elif "kind" in entry:
            self._add_record(begin, line, entry)
        else:
            self._resolver.add_text(begin, entry["text"], entry["lines"])

    def _add_header(self, number: int, entry: dict[str, Any]) -> None:
        settings, run = entry["settings"], entry.get("run")
        if self._header_number is None:
            self.settings, self.run, self._header_number = settings, run, number
        differences = header_differences(
            {**self.settings, "run": self.run}, {**settings, "run": run}
        )
        if differences:
            raise CacheCorruptError(
                f"this header differs from line {self._header_number} in {differences}: the records were made "
                "under different settings; keep one header and its records, and record the others again"
            )
        self.settings = joined_headers(self.settings, settings)
        days = from_header(entry.get("served", {}))
        self.days = days if self._header_number == number else joined_served(self.days, days)

    def _add_record(self, begin: int, line: bytes, entry: dict[str, Any]) -> None:
        position = len(self)
        first = self._beginnings.setdefault(line.partition(RESPONSE)[0], position)
        if first < position:
            earlier = self._entry(first)
            if all(earlier.get(name) == entry.get(name) for name in ("kind", "sample", "request")):
                if earlier["response"] != entry["response"]:
                    raise self._two_answers(first)
                return
        has_references = any(reference in line for reference in REFERENCES)
        traits = _traits(entry["kind"], entry.get("sample"), entry["request"])
        self._positions_without_key.setdefault(traits, []).append(position)
        if "asker" in entry:
            self._positions_with_askers.append(position)
        self._records.append(_RecordLine(begin, has_references))

    def _entry(self, position: int) -> dict[str, Any]:
        return entry_of(self._line(position))

    def _line(self, position: int) -> bytes:
        return line_at(self._data, self._records[position].begin)

    def request_lines(self, position: int) -> list[bytes]:
        """Return the bytes in which a request stands: its line up to the response, and the lines of
        the texts that it refers to.

        :param position: the record's position in the file.
        """
        line = self._line(position).partition(RESPONSE)[0]
        begins = map(self._resolver.begin_of_text, TEXT.findall(line.decode()))
        return [line, *(line_at(self._data, begin) for begin in begins if begin is not None)]

    def record(self, position: int, key: str | None = None) -> Record:
        """Return the record at a position in the file.

        :param key: its key, if that is known.
        :raises CacheCorruptError: if it refers to a line that is not there.
        """
        entry = self._entry(position)
        kind, request, response = entry["kind"], entry["request"], entry["response"]
        if self._records[position].has_references:
            try:
                request = self._resolver.resolved(request)
                response = self._resolver.resolved(response)
            except CacheError as error:
                raise self._located(self._line_number(position), error) from None
        model = model_of(kind, request, response) if self.days else None
        return Record(
            key,
            kind,
            entry.get("sample"),
            request,
            response,
            entry.get("cost"),
            asker=entry.get("asker"),
            days=None if model is None else self.days.get(model),
        )


def _answers(record: Record, request: Request) -> bool:
    """Return whether a record is of a request, without computing its key."""
    if record.kind != request.kind or record.sample != request.sample:
        return False
    return is_same(record.request, request.asked)


def _no_header() -> CacheCorruptError:
    return CacheCorruptError(
        'there is no header {"llmcall": …} before this; take the file from version control'
    )


def _traits(kind: str, sample: str | None, request: Mapping[str, Any]) -> Traits:
    """Return the traits of a request; they are the same whether it holds references or texts."""
    messages = request.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = request.get("input", request.get("function"))
    if isinstance(last, dict):
        content = last.get("content")
    if isinstance(content, str):
        return kind, sample, content if len(content) <= INLINE_CHARACTERS else digest_of(content)
    return kind, sample, str(content.get("$text")) if isinstance(content, dict) else ""


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
