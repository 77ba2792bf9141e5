"""Where two versions of a file, or of what a program printed, differ: by row and cell, or by line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ...display.formatting import one_line

NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
MISSING = object()  # stands for what only one of two has
SHOWN = 60  # characters of a cell or a line
MOST = 5  # differences that are named
DELIMITERS = {".csv": ",", ".tsv": "\t"}


def file_differences(path: str, expected: bytes, found: bytes, tolerance: float) -> list[str]:
    """Return in words where two versions of a file differ; empty if they are the same.

    :param path: of the file, whose ending says its format.
    :param tolerance: by which numbers in CSV and JSON may differ, relative to the larger one and at
        least to 1.
    """
    if expected == found:
        return []
    ending = Path(path).suffix.lower()
    try:
        old, new = expected.decode("utf-8-sig"), found.decode("utf-8-sig")
        if ending in DELIMITERS:
            return _listed(_cells(old, new, DELIMITERS[ending], tolerance), tolerance)
        if ending == ".json":
            return _listed(_values("", json.loads(old), json.loads(new), tolerance), tolerance)
    except (ValueError, csv.Error):
        if b"\0" in expected + found or not _is_text(expected) or not _is_text(found):
            return [f"its bytes differ ({len(expected):,} and {len(found):,} bytes)"]
        old, new = expected.decode(), found.decode()
    return _listed(_lines(old, new, 0.0), 0.0)


def text_differences(expected: str, found: str, tolerance: float) -> list[str]:
    """Return in words which lines of two texts differ; numbers may differ within a tolerance."""
    return [] if expected == found else _listed(_lines(expected, found, tolerance), tolerance)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _listed(differences: Iterator[str], tolerance: float) -> list[str]:
    found = list(differences)
    if not found and not tolerance:
        return [
            "its bytes differ, but not its values: quotes, blanks, line ends or numbers' digits"
        ]
    more = [f"… and {len(found) - MOST:,} more"] if len(found) > MOST else []
    return [*found[:MOST], *more]


def _cells(old: str, new: str, delimiter: str, tolerance: float) -> Iterator[str]:
    rows, others = (
        list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)) for text in (old, new)
    )
    header = rows[0] if rows else []
    for number, (row, other) in enumerate(zip_longest(rows, others), 1):
        if row is None or other is None:
            word = "missing" if other is None else "new"
            yield f"row {number} is {word}: {_shown(delimiter.join(row or other or []))}"
            continue
        for column, (cell, there) in enumerate(zip_longest(row, other)):
            if not _is_same(cell, there, tolerance):
                name = header[column] if number > 1 and column < len(header) else ""
                place = f"column {name!r}" if name else f"column {column + 1}"
                yield f"row {number}, {place}: {_shown(cell)} became {_shown(there)}"


def _values(place: str, old: Any, new: Any, tolerance: float) -> Iterator[str]:
    """Yield where two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            inner = f"{place}.{name}".lstrip(".")
            yield from _values(inner, old.get(name, MISSING), new.get(name, MISSING), tolerance)
    elif isinstance(old, list) and isinstance(new, list):
        for index, (one, other) in enumerate(zip_longest(old, new, fillvalue=MISSING)):
            yield from _values(f"{place}[{index}]", one, other, tolerance)
    elif not _is_same(old, new, tolerance) or isinstance(old, bool) is not isinstance(new, bool):
        yield f"{place or 'its value'}: {_shown(old)} became {_shown(new)}"


def _lines(old: str, new: str, tolerance: float) -> Iterator[str]:
    pairs = zip_longest(_split(old), _split(new))
    for number, (line, other) in enumerate(pairs, 1):
        if line is None or other is None:
            word = "missing" if other is None else "new"
            yield f"line {number} is {word}: {_shown(line or other or '')}"
        elif not _is_same_text(line, other, tolerance):
            yield f"line {number}: {_shown(line)} became {_shown(other)}"


def _split(text: str) -> list[str]:
    """Return a text's lines; the end of the last one begins no other."""
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


def _is_same(old: Any, new: Any, tolerance: float) -> bool:
    if old == new:
        return True
    if not tolerance or MISSING in (old, new) or None in (old, new):
        return False
    try:
        return _is_near(float(old), float(new), tolerance)
    except (TypeError, ValueError):
        return False


def _is_near(one: float, other: float, tolerance: float) -> bool:
    if one != one and other != other:  # both are NaN
        return True
    return abs(one - other) <= tolerance * max(1.0, abs(one), abs(other))


def _is_same_text(line: str, other: str, tolerance: float) -> bool:
    if line == other:
        return True
    numbers, those = NUMBER.findall(line), NUMBER.findall(other)
    return (
        tolerance > 0
        and len(numbers) == len(those)
        and NUMBER.sub("#", line) == NUMBER.sub("#", other)
        and all(
            _is_near(float(a), float(b), tolerance) for a, b in zip(numbers, those, strict=True)
        )
    )


def _shown(value: Any) -> str:
    if value is MISSING or value is None:
        return "nothing"
    return repr(one_line(value, SHOWN)) if isinstance(value, str) else one_line(repr(value), SHOWN)
