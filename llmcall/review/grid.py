"""The calls of a run, or of two compared, as a table: an actor a row, a call a column.

The repeats that a ``map`` draws of an item are in one row.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..scopes import without_repeats
from .pairs import Pair
from .runs import RecordedRun


class Cell(NamedTuple):
    """One call in the table.

    :param pair: its records.
    :param row: the actor; of repeats, the item.
    """

    pair: Pair
    row: str


def grid(pairs: Iterable[Pair]) -> list[Cell]:
    """Return calls as cells, row by row.

    :param pairs: actor by actor.
    """
    rows: dict[str, list[Pair]] = {}
    for pair in pairs:
        rows.setdefault(without_repeats(pair.scope)[0], []).append(pair)
    return [Cell(pair, row) for row in rows for pair in rows[row]]


def sampled(cells: list[Cell], most: int | None) -> list[Cell]:
    """Return rows taken evenly from all, so many that they have at most so many calls."""
    if most is None or most >= len(cells):
        return cells
    rows = list(dict.fromkeys(cell.row for cell in cells))
    count = min(len(rows), max(1, most * len(rows) // len(cells)))
    chosen = {rows[number * len(rows) // count] for number in range(count)}
    return [cell for cell in cells if cell.row in chosen][:most]


def pairs_of(run: RecordedRun) -> list[Pair]:
    """Return the calls of a run that is not compared, actor by actor."""
    return [
        Pair(scope, place, record)
        for scope, records in run.by_actor().items()
        for place, record in enumerate(records)
    ]
