"""Read a file of records."""

from __future__ import annotations

import os
from array import array
from base64 import b64decode
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ..errors import CacheCorruptError, CacheError
from ..requests.keys import is_same
from ..types import Data, Record
from .askers import askers_of
from .header import header_differences, joined_headers
from .line import entry_of
from .references import (
    CHANGED,
    INLINE_CHARACTERS,
    TEXT,
    after_system,
    digest_of,
    has_runs,
    reference_in,
    runs_of,
    stands_for_another,
)
from .served import from_header, joined_served, model_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..types import Request
    from ..types.days import Days
    from .askers import Askers

# what stands between a record's request and its response, as it is written here
RESPONSE = b', "response": '
REFERS = b'"$', b'"\\u0024'  # what a line holds in which something stands for something else
# of a file whose lines are held as they were parsed too, about three times as large
PARSED_BYTES = 8 * 1024 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
NESTED = (dict, list)


class Lines:
    """The records of a file: ``len()``, iteration in the order of the file, and :meth:`get`.

    Every line is read and checked at the beginning, and kept as it is written; what it refers to is
    resolved when its record may be the one that is asked for. A record is built anew each time; the
    messages that its request has in common with others are theirs as well.

    :param data: all bytes of the file.
    :param name: what errors call it.
    :ivar settings: those of the header; an empty file has none.
    :ivar run: the options of ``llmcall run``, or ``None`` if that did not record it.
    :ivar is_complete: whether the recording came to its end.
    :ivar days: those of the models that answered, as far as the header says them, by model.
    :raises CacheCorruptError: for a damaged line, with its number; for a dangling reference, and
        for two answers to one key whose requests are written differently, only when they are
        resolved.
    :raises CacheError: for a file of a newer version.
    """

    is_complete: bool = True

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        self.settings: dict[str, Data] = {}
        self.run: dict[str, Data] | None = None
        self.days: dict[str, Days] = {}
        self._headed_at: int | None = None  # the number of the header's line
        self._begins = array("Q")  # of the records' lines, by position
        # whether something in a record's line stands for something else, by position
        self._refers = bytearray()
        self._with_askers: list[int] = []  # positions of the records that name one
        self._texts: dict[str, int] = {}  # by their digests, where their lines begin
        self._parsed: dict[
            int, dict[str, Any]
        ] = {}  # by where they begin: the first lines, until records are built
        # By their digests, the runs of messages that others may refer to: the position of the
        # request that holds them, where they begin and end there, and the digest of the run that
        # they go on from.
        self._runs: dict[str, tuple[int, int, int, str]] = {}
        self._messages: dict[
            int, list[Any]
        ] = {}  # by position: a request's own messages, decoded once, and shared
        self._heads: dict[int, int] = {}  # hash of all before the response -> first position
        self._unkeyed: dict[
            int, list[int]
        ] = {}  # by what :func:`_telling` says: positions without keys yet
        self._positions: dict[str, int] = {}
        self._load()

    def __len__(self) -> int:
        return len(self._begins)

    def __iter__(self) -> Iterator[Record]:
        # they have no equal
        alone = {positions[0] for positions in self._unkeyed.values() if len(positions) == 1}
        for position in range(len(self)):
            record = self.record(position)
            if position in alone or self._first(record, position) == position:
                yield record

    def records(self) -> list[Record]:
        """Return all records in the order of the file."""
        return list(self)

    def get(self, asked: Request | str) -> Record | None:
        """Return the record with a request's key, or with a key, or ``None`` where there is none.

        For a key alone all requests are read through, once.
        """
        if isinstance(asked, str):
            unkeyed, self._unkeyed = self._unkeyed, {}
            for position in sorted(
                position for positions in unkeyed.values() for position in positions
            ):
                self._first(self.record(position), position)
            return self._at_key(asked)
        found = None
        for position in self._unkeyed.pop(_telling(asked.kind, asked.sample, asked.asked), ()):
            record = self.record(position)
            if (
                record.kind == asked.kind
                and record.sample == asked.sample
                and is_same(record.request, asked.asked)
            ):
                record = record.replace(cache_key=asked.cache_key)
            if self._first(record, position) == position and record.cache_key == asked.cache_key:
                found = record
        return found or self._at_key(asked.cache_key)

    def askers(self) -> Askers:
        """Return who asked, for the records that say it."""
        return askers_of(self.record(position) for position in self._with_askers)

    def _at_key(self, key: str) -> Record | None:
        found = self._positions.get(key)
        return None if found is None else self.record(found)

    def _first(self, record: Record, position: int) -> int:
        """Return the first known position of a record's key; there the same answer must stand."""
        first = self._positions.setdefault(record.cache_key, position)
        if first != position and self.record(first).response != record.response:
            raise self._at(self._number(position), self._two_answers(first))
        return first

    def _load(self) -> None:
        number, begin = 1, 0
        try:
            for number, line in enumerate(BytesIO(self._data), 1):
                text = line if begin else line.removeprefix(BYTE_ORDER_MARK)
                if text and not text.isspace():
                    self._add(number, begin, text)
                begin += len(line)
            if (
                self._data and self._headed_at is None
            ):  # a file without a byte holds no records, and no damage
                raise _no_header()
        except CacheError as error:
            raise self._at(number, error) from None

    def _at(self, number: int, error: CacheError) -> CacheError:
        return type(error)(f"{self._name}:{number}: {error}")

    def _number(self, position: int) -> int:
        return self._data.count(b"\n", 0, self._begins[position]) + 1

    def _two_answers(self, first: int) -> CacheCorruptError:
        line = self._number(first)
        return CacheCorruptError(
            f"line {line} has another answer to the same request; remove one of the two lines"
        )

    def _add(self, number: int, begin: int, line: bytes) -> None:
        entry = entry_of(line)
        if begin < PARSED_BYTES:
            self._parsed[begin] = entry
        if "llmcall" in entry:
            self.is_complete = self.is_complete and entry.get("complete", True)
            self._add_header(number, entry)
        elif self._headed_at is None:
            raise _no_header()
        elif "kind" in entry:
            self._add_record(begin, line, entry)
        else:
            self._add_text(begin, entry["text"], "\n".join(entry["lines"]))

    def _add_header(self, number: int, entry: dict[str, Any]) -> None:
        settings, run = entry["settings"], entry.get("run")
        if self._headed_at is None:
            self.settings, self.run, self._headed_at = settings, run, number
        different = header_differences({**self.settings, "run": self.run}, {**settings, "run": run})
        if different:
            raise CacheCorruptError(
                f"this header differs from line {self._headed_at} in {different}: the records were made "
                "under different settings; keep one header and its records, and record the others again"
            )
        self.settings = joined_headers(self.settings, settings)
        days = from_header(entry.get("served", {}))
        self.days = days if self._headed_at == number else joined_served(self.days, days)

    def _add_text(self, begin: int, digest: str, text: str) -> None:
        if digest_of(text) != digest:
            raise CacheCorruptError(f"the text does not have the digest {digest[:64]}; {CHANGED}")
        self._texts.setdefault(digest, begin)

    def _add_record(self, begin: int, line: bytes, entry: dict[str, Any]) -> None:
        place = len(self)
        position = self._heads.setdefault(hash(line.partition(RESPONSE)[0]), place)
        if position < place:
            same = self._entry(self._begins[position])
            if all(same.get(name) == entry.get(name) for name in ("kind", "sample", "request")):
                if same["response"] != entry["response"]:
                    raise self._two_answers(position)
                return
        refers, messages = REFERS[0] in line or REFERS[1] in line, entry["request"].get("messages")
        if entry["kind"] == "chat" and has_runs(messages, refers):
            for digest, first, end, before in runs_of(messages):
                self._runs.setdefault(digest, (place, first, end, before))
        self._unkeyed.setdefault(
            _telling(entry["kind"], entry.get("sample"), entry["request"]), []
        ).append(place)
        if "asker" in entry:
            self._with_askers.append(place)
        self._begins.append(begin)
        self._refers.append(refers)

    def _entry(self, begin: int) -> dict[str, Any]:
        return self._parsed.get(begin) or entry_of(self._line(begin))

    def _line(self, begin: int) -> bytes:
        return self._data[begin : self._data.find(b"\n", begin) + 1 or None]

    def searched(self, position: int) -> list[bytes]:
        """Return the line of a request, by its position in the file, and those of the texts that it
        refers to.

        What stands behind a reference to messages is left out: it is the history, and each request
        ends in its own.
        """
        line = self._line(self._begins[position]).partition(RESPONSE)[0]
        digests = [digest for digest in TEXT.findall(line.decode()) if digest in self._texts]
        return [line, *(self._line(self._texts[digest]) for digest in digests)]

    def record(self, position: int) -> Record:
        """Return a record, by its position in the file."""
        begin = self._begins[position]
        entry = self._entry(begin)
        kind, request, response = entry["kind"], entry["request"], entry["response"]
        if self._refers[position]:
            try:
                request = (
                    self._request(position, request) if kind == "chat" else self._resolved(request)
                )
                response = self._resolved(response)
            except CacheError as error:
                raise self._at(self._number(position), error) from None
        self._parsed.pop(begin, None)
        model = model_of(kind, request, response) if self.days else None
        return Record(
            None,
            kind,
            entry.get("sample"),
            request,
            response,
            entry.get("cost"),
            asker=entry.get("asker"),
            days=None if model is None else self.days.get(model),
        )

    def _request(self, position: int, encoded: dict[str, Any]) -> Data:
        """Resolve the request of a chat; its first message after the system's may stand for those
        of other requests.
        """
        messages: Any = encoded.get("messages")
        if not has_runs(messages):
            return self._resolved(encoded)
        place = after_system(messages)
        own, reference = self._own_messages(position, messages), reference_in(messages[place])
        if reference is not None:
            own = [*own[:place], *self._run(reference), *own[place + 1 :]]
        return {**self._resolved({**encoded, "messages": None}), "messages": own}

    def _own_messages(self, position: int, encoded: list[Any] | None = None) -> list[Any]:
        """Resolve the messages of a request, with nothing in the place of those of others."""
        if position not in self._messages:
            encoded = encoded or self._entry(self._begins[position])["request"]["messages"]
            place = after_system(encoded)
            if reference_in(encoded[place]) is not None:
                encoded = [*encoded[:place], None, *encoded[place + 1 :]]
            self._messages[position] = self._resolved(encoded)
        return self._messages[position]

    def _run(self, digest: str) -> list[Any]:
        """Collect the messages of a run, which may go on from another one, and that from a third."""
        pieces = []
        while digest:
            if digest not in self._runs:
                raise CacheCorruptError(
                    f"it refers to the messages {digest[:64]}, which no request holds; {CHANGED}"
                )
            position, begin, end, digest = self._runs[digest]
            pieces.append(self._own_messages(position)[begin:end])
        return [message for piece in reversed(pieces) for message in piece]

    def _resolved(self, encoded: Any) -> Any:
        """Return data with what its references stand for; what it is given is never changed."""
        if isinstance(encoded, dict):
            if stands_for_another(encoded):
                return self._meant(*next(iter(encoded.items())))
            return {
                name: self._resolved(item) if type(item) in NESTED else item
                for name, item in encoded.items()
            }
        if isinstance(encoded, list):
            return [self._resolved(item) if type(item) in NESTED else item for item in encoded]
        return encoded

    def _meant(self, sign: str, value: Any) -> Data:
        """Return what an object stands for."""
        if sign == "$text" and isinstance(value, str):
            if value not in self._texts:
                raise CacheCorruptError(
                    f"it refers to the text {value[:64]}, which no line holds; {CHANGED}"
                )
            return "\n".join(self._entry(self._texts[value])["lines"])
        if sign == "$bytes" and isinstance(value, str):
            try:
                return b64decode(value, validate=True)
            except ValueError:
                raise CacheCorruptError(f"it holds bytes that are not Base64; {CHANGED}") from None
        if sign == "$data" and isinstance(value, dict) and stands_for_another(value):
            return {name: self._resolved(item) for name, item in value.items()}
        raise CacheCorruptError(
            f'its object of the one name "{sign[:40]}" means nothing there; {CHANGED}'
        )


def _no_header() -> CacheCorruptError:
    return CacheCorruptError(
        'there is no header {"llmcall": …} before this; take the file from version control'
    )


def _telling(kind: str, sample: str | None, request: Mapping[str, Any]) -> int:
    """Return a hash of what tells a request, encoded or not, from most others: its sample and last
    text.
    """
    messages = request.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    said = (
        last.get("content")
        if isinstance(last, dict)
        else request.get("input", request.get("function"))
    )
    if isinstance(said, str):
        return hash((kind, sample, said if len(said) <= INLINE_CHARACTERS else digest_of(said)))
    return hash((kind, sample, str(said.get("$text")) if isinstance(said, dict) else ""))


def header_in(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the header of a file as it stands there, or ``None`` if there is no file or it is empty.

    Only the beginning is read: what is wrong further down is found by whoever reads it all.

    :raises CacheCorruptError: if the first line is none, or damaged.
    :raises CacheError: for a file of a newer version.
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


def read(path: str | os.PathLike[str]) -> Lines:
    """Read a file; see :class:`Lines`. Its records are resolved when they are asked for."""
    with open(path, "rb") as file:
        return Lines(file.read(), os.fspath(path))
