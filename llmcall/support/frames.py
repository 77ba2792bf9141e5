"""Tables: DataFrames as they are made, and the rows of those that users give."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeGuard

from ..errors import ConfigError
from .data import without_surrogates

if TYPE_CHECKING:
    import pandas


def import_pandas() -> Any:
    """Import pandas, which is optional, and return it.

    :raises ConfigError: if it is not installed.
    """
    try:
        from .libraries import pandas
    except ImportError as error:
        raise ConfigError(
            "a table is a pandas DataFrame, and pandas is not installed: pip install pandas"
        ) from error
    return pandas


def data_frame(
    rows: Iterable[Sequence[object]], names: Iterable[str], **options: object
) -> pandas.DataFrame:
    """Return rows as a DataFrame that pandas can write to any file.

    :param names: the columns' names.
    :param options: of pandas.
    """
    cells = [[_writable(value) for value in row] for row in rows]
    return import_pandas().DataFrame(cells, columns=list(names), **options)


def frame_of(columns: Mapping[str, Sequence[object]]) -> pandas.DataFrame:
    """Return columns by name as a DataFrame that pandas can write to any file."""
    return import_pandas().DataFrame(
        {name: list(map(_writable, values)) for name, values in columns.items()}
    )


def _writable(value: object) -> object:
    """Return a cell's value; a text without lone surrogates, which neither UTF-8 nor pyarrow takes."""
    return without_surrogates(value) if isinstance(value, str) else value


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
        """Return the row with further columns before its own."""
        return IncompleteRow({**columns, **self}, self.label, self.missing)


def is_frame(items: object) -> TypeGuard[pandas.DataFrame]:
    """Return whether something is a pandas DataFrame, without importing pandas."""
    return any(
        base.__name__ == "DataFrame" and base.__module__.partition(".")[0] == "pandas"
        for base in type(items).__mro__
    )


def is_at_hand(items: object) -> bool:
    """Return whether all items exist already, so that they can be checked before the first runs."""
    return isinstance(items, (list, tuple, range)) or is_frame(items)


def holds_nothing(value: object) -> bool:
    """Return whether a cell is empty: ``None``, NaN (also a decimal's), or the ``NA`` or ``NaT`` of pandas and
    NumPy.
    """
    name = type(value).__name__
    if isinstance(value, Real) or name in ("Decimal", "datetime64", "timedelta64"):
        return bool(value != value)
    return value is None or name in ("NAType", "NaTType")


def rows_of(items: Any) -> Iterator[Any]:
    """Return an iterator over items; for a DataFrame, over its rows as dicts,
    and as ``IncompleteRow`` where cells hold nothing.

    :raises TypeError: if they are not iterable.
    :raises ValueError: if a DataFrame has two columns of the same name.
    """
    if is_frame(items):
        names = list(items.columns)
        if duplicates := [name for name in names if names.count(name) > 1]:
            raise ValueError(
                f"the rows have two columns {duplicates[0]!r}: rename or drop one of them"
            )
        return _rows_of_frame(items, names)
    return iter(items)


def _rows_of_frame(frame: pandas.DataFrame, names: list[Any]) -> Iterator[dict[Any, Any]]:
    is_missing = frame.isna().to_numpy()
    is_incomplete = is_missing.any(axis=1).tolist()
    # A float32 of 0.1 is sent as 0.1, not as the 0.10000000149011612 that itertuples makes of it.
    kinds = dict(zip(names, frame.dtypes, strict=True))
    if narrow := [name for name, kind in kinds.items() if kind.kind == "f" and kind.itemsize < 8]:
        frame = frame.astype(dict.fromkeys(narrow, str)).astype(dict.fromkeys(narrow, float))
    for number, values in enumerate(frame.itertuples(index=False, name=None)):
        row = dict(zip(names, values, strict=True))
        if is_incomplete[number]:
            missing = tuple(itertools.compress(names, is_missing[number]))
            row = IncompleteRow(row, frame.index[number], missing)
        yield row
