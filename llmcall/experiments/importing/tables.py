"""Files of published rows and conversations, in JSON and CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ...errors import CacheError
from ...support.display.formatting import counted
from .columns import OWN_LAYOUT, Columns

if TYPE_CHECKING:
    from ...keys.request import Data

# A conversation's location, for messages, and the conversation
LocatedConversation = tuple[str, object]
DELIMITERS = ",;\t"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # the marks at the start of such a file


def objects(path: str) -> Iterator[tuple[str, dict[str, object]]]:
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


def _object(entry: object, location: str) -> tuple[str, dict[str, Data]]:
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


def conversations(path: str, columns: Columns) -> Iterator[LocatedConversation]:
    """Yield the objects of a JSON file as conversations."""
    for location, entry in objects(path):
        if problem := columns.problem(entry):
            raise CacheError(f"{location}: {problem}")
        yield location, columns.conversation(entry, has_paths=True)


def rows(path: str, columns: Columns) -> Iterator[LocatedConversation]:
    """Yield the rows of a CSV file as conversations.

    The delimiter is the one of ``,``, ``;`` and tabs with which the first row has the needed
    columns. A guess from the whole text, such as ``csv.Sniffer``'s, may be wrong.

    :raises CacheError: if the file cannot be read, or a row has more or fewer cells than the first one;
        names the line.
    """
    csv.field_size_limit(sys.maxsize)  # a prompt may be longer than 131,072 characters
    number = 0
    try:
        delimiter = next(filter(None, (_separates(path, x, columns) for x in DELIMITERS)), ",")
        # Read as bytes, so that an error in the encoding has a line number.
        with open(path, "rb") as file:
            reader = csv.reader(_decoded(file, path), delimiter=delimiter, strict=True)
            names = next(reader, [])
            number = reader.line_num
            if problem := columns.problem(names):
                raise CacheError(f"{path}: {problem}")
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise CacheError(f"{path}: it has several columns {', '.join(map(repr, twice))}")
            for row in reader:
                start, number = number + 1, reader.line_num
                if not row:  # a blank line
                    continue
                location = f"{path}:{start}"
                if len(row) != len(names):
                    raise CacheError(
                        f"{location}: the row has {counted(len(row), 'cell')}, but the first row has {len(names)}; put "
                        "cells that contain the separator or a line end into quotes"
                    )
                entry = dict(zip(names, row, strict=True))
                yield location, columns.conversation(entry, has_paths=True)
    except csv.Error as error:
        raise CacheError(f"{path}: after line {number}: {error}") from error


def _separates(path: str, delimiter: str, columns: Columns) -> str:
    """Return a delimiter if it gives a file's first row the needed columns, else an empty text."""
    with open(path, "rb") as file:
        names = next(csv.reader(_decoded(file, path), delimiter=delimiter), [])
    return "" if columns.problem(names) else delimiter


def _decoded(lines: Iterable[bytes], path: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if number == 1 and line.startswith(UTF_16):
            raise CacheError(
                f"{path}: the text is UTF-16; convert the file: iconv -f UTF-16 -t UTF-8"
            )
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _encoding_error(f"{path}:{number}", error) from error
