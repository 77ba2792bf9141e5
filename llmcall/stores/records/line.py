"""One line of a file of records: the header, a text, or a record, as JSON.

Cassettes and exported caches are such files, made for review and for git. Version 1 of the format: a
file is UTF-8, and each line is one JSON object, one of these three::

    {"llmcall": 1, "settings": {…}}              the header, first; equal headers may follow anywhere;
                                                 with "complete": false if an exception ended the
                                                 recording; with "run": {…}, the options of
                                                 ``llmcall run``, if it recorded the file; with
                                                 "served": {…}, the models that answered, as far as
                                                 their days are known; with its notes, such as
                                                 "imported", the source of published answers; with
                                                 "unanswered", how many calls failed
    {"text": DIGEST, "lines": [TEXT, …]}         a text of over 500 characters, split at each "\\n"
    {"kind": …, "sample": …, "caller": …, "arms": […], "request": {…}, "response": {…}, "cost": …, "key": …}
                                                 a record; sample, caller, arms and cost if there are any;
                                                 before the request, its notes, such as "form": {…}; last
                                                 its key, so that opening a file need not parse it

A text is written once, before its first use; requests and responses refer to it, so that a growing
history does not repeat its long texts. Blank lines, a byte order mark and carriage returns at line
ends are accepted.
"""

from __future__ import annotations

import json
import os
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from ...errors import CacheCorruptError, CacheError
from ...keys.plain_data import STRICT_JSON, is_too_deep
from ...keys.request import Data
from ...support.data import joined_surrogates
from ..notes import NO_NOTES, HeaderNote, Note, Notes, known_header_notes, known_notes

VERSION = 1
KINDS = ("chat", "embedding", "function", "http")
BEFORE_NOTES = ("kind", "sample", "caller", "arms")
# The fields of each kind of line with their types, by the field that marks it. All else in it are notes.
FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "kind": {
        **dict.fromkeys(("kind", "sample", "caller", "key"), (str,)),
        **dict.fromkeys(("request", "response"), (dict,)),
        "arms": (list,),
        "cost": (int, float),
    },
    "text": {"text": (str,), "lines": (list,)},
    "llmcall": {
        **dict.fromkeys(("llmcall", "unanswered"), (int,)),
        **dict.fromkeys(("settings", "run", "served"), (dict,)),
        "complete": (bool,),
    },
}
REQUIRED = {
    "kind": {"kind", "request", "response", "key"},
    "text": {"text", "lines"},
    "llmcall": {"llmcall", "settings"},
}
INLINE_CHARACTERS = 500  # the longest text that is written in the record itself
RESTORE = "restore the line from version control, or remove it and record again"


def refuse_folder(path: str | os.PathLike[str]) -> None:
    """Refuse a folder where a file of records is meant.

    :raises CacheError: if it is one.
    """
    if os.path.isdir(path):
        raise CacheError(
            f"{os.fspath(path)} is a folder, not a cassette or an exported file: name a file in it, such as "
            f"{os.path.join(path, 'run.jsonl')}"
        )


CHANGED_BY_HAND = (
    "a line was changed by hand or removed: restore it from version control, or record again"
)

# Characters that break or reorder lines, and lone surrogates, which UTF-8 cannot encode.
_ESCAPED = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
CONFLICT = (b"<<<<<<<", b"=======", b">>>>>>>", b"|||||||")

_write_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def encode_line(entry: dict[str, Data]) -> str:
    """Return an entry as one line of JSON with its newline; invisible characters are escaped."""
    line = _write_json(entry) + "\n"
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def parse_line(line: bytes) -> dict[str, Data]:
    """Return the header, text or record that a line holds.

    :raises CacheCorruptError: if it is anything else, or damaged; the message says how to repair it.
    :raises CacheError: if it is a newer version's header.
    """
    entry = _parse_json(line)
    for marker in FIELDS:
        if isinstance(entry, dict) and marker in entry:
            _check_fields(entry, marker)
            return entry
    raise _damaged("the line is neither a record nor a text nor the header")


def _check_fields(entry: dict[str, Data], marker: str) -> None:
    """Refuse a line whose fields do not match version 1 of the format.

    :param marker: the field that says what it is.
    """
    version = entry.get("llmcall")
    if type(version) is int and version > VERSION:
        raise CacheError(
            f"the file was written in version {version} of the format, and this llmcall reads only up to version "
            f"{VERSION}; upgrade llmcall, or record again with this one"
        )
    types = FIELDS[marker]
    notes: Mapping[str, Note[Any] | HeaderNote] = {}
    if marker != "text":
        notes = known_notes() if marker == "kind" else known_header_notes()
    for name, value in entry.items():
        if name in types:
            if type(value) not in types[name]:
                type_name = types[name][-1].__name__
                raise _damaged(f"the line's {name!r} is not of the type {type_name}")
        elif name not in notes:
            raise CacheCorruptError(
                f"the line has an unknown field {name[:40]!r}; remove it, or upgrade llmcall"
            )
        elif problem := notes[name].problem(value):
            raise _damaged(problem)
    if missing := REQUIRED[marker] - entry.keys():
        raise _damaged(f"the line has no {min(missing)!r}")
    if marker == "kind" and entry["kind"] not in KINDS:
        raise _damaged(f"the record's kind must be one of {', '.join(KINDS)}")
    for name in ("arms", "lines"):
        if not all(isinstance(item, str) for item in entry.get(name, ())):
            raise _damaged(f"the line's {name!r} must be strings")


def notes_in(entry: Mapping[str, Data]) -> Notes:
    """Return the notes of the entry of a record or a header."""
    fields = FIELDS["kind" if "kind" in entry else "llmcall"]
    return {name: entry[name] for name in entry if name not in fields} or NO_NOTES


def _damaged(problem: str) -> CacheCorruptError:
    return CacheCorruptError(f"{problem}; {RESTORE}")


def _parse_json(line: bytes) -> Data:
    try:
        text = line.decode().strip(" \t\r\n")
        entry, end = STRICT_JSON.raw_decode(text)
        if end != len(text):
            raise json.JSONDecodeError("Extra data", text, end)
        if is_too_deep(entry, line):
            raise RecursionError
        return entry
    except RecursionError:
        raise _damaged("the line is nested too deeply") from None
    except UnicodeDecodeError:
        raise _damaged("the line is not UTF-8") from None
    except ValueError as error:
        if line.startswith(CONFLICT):
            raise CacheCorruptError(
                "the line is a conflict marker of an unresolved merge; keep one side's lines or both, without markers"
            ) from None
        hint = "" if line.endswith(b"\n") else ", and seems cut off"
        raise _damaged(f"the line is not JSON{hint} ({error})") from None


def text_digest(text: str) -> str:
    """Return the first 32 hexadecimal digits of the SHA-256 of a text's UTF-8.

    A lone surrogate is encoded like a character. A pair counts as the character that it makes, as JSON
    reads it.
    """
    return sha256(joined_surrogates(text).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def is_marker(data: dict[str, Data]) -> bool:
    """Return whether an object is a marker for something else, such as ``{"$text": digest}``."""
    return len(data) == 1 and next(iter(data)).startswith("$")


def checked_text(entry: Mapping[str, Data]) -> str:
    """Return the text of a text line.

    :raises CacheCorruptError: if it does not have the digest.
    """
    text: str = "\n".join(entry["lines"])
    if text_digest(text) != entry["text"]:
        raise CacheCorruptError(
            f"the text does not have the digest {entry['text'][:64]}; {CHANGED_BY_HAND}"
        )
    return text


def resolve_markers(encoded: Data, find_text: Callable[[str], str | None]) -> Data:
    """Return a copy of a line's data with its markers replaced.

    :param find_text: returns the file's long text with a digest, or ``None``.
    :raises CacheCorruptError: if a marker is unknown, or refers to a missing text.
    :raises CacheError: if it refers to messages in another line, as an earlier version wrote them.
    """
    if isinstance(encoded, list):
        return [resolve_markers(item, find_text) for item in encoded]
    if not isinstance(encoded, dict):
        return encoded
    if not is_marker(encoded):
        return {name: resolve_markers(item, find_text) for name, item in encoded.items()}
    [(marker, value)] = encoded.items()
    if marker == "$text" and isinstance(value, str):
        text = find_text(value)
        if text is None:
            raise CacheCorruptError(
                f"it refers to the text {value[:64]}, which no line contains; {CHANGED_BY_HAND}"
            )
        return text
    if marker == "$bytes" and isinstance(value, str):
        try:
            return b64decode(value, validate=True)
        except ValueError:
            raise CacheCorruptError(
                f"it contains bytes that are not Base64; {CHANGED_BY_HAND}"
            ) from None
    if marker == "$data" and isinstance(value, dict) and is_marker(value):
        return {name: resolve_markers(item, find_text) for name, item in value.items()}
    if marker == "$messages":
        raise CacheError(
            "it refers to messages in other lines ($messages), which llmcall no longer supports: delete the "
            "file and record it again; answers in the disk cache are not requested again"
        )
    raise CacheCorruptError(
        f'the object {{"{marker[:40]}": …}} is not valid there; {CHANGED_BY_HAND}'
    )
