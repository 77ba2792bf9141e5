"""Read and write records as JSON Lines, the form of cassettes and of exported caches, made for
review and for git.

Version 1 of the form. A file is UTF-8; each line is one JSON object, and one of these three::

    {"llmcall": 1, "settings": {…}}              the header, first; equal ones may follow anywhere;
                                                 with "complete": false where an exception ended the
                                                 recording, and with "run": {…}, the options of
                                                 ``llmcall run``, if that recorded it
    {"text": DIGEST, "lines": [TEXT, …]}         a text of over 500 characters, split at each "\\n"
    {"kind": …, "sample": …, "asker": …, "request": {…}, "response": {…}, "cost": …}
                                                 a record; sample, asker and cost if there are any

A text is written once, before its first use; requests and responses refer to it, and a request
refers to the messages that it has in common with an earlier one. So a conversation's file grows
linearly with it, and no line depends on a later one. Blank lines, a byte order mark and carriage
returns at line ends are accepted.
"""

from __future__ import annotations

import gc
import json
import os
import re
import stat
from array import array
from base64 import b64decode, b64encode
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING, Any, NoReturn

from .. import secrets
from ..config import resolve as config
from ..config.settings import SETTINGS, Rank
from ..errors import CacheCorruptError, CacheError, ConfigError
from ..models.catalog import section_of
from ..requests.arguments import CONFIGURED
from ..requests.keys import is_same, key_of, ordered, ordered_names, plain
from ..text import check_unicode, joined_surrogates
from ..types import Data, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..config.settings import Settings
    from ..types import Request

# By scope path and by the request's key outside any scope: by the number of a draw, who asked.
Askers = dict[tuple[str, str], dict[int, str]]

VERSION = 1
KINDS = ("chat", "embedding", "function", "http")
# By the field that tells what a line is: the types of its fields.
LINES: dict[str, dict[str, tuple[type, ...]]] = {
    "kind": {
        "kind": (str,),
        "sample": (str,),
        "asker": (str,),
        "request": (dict,),
        "response": (dict,),
        "cost": (int, float),
    },
    "text": {"text": (str,), "lines": (list,)},
    "llmcall": {"llmcall": (int,), "complete": (bool,), "run": (dict,), "settings": (dict,)},
}
OPTIONAL = {"sample", "asker", "cost", "complete", "run"}
RESTORE = "take the line from version control, or remove it and record again"

# These break or reorder lines, or are half a character, of which there is no UTF-8.
_ESCAPED = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_CONFLICT = (b"<<<<<<<", b"=======", b">>>>>>>", b"|||||||")

_write_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


NAMESPACES = "namespaces"  # of the models that an [Endpoint …] section gives one
SECTIONS = "models"  # what [Model …] says of the models that were used, by their names
MODELS = ("model", "embedding_model")
MODEL_FILE = ".gguf"
# The settings that decide keys besides the arguments in code: a header holds these, and while its
# cassette is open they stand above environment and files.
KEYED = (*MODELS, *CONFIGURED, "cache_namespace", "cache_normalize", "aliases")


def header_of(
    base: Settings | None = None, *, namespaces: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return the settings that decide keys, as JSON data: as environment, files and defaults say
    them, not code.

    A model's file is known by its name, wherever it lies. All ``[Model …]`` sections are in it;
    :func:`encode` writes what they say of the models that were used.

    :param base: the settings that a client was given, or ``None`` for the process's.
    :param namespaces: of the models, where an open cassette says them.
    """
    said = config.without_code(base)
    found = {name: said[name] for name in KEYED if said[name] not in (None, "", (), {})}
    found = {
        name: list(value) if isinstance(value, tuple) else value for name, value in found.items()
    }
    for name in MODELS:
        if str(found.get(name, "")).lower().endswith(MODEL_FILE):
            found[name] = _file_name(found[name])
    sections = said[SECTIONS]
    if sections:
        found[SECTIONS] = {name: _as_json(sections[name]) for name in sorted(sections)}
    spaces = _namespaces(base) if namespaces is None else namespaces
    return {**found, NAMESPACES: spaces} if spaces else found


def _as_json(section: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in sorted(section.items())
    }


def with_used_models(header: Mapping[str, Any], records: Iterable[Record]) -> dict[str, Any]:
    """Return a header that says what ``[Model …]`` says of the models of some records, each by its
    whole name.
    """
    sections = header.get(SECTIONS, {})
    models = {model for each in records if isinstance(model := each.request.get("model"), str)}
    said = {model: _as_json(section_of(model, sections)) for model in sorted(models)}
    used = {model: section for model, section in said.items() if section}
    others = {name: value for name, value in header.items() if name != SECTIONS}
    return {**others, SECTIONS: used} if used else others


def _file_name(path: str) -> str:
    return re.split(r"[/\\]", path)[-1]


def _namespaces(base: Settings | None) -> dict[str, str]:
    settings = base or config.settings()
    if settings.origin_of("endpoints").rank >= Rank.CONFIGURED:
        return {}
    return {
        model: each.namespace
        for each in settings.endpoints
        if each.namespace
        for model in each.models
    }


def layer_of(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a header says as a layer of settings: what was left out then has no value now.

    A model's file that lies here stays where it is.

    :raises ConfigError: where a name is none of a setting that decides keys.
    """
    recorded = {name: value for name, value in header.items() if name not in (NAMESPACES, SECTIONS)}
    unknown = sorted(recorded.keys() - set(KEYED))
    if unknown:
        raise ConfigError(
            f"the header names {', '.join(unknown)}, which this version of llmcall does not know"
        )
    decided = [name for name in KEYED if name in recorded or (recorded and name not in MODELS)]
    layer = {name: recorded.get(name, SETTINGS[name].default) for name in decided}
    settings = config.settings()
    for name in MODELS:
        here = getattr(settings, name)
        if (
            name in layer
            and str(here).lower().endswith(MODEL_FILE)
            and _file_name(here) == layer[name]
        ):
            layer[name] = here
    if SECTIONS in header:
        layer[SECTIONS] = {**config.without_code()[SECTIONS], **header[SECTIONS]}
    return layer


def header_differences(
    one: Mapping[str, Any], other: Mapping[str, Any], *, all_models: bool = False
) -> str:
    """Return in words what two headers say differently; empty where they agree.

    :param all_models: whether they differ if one alone speaks of a model; the headers of two files
        each speak of the models of their own records.
    """
    names = one.keys() | other.keys()
    different = {name for name in names if one.get(name) != other.get(name)}
    if SECTIONS in different and not all_models:
        mine, others = one.get(SECTIONS, {}), other.get(SECTIONS, {})
        if all(mine[model] == others[model] for model in mine.keys() & others.keys()):
            different.remove(SECTIONS)
    return ", ".join(
        f"{name} ({one.get(name)!r} and {other.get(name)!r})" for name in sorted(different)
    )


def joined_headers(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first of two headers; it also speaks of the models that only the other speaks of."""
    sections = {**other.get(SECTIONS, {}), **one.get(SECTIONS, {})}
    return {**one, SECTIONS: sections} if sections else dict(one)


def line_of(entry: dict[str, Any]) -> str:
    """Return an entry as one line of JSON with its newline; what cannot be seen in a text, or be
    encoded, is escaped.
    """
    line = _write_json(entry) + "\n"
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def entry_of(line: bytes) -> dict[str, Any]:
    """Return the header, text or record that a line holds.

    :raises CacheCorruptError: where it holds none of them, or a damaged one, with what is wrong and
        the remedy.
    :raises CacheError: for the header of a newer version.
    """
    entry = _parsed(line)
    for what in LINES:
        if isinstance(entry, dict) and what in entry:
            _check(entry, what)
            if b"\\u" in line and _SURROGATE.search(line):
                _check_surrogates(entry, what)
            return entry
    raise _damaged("the line is neither a record nor a text nor the header")


def _check(entry: dict[str, Any], what: str) -> None:
    """Refuse a line whose fields are not those of version 1.

    :param what: the field that tells what the line is.
    """
    if what == "llmcall" and type(entry[what]) is int and entry[what] > VERSION:
        raise CacheError(
            f"the file is written in version {entry[what]} of the format, and this llmcall reads up to version "
            f"{VERSION}; upgrade llmcall, or record again with this one"
        )
    types = LINES[what]
    for name, value in entry.items():
        if name not in types:
            raise CacheCorruptError(
                f"the line has an unknown field {name[:40]!r}; remove it, or upgrade llmcall"
            )
        if type(value) not in types[name]:
            raise _damaged(
                f"the line's {name!r} is of another type than {types[name][-1].__name__}"
            )
    if missing := types.keys() - entry.keys() - OPTIONAL:
        raise _damaged(f"the line has no {min(missing)!r}")
    if what == "kind" and entry[what] not in KINDS:
        raise _damaged(f"the record's kind must be one of {', '.join(KINDS)}")
    if what == "text" and not all(isinstance(each, str) for each in entry["lines"]):
        raise _damaged("the lines of a text must be texts")


def _check_surrogates(entry: dict[str, Any], what: str) -> None:
    """Refuse a lone surrogate, half a character, wherever no answer can have it."""
    asked = {name: value for name, value in entry.items() if name not in ("response", "lines")}
    try:
        _write_json(asked).encode()
    except UnicodeEncodeError:
        raise _damaged("the line holds a lone surrogate, which is no text") from None


def _damaged(what: str) -> CacheCorruptError:
    return CacheCorruptError(f"{what}; {RESTORE}")


def _parsed(line: bytes) -> Any:
    try:
        entry = _read_json(line.decode())
    except RecursionError:
        raise _damaged("the line is nested too deeply") from None
    except UnicodeDecodeError:
        raise _damaged("the line is not UTF-8") from None
    except ValueError as error:
        if line.startswith(_CONFLICT):
            raise CacheCorruptError(
                "the line is a conflict marker of an unresolved merge; keep one side's lines or both, without markers"
            ) from None
        cut = "" if line.endswith(b"\n") else ", and seems cut off"
        raise _damaged(f"the line is not JSON{cut} ({error})") from None
    return entry


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_read_json = json.JSONDecoder(parse_constant=_no_number).decode


INLINE_CHARACTERS = 500
FEWEST_MESSAGES = 4
TEXT = re.compile(r'"\$text": "([0-9a-f]{32})"')
CHANGED = "a line was changed by hand or removed: take it from version control, or record again"
NESTED = (dict, list)
SYSTEM_ROLES = ("system", "developer")

_canonical = json.JSONEncoder(sort_keys=True).encode


def digest_of(text: str) -> str:
    """Return the first 32 hexadecimal digits of the SHA-256 of a text's UTF-8.

    A lone surrogate is encoded as if it were a character; two that make one count as that one, since
    JSON reads them so.
    """
    return sha256(joined_surrogates(text).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _stands_for_another(data: dict[str, Any]) -> bool:
    return len(data) == 1 and next(iter(data)).startswith("$")


def _reference(item: Any) -> str | None:
    """Return the digest of ``{"$messages": digest}``, and ``None`` of anything else."""
    digest = item.get("$messages") if isinstance(item, dict) and len(item) == 1 else None
    return digest if isinstance(digest, str) and digest else None


def _has_runs(messages: Any, refers: bool = True) -> bool:
    """Tell whether a request's messages are so many that others may refer to them, or refer to
    others.

    :param refers: whether something in its line stands for something else.
    """
    if not isinstance(messages, list):
        return False
    return len(messages) >= FEWEST_MESSAGES or (refers and any(map(_reference, messages)))


def _after_system(messages: list[Any]) -> int:
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in SYSTEM_ROLES:
            return place
    return 0


def _runs(messages: list[Any]) -> Iterator[tuple[str, int, int, str]]:
    """Yield the runs that others may refer to: digest, begin and end here, and the digest of what
    it goes on from.
    """
    begin = _after_system(messages)
    reference = _reference(messages[begin])
    heads = {(begin + 1, reference)} if reference is not None else {(0, ""), (begin, "")}
    for first, before in sorted(heads):
        digest = before
        for end in range(first, len(messages)):
            digest = digest_of(digest + _canonical(messages[end]))
            yield digest, first, end + 1, before


# what stands between a record's request and its response, as it is written here
RESPONSE = b', "response": '
REFERS = b'"$', b'"\\u0024'  # what a line holds in which something stands for something else
# of a file whose lines are held as they were parsed too, about three times as large
PARSED_BYTES = 8 * 1024 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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
        with without_collection():
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
                record.cache_key = asked.cache_key  # which need not be made of it once more
            if self._first(record, position) == position and record.cache_key == asked.cache_key:
                found = record
        return found or self._at_key(asked.cache_key)

    def askers(self) -> Askers:
        """Return who asked, for the records that say it."""
        with without_collection():
            return askers_of([self.record(position) for position in self._with_askers])

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
            with without_collection():
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
        if entry["kind"] == "chat" and _has_runs(messages, refers):
            for digest, first, end, before in _runs(messages):
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
        return _Unkeyed(
            kind, entry.get("sample"), request, response, entry.get("cost"), entry.get("asker")
        )

    def _request(self, position: int, encoded: dict[str, Any]) -> Data:
        """Resolve the request of a chat; its first message after the system's may stand for those
        of other requests.
        """
        messages: Any = encoded.get("messages")
        if not _has_runs(messages):
            return self._resolved(encoded)
        place = _after_system(messages)
        own, reference = self._own_messages(position, messages), _reference(messages[place])
        if reference is not None:
            own = [*own[:place], *self._run(reference), *own[place + 1 :]]
        return {**self._resolved({**encoded, "messages": None}), "messages": own}

    def _own_messages(self, position: int, encoded: list[Any] | None = None) -> list[Any]:
        """Resolve the messages of a request, with nothing in the place of those of others."""
        if position not in self._messages:
            encoded = encoded or self._entry(self._begins[position])["request"]["messages"]
            place = _after_system(encoded)
            if _reference(encoded[place]) is not None:
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
            if _stands_for_another(encoded):
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
        if sign == "$data" and isinstance(value, dict) and _stands_for_another(value):
            return {name: self._resolved(item) for name, item in value.items()}
        raise CacheCorruptError(
            f'its object of the one name "{sign[:40]}" means nothing there; {CHANGED}'
        )


def askers_of(records: Iterable[Record]) -> Askers:
    """Return who asked for numbered draws, for the records that say it."""
    found: Askers = {}
    for record in records:
        scope, _, number = (record.sample or "").partition("#")
        if record.asker is not None and number.isdecimal():
            digest = key_of(record.kind, record.request, None)
            found.setdefault((scope, digest), {})[int(number)] = record.asker
    return found


def with_shared_askers(records: Iterable[Record]) -> list[Record]:
    """Return records, each with its asker only if several asked the same in its scope."""
    records = list(records)
    found = askers_of(records)
    kept = []
    for record in records:
        if record.asker is not None:
            digest = key_of(record.kind, record.request, None)
            if len(set(found.get((record.scope, digest), {}).values())) < 2:
                record = record.replace(asker=None)
        kept.append(record)
    return kept


class _Unkeyed(Record):
    """Be a record whose key is made when somebody asks for it: who compares runs never does."""

    __slots__ = ()

    def __init__(
        self,
        kind: str,
        sample: str | None,
        request: Any,
        response: Any,
        cost: float | None,
        asker: str | None,
    ) -> None:
        super().__init__("", kind, sample, request, response, cost, asker=asker)
        del self.cache_key

    def __getattr__(self, name: str) -> str:  # called for what is not set
        if name != "cache_key":
            raise AttributeError(name)
        try:
            self.cache_key = key_of(self.kind, self.request, self.sample)
        except ValueError as error:
            raise CacheCorruptError(f"a record has no key: {error}; {RESTORE}") from None
        return self.cache_key


@contextmanager
def without_collection() -> Iterator[None]:
    """Let no garbage be collected: the collector would go through all that was read, again and
    again, for nothing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if (
                not gc.get_freeze_count()
            ):  # what was read counts as old: not even the next collection goes through it
                gc.freeze()
                gc.unfreeze()
            gc.enable()


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


# Fields of a model's response that are new in each; the last is of llama.cpp.
VOLATILE = ("id", "created", "system_fingerprint", "timings")


def lasting(response: dict[str, Data]) -> dict[str, Data]:
    """Return what of a response is not new in each; the result of a function is its own."""
    return (
        response
        if "value" in response
        else {name: response[name] for name in response if name not in VOLATILE}
    )


def same_answer(one: Record, other: Record) -> bool:
    """Tell whether two records hold the same answer, apart from what is new in each response."""
    return one.response == other.response or lasting(one.response) == lasting(other.response)


class Writer:
    """Encode records as the lines of one file, each text before its first use.

    :param allow: regular expressions of what is no secret though it looks like a credential.
    """

    def __init__(self, allow: tuple[str, ...] = ()) -> None:
        self._allow = allow
        self._searched: set[str] = set()
        self._number = 0
        self._digests: dict[str, str] = {}  # of the texts that were written
        self._new: dict[str, str] = {}  # of those that the present record is the first to use
        self._runs: set[str] = set()

    def header(
        self,
        settings: Mapping[str, Data],
        *,
        run: Mapping[str, Data] | None = None,
        complete: bool = True,
    ) -> str:
        """Return the first line; see :func:`encode`."""
        held = {"settings": ordered(dict(settings))}
        if run is not None:
            held = {"run": ordered(dict(run)), **held}
        secrets.refuse(held, self._allow, "the header")
        incomplete = {} if complete else {"complete": False}
        line = line_of({"llmcall": VERSION, **incomplete, **held})
        check_unicode(line, "the settings")
        return line

    def lines(self, record: Record) -> list[str]:
        """Return the lines of a record; see :func:`encode`. After an error, it is as if there were
        no such record.
        """
        self._number += 1
        where = f"record {self._number}" + (
            "" if record.sample is None else f" (sample {record.sample!r})"
        )
        self._new = {}
        try:
            entry = {name: getattr(record, name) for name in LINES["kind"]} | {
                "response": lasting(record.response)
            }
            entry = {
                name: plain(value, name, exact=True, surrogates=name == "response")
                for name, value in entry.items()
            }
            secrets.refuse(entry, self._allow, where, self._searched)
            entry |= {name: self._encoded(entry[name]) for name in ("request", "response")}
        except (TypeError, ValueError) as error:
            raise type(error)(f"{where}: {error}") from None
        except RecursionError:
            raise ValueError(
                f"{where}: its request or response is nested too deeply to be recorded"
            ) from None
        messages = entry["request"].get("messages")
        if record.kind == "chat" and _has_runs(messages):
            entry["request"]["messages"] = shared = self._shared(messages)
            self._runs.update(digest for digest, *_ in _runs(shared))
        self._digests |= self._new
        entry = {name: value for name, value in entry.items() if value is not None}
        texts = [
            line_of({"text": digest, "lines": text.split("\n")})
            for text, digest in self._new.items()
        ]
        return [*texts, line_of(entry)]

    def _encoded(self, data: Data) -> Any:
        """Return plain data as JSON can hold it, with references in the place of long texts."""
        if isinstance(data, str) and len(data) > INLINE_CHARACTERS:
            return {"$text": self._digests.get(data) or self._new.setdefault(data, digest_of(data))}
        if isinstance(data, dict):
            encoded = {name: self._encoded(data[name]) for name in ordered_names(data)}
            return {"$data": encoded} if _stands_for_another(data) else encoded
        if isinstance(data, list):
            return [self._encoded(item) for item in data]
        return {"$bytes": b64encode(data).decode()} if isinstance(data, bytes) else data

    def _shared(self, messages: list[Any]) -> list[Any]:
        """Put a reference in the place of the longest known run, the last message apart."""
        longest, begin, end = "", 0, 1
        for digest, first, after, _ in _runs(messages[:-1]):
            if digest in self._runs and after - first > end - begin:
                longest, begin, end = digest, first, after
        return [*messages[:begin], {"$messages": longest}, *messages[end:]] if longest else messages


def encode(
    settings: Mapping[str, Data],
    records: Iterable[Record],
    *,
    run: Mapping[str, Data] | None = None,
    allow: tuple[str, ...] = (),
    complete: bool = True,
) -> Iterator[str]:
    """Yield the lines of a file, each with its newline.

    :param settings: the settings that entered the keys, as JSON data; of the models in it, those
        that the records name are written.
    :param records: the records in the order of the calls; they are written by scope path.
    :param run: the options of ``llmcall run``, or ``None`` if that did not record it.
    :param allow: regular expressions of what is no secret though it looks like a credential.
    :param complete: whether the recording came to its end.
    :raises ValueError: for NaN, an infinity, a lone surrogate of a request or too deep a nesting,
        with its place.
    :raises TypeError: for anything but plain data, with its place.
    :raises CacheError: for text that looks like a credential, with its place.
    """
    records = list(records)
    writer = Writer(allow)
    header = with_used_models(settings, records)
    yield writer.header(header, run=run, complete=complete)
    for record in sorted(
        records, key=lambda record: (record.sample is not None, record.scope.split("/"))
    ):
        yield from writer.lines(record)


def write(
    path: str | os.PathLike[str],
    settings: Mapping[str, Data],
    records: Iterable[Record],
    *,
    run: Mapping[str, Data] | None = None,
    allow: tuple[str, ...] = (),
    complete: bool = True,
) -> None:
    """Write a file whole or not at all, and the folders above it; see :func:`encode` for what it
    raises.

    A file that exists keeps its mode; a new one has what the umask leaves.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    os.makedirs(folder, exist_ok=True)
    mode = stat.S_IMODE(os.stat(target).st_mode) if os.path.exists(target) else None
    temporary = os.path.join(folder, f".{name}.{os.urandom(4).hex()}.tmp")
    try:
        with open(
            temporary, "xb", opener=partial(os.open, mode=0o666 if mode is None else 0o600)
        ) as file:
            file.writelines(
                line.encode()
                for line in encode(settings, records, run=run, allow=allow, complete=complete)
            )
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


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
