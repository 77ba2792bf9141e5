"""Rows of a pandas DataFrame, and a DataFrame of answers; pandas is imported only where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..types import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["ANSWER_COLUMNS", "answer_table", "is_frame", "length_of", "rows_of"]

ANSWER_COLUMNS = ("repeat", "value", "error", "cached", "cost", "cache_key")


def is_frame(items: Any) -> bool:
    """Return whether something is a pandas DataFrame, without importing pandas."""
    return any(
        base.__name__ == "DataFrame" and base.__module__.partition(".")[0] == "pandas" for base in type(items).__mro__
    )


def rows_of(items: Any) -> Iterator[Any]:
    """Yield the items; of a DataFrame its rows, as dicts of Python's own numbers and texts."""
    if is_frame(items):
        names = list(items.columns)
        items = (dict(zip(names, values, strict=True)) for values in items.itertuples(index=False, name=None))
    return iter(items)


def length_of(items: Any) -> int | None:
    """Return how many items there are, or ``None`` where only taking them all would tell."""
    return len(items) if hasattr(items, "__len__") else None


def answer_table(rows: Any, repeats: int, ask: Callable[[Iterable[Any]], Sequence[Sequence[Any]]]) -> Any:
    """Return a DataFrame with a row for each item and repeat: its columns, then those of the answer.

    :param rows: dicts, or a DataFrame.
    :param ask: returns of each row a list of what its repeats gave: an answer, an exception or ``None``.
    :raises ValueError: where a row has a column of the answer's name.
    :raises ConfigError: where pandas is missing.
    """
    pandas = _pandas()
    frame = rows if is_frame(rows) else pandas.DataFrame(rows := list(rows))
    taken = [name for name in ANSWER_COLUMNS if name in frame.columns]
    if taken:
        raise ValueError(f"the rows have a column {taken[0]!r}, which the table needs for the answers: rename it")
    answers = ask(rows)
    repeated = frame.loc[frame.index.repeat(repeats)] if frame.index.is_unique else None
    if repeated is None:
        repeated = frame.reset_index(drop=True).loc[lambda unique: unique.index.repeat(repeats)]
    table = repeated.reset_index(drop=True)
    cells = [_cells(repeat, each) for of_item in answers for repeat, each in enumerate(of_item)]
    columns = pandas.DataFrame(cells, columns=list(ANSWER_COLUMNS), dtype=object)
    # Values keep their type where they have one in common; else they stay as they are.
    return table.join(columns.astype({"repeat": int, "cost": float}).infer_objects())


def _cells(repeat: int, answer: Any) -> tuple[Any, ...]:
    if answer is None or isinstance(answer, BaseException):
        return repeat, None, answer, None, None, None
    failed = isinstance(answer.value, BaseException)
    value, error = (None, answer.value) if failed else (answer.value, None)
    replies = [message for message in answer.messages if isinstance(message, Reply)]
    if answer.reply is None:
        return repeat, value, error, None, None, None
    costs = [reply.cost for reply in replies if reply.cost is not None]
    cost = sum(costs) if len(costs) == len(replies) else None
    return repeat, value, error, all(reply.cached for reply in replies), cost, answer.reply.cache_key


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ConfigError("a table is a pandas DataFrame, and pandas is not installed: pip install pandas") from error
    return pandas
