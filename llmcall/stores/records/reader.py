"""The reading of a file of records."""

from __future__ import annotations

import json
import os
import re
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from io import BytesIO

from ...additions import additions
from ...errors import CacheCorruptError, CacheError
from ...keys.request import Data
from ..record import Record
from .header import Header, check_record, first_header, no_header, record_of
from .line import RESTORE, checked_text, parse_line, refuse_folder, resolve_markers
from .packed import LazyRecord

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MOST_READ_TEXTS = 1000
MOST_READ = 4  # records: one is used several times in a row, and compared with another


class FileRecord(LazyRecord):
    """A record of a file, which knows what its line has at both ends.

    :ivar file: the file.
    """

    __slots__ = ("file",)
    file: RecordFile

    @property
    def line(self) -> bytes:
        """Return its line. Equal lines have equal requests and answers."""
        return self.file.line_of(self.file.place_of(self.cache_key)).rstrip()


# The beginning of a record's line: its kind, its sample, its caller and its arms.
_TEXT = rb'"(?:[^"\\]|\\.)*"'
RECORD_START = re.compile(
    rb'\{"kind": "([a-z]+)"(?:, "sample": (%b))?(?:, "caller": (%b))?(?:, "arms": (\[(?:%b(?:, )?)*\]))?, '
    % (_TEXT, _TEXT, _TEXT)
)
TEXT_START = b'{"text": "'
KEY_DIGITS, TEXT_DIGITS = 64, 32
KEY_START = b', "key": "'  # before the digits that end a record's line


class RecordFile:
    """The records of a file by their keys: ``len()``, ``in``, and iteration in the order of the file.

    :param content: the content of the file.
    :param name: the file's name in errors.
    :ivar header: the file's header.
    :raises CacheCorruptError: if a line is none, or answers a request differently than another line, or if two headers
        differ; names the line. A record that is damaged inside, or whose key is not its request's, raises it when it is
        read.
    :raises CacheError: if another version wrote the file.
    """

    # Opening parses headers alone: of a record's line it takes the key, from its end. So a file takes little
    # memory, and what is looked up is parsed. Three other ways were rejected: to keep the records, which take
    # several times the memory of the text; an index in another file, which would be missing where a cassette
    # comes from git; and to compute the keys, which takes longer than parsing.
    def __init__(self, content: bytes, name: str) -> None:
        self.header = Header({})
        self.content = content
        self._name = name
        self._number = 0  # of the line that is read
        self._starts = array("Q")  # of the records' lines
        self._places: dict[str, int] = {}  # of the records among the starts, by key
        self._named: list[int] = []  # the places of records that name their caller
        self._texts: dict[str, int] = {}  # the starts of the lines of long texts, by digest
        self._read_texts: dict[str, str] = {}
        self._arms: dict[int, list[str]] = {}  # by place: those of a record that has several lines
        try:
            self._note_lines()
        except CacheError as error:
            raise type(error)(f"{name}:{self._number}: {error}") from None

    def _note_lines(self) -> None:
        """Note where the records and texts stand. Headers and texts may be in any line; a merge may leave several
        headers, which differ only in ``served``.
        """
        header_number = start = 0
        repeated: list[tuple[int, int, int]] = []  # places, starts and numbers of lines
        for number, whole in enumerate(BytesIO(self.content), 1):
            self._number = number
            line = whole.rstrip() if number > 1 else whole.removeprefix(BYTE_ORDER_MARK).rstrip()
            if header_number and (match := RECORD_START.match(line)):
                key = key_at_end(line)
                place = self._places.setdefault(key, len(self._starts))
                if place < len(self._starts):
                    repeated.append((place, start, number))
                else:
                    if match[3] is not None:
                        self._named.append(place)
                    self._starts.append(start)
            elif header_number and line.startswith(TEXT_START):
                digest = line[len(TEXT_START) :][:TEXT_DIGITS].decode(errors="replace")
                self._texts[digest] = start
            elif line and not header_number:
                self.header, header_number = first_header(line), number
            elif line:
                self._join_header(parse_line(whole), header_number)
            start += len(whole)
        if self._number and not header_number:
            raise no_header()
        for place, start, number in repeated:
            self._join(place, start, number)

    def _join_header(self, entry: Mapping[str, Data], first: int) -> None:
        """Join a further header to the first one."""
        if "llmcall" not in entry:
            raise CacheCorruptError(f"the line is not as llmcall writes it; {RESTORE}")
        found = Header.of(entry)
        if differences := self.header.differences(found):
            raise CacheCorruptError(
                f"this header differs from line {first} in {differences}: the records were made "
                "under different settings; keep one header and its records, and record the others again"
            )
        self.header = self.header.joined(found)

    def _join(self, place: int, start: int, number: int) -> None:
        """Join a further line of a record to its first one: the arms of both used it.

        :param number: of the line.
        """
        first, line = self.line_of(place).rstrip(), self._line(start).rstrip()
        if first == line:
            return
        record, other = (self._parsed(text) for text in (first, line))
        if record.response != other.response:
            self._number = number
            raise CacheCorruptError(
                f"line {self._number_of(place)} has a different answer to the same request; remove one of the two lines"
            )
        self._arms[place] = list(dict.fromkeys((*self._arms.get(place, record.arms), *other.arms)))

    def _number_of(self, place: int) -> int:
        """Return the number of a record's line."""
        return self.content.count(b"\n", 0, self._starts[place]) + 1

    def _line(self, start: int) -> bytes:
        return self.content[start : self.content.find(b"\n", start) + 1 or None]

    def _parsed(self, line: bytes) -> Record:
        entry = parse_line(line)
        for name in ("request", "response") if b'"$' in line else ():
            if b'"$' in line[line.find(b', "%b": ' % name.encode()) :]:
                entry[name] = resolve_markers(entry[name], self.text)
        return record_of(entry, self.header)

    def _record(self, place: int, asked: Mapping[str, Data] | None = None) -> Record:
        """Return a record, read from its line.

        :param asked: a request whose key it has, if one is known: comparing takes less time than a key.
        """
        try:
            record = self._parsed(self.line_of(place))
            if place in self._arms:
                record.arms = tuple(self._arms[place])
            check_record(record, asked)
        except (CacheError, ValueError) as error:  # a request with a lone surrogate has no key
            words = f"{self._name}:{self._number_of(place)}: {error}"
            if isinstance(error, CacheError):
                raise type(error)(words) from None
            raise CacheCorruptError(f"{words}; {RESTORE}") from None
        return record

    def text(self, digest: str) -> str | None:
        """Return the long text with a digest, or ``None``."""
        text = self._read_texts.get(digest)
        if text is None and digest in self._texts:
            text = checked_text(parse_line(self._line(self._texts[digest])))
            if len(self._read_texts) == MOST_READ_TEXTS:
                self._read_texts.clear()
            self._read_texts[digest] = text
        return text

    @cached_property
    def has_given(self) -> bool:
        """Return whether it may have an answer that no model gave."""
        return any(f'"{name}": '.encode() in self.content for name in additions("given"))

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Record]:
        read = lru_cache(MOST_READ)(self._record)
        return (self._lazy(key, place, read) for key, place in self._places.items())

    def _lazy(self, key: str, place: int, read: Callable[[int], Record]) -> FileRecord:
        """Return a record that reads at each use what it does not hold."""
        match = RECORD_START.match(self.line_of(place))
        assert match is not None
        sample, caller, arms = (part and json.loads(part) for part in match.group(2, 3, 4))
        return FileRecord(
            read,
            place,
            file=self,
            _cache_key=key,
            kind=sys.intern(match[1].decode()),
            sample=sample,
            caller=caller,
            arms=tuple(self._arms.get(place, arms or ())),
            header_notes=self.header.notes,
            stored_at=None,
        )

    def place_of(self, key: str) -> int:
        """Return the place of a key's record."""
        return self._places[key]

    def line_of(self, place: int) -> bytes:
        """Return the line of a record."""
        return self._line(self._starts[place])

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def get(self, key: str, asked: Mapping[str, Data] | None = None) -> Record | None:
        """Return the record of a key, or ``None``. It shares no data with what this returns another time.

        :param asked: the request with the key, if it is known.
        """
        place = self._places.get(key)
        return None if place is None else self._record(place, asked)

    def others(self, is_used: Callable[[str], bool]) -> list[Record]:
        """Return the records that are not used.

        :param is_used: returns whether the record of a key is used.
        """
        read = lru_cache(MOST_READ)(self._record)
        places = self._places.items()
        return [
            LazyRecord(read, place, _cache_key=key) for key, place in places if not is_used(key)
        ]

    def named(self) -> Iterator[Record]:
        """Yield the records that name their caller."""
        return map(self._record, self._named)


def key_at_end(line: bytes) -> str:
    """Return the key of a record's line.

    :raises CacheCorruptError: if its end has none.
    """
    start = -len(KEY_START) - KEY_DIGITS - 2
    if line[start : -KEY_DIGITS - 2] == KEY_START and line.endswith(b'"}'):
        return line[-KEY_DIGITS - 2 : -2].decode(errors="replace")
    parse_line(line)  # may say more
    raise CacheCorruptError(f"the line does not end with its key; {RESTORE}")


def content_of(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file, empty without the file.

    :raises CacheError: if it is a folder.
    """
    refuse_folder(path)
    with suppress(FileNotFoundError), open(path, "rb") as file:
        return file.read()
    return b""


def header_in(path: str | os.PathLike[str]) -> Header | None:
    """Return the header of a file, or ``None`` if the file is missing or empty.

    Only the first line is read and checked.

    :raises CacheCorruptError: if the first line is not a header, or is damaged.
    :raises CacheError: if a newer version wrote the file.
    """
    with suppress(FileNotFoundError), open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            if not text.strip():
                continue
            try:
                return first_header(text)
            except CacheError as error:
                raise type(error)(f"{os.fspath(path)}:{number}: {error}") from None
    return None


def read(path: str | os.PathLike[str]) -> RecordFile:
    """Read a file; see :class:`RecordFile` for what else it raises.

    :raises FileNotFoundError: if the file does not exist.
    :raises CacheError: if it is a folder.
    """
    if not os.path.exists(os.path.expanduser(path)):
        raise FileNotFoundError(
            f"{os.fspath(path)} does not exist; give the path of a cassette or an exported file"
        )
    return RecordFile(content_of(os.path.expanduser(path)), os.fspath(path))
