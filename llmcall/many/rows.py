"""The rows of a map, taken one by one, and their names in messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas


def is_frame(items: object) -> TypeGuard[pandas.DataFrame]:
    """Return whether something is a pandas DataFrame, without importing pandas."""
    return any(
        base.__name__ == "DataFrame" and base.__module__.partition(".")[0] == "pandas"
        for base in type(items).__mro__
    )


def rows_of(items: Any) -> Iterator[Any]:
    """Return an iterator over items; for a DataFrame, over its rows as dicts.

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
        items = (
            dict(zip(names, values, strict=True))
            for values in items.itertuples(index=False, name=None)
        )
    return iter(items)


def item_label(index: int) -> str:
    """Return an item's name in messages, which count from 1: the last of three is item 3.

    :param index: its number, from 0.
    """
    return f"item {index + 1}"
