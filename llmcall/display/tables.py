"""Tables for a terminal, as wide as it allows."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Sequence

GAP = 2  # characters between two columns
NARROWEST = 6  # characters to which a column may shrink


def table(
    rows: Sequence[Sequence[str]], right: Collection[int] = (), truncatable: Collection[int] = ()
) -> str:
    """Return rows of cells as lines. Columns shrink if the terminal is narrow.

    :param rows: the rows, all of one length, at least one.
    :param right: the positions of number columns, which are aligned to the right; their heads may
        break at a space or underscore.
    :param truncatable: the positions of text columns whose cells may be truncated; without any, all
        text columns may be wrapped.
    """
    from tabulate import tabulate  # takes a tenth of a second

    columns = [list(cells) for cells in zip(*rows, strict=True)]
    limits: list[int | None] | None = None
    line_width = _terminal_width()
    if _total_width(columns) > line_width:
        for position in right:
            columns[position] = [re.sub("[ _]", "\n", cell) for cell in columns[position]]
        texts = list(truncatable) or [each for each in range(len(columns)) if each not in right]
        widths = _shrunk(columns, texts, line_width)
        for position in truncatable:
            columns[position] = [_truncated(cell, widths[position]) for cell in columns[position]]
        if not truncatable:
            limits = [None if each in right else widths[each] for each in range(len(columns))]
    aligned = tabulate(
        list(zip(*columns, strict=True)),
        tablefmt="plain",
        disable_numparse=True,
        colalign=["right" if each in right else "left" for each in range(len(columns))],
        maxcolwidths=limits,
    )
    return str(aligned)


def _terminal_width() -> int:
    """Return how many characters fit into a line; a file or a pipe takes any number."""
    from shutil import get_terminal_size

    # A program without a console has no standard output.
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    return get_terminal_size().columns if on_terminal else sys.maxsize


def _shrunk(columns: Sequence[Iterable[str]], texts: Sequence[int], line_width: int) -> list[int]:
    """Return the width of each column, the widest text columns shrunk until all fit, if they can.

    :param texts: the positions of the columns that may shrink.
    :param line_width: characters in a line.
    """
    widths = [_column_width(cells) for cells in columns]
    while sum(widths) + GAP * (len(widths) - 1) > line_width:
        widest = max(texts, key=widths.__getitem__)
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    return widths


def _total_width(columns: Sequence[Iterable[str]]) -> int:
    return sum(map(_column_width, columns)) + GAP * (len(columns) - 1)


def _column_width(cells: Iterable[str]) -> int:
    return max(_width(line) for cell in cells for line in cell.split("\n"))


def _width(text: str) -> int:
    """Return how many characters of a terminal a text takes; East Asian ones take two."""
    from wcwidth import wcswidth

    return max(0, wcswidth(text))


def _truncated(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    while text and _width(text) >= width:
        text = text[:-1]
    return f"{text.rstrip()}…"
