"""Rows of cells as aligned columns, for terminals: the package tabulate measures them, wide characters too."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["columns", "money"]


def columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Return rows of cells as lines, each column as wide as its widest cell.

    :param rows: the rows, all of one length, at least one.
    :param right: the positions of the columns that are aligned to the right.
    """
    from tabulate import tabulate

    sides = ["right" if position in right else "left" for position in range(len(rows[0]))]
    return str(tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=sides))


def money(usd: float) -> str:
    """Return an amount of US dollars; one that four decimals would show as nothing is ``<$0.0001``."""
    return "<$0.0001" if 0 < usd < 0.00005 else f"${usd:,.4f}"
