"""The rows of a map, taken one by one, and their names in messages."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas


class IncompleteRow(dict[Any, Any]):
    """A frame's row in which cells hold nothing (NaN, NaT, NA, None).

    :ivar label: its label in the frame's index.
    :ivar missing: the columns of these cells.
    """

    def __init__(self, cells: Mapping[Any, Any], label: object, missing: tuple[Any, ...]) -> None:
        super().__init__(cells)
        self.label = label
        self.missing = missing

    def with_columns(self, columns: Mapping[Any, Any]) -> IncompleteRow:
        """Return the row with further columns, which stand first."""
        return IncompleteRow({**columns, **self}, self.label, self.missing)


def is_frame(items: object) -> TypeGuard[pandas.DataFrame]:
    """Return whether something is a pandas DataFrame, without importing pandas."""
    return any(
        base.__name__ == "DataFrame" and base.__module__.partition(".")[0] == "pandas"
        for base in type(items).__mro__
    )


def rows_of(items: Any) -> Iterator[Any]:
    """Return an iterator over items; for a DataFrame, over its rows as dicts,
    and as ``IncompleteRow`` where cells hold nothing.

    :raises TypeError: if they are not iterable.
    :raises ValueError: if a DataFrame has two columns of the same name.
    """
    if is_frame(items):
        names = list(items.columns)
        duplicates = [name for name in names if names.count(name) > 1]
        if duplicates:
            raise ValueError(
                f"the rows have two columns {duplicates[0]!r}: rename or drop one of them"
            )
        return _rows_of_frame(items, names)
    return iter(items)


def _rows_of_frame(frame: pandas.DataFrame, names: list[Any]) -> Iterator[dict[Any, Any]]:
    is_missing = frame.isna().to_numpy()
    is_incomplete = is_missing.any(axis=1).tolist()
    for number, values in enumerate(frame.itertuples(index=False, name=None)):
        row = dict(zip(names, values, strict=True))
        if is_incomplete[number]:
            missing = tuple(itertools.compress(names, is_missing[number]))
            row = IncompleteRow(row, frame.index[number], missing)
        yield row


def item_label(index: int) -> str:
    """Return an item's name in messages, which count from 1: the last of three is item 3.

    :param index: its number, from 0.
    """
    return f"item {index + 1}"
