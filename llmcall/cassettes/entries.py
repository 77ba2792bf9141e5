"""One line of a file of records: written, read back and checked. The errors here name neither file nor line."""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any, NoReturn

from ..errors import CacheCorruptError, CacheError

__all__ = ["VERSION", "entry_of", "header", "line_of"]

VERSION = 1
LINE_BYTES = 256 * 1024 * 1024
KINDS = ("chat", "embedding", "function")
RECORD = frozenset(("kind", "sample", "request", "response", "cost"))
RESTORE = "take the line from version control, or remove it and record again"

_INVISIBLE = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]")  # these break or reorder lines
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_CONFLICT = (b"<<<<<<<", b"=======", b">>>>>>>", b"|||||||")

_write_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def header(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the first entry of a file."""
    return {"llmcall": VERSION, "settings": settings}


def line_of(entry: dict[str, Any]) -> str:
    """Return an entry as one line of JSON with its newline; what cannot be seen in a text is escaped."""
    line = _write_json(entry) + "\n"
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def entry_of(line: bytes) -> dict[str, Any]:
    """Return the header, text or record that a line holds.

    :raises CacheCorruptError: where it holds none of them, or a damaged one, with what is wrong and the remedy.
    :raises CacheError: for the header of a newer version.
    """
    entry = _parsed(line)
    if not isinstance(entry, dict):
        raise _damaged("the line is no JSON object")
    if "kind" in entry:
        _check_record(entry)
    elif "text" in entry:
        _check_text(entry)
    elif "llmcall" in entry:
        _check_header(entry)
    else:
        raise _damaged("the line is neither a record nor a text nor the header")
    return entry


def _damaged(what: str) -> CacheCorruptError:
    return CacheCorruptError(f"{what}; {RESTORE}")


def _parsed(line: bytes) -> Any:
    if len(line) > LINE_BYTES:
        raise _damaged(f"the line is longer than {LINE_BYTES} bytes")
    try:
        entry = _read_json(line.decode())
        if b"\\u" in line and _SURROGATE.search(line):
            _write_json(entry).encode()
    except RecursionError:
        raise _damaged("the line is nested too deeply") from None
    except UnicodeDecodeError:
        raise _damaged("the line is not UTF-8") from None
    except UnicodeEncodeError:
        raise _damaged("the line holds a lone surrogate, which is no text") from None
    except ValueError as error:
        raise _not_json(line, error) from None
    return entry


def _not_json(line: bytes, error: ValueError) -> CacheCorruptError:
    if line.startswith(_CONFLICT):
        return CacheCorruptError(
            "the line is a conflict marker of an unresolved merge; keep one side's lines or both, without markers"
        )
    cut = "" if line.endswith(b"\n") else ", and seems cut off"
    return _damaged(f"the line is not JSON{cut} ({error})")


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_no_number)


def _read_json(text: str) -> Any:
    value, end = _decoder.raw_decode(text) if text.startswith("{") else (None, 0)
    return value if text[end:] in ("\n", "") else _decoder.decode(text)


def _check_header(entry: dict[str, Any]) -> None:
    version = entry["llmcall"]
    if type(version) is not int or version < 1:
        raise _damaged("the version in the header is no positive whole number")
    if version > VERSION:
        raise CacheError(
            f"the file is written in version {version} of the format, and this llmcall reads up to version {VERSION}; "
            "upgrade llmcall, or record again with this one"
        )
    _check_names(entry, {"llmcall", "settings"})
    if not isinstance(entry.get("settings"), dict):
        raise _damaged("the header has no settings, which must be an object")


def _check_text(entry: dict[str, Any]) -> None:
    _check_names(entry, {"text", "lines"})
    lines = entry.get("lines")
    texts = [entry["text"], *lines] if isinstance(lines, list) and lines else [None]
    if not all(isinstance(item, str) for item in texts):
        raise _damaged("the line must hold the digest of a text and the list of its lines")


def _check_record(entry: dict[str, Any]) -> None:
    _check_names(entry, RECORD)
    if entry["kind"] not in KINDS:
        raise _damaged(f"the record's kind must be one of {', '.join(KINDS)}")
    if not isinstance(entry.get("request"), dict) or not isinstance(entry.get("response"), dict):
        raise _damaged("the record must have a request and a response, both objects")
    if not isinstance(entry.get("sample", ""), str):
        raise _damaged("the record's sample must be a text")
    cost = entry.get("cost", 0)
    if not isinstance(cost, (int, float)) or isinstance(cost, bool):
        raise _damaged("the record's cost must be a number")


def _check_names(entry: dict[str, Any], names: set[str] | frozenset[str]) -> None:
    if not entry.keys() <= names:
        unknown = min(entry.keys() - names)
        raise CacheCorruptError(f"the line has an unknown field {unknown[:40]!r}; remove it, or upgrade llmcall")
