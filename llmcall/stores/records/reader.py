"""The reading of a file of records."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from typing import overload

from ...additions import additions
from ...errors import CacheCorruptError, CacheError
from ...keys.plain_data import is_same
from ...keys.request import Data
from ..record import Record, scope_of, sorted_scopes
from .content import content_of
from .header import Header, check_record, first_header, no_header, record_of, resolved
from .keyed_settings import Undecided
from .line import (
    INLINE_CHARACTERS,
    RESTORE,
    checked_text,
    is_marker,
    parse_line,
    resolve_markers,
    text_digest,
)
from .packed import LazyRecord

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MOST_READ_TEXTS = 1000
MOST_READ = 4  # records: one is used several times in a row, and compared with another


class Records(Sequence[Record]):
    """Records that are read at each use: a run of a million has no room for them.

    :param read: returns the record at a place; it is never changed.
    :param places: those of the records, in their order.
    :param scopes: yields the scope paths at places, ``None`` outside any; by default, they are read.
    :param file: the file in which they stand, if it is one.
    """

    __slots__ = ("_read", "_scopes", "file", "places")

    def __init__(
        self,
        read: Callable[[int], Record],
        places: Sequence[int],
        scopes: Callable[[Iterable[int]], Iterator[str | None]] | None = None,
        file: RecordFile | None = None,
    ) -> None:
        self._read = read
        self._scopes = scopes or (lambda places: (scope_of(read(place)) for place in places))
        self.places = places
        self.file = file

    @classmethod
    def of(cls, records: Sequence[Record]) -> Records:
        """Return a list's records."""
        return (
            records
            if isinstance(records, Records)
            else cls(records.__getitem__, range(len(records)))
        )

    def at(self, numbers: Iterable[int]) -> Records:
        """Return some of them, by their numbers."""
        return self.moved(self.places[number] for number in numbers)

    def moved(self, places: Iterable[int]) -> Records:
        """Return the records of the same source at other places."""
        return Records(self._read, array("I", places), self._scopes, self.file)

    def with_others(self, others: Records) -> Records:
        """Return these records, and others after them."""
        sides = self, others

        def side_of(place: int) -> tuple[Records, int]:
            return (self, place) if place < len(self) else (others, place - len(self))

        def read(place: int) -> Record:
            side, number = side_of(place)
            return side[number]

        def scopes(places: Iterable[int]) -> Iterator[str | None]:
            for side, number in map(side_of, places):
                yield from side._scopes([side.places[number]])

        return Records(read, range(sum(map(len, sides))), scopes)

    def changed(self, change: Callable[[int, Record], Record]) -> Records:
        """Return the records as a function returns them, by number and record; each keeps its scope."""

        def scopes(numbers: Iterable[int]) -> Iterator[str | None]:
            return self._scopes(self.places[number] for number in numbers)

        return Records(lambda number: change(number, self[number]), range(len(self)), scopes)

    def by_scope(self) -> Records:
        """Return them as a file groups them: by scope path, those outside any scope first."""
        groups: dict[str | None, array[int]] = {}
        for number, path in enumerate(self._scopes(self.places)):
            groups.setdefault(path, array("I")).append(number)
        order = (number for path in sorted_scopes(groups) for number in groups[path])
        return self.at(order)

    def scopes(self) -> Iterator[str]:
        """Yield the scope path of each."""
        return (path or "" for path in self._scopes(self.places))

    def lines(self) -> Iterator[bytes | None]:
        """Yield the line of each; ``None`` outside files. Equal lines have equal requests and answers."""
        if self.file is None:
            return (None for _ in self.places)
        return map(self.file.line_of, self.places)

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Records: ...

    def __getitem__(self, index: int | slice) -> Record | Records:
        if isinstance(index, slice):
            return self.at(range(len(self))[index])
        return self._read(self.places[index])

    def __iter__(self) -> Iterator[Record]:
        return map(self._read, self.places)


# A request: its kind, its sample, and what is hashed for its key.
Question = tuple[str, "str | None", "Mapping[str, Data]"]


class RecordFile:
    """The records of a file by their keys: ``len()``, ``in``, and iteration in the order of the file.

    :param content: the content of the file.
    :param name: the file's name in errors.
    :ivar header: the file's header.
    :ivar undecided: the settings that its records do not depend on.
    :raises CacheCorruptError: if a line is damaged, refers to a missing text, holds a chat that cannot be
        read, or answers a request differently than another line, or if two headers differ; names the
        line.
    :raises CacheError: if another version wrote the file.
    """

    # Opening reads and checks each line. Of a record it keeps only where its line begins, and a hash
    # of those parts of the request that mostly tell it apart. Equal requests have equal hashes. A look-up
    # reads the lines with the request's hash again, and compares. So a file takes little memory, and only keys
    # that are looked up are computed. Two other ways were rejected: to keep the
    # records, which take several times the memory of the text; and to keep an index in another file, which
    # would be missing where a cassette comes from git. A line that another tool changed is noticed
    # because each opening reads it.
    def __init__(self, content: bytes, name: str) -> None:
        self.header = Header({})
        self.content = content
        self._name = name
        self._number = 0  # of the line that is read
        self._starts = array("Q")  # of the records' lines
        self._hashes = array("q")  # sorted; _places has the place of each among the starts
        self._places = array("I")
        self._scopes = array("I")  # of the records, as numbers of the paths
        self._paths: dict[str | None, int] = {}  # ``None`` outside any scope
        self._texts: dict[str, int] = {}  # the starts of the lines of long texts, by digest
        self._read_texts: dict[str, str] = {}
        self._arms: dict[int, list[str]] = {}  # by start: those of a record that has several lines
        self.undecided = Undecided()
        self._named: list[int] = []  # the places of records that name their caller
        self._places_by_key: dict[str, int] = {}  # as far as keys were looked for
        self._has_all_keys = False
        self.has_given = False  # an answer that no model gave
        self._records: list[Record] | None = None
        try:
            self._keep_once(self._check_lines())
        except ValueError as error:  # a request with a lone surrogate has no key
            raise CacheCorruptError(f"{self._place()}: {error}; {RESTORE}") from None
        except CacheError as error:
            raise type(error)(f"{self._place()}: {error}") from None

    def _place(self) -> str:
        """Return the name of the file and the number of the line that is read."""
        return f"{self._name}:{self._number}"

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield where each line that is not blank begins, and the line."""
        start = self._number = 0
        for line in BytesIO(self.content):
            self._number += 1
            text = line.removeprefix(BYTE_ORDER_MARK) if self._number == 1 else line
            if not text.isspace():
                yield start, text
            start += len(line)

    def _check_lines(self) -> list[int]:
        """Check the lines, and return the hashes of the records. Headers and texts may be in any line; a
        merge may leave several headers, which differ only in ``served``.
        """
        hashes: list[int] = []
        users: dict[str, int] = {}  # the numbers of the first lines that refer to texts, by digest
        header_number = 0
        given = additions("given").keys()
        for start, line in self._lines():
            if not header_number:
                self.header, header_number = first_header(line), self._number
                continue
            entry = parse_line(line)
            if "kind" in entry:
                for digest in check_record(entry, line, self.header):
                    users.setdefault(digest, self._number)
                self.has_given = self.has_given or not given.isdisjoint(entry)
                if "caller" in entry:
                    self._named.append(len(hashes))
                kind, sample, request = entry["kind"], entry.get("sample"), entry["request"]
                self.undecided.add(kind, request)
                hashes.append(_hash(kind, sample, request, is_line=True))
                self._starts.append(start)
                path = None if sample is None else sample.partition("#")[0]
                self._scopes.append(self._paths.setdefault(path, len(self._paths)))
            elif "text" in entry:
                checked_text(entry)
                self._texts[entry["text"]] = start
            else:
                found = Header.of(entry)
                differences = self.header.differences(found)
                if differences:
                    raise CacheCorruptError(
                        f"this header differs from line {header_number} in {differences}: the records were made "
                        "under different settings; keep one header and its records, and record the others again"
                    )
                self.header = self.header.joined(found)
        if self._number and not header_number:
            raise no_header()
        for digest, number in users.items():
            if digest not in self._texts:
                self._number = number
                resolve_markers({"$text": digest}, self.text)  # raises
        return hashes

    def _keep_once(self, hashes: list[int]) -> None:
        """Keep each record once, the first one with the arms of all, and sort the hashes."""
        alike: dict[int, list[int]] = {}  # the places of records, by hash, if some have the same
        if len({*hashes}) < len(hashes):
            for place, request_hash in enumerate(hashes):
                alike.setdefault(request_hash, []).append(place)
        repeated: set[int] = set()
        for places in alike.values():
            by_key: dict[str, int] = {}
            for place in places if len(places) > 1 else ():
                record = self._record(place)
                earlier = by_key.setdefault(record.cache_key, place)
                if earlier == place:
                    continue
                if self._record(earlier).response != record.response:
                    number = self._number_of(earlier)
                    self._number = self._number_of(place)
                    raise CacheCorruptError(
                        f"line {number} has a different answer to the same request; remove one of the two lines"
                    )
                repeated.add(place)
                arms = self._record(earlier).with_arms(record.arms).arms
                self._arms[self._starts[earlier]] = list(arms)
        if repeated:
            kept = [place for place in range(len(hashes)) if place not in repeated]
            hashes = [hashes[place] for place in kept]
            self._starts = array("Q", [self._starts[place] for place in kept])
            self._scopes = array("I", [self._scopes[place] for place in kept])
            named = {*self._named}
            self._named = [number for number, place in enumerate(kept) if place in named]
        self._places = array("I", sorted(range(len(hashes)), key=hashes.__getitem__))
        self._hashes = array("q", [hashes[place] for place in self._places])

    def _number_of(self, place: int) -> int:
        """Return the number of a record's line."""
        start = self._starts[place]
        return next(self._number for line_start, _ in self._lines() if line_start == start)

    def _line(self, start: int) -> bytes:
        return self.content[start : self.content.find(b"\n", start) + 1 or None]

    def _record(
        self, place: int, key: str | None = None, question: Question | None = None
    ) -> Record:
        """Return a record, read from its line."""
        start = self._starts[place]
        line = self._line(start)
        entry = parse_line(line)
        if b'"$' in line:
            entry = resolved(entry, self.text)
        if start in self._arms:
            entry["arms"] = self._arms[start]
        # A function's arguments may differ in what is_same does not see, such as the sign of a zero.
        is_requested = (
            question is not None
            and question[0] == "chat"
            and is_same([*question], [entry["kind"], entry.get("sample"), entry["request"]])
        )
        return record_of(entry, self.header, key if is_requested else None)

    def text(self, digest: str) -> str | None:
        """Return the long text with a digest, or ``None``."""
        text = self._read_texts.get(digest)
        if text is None and digest in self._texts:
            text = "\n".join(parse_line(self._line(self._texts[digest]))["lines"])
            if len(self._read_texts) == MOST_READ_TEXTS:
                self._read_texts.clear()
            self._read_texts[digest] = text
        return text

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Record]:
        if self._records is None:
            self._records = self._held(range(len(self)))
        return iter(self._records)

    def _held(self, places: Iterable[int]) -> list[Record]:
        """Return some records as lines that are read at each use."""
        read = lru_cache(2)(self._record)  # a record's fields are read one after the other
        return [LazyRecord(read(place), read, place) for place in places]

    def records(self, in_scope: Callable[[str], bool] = lambda path: True) -> Records:
        """Return the records of some scopes, which are read at each use.

        :param in_scope: returns whether a scope path is one of them.
        """
        numbers = {number for path, number in self._paths.items() if in_scope(path or "")}
        places = array("I", (p for p, number in enumerate(self._scopes) if number in numbers))
        return Records(lru_cache(MOST_READ)(self._record), places, self.scopes, self)

    def scopes(self, places: Iterable[int]) -> Iterator[str | None]:
        """Yield the scope paths of the records at some places; ``None`` outside any."""
        paths = [*self._paths]
        return (paths[self._scopes[place]] for place in places)

    def line_of(self, place: int) -> bytes:
        """Return the line of a record."""
        return self._line(self._starts[place])

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._place_of(key) is not None

    def get(self, key: str, question: Question | None = None) -> Record | None:
        """Return the record of a key, or ``None``. It shares no data with what this returns another time.

        :param question: what has the key. Without it, the first call computes the keys of all records.
        """
        if question is None:
            place = self._place_of(key)
            return None if place is None else self._record(place)
        request_hash = _hash(*question)
        for index in range(bisect_left(self._hashes, request_hash), len(self)):
            if self._hashes[index] != request_hash:
                break
            record = self._record(self._places[index], key, question)
            if record.cache_key == key:
                self._places_by_key[key] = self._places[index]
                return record
        return None

    def _place_of(self, key: str) -> int | None:
        if key not in self._places_by_key and not self._has_all_keys:
            for place, record in enumerate(self):
                self._places_by_key[record.cache_key] = place
            self._has_all_keys = True
        return self._places_by_key.get(key)

    def named(self) -> Iterator[Record]:
        """Yield the records that name their caller."""
        return map(self._record, self._named)

    def others(self, is_used: Callable[[str], bool]) -> list[Record]:
        """Return the records that are not used; one whose key was never looked for is not.

        :param is_used: returns whether the record of a key is used.
        """
        used = {place for key, place in list(self._places_by_key.items()) if is_used(key)}
        return self._held(place for place in range(len(self)) if place not in used)


def _hash(
    kind: str, sample: str | None, request: Mapping[str, Data], *, is_line: bool = False
) -> int:
    """Return the hash of a request; equal ones have the same in this process.

    :param is_line: ``True`` if it stands as in a line, where references replace long texts.
    """
    messages = request.get("messages")
    if not isinstance(messages, list):
        return hash((kind, sample, _trace(request, is_line)))
    last_two = [
        _trace(message.get("content") if type(message) is dict else message, is_line)
        for message in messages[-2:]
    ]
    return hash((kind, sample, len(messages), *last_two))


def _trace(data: Data, is_line: bool) -> Data:
    """Return the representation of plain data in a hash, whether a line holds it or a request."""
    if isinstance(data, str):
        return data if len(data) <= INLINE_CHARACTERS else text_digest(data)
    if isinstance(data, list):
        return tuple(_trace(item, is_line) for item in data)
    if not isinstance(data, dict):
        return "$" if isinstance(data, bytes) else data
    if is_marker(data):
        return data["$text"] if is_line and type(data.get("$text")) is str else "$"
    return frozenset([(name, _trace(item, is_line)) for name, item in data.items()])


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
