"""The records of a file of JSON Lines, read line by line and resolved when they are asked for.

Every line is read and checked at the beginning, but kept as it is written: ten thousand lines are quickly parsed, and
slowly carried along as Python objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import CacheCorruptError, CacheError
from ..types import Record
from .entries import entry_of, line_of
from .references import Decoder, Encoder, is_inline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ..types import Data, Request

    KeyOf = Callable[[str, dict[str, Data], str | None], str]

__all__ = ["Lines"]

RESPONSE = b', "response": '  # what stands between a record's request and its response, as it is written here


class Lines:
    """Hold the records of a file: ``len()``, iteration in the order of the file, and :meth:`get`.

    A record is built anew each time it is asked for, so it is the caller's own.
    """

    settings: dict[str, Data]

    def __init__(self, lines: Iterable[bytes], name: str, key_of: KeyOf) -> None:
        self._name = name
        self._key_of = key_of
        self._decoder = Decoder(self._requests())
        self._headed_at: int | None = None  # the number of the header's line
        self._entries: list[tuple[int, bytes]] = []  # the line's number, and the line
        self._heads: dict[int, int] = {}  # hash of all before the response -> first position in the entries
        self._unkeyed: dict[tuple[str, str | None, int], list[int]] | None = None
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
        telling = request.kind, request.sample, _telling(request.kind, request.asked, Encoder())
        self._key(self._by_telling().pop(telling, ()))
        found = self._positions.get(request.cache_key)
        return self.find(request.cache_key) if found is None else self.record(found)

    def _by_telling(self) -> dict[tuple[str, str | None, int], list[int]]:
        """Return the positions of the records that have no key yet, by what tells them apart."""
        if self._unkeyed is None:
            self._unkeyed = {}
            for position in range(len(self)):
                entry = self.encoded(position)
                telling = entry["kind"], entry.get("sample"), _telling(entry["kind"], entry["request"])
                self._unkeyed.setdefault(telling, []).append(position)
        return self._unkeyed

    def find(self, cache_key: str) -> Record | None:
        """Return the record of a key, or ``None`` where there is none; it reads all requests through, once."""
        if self._unkeyed is None or self._unkeyed:
            self._key(range(len(self)))
            self._unkeyed = {}
        found = self._positions.get(cache_key)
        return None if found is None else self.record(found)

    def _key(self, positions: Iterable[int]) -> list[str]:
        keys = [self._key_of(*self.asked(position)) for position in positions]
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
        """Yield the requests of the chats, for those that refer to them."""
        for position in range(len(self)):
            entry = self.encoded(position)
            if entry["kind"] == "chat":
                yield entry["request"]

    def encoded(self, position: int) -> dict[str, Any]:
        """Return a record as it is written, by its position in the file."""
        return entry_of(self._entries[position][1])

    def line(self, position: int) -> bytes:
        """Return the line of a record, by its position in the file."""
        return self._entries[position][1]

    def text(self, digest: str) -> str:
        """Return a text that stands on a line of its own.

        :raises CacheCorruptError: where there is none of this digest.
        """
        found: str = self._decoder.data({"$text": digest})
        return found

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
        return Record(self._key_of(kind, request, sample), kind, sample, request, response, entry.get("cost"))

    def _decoded(self, position: int, decode: Callable[[Any], Data], encoded: dict[str, Any]) -> Data:
        number = self._entries[position][0]
        try:
            return decode(encoded)
        except CacheError as error:
            raise self._at(number, error) from None
        except RecursionError:
            raise self._at(number, CacheCorruptError("the line is nested too deeply")) from None

    def _first(self, key: str, position: int) -> int:
        """Return the first known position of a key; there the same answer must stand."""
        first = self._positions.setdefault(key, position)
        if first != position and self.record(first).response != self.record(position).response:
            raise self._at(self._entries[position][0], _two_answers(self._entries[first][0]))
        return first


def _no_header() -> CacheCorruptError:
    return CacheCorruptError('there is no header {"llmcall": …} before this; take the file from version control')


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


def _telling(kind: str, request: Mapping[str, Any], encoder: Encoder | None = None) -> int:
    """Return a hash of what tells a request from most others and never stands behind a reference to messages.

    :param encoder: given where the request is not encoded.
    """
    messages = request.get("messages") if kind == "chat" else None
    if isinstance(messages, list) and messages:
        telling: Any = messages if is_inline(messages) else messages[-1]
        return hash(repr(telling if encoder is None else encoder.data(telling, "messages")))
    return hash(repr(request if encoder is None else encoder.data(dict(request), "request")))
