"""Results as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .figures import Group

HEADS = ("", "best", "median", "ratio", "middle half", "ratio of best")
SCALES = {"s": (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)), "B": (("MB", 1e6),)}


def table(group: Group) -> str:
    """Return a group as a table: ratios are to the reference, and those below 1 are faster (of
    calls/s: above).
    """
    rows = [_cells(row, group.unit) for row in group.rows()]
    lines = [f"{group.title}" + (f" (ratios to {group.reference})" if group.reference else "")]
    used = len(HEADS) if any(row[3] for row in rows) else 3
    lines += _columns([row[:used] for row in (HEADS, *rows)]) if rows else []
    lines += [f"  {title}: skipped, {reason}" for title, reason in group.skipped]
    return "\n".join(lines)


def amount(value: float, unit: str) -> str:
    """Return a value with a unit that suits its size."""
    name, scale = next(
        ((name, scale) for name, scale in SCALES.get(unit, ()) if abs(value) >= scale), ("", 0.0)
    )
    if scale:
        return (
            f"{value / scale:,.3g} {name}"
            if value / scale < 1000
            else f"{value / scale:,.0f} {name}"
        )
    return f"{value:,.3g} {unit}".rstrip() if abs(value) < 1000 else f"{value:,.0f} {unit}".rstrip()


def _cells(row: dict[str, Any], unit: str) -> tuple[str, ...]:
    cells = row["contestant"], amount(row["best"], unit), amount(row["median"], unit)
    if "ratio" not in row:
        return (*cells, "", "", "")
    middle = f"{row['low']:.2f}–{row['high']:.2f}"
    return (*cells, f"{row['ratio']:.2f}", middle, f"{row['ratio_of_best']:.2f}")


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=False)]
    return ["  " + "  ".join(_aligned(row, widths)).rstrip() for row in rows]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *other_cells = zip(row, widths, strict=False)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in other_cells)]
