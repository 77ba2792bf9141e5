"""Conversations, or prompts with their answers, in JSON and CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...apis.message import as_text
from ...errors import CacheError
from .calls import LocatedConversation
from .responses import ASSISTANT

OWN_LAYOUT = "for any other layout, give your own reader: --layout MODULE:FUNCTION"
CONVERSATION = ("scope", "messages", "responses", "model", "params")
ROW = ("prompt", "answer")


def objects(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the JSON objects in a file with their locations: one per line, or a list's.

    :raises CacheError: if it contains anything else.
    """
    with open(path, "rb") as file:
        start = file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")
        file.seek(0)
        if start.startswith(b"["):
            for number, entry in enumerate(_parsed(file.read(), path), 1):
                yield _object(entry, f"{path}, entry {number}")
            return
        for number, line in enumerate(file, 1):
            if line.strip():
                location = f"{path}:{number}"
                yield _object(_parsed(line, location), location)


def _object(entry: Any, location: str) -> tuple[str, dict[str, Any]]:
    if not isinstance(entry, dict):
        raise CacheError(f"{location}: it is not a JSON object; {OWN_LAYOUT}")
    return location, entry


def _parsed(data: bytes, location: str) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _encoding_error(location, error) from error
    except (ValueError, RecursionError) as error:
        raise CacheError(f"{location}: it is not JSON ({error}); {OWN_LAYOUT}") from error


def _encoding_error(location: str, error: UnicodeDecodeError) -> CacheError:
    return CacheError(
        f"{location}: the text is not UTF-8 (byte 0x{error.object[error.start]:02x}); convert the file, for "
        "example with iconv -f WINDOWS-1252 -t UTF-8"
    )


def rows(path: str) -> Iterator[LocatedConversation]:
    """Yield the rows of a CSV file as conversations."""
    csv.field_size_limit(sys.maxsize)  # a prompt may be longer than 131,072 characters
    number = 1
    # Read as bytes, so that an error in the encoding has a line number.
    with open(path, "rb") as file:
        lines = _decoded(file, path)
        try:
            reader = csv.DictReader(lines, strict=True)
            names = reader.fieldnames or ()
            if missing := [name for name in ROW if name not in names]:
                raise CacheError(
                    f"{path}: it has no column {' and no column '.join(missing)}, but {', '.join(names)}; {OWN_LAYOUT}"
                )
            for row in reader:
                number = reader.line_num
                yield f"{path}:{number}", conversation(row, f"{path}:{number}")
        except csv.Error as error:
            raise CacheError(f"{path}: after line {number}: {error}") from error


def _decoded(lines: Iterable[bytes], path: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _encoding_error(f"{path}:{number}", error) from error


def conversation(entry: Mapping[str, Any], location: str) -> dict[str, Any]:
    """Return an object with messages, or a row with a prompt and an answer, as a conversation."""
    scope = entry.get("scope") or ()
    fields = {"scope": levels(scope) if isinstance(scope, (str, int)) else scope}
    if "messages" in entry:
        return {**{name: entry[name] for name in CONVERSATION if name in entry}, **fields}
    if entry.keys() >= {*ROW}:
        prompt = entry["prompt"]
        messages = prompt if isinstance(prompt, list) else [_message("user", prompt)]
        answer = _message(ASSISTANT, entry["answer"])
        return {**fields, "messages": [*messages, answer], "model": entry.get("model") or None}
    names = ", ".join(map(str, entry))
    raise CacheError(
        f"{location}: it has neither messages nor prompt and answer, but {names or 'nothing'}; {OWN_LAYOUT}"
    )


def _message(role: str, value: Any) -> dict[str, Any]:
    return {"role": role, "content": "" if value is None else as_text(value)}


def levels(path: object) -> tuple[str, ...]:
    """Return the names in a scope path, without the number of a draw."""
    return tuple(filter(None, str(path).partition("#")[0].split("/")))
