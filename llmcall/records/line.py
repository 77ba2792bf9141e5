"""One line of a file of records: the header, a text, or a record, as JSON.

Cassettes and exported caches are such files, made for review and for git. Version 1 of the format: a
file is UTF-8, and each line is one JSON object, one of these three::

    {"llmcall": 1, "settings": {…}}              the header, first; equal ones may follow anywhere;
                                                 with "complete": false if an exception ended the
                                                 recording; with "run": {…}, the options of
                                                 ``llmcall run``, if that recorded it; with "served":
                                                 {…}, the models that answered, as far as their days
                                                 are known
    {"text": DIGEST, "lines": [TEXT, …]}         a text of over 500 characters, split at each "\\n"
    {"kind": …, "sample": …, "asker": …, "request": {…}, "response": {…}, "cost": …}
                                                 a record; sample, asker and cost if there are any

A text is written once, before its first use; requests and responses refer to it. So a growing
history does not repeat its long texts. Blank lines, a byte order mark and carriage returns at line
ends are accepted.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from ..errors import CacheCorruptError, CacheError

VERSION = 1
KINDS = ("chat", "embedding", "function", "http")
RECORD = ("kind", "sample", "asker", "request", "response", "cost")
# The types of a line's fields; a line is what its first field with a name of these three says.
TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("kind", "sample", "asker", "text"), (str,)),
    **dict.fromkeys(("request", "response", "run", "settings", "served"), (dict,)),
    "cost": (int, float),
    "lines": (list,),
    "llmcall": (int,),
    "complete": (bool,),
}
FIELDS = {
    "kind": RECORD,
    "text": ("text", "lines"),
    "llmcall": ("llmcall", "complete", "run", "settings", "served"),
}
OPTIONAL = {"sample", "asker", "cost", "complete", "run", "served"}
RESTORE = "take the line from version control, or remove it and record again"

# These break or reorder lines, or are half a character, of which there is no UTF-8.
_ESCAPED = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_CONFLICT = (b"<<<<<<<", b"=======", b">>>>>>>", b"|||||||")

_write_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def line_of(entry: dict[str, Any]) -> str:
    """Return an entry as one line of JSON with its newline; what cannot be seen in a text, or be
    encoded, is escaped.
    """
    line = _write_json(entry) + "\n"
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def entry_of(line: bytes) -> dict[str, Any]:
    """Return the header, text or record that a line holds.

    :raises CacheCorruptError: if it holds none of them, or a damaged one; the message says what is
        wrong and how to mend it.
    :raises CacheError: if it is a newer version's header.
    """
    entry = _parsed(line)
    for marker, names in FIELDS.items():
        if isinstance(entry, dict) and marker in entry:
            _check(entry, names)
            return entry
    raise _damaged("the line is neither a record nor a text nor the header")


def _check(entry: dict[str, Any], names: tuple[str, ...]) -> None:
    """Refuse a line whose fields are not those of version 1."""
    version = entry.get("llmcall")
    if type(version) is int and version > VERSION:
        raise CacheError(
            f"the file is written in version {version} of the format, and this llmcall reads up to version "
            f"{VERSION}; upgrade llmcall, or record again with this one"
        )
    for name, value in entry.items():
        if name not in names:
            raise CacheCorruptError(
                f"the line has an unknown field {name[:40]!r}; remove it, or upgrade llmcall"
            )
        if type(value) not in TYPES[name]:
            raise _damaged(f"the line's {name!r} has another type than {TYPES[name][-1].__name__}")
    if missing := {*names} - entry.keys() - OPTIONAL:
        raise _damaged(f"the line has no {min(missing)!r}")
    if entry.get("kind", KINDS[0]) not in KINDS:
        raise _damaged(f"the record's kind must be one of {', '.join(KINDS)}")
    if not all(isinstance(each, str) for each in entry.get("lines", ())):
        raise _damaged("the lines of a text must be strings")


def _damaged(problem: str) -> CacheCorruptError:
    return CacheCorruptError(f"{problem}; {RESTORE}")


def _parsed(line: bytes) -> Any:
    try:
        return _read_json(line.decode())
    except RecursionError:
        raise _damaged("the line is nested too deeply") from None
    except UnicodeDecodeError:
        raise _damaged("the line is not UTF-8") from None
    except ValueError as error:
        if line.startswith(_CONFLICT):
            raise CacheCorruptError(
                "the line is a conflict marker of an unresolved merge; keep one side's lines or both, without markers"
            ) from None
        hint = "" if line.endswith(b"\n") else ", and seems cut off"
        raise _damaged(f"the line is not JSON{hint} ({error})") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large a number")
    return number


_read_json = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite).decode
