"""Files of published rows and conversations, in JSON and CSV."""

from __future__ import annotations

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from ...errors import CacheError
from ...keys.plain_data import is_too_deep
from ...support.display import counted
from .columns import OWN_LAYOUT, Columns

if TYPE_CHECKING:
    from ...keys.request import Data

# The location of a conversation or an exchange, for messages, and itself
LocatedEntry = tuple[str, object]
DELIMITERS = ",;\t"
BLANKS = b"\xef\xbb\xbf \t\r\n"  # with the mark at the start of a text in UTF-8
PRETTY = "if it has several objects over many lines, write each into one: jq -c . FILE > FILE.jsonl"
GZIP = b"\x1f\x8b"
BINARY = {
    b"PK\x03\x04": "a ZIP file, as those of Excel (.xlsx) are",
    b"\xd0\xcf\x11\xe0": "a file of Excel (.xls)",
    b"PAR1": "a Parquet file",
    b"SQLite format 3": "a database of SQLite",
    b"%PDF": "a PDF",
}
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # the marks at the start of such a file


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Open a text file, which may be compressed by gzip.

    :raises CacheError: if it holds no text; says what it is, and what to do.
    """
    with open(path, "rb") as file:
        start = file.read(1024)
    try:
        opener: Any = gzip.open if start.startswith(GZIP) else open
        with opener(path, "rb") as file:
            start = file.read(1024)
            file.seek(0)
            kind = next((BINARY[mark] for mark in BINARY if start.startswith(mark)), "")
            if start.startswith(UTF_16):
                raise CacheError(
                    f"{path}: the text is UTF-16; convert the file: iconv -f UTF-16 -t UTF-8"
                )
            if kind or b"\0" in start:
                raise CacheError(
                    f"{path} is {kind or 'a binary file'}, not text; save its rows as CSV or JSON Lines, for example "
                    "with pandas: frame.to_csv('answers.csv', index=False)"
                )
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CacheError(f"{path}: its compressed data is damaged: {error}") from error


def objects(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the JSON objects in a file with their locations: one per line, a list's, or the only one.

    :raises CacheError: if it contains anything else.
    """
    with opened(path) as file:
        first = next((line for line in file if line.strip(BLANKS)), b"")
        is_one = not _is_json(first)  # that goes on in the lines below
        file.seek(0)
        if first.strip(BLANKS).startswith(b"["):
            for number, entry in enumerate(_parsed(file.read(), path), 1):
                yield _object(entry, f"{path}, entry {number}")
        elif is_one:
            yield _object(_parsed(file.read(), path, PRETTY), path)
        else:
            for number, line in enumerate(file, 1):
                if line.strip():
                    location = f"{path}:{number}"
                    yield _object(_parsed(line, location), location)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return not line
    return True


def _object(entry: object, location: str) -> tuple[str, dict[str, Data]]:
    if not isinstance(entry, dict):
        raise CacheError(f"{location}: it is not a JSON object; {OWN_LAYOUT}")
    if "nbformat" in entry:
        raise CacheError(
            f"{location} is a Jupyter notebook; let it save its answers as CSV or JSON Lines, and import that file"
        )
    return location, entry


def _parsed(data: bytes, location: str, remedy: str = OWN_LAYOUT) -> Any:
    try:
        value = json.loads(data.decode("utf-8-sig"))
        if is_too_deep(value, data):
            raise RecursionError("nested too deeply")
        return value
    except UnicodeDecodeError as error:
        raise _encoding_error(location, error) from error
    except (ValueError, RecursionError) as error:
        raise CacheError(f"{location}: it is not JSON ({error}); {remedy}") from error


def _encoding_error(location: str, error: UnicodeDecodeError) -> CacheError:
    return CacheError(
        f"{location}: the text is not UTF-8 (byte 0x{error.object[error.start]:02x}); convert the file, for "
        "example with iconv -f WINDOWS-1252 -t UTF-8"
    )


def conversations(path: str, columns: Columns) -> Iterator[LocatedEntry]:
    """Yield the objects of a JSON file as conversations."""
    for location, entry in objects(path):
        if problem := columns.problem(entry):
            raise CacheError(f"{location}: {problem}")
        yield location, columns.conversation(entry, has_paths=True)


def rows(path: str, columns: Columns) -> Iterator[LocatedEntry]:
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
        with opened(path) as file:
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
    with opened(path) as file:
        names = next(csv.reader(_decoded(file, path), delimiter=delimiter), [])
    return "" if columns.problem(names) else delimiter


def _decoded(lines: Iterable[bytes], path: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _encoding_error(f"{path}:{number}", error) from error
