"""The entries of a file's lines: its first header, or what the file is without one; and its records."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from ...errors import CacheCorruptError
from ..record import Record
from .header import Header
from .line import CONFLICT, RESTORE, parse_line, resolve_markers
from .readable import is_plain_chat, unreadable
from .served import model_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ...keys.request import Data

HEADER_LINE = b'{"llmcall": '  # the beginning of a header's line, unless somebody edited it
TEXT_MARKER = re.compile(rb'\{"\$text": "([0-9a-f]{32})"\}')


def first_header(line: bytes) -> Header:
    """Return the header in the first line of a file."""
    try:
        entry = parse_line(line)
    except CacheCorruptError:
        if line.startswith((HEADER_LINE, *CONFLICT)):
            raise
        raise _not_a_cassette(line) from None
    if "llmcall" not in entry:
        raise no_header()
    return Header.of(entry)


def no_header() -> CacheCorruptError:
    """Return the error for a file whose first line is no header."""
    return CacheCorruptError(
        'there is no header {"llmcall": …} before this; take the file from version control'
    )


def _not_a_cassette(line: bytes) -> CacheCorruptError:
    """Return the error for a file that is not a cassette, by its first line."""
    if line.startswith(b"version https://git-lfs.github.com/"):
        return CacheCorruptError(
            "this is a Git LFS pointer, and the cassette itself is not here: fetch it with 'git lfs pull'"
        )
    names: set[str] = set()
    with suppress(ValueError, RecursionError):
        data = json.loads(line)
        names = set(data) if isinstance(data, dict) else names
    importable = {
        "a cassette of VCR": line.startswith(b"interactions:"),
        "the input or output of a batch": "custom_id" in names,
        "a file of conversations, as for fine-tuning": "messages" in names,
        "a file of prompts and answers": names >= {"prompt", "answer"},
    }
    remedy = "'llmcall import' makes a cassette of it"
    kind = next((kind for kind, is_met in importable.items() if is_met), None)
    if kind is None:
        is_tuning = names >= {"prompt", "completion"} or "preferred_output" in names
        kind = "a file for fine-tuning" if is_tuning else "not a cassette of llmcall"
        remedy = "give another file, or take the cassette from version control"
    return CacheCorruptError(
        f'this is {kind}: the first line is not the header {{"llmcall": …}}; {remedy}'
    )


def check_record(entry: dict[str, Data], line: bytes, header: Header) -> Collection[str]:
    """Check the record of a line, and return the digests of the texts that it refers to."""
    has_markers, has_escapes = b"$" in line, b"\\" in line and b"\\u" in line
    is_chat = entry["kind"] == "chat"
    if not has_escapes and not (is_chat and not is_plain_chat(entry["request"], entry["response"])):
        if not has_markers:
            return ()
        found = TEXT_MARKER.findall(line)
        if line.count(b'"$') == len(found):
            return [digest.decode() for digest in found]
    digests: dict[str, str] = {}
    record = record_of(resolved(entry, lambda digest: digests.setdefault(digest, "")), header)
    if problem := unreadable(record):
        raise CacheCorruptError(f"{problem}; {RESTORE}")
    if has_escapes:
        _ = record.cache_key  # raises for a lone surrogate
    return digests


def resolved(entry: dict[str, Data], find_text: Callable[[str], str | None]) -> dict[str, Data]:
    """Return the entry of a record with its markers replaced."""
    data = {name: resolve_markers(entry[name], find_text) for name in ("request", "response")}
    return {**entry, **data}


def record_of(entry: dict[str, Data], header: Header, key: str | None = None) -> Record:
    """Return the record of a line, with what its file's header says of it."""
    record = Record(
        key,
        entry["kind"],
        entry.get("sample"),
        entry["request"],
        entry["response"],
        entry.get("cost"),
        caller=entry.get("caller"),
        arms=tuple(entry.get("arms", ())),
        imported=header.imported,
    )
    if header.days:
        record.noted_days = header.days.get(model_of(record) or "")
    return record
