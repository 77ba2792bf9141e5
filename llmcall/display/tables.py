"""Tables of text."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def table(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Return rows of cells as lines with aligned columns.

    :param rows: the rows, all of one length, at least one.
    :param right: the positions of number columns, which are aligned to the right.
    """
    from tabulate import tabulate  # takes a tenth of a second

    alignments = ["right" if position in right else "left" for position in range(len(rows[0]))]
    return str(tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=alignments))
