"""The records of a file of JSON Lines, read line by line and resolved when they are asked for.

Every line is read and checked at the beginning, but kept as it is written: ten thousand lines are quickly parsed, and
slowly carried along as Python objects.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import CacheCorruptError, CacheError
from ..types import Record
from .entries import entry_of, line_of
from .references import INLINE_CHARACTERS, Decoder, Encoder, digest_of, is_inline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ..types import Data, Request

    KeyOf = Callable[[str, dict[str, Data], str | None], str]

__all__ = ["Lines"]

RESPONSE = b', "response": '  # what stands between a record's request and its response, as it is written here

_sorted_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


class Lines:
    """Hold the records of a file: ``len()``, iteration in the order of the file, and :meth:`get`.

    A record is built anew each time it is asked for, so it is the caller's own.
    """

    settings: dict[str, Data]

    def __init__(self, lines: Iterable[bytes], name: str, key_of: KeyOf) -> None:
        self._name = name
        self._key_of = key_of
        self._decoder = Decoder(self._requests())
        self._resolving = 0  # the position of the record whose references are followed
        self._headed_at: int | None = None  # the number of the header's line
        self._entries: list[tuple[int, bytes]] = []  # the line's number, and the line
        self._heads: dict[int, int] = {}  # hash of all before the response -> first position in the entries
        # What tells it -> positions of records without keys yet; made when the beginnings of the lines do not tell.
        self._unkeyed: dict[int, list[int]] | None = None
        self._positions: dict[str, int] = {}
        self._load(lines)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Record]:
        for position in range(len(self._entries)):
            record = self.record(position)
            if self._first(record.cache_key, position) == position:
                yield record

    def get(self, request: Request) -> Record | None:
        """Return the record with a request's key, or ``None`` where there is none."""
        written = self._heads.get(hash(_head(request)))
        if written is not None and self._key([written]) == [request.cache_key]:
            return self.record(written)
        part = Encoder().data(_telling_part(request.kind, request.asked), "request")
        self._key(self._told().pop(_telling(request.kind, request.sample, part), ()))
        return self._at_key(request.cache_key)

    def find(self, cache_key: str) -> Record | None:
        """Return the record of a key, or ``None`` where there is none; it reads all requests through, once."""
        self._key(sorted(position for positions in self._told().values() for position in positions))
        self._unkeyed = {}
        return self._at_key(cache_key)

    def _told(self) -> dict[int, list[int]]:
        if self._unkeyed is None:
            found: dict[int, list[int]] = {}
            for position in range(len(self)):
                entry = self.encoded(position)
                part = _telling_part(entry["kind"], entry["request"])
                found.setdefault(_telling(entry["kind"], entry.get("sample"), part), []).append(position)
            self._unkeyed = found
        return self._unkeyed

    def _at_key(self, key: str) -> Record | None:
        found = self._positions.get(key)
        return None if found is None else self.record(found)

    def _key(self, positions: Iterable[int]) -> list[str]:
        keys = [self._key_at(position, *self.asked(position)) for position in positions]
        for key, position in zip(keys, positions, strict=True):
            self._first(key, position)
        return keys

    def records(self) -> list[Record]:
        """Return all records in the order of the file."""
        return list(self)

    def _load(self, lines: Iterable[bytes]) -> None:
        number = 1
        try:
            for number, line in enumerate(lines, 1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line and not line.isspace():
                    self._add(number, line, entry_of(line))
            if self._headed_at is None:
                raise _no_header()
        except CacheError as error:
            raise self._at(number, error) from None
        except RecursionError:
            raise self._at(number, _too_deep()) from None

    def _at(self, number: int, error: CacheError) -> CacheError:
        return type(error)(f"{self._name}:{number}: {error}")

    def _add(self, number: int, line: bytes, entry: dict[str, Any]) -> None:
        if "llmcall" in entry:
            self._add_header(number, entry["settings"])
        elif self._headed_at is None:
            raise _no_header()
        elif "kind" in entry:
            self._add_record(number, line, entry)
        else:
            self._decoder.add_text(entry["text"], "\n".join(entry["lines"]))

    def _add_header(self, number: int, settings: dict[str, Data]) -> None:
        if self._headed_at is None:
            self.settings, self._headed_at = settings, number
        names = self.settings.keys() | settings.keys()
        different = sorted(name for name in names if _differ(self.settings, settings, name))
        if different:
            raise CacheCorruptError(
                f"this header differs from line {self._headed_at} in {', '.join(different)}: the records were made "
                "under different settings; keep one header and its records, and record the others again"
            )

    def _add_record(self, number: int, line: bytes, entry: dict[str, Any]) -> None:
        position = self._heads.setdefault(hash(line.partition(RESPONSE)[0]), len(self._entries))
        if position < len(self._entries):
            same = self.encoded(position)
            if all(same.get(name) == entry.get(name) for name in ("kind", "sample", "request")):
                if same["response"] != entry["response"]:
                    raise _two_answers(self._entries[position][0])
                return
        self._entries.append((number, line))

    def _requests(self) -> Iterator[dict[str, Any]]:
        """Yield the requests of the chats, for those that refer to them.

        In turn from the record that is resolved backwards, since a history goes on from the one before, and from the
        first on, since there stands what many begin with.
        """
        read = bytearray(len(self))
        while (first := read.find(0)) >= 0:
            before = read.rfind(0, first, self._resolving)
            for position in {max(before, first), first}:
                read[position] = 1
                entry = self.encoded(position)
                if entry["kind"] == "chat":
                    yield entry["request"]

    def encoded(self, position: int) -> dict[str, Any]:
        """Return a record as it is written, by its position in the file."""
        return entry_of(self._entries[position][1])

    def line(self, position: int) -> bytes:
        """Return the line of a record, by its position in the file."""
        return self._entries[position][1]

    @property
    def texts(self) -> dict[str, str]:
        """Return the texts that stand on lines of their own, by their digests."""
        return self._decoder.texts

    def asked(self, position: int) -> tuple[str, dict[str, Data], str | None]:
        """Return kind, request and sample of a record, by its position in the file."""
        return self._asked(position, self.encoded(position))

    def _asked(self, position: int, entry: dict[str, Any]) -> tuple[str, dict[str, Data], str | None]:
        decode = self._decoder.request if entry["kind"] == "chat" else self._decoder.data
        return entry["kind"], self._decoded(position, decode, entry["request"]), entry.get("sample")

    def record(self, position: int) -> Record:
        """Return a record, by its position in the file."""
        entry = self.encoded(position)
        kind, request, sample = self._asked(position, entry)
        response = self._decoded(position, self._decoder.data, entry["response"])
        key = self._key_at(position, kind, request, sample)
        return Record(key, kind, sample, request, response, entry.get("cost"))

    def _key_at(self, position: int, kind: str, request: dict[str, Data], sample: str | None) -> str:
        try:
            return self._key_of(kind, request, sample)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._at(self._entries[position][0], CacheCorruptError(f"its request is none: {error}")) from None

    def _decoded(self, position: int, decode: Callable[[Any], Data], encoded: dict[str, Any]) -> Data:
        number, self._resolving = self._entries[position][0], position
        try:
            return decode(encoded)
        except CacheError as error:
            raise self._at(number, error) from None
        except RecursionError:
            raise self._at(number, _too_deep()) from None

    def _first(self, key: str, position: int) -> int:
        """Return the first known position of a key; there the same answer must stand."""
        first = self._positions.setdefault(key, position)
        if first != position and self.record(first).response != self.record(position).response:
            raise self._at(self._entries[position][0], _two_answers(self._entries[first][0]))
        return first


def _no_header() -> CacheCorruptError:
    return CacheCorruptError('there is no header {"llmcall": …} before this; take the file from version control')


def _too_deep() -> CacheCorruptError:
    return CacheCorruptError("the line is nested too deeply")


def _two_answers(line: int) -> CacheCorruptError:
    return CacheCorruptError(f"line {line} has another answer to the same request; remove one of the two lines")


def _differ(one: dict[str, Data], other: dict[str, Data], name: str) -> bool:
    return name not in one or name not in other or one[name] != other[name]


def _head(request: Request) -> bytes:
    """Return how the line of a request begins that is written here and refers to no other one."""
    encoder = Encoder()
    asked = dict(request.asked)
    encoded = encoder.request(asked) if request.kind == "chat" else encoder.data(asked, "request")
    entry = {"kind": request.kind, "sample": request.sample, "request": encoded}
    written = line_of({name: value for name, value in entry.items() if value is not None})
    return written.encode().rstrip(b"\n").removesuffix(b"}")


def _telling_part(kind: str, request: Mapping[str, Any]) -> Any:
    """Return what tells a request, encoded or not, from most others and never stands behind a reference to messages."""
    messages = request.get("messages") if kind == "chat" else None
    if isinstance(messages, list) and messages:
        return messages if is_inline(messages) else messages[-1]
    return dict(request)


def _telling(kind: str, sample: str | None, part: Any) -> int:
    """Return a hash of what tells a request, however its line is written: in another order, a long text in it."""
    written = _sorted_json(part)
    if len(written) > INLINE_CHARACTERS:
        written = _sorted_json(_by_digest(part))
    return hash((kind, sample, written))


def _by_digest(encoded: Any) -> Any:
    """Put references in the places of long texts."""
    if isinstance(encoded, dict):
        return {name: _by_digest(item) for name, item in encoded.items()}
    if isinstance(encoded, list):
        return [_by_digest(item) for item in encoded]
    is_long = isinstance(encoded, str) and len(encoded) > INLINE_CHARACTERS
    return {"$text": digest_of(encoded)} if is_long else encoded
