"""Unified diffs of two versions of a file or of a program's output."""

from __future__ import annotations

import difflib
import itertools
import math
import re

# Digits with leading zeros are a code, such as a postcode.
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])")
MAX_LINES = 40  # of a diff


def differences(old: bytes, new: bytes, tolerance: float = 0.0) -> list[str]:
    """Return a unified diff of two versions; empty if they are the same.

    :param old: the expected version.
    :param tolerance: the largest difference of two numbers, relative to the larger one, or to 1 if
        both are smaller.
    """
    if old == new:
        return []
    try:
        old_lines, new_lines = (data.decode("utf-8-sig").split("\n") for data in (old, new))
    except UnicodeDecodeError:
        return [f"its bytes differ ({len(old):,} and {len(new):,} bytes)"]
    if tolerance and len(old_lines) == len(new_lines):
        pairs = zip(old_lines, new_lines, strict=True)
        new_lines = [line if _is_near(line, other, tolerance) else other for line, other in pairs]
        if old_lines == new_lines:
            return []
    diff = difflib.unified_diff(old_lines, new_lines, "packed", "now", n=1, lineterm="")
    lines = list(itertools.islice((line for line in diff if line.strip()), MAX_LINES + 1))
    if not lines:
        return ["its bytes differ, but not its text (a byte order mark)"]
    return [*lines[:MAX_LINES], "…"] if len(lines) > MAX_LINES else lines


def _is_near(line: str, other: str, tolerance: float) -> bool:
    """Return whether two lines are the same except for numbers close to each other."""
    if line == other:
        return True
    if NUMBER.sub("#", line) != NUMBER.sub("#", other):
        return False
    pairs = zip(NUMBER.findall(line), NUMBER.findall(other), strict=True)
    return all(
        math.isclose(float(one), float(two), rel_tol=tolerance, abs_tol=tolerance)
        for one, two in pairs
    )
