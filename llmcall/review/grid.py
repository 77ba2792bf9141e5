"""The calls of a run, or of two compared, as a table: an actor a row, a round or a call a column.

The repeats that a ``map`` draws of an item stand in one row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..scopes import without_repeats
from .pairs import Pair
from .rounds import natural_order
from .runs import RecordedRun


class Cell(NamedTuple):
    """One call in the table.

    :param pair: its records.
    :param row: the actor; of repeats, the item.
    :param column: the number of its column, from 0.
    """

    pair: Pair
    row: str
    column: int


class Grid(NamedTuple):
    """Calls as a table.

    :param cells: row by row, in the order of the columns.
    :param columns: what stands above each column.
    """

    cells: list[Cell]
    columns: list[str]

    def rows(self) -> list[str]:
        """Return the names of the rows."""
        return list(dict.fromkeys(cell.row for cell in self.cells))

    def sampled(self, most: int | None) -> Grid:
        """Return the rows that stand evenly among all, so many that they have at most so many
        calls.
        """
        if most is None or most >= len(self.cells):
            return self
        rows = self.rows()
        count = min(len(rows), max(1, most * len(rows) // len(self.cells)))
        sampled_rows = {rows[number * len(rows) // count] for number in range(count)}
        return self._replace(cells=[cell for cell in self.cells if cell.row in sampled_rows][:most])


class _ColumnKey(NamedTuple):
    """Where a call stands in its row.

    :param round: the name of its round; empty if no level of the scopes is the round.
    :param repeats: which repeat it is, from 0, of each ``map`` that repeats, the outermost first.
    :param number: its number in them, from 0.
    """

    round: str
    repeats: tuple[int, ...]
    number: int

    def order(self) -> tuple[object, ...]:
        """Return what sorts columns."""
        return natural_order(self.round), self.repeats, self.number


def grid(pairs: Iterable[Pair]) -> Grid:
    """Return calls as a table.

    :param pairs: actor by actor.
    """
    pairs = list(pairs)
    repeats_of = _repeats_by_scope({pair.scope for pair in pairs})
    rows: dict[str, list[tuple[_ColumnKey, Pair]]] = {}
    counts: dict[tuple[str, str, tuple[int, ...]], int] = {}
    for pair in pairs:
        row, _ = without_repeats(pair.scope)
        repeats = repeats_of[pair.scope]
        number = counts.get((row, pair.round, repeats), 0)
        counts[row, pair.round, repeats] = number + 1
        rows.setdefault(row, []).append((_ColumnKey(pair.round, repeats, number), pair))
    keys = sorted({key for row in rows.values() for key, _ in row}, key=_ColumnKey.order)
    columns = {key: number for number, key in enumerate(keys)}
    cells = [
        Cell(pair, row, columns[key])
        for row, keyed in rows.items()
        for key, pair in sorted(keyed, key=lambda each: columns[each[0]])
    ]
    return Grid(cells, _headings(keys))


def _repeats_by_scope(scopes: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Return the numbers of each scope's repeats, equally many for every scope: of the levels at
    which scopes as deep as this one repeat, and then zeros.
    """
    all_repeats = {scope: without_repeats(scope)[1] for scope in scopes}
    levels_by_depth: dict[int, set[int]] = {}
    for repeats in all_repeats.values():
        repeated_levels = {level for level, repeat in enumerate(repeats) if repeat}
        levels_by_depth.setdefault(len(repeats), set()).update(repeated_levels)
    width = max(map(len, levels_by_depth.values()), default=0)
    repeats_by_scope = {}
    for scope, repeats in all_repeats.items():
        numbers = [repeats[level] for level in sorted(levels_by_depth[len(repeats)])]
        zeros = [0] * (width - len(numbers))
        repeats_by_scope[scope] = (*numbers, *zeros)
    return repeats_by_scope


def _headings(keys: Sequence[_ColumnKey]) -> list[str]:
    """Return what stands above each column: only what tells columns apart.

    ``repeat 2.1`` is the first repeat of a ``map`` inside the second repeat of another.
    """
    has_repeats = any(any(key.repeats) for key in keys)
    has_numbers = any(key.number for key in keys)
    headings = []
    for key in keys:
        parts = [key.round] if key.round else []
        repeat = ".".join(str(number + 1) for number in key.repeats)
        parts += [f"repeat {repeat}"] if has_repeats else []
        parts += [f"call {key.number + 1}"] if has_numbers or not parts else []
        headings.append(", ".join(parts))
    return headings


def pairs_of(run: RecordedRun) -> list[Pair]:
    """Return the calls of a run that is not compared, actor by actor."""
    return [
        Pair(scope, place, record, round=run.round_of(record))
        for scope, records in run.by_actor().items()
        for place, record in enumerate(records)
    ]
