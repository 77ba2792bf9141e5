"""Where two versions of a file, or of what a program printed, differ: by row and cell, or by line."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ...display.formatting import one_line

WHOLE = "(?:0|[1-9][0-9]*)"  # with zeros before it, it is a code, such as a postcode
EXPONENT = "(?:[eE][-+]?[0-9]+)"
FLOAT = rf"[-+]?(?:{WHOLE}\.[0-9]*{EXPONENT}?|\.[0-9]+{EXPONENT}?|{WHOLE}{EXPONENT})"
INTEGER = f"[-+]?{WHOLE}"
NUMBER = re.compile(f"{FLOAT}|{INTEGER}")
NUMBER_WITH_COMMA = re.compile(f"[-+]?{WHOLE},(?:[0-9]*[1-9]|0){EXPONENT}?")
# Digits with a comma between them may be one number or two.
NUMBER_IN_TEXT = re.compile(
    rf"(?<![\w.])(?:{FLOAT}(?![0-9_]|\.[0-9])|(?<![0-9],){INTEGER}(?![\w.]|,[0-9]))"
)
MISSING: Any = object()  # stands for what only one of two has
SHOWN = 60  # characters of a cell or a line
MOST = 5  # differences that are named
DELIMITERS = {".csv": ",", ".tsv": "\t"}


def file_differences(path: str, expected: bytes, actual: bytes, tolerance: float) -> list[str]:
    """Return in words where two versions of a file differ; empty if they are the same.

    :param path: of the file, whose ending says its format.
    :param tolerance: by which numbers in CSV and JSON may differ, relative to the larger one and at
        least to 1.
    """
    if expected == actual:
        return []
    ending = Path(path).suffix.lower()
    try:
        old, new = expected.decode("utf-8-sig"), actual.decode("utf-8-sig")
        if ending in DELIMITERS:
            delimiter = _delimiter(old, DELIMITERS[ending])
            return _difference_lines(_cell_differences(old, new, delimiter, tolerance), tolerance)
        if ending == ".json":
            return _difference_lines(
                _value_differences("", json.loads(old), json.loads(new), tolerance), tolerance
            )
    except (ValueError, csv.Error):
        if b"\0" in expected + actual or not _is_text(expected) or not _is_text(actual):
            return [f"its bytes differ ({len(expected):,} and {len(actual):,} bytes)"]
        old, new = expected.decode(), actual.decode()
    return _difference_lines(_line_differences(old, new, 0.0), 0.0)


def text_differences(expected: str, actual: str, tolerance: float) -> list[str]:
    """Return in words which lines of two texts differ; numbers may differ within a tolerance."""
    if expected == actual:
        return []
    return _difference_lines(_line_differences(expected, actual, tolerance), tolerance)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _difference_lines(differences: Iterator[str], tolerance: float) -> list[str]:
    lines = list(differences)
    if not lines and not tolerance:
        return [
            "its bytes differ, but not its values: quotes, blanks, line ends or numbers' digits"
        ]
    more = [f"… and {len(lines) - MOST:,} more"] if len(lines) > MOST else []
    return [*lines[:MOST], *more]


def _delimiter(text: str, usual: str) -> str:
    """Return what stands between the cells: a semicolon where the comma is that of decimals."""
    first_line = text.partition("\n")[0]
    return ";" if first_line.count(";") > first_line.count(usual) else usual


def _cell_differences(old: str, new: str, delimiter: str, tolerance: float) -> Iterator[str]:
    old_rows, new_rows = (
        list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)) for text in (old, new)
    )
    header = old_rows[0] if old_rows else []
    for number, (old_row, new_row) in enumerate(zip_longest(old_rows, new_rows), 1):
        if old_row is None or new_row is None:
            word = "missing" if new_row is None else "new"
            yield f"row {number} is {word}: {_quoted(delimiter.join(old_row or new_row or []))}"
            continue
        for column, (old_cell, new_cell) in enumerate(
            zip_longest(old_row, new_row, fillvalue=MISSING)
        ):
            if MISSING in (old_cell, new_cell) or not _is_same_cell(
                old_cell, new_cell, delimiter, tolerance
            ):
                name = header[column] if number > 1 and column < len(header) else ""
                label = f"column {name!r}" if name else f"column {column + 1}"
                yield f"row {number}, {label}: {_change(old_cell, new_cell)}"


def _value_differences(path: str, old: Any, new: Any, tolerance: float) -> Iterator[str]:
    """Yield where two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            inner_path = f"{path}.{name}".lstrip(".")
            yield from _value_differences(
                inner_path, old.get(name, MISSING), new.get(name, MISSING), tolerance
            )
    elif isinstance(old, list) and isinstance(new, list):
        for index, (old_item, new_item) in enumerate(zip_longest(old, new, fillvalue=MISSING)):
            yield from _value_differences(f"{path}[{index}]", old_item, new_item, tolerance)
    elif not _is_same(old, new, tolerance):
        yield f"{path or 'its value'}: {_change(old, new)}"


def _line_differences(old: str, new: str, tolerance: float) -> Iterator[str]:
    pairs = zip_longest(_lines_of(old), _lines_of(new))
    for number, (old_line, new_line) in enumerate(pairs, 1):
        if old_line is None or new_line is None:
            word = "missing" if new_line is None else "new"
            yield f"line {number} is {word}: {_quoted(old_line or new_line or '')}"
        elif not _is_same_text(old_line, new_line, tolerance):
            yield f"line {number}: {_change(old_line, new_line)}"


def _lines_of(text: str) -> list[str]:
    """Return a text's lines; the end of the last one begins no other."""
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


def _is_same(old: Any, new: Any, tolerance: float) -> bool:
    if isinstance(old, bool) or isinstance(new, bool):  # JSON's true is not its 1
        return old is new
    if old == new or _are_nan(old, new):
        return True
    if not tolerance or isinstance(old, str) is not isinstance(new, str):  # JSON's "7" is not its 7
        return False
    if isinstance(old, str) and not all(NUMBER.fullmatch(each.strip()) for each in (old, new)):
        return False
    try:
        return _is_near(float(old), float(new), tolerance)
    except (TypeError, OverflowError):
        return False


def _is_same_cell(old: str, new: str, delimiter: str, tolerance: float) -> bool:
    if delimiter == ";" and "." not in old + new:
        old, new = _with_point(old), _with_point(new)
    return _is_same(old, new, tolerance)


def _with_point(cell: str) -> str:
    """Return a cell, if it is a number with a decimal comma, with a point."""
    return cell.replace(",", ".") if NUMBER_WITH_COMMA.fullmatch(cell) else cell


def _are_nan(*values: Any) -> bool:
    return all(isinstance(value, float) and math.isnan(value) for value in values)


def _is_near(old: float, new: float, tolerance: float) -> bool:
    if old == new or _are_nan(old, new):
        return True
    if math.isinf(old) or math.isinf(new):
        return False
    return abs(old - new) <= tolerance * max(1.0, abs(old), abs(new))


def _is_same_text(old: str, new: str, tolerance: float) -> bool:
    if old == new:
        return True
    old_numbers, new_numbers = NUMBER_IN_TEXT.findall(old), NUMBER_IN_TEXT.findall(new)
    return (
        tolerance > 0
        and len(old_numbers) == len(new_numbers)
        and NUMBER_IN_TEXT.sub("#", old) == NUMBER_IN_TEXT.sub("#", new)
        and all(
            _is_near(float(a), float(b), tolerance)
            for a, b in zip(old_numbers, new_numbers, strict=True)
        )
    )


def _change(old: Any, new: Any) -> str:
    """Return in words that a value became another one; long texts from a little before they differ."""
    if not isinstance(old, str) or not isinstance(new, str):
        return f"{_quoted(old)} became {_quoted(new)}"
    differs_in_blanks = one_line(old, len(old) + 1) == one_line(new, len(new) + 1)
    pairs = enumerate(zip(old, new, strict=False))
    differs_at = next((index for index, (a, b) in pairs if a != b), min(len(old), len(new)))
    start = differs_at - SHOWN // 2
    if start > 0 and max(len(old), len(new)) > SHOWN:
        old, new = f"…{old[start:]}", f"…{new[start:]}"
    if differs_in_blanks:
        return f"{old[:SHOWN]!r} became {new[:SHOWN]!r} (only white space differs)"
    return f"{_quoted(old)} became {_quoted(new)}"


def _quoted(value: Any) -> str:
    if value is MISSING:
        return "nothing"
    return repr(one_line(value, SHOWN)) if isinstance(value, str) else one_line(repr(value), SHOWN)
