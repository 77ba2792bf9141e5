"""Read and write records as JSON Lines, the form of cassettes and of exported caches, made for review and for git.

Version 1 of the form. A file is UTF-8; each line is one JSON object, and one of these three::

    {"llmcall": 1, "settings": {…}}              the header, first; equal ones may follow anywhere
    {"text": DIGEST, "lines": [TEXT, …]}         a text of over 500 characters, split at each "\\n"
    {"kind": …, "sample": …, "request": {…}, "response": {…}, "cost": …}
                                                 a record; sample and cost where there are any

A text is written once, before its first use; requests and responses refer to it, and a request refers to the messages
that it has in common with an earlier one (see :mod:`llmcall.references`). So a conversation's file grows linearly with
it, and no line depends on a later one. Blank lines, a byte order mark and carriage returns at line ends are accepted.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Any

from . import credentials
from .entries import LINE_BYTES, entry_of, header, line_of
from .errors import CacheCorruptError, CacheError
from .references import Decoder, Encoder, check_unicode, is_inline, ordered
from .types import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from .types import Data, Request

    KeyOf = Callable[[str, dict[str, Data], str | None], str]

__all__ = ["VOLATILE", "Lines", "decode", "encode", "read", "sort_key", "write"]

VOLATILE = ("id", "created", "system_fingerprint")  # fields of a model's response that are new in each


def sort_key(record: Record) -> tuple[str, ...]:
    """Return what records are sorted by: the names of their scope path; those without a sample come first."""
    return () if record.sample is None else tuple(record.sample.partition("#")[0].split("/"))


def encode(settings: Mapping[str, Data], records: Iterable[Record], *, allow: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the lines of a file, each with its newline.

    :param settings: the settings that entered the keys, as JSON data.
    :param records: the records in the order of the calls; they are written by scope path.
    :param allow: regular expressions of what is no secret though it looks like a credential.
    :raises ValueError: for NaN, an infinity, a lone surrogate or too deep a nesting, with its place.
    :raises TypeError: for anything but plain data, with its place.
    :raises CacheError: for text that looks like a credential, with its place.
    """
    credentials.refuse({"settings": dict(settings)}, allow, "the header")
    first = line_of(header(ordered(dict(settings))))
    check_unicode(first, "the settings")
    yield first
    encoder = Encoder()
    searched: set[str] = set()
    for number, record in enumerate(sorted(records, key=sort_key), 1):
        where = f"record {number}" + ("" if record.sample is None else f" (sample {record.sample!r})")
        encoded = _encoded(encoder, record, where)
        shown = {"sample": record.sample, "request": record.request, "response": record.response}
        credentials.refuse(shown, allow, where, searched)
        for digest, text in encoder.new_texts:
            yield line_of({"text": digest, "lines": text.split("\n")})
        encoder.new_texts.clear()
        yield line_of(encoded)


def _encoded(encoder: Encoder, record: Record, where: str) -> dict[str, Any]:
    request, response = record.request, record.response
    if record.kind != "function":
        response = {name: value for name, value in response.items() if name not in VOLATILE}
    try:
        check_unicode(record.sample or "", "sample")
        entry = {
            "kind": record.kind,
            "sample": record.sample,
            "request": encoder.request(request) if record.kind == "chat" else encoder.data(request, "request"),
            "response": encoder.data(response, "response"),
            "cost": encoder.data(record.cost, "cost"),
        }
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from None
    except RecursionError:
        raise ValueError(f"{where}: its request or response is nested too deeply to be recorded") from None
    return {name: value for name, value in entry.items() if value is not None}


def write(
    path: str | os.PathLike[str],
    settings: Mapping[str, Data],
    records: Iterable[Record],
    *,
    allow: tuple[str, ...] = (),
) -> None:
    """Write a file whole or not at all, and the folders above it; see :func:`encode` for what it raises.

    A file that exists keeps its mode; a new one has what the umask leaves.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    os.makedirs(folder, exist_ok=True)
    mode = stat.S_IMODE(os.stat(target).st_mode) if os.path.exists(target) else None
    temporary = os.path.join(folder, f".{name}.{os.urandom(4).hex()}.tmp")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with open(os.open(temporary, flags, 0o666 if mode is None else 0o600), "wb") as file:
            file.writelines(line.encode() for line in encode(settings, records, allow=allow))
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def read(path: str | os.PathLike[str], key_of: KeyOf) -> Lines:
    """Read a file; see :func:`decode`."""
    with open(path, "rb") as file:
        small = os.fstat(file.fileno()).st_size <= LINE_BYTES
        lines = file if small else iter(lambda: file.readline(LINE_BYTES + 1), b"")
        return decode(lines, os.fspath(path), key_of)


def decode(lines: Iterable[bytes], name: str, key_of: KeyOf) -> Lines:
    """Read the lines of a file; its records are resolved when they are asked for.

    :param lines: the lines as bytes.
    :param name: what errors call the file.
    :param key_of: gives the cache key of a kind, a request and a sample.
    :raises CacheCorruptError: for a damaged line, with its number; for a dangling reference, and for two answers to one
        key whose requests are written differently, only when they are resolved.
    :raises CacheError: for a file of a newer version.
    """
    return Lines(lines, name, key_of)


class Lines:
    """Hold the records of a file: ``len()``, iteration in the order of the file, and :meth:`get`.

    A record is built anew each time it is asked for, so it is the caller's own.
    """

    settings: dict[str, Data]

    def __init__(self, lines: Iterable[bytes], name: str, key_of: KeyOf) -> None:
        self._name = name
        self._key_of = key_of
        self._decoder = Decoder()
        self._headed_at: int | None = None  # the number of the header's line
        self._entries: list[tuple[int, dict[str, Any]]] = []  # the line's number, and what stands there
        self._heads: dict[int, int] = {}  # hash of all before the response -> first position in the entries
        self._unkeyed: dict[tuple[str, str | None, int], list[int]] = {}
        self._positions: dict[str, int] = {}
        self._load(lines)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Record]:
        for position in range(len(self._entries)):
            record = self._record(position)
            if self._first(record.cache_key, position) == position:
                yield record

    def get(self, request: Request) -> Record | None:
        """Return the record with a request's key, or ``None`` where there is none."""
        telling = request.kind, request.sample, _telling(request.kind, request.asked, Encoder())
        self._key(self._unkeyed.pop(telling, ()))
        found = self._positions.get(request.cache_key)
        return self.find(request.cache_key) if found is None else self._record(found)

    def find(self, cache_key: str) -> Record | None:
        """Return the record of a key, or ``None`` where there is none; it reads all requests through, once."""
        self._key(sorted(position for positions in self._unkeyed.values() for position in positions))
        self._unkeyed.clear()
        found = self._positions.get(cache_key)
        return None if found is None else self._record(found)

    def _key(self, positions: Iterable[int]) -> None:
        for position in positions:
            self._first(self._key_of(*self._asked(position)), position)

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
        position = self._heads.setdefault(hash(line.partition(b', "response": ')[0]), len(self._entries))
        if position < len(self._entries):
            earlier, same = self._entries[position]
            if all(same.get(name) == entry.get(name) for name in ("kind", "sample", "request")):
                if same["response"] != entry["response"]:
                    raise _two_answers(earlier)
                return
        kind, request = entry["kind"], entry["request"]
        telling = kind, entry.get("sample"), _telling(kind, request)
        self._unkeyed.setdefault(telling, []).append(len(self._entries))
        self._entries.append((number, entry))
        if kind == "chat":
            self._decoder.add_request(request)

    def _asked(self, position: int) -> tuple[str, dict[str, Data], str | None]:
        entry = self._entries[position][1]
        decode = self._decoder.request if entry["kind"] == "chat" else self._decoder.data
        return entry["kind"], self._decoded(position, decode, "request"), entry.get("sample")

    def _record(self, position: int) -> Record:
        kind, request, sample = self._asked(position)
        response = self._decoded(position, self._decoder.data, "response")
        cost = self._entries[position][1].get("cost")
        return Record(self._key_of(kind, request, sample), kind, sample, request, response, cost)

    def _decoded(self, position: int, decode: Callable[[Any], Data], name: str) -> Data:
        number, entry = self._entries[position]
        try:
            return decode(entry[name])
        except CacheError as error:
            raise self._at(number, error) from None
        except RecursionError:
            raise self._at(number, CacheCorruptError("the line is nested too deeply")) from None

    def _first(self, key: str, position: int) -> int:
        """Return the first known position of a key; there the same answer must stand."""
        first = self._positions.setdefault(key, position)
        if first != position and self._record(first).response != self._record(position).response:
            raise self._at(self._entries[position][0], _two_answers(self._entries[first][0]))
        return first


def _no_header() -> CacheCorruptError:
    return CacheCorruptError('there is no header {"llmcall": …} before this; take the file from version control')


def _two_answers(line: int) -> CacheCorruptError:
    return CacheCorruptError(f"line {line} has another answer to the same request; remove one of the two lines")


def _differ(one: dict[str, Data], other: dict[str, Data], name: str) -> bool:
    return name not in one or name not in other or one[name] != other[name]


def _telling(kind: str, request: Mapping[str, Any], encoder: Encoder | None = None) -> int:
    """Return a hash of what tells a request from most others and never stands behind a reference to messages.

    :param encoder: given where the request is not encoded.
    """
    messages = request.get("messages") if kind == "chat" else None
    if isinstance(messages, list) and messages:
        telling: Any = messages if is_inline(messages) else messages[-1]
        return hash(repr(telling if encoder is None else encoder.data(telling, "messages")))
    return hash(repr(request if encoder is None else encoder.data(dict(request), "request")))
