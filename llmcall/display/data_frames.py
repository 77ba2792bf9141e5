"""Tables as pandas DataFrames."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..errors import ConfigError
from ..surrogates import without_surrogates
from .printable import printable

RECORD_COLUMNS = (
    "scope",
    "draw",
    "kind",
    "model",
    "served",
    "prompt",
    "answer",
    "finish_reason",
    "refusal",
    "input_tokens",
    "output_tokens",
    "cost",
    "used",
    "cache_key",
)
BEFORE_LEVELS = RECORD_COLUMNS.index("scope") + 1
# of a map's repeat, which is a scope of its own; the digest that names an item is longer
_REPEAT = re.compile(r"~\d{1,15}")


def import_pandas() -> Any:
    """Import pandas, which is optional, and return it.

    :raises ConfigError: if it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ConfigError(
            "a table is a pandas DataFrame, and pandas is not installed: pip install pandas"
        ) from error
    return pandas


def data_frame(rows: Iterable[Sequence[Any]], names: Sequence[str], **options: Any) -> Any:
    """Return rows as a DataFrame that pandas can write to any file.

    :param names: the columns' names.
    :param options: of pandas.
    """
    cells = [[_writable(value) for value in row] for row in rows]
    return import_pandas().DataFrame(cells, columns=list(names), **options)


def _writable(value: Any) -> Any:
    """Return a cell's value; a text without lone surrogates, which neither UTF-8 nor pyarrow takes."""
    return without_surrogates(value) if isinstance(value, str) else value


def record_frame(
    records: Iterable[Any], is_used: Callable[[Any], bool], levels: Sequence[str] | None = None
) -> Any:
    """Return a DataFrame with a row for each :class:`llmcall.Record`.

    :param is_used: tells whether a call used a record.
    :param levels: names for the levels of the scopes, each of which then has a column.
    :raises TypeError: if ``levels`` is not a list of texts.
    :raises ValueError: if it names another number of levels than the scopes have, or a column that
        the table has already.
    """
    names = None if levels is None else _level_names(levels)
    records = list(records)
    frame = data_frame(
        (_cells(record, is_used=is_used(record)) for record in records), RECORD_COLUMNS
    )
    if names is None:
        return frame
    paths = [_levels_of(record.scope) for record in records]
    _check_depth(names, paths)
    for level, name in enumerate(names):
        column = [path[level] if level < len(path) else None for path in paths]
        frame.insert(BEFORE_LEVELS + level, name, column)
    return frame


def _level_names(levels: Any) -> list[str]:
    """Return names for the levels of the scopes, checked."""
    is_list = isinstance(levels, Sequence) and not isinstance(levels, str)
    if not is_list or not all(isinstance(name, str) for name in levels):
        raise TypeError(f"levels is {levels!r}; it must be a list of names, one for each level")
    names = list(levels)
    duplicates = [
        name for index, name in enumerate(names) if name in (*RECORD_COLUMNS, *names[:index])
    ]
    if duplicates:
        raise ValueError(
            f"levels names {duplicates[0]!r}, which is another column already; "
            f"the table has {', '.join(RECORD_COLUMNS)}"
        )
    return names


def _levels_of(scope: str) -> list[str]:
    """Return the names in a scope path; a repeat is none, since it stands in its item's scope."""
    return [name for name in scope.split("/") if name and not _REPEAT.fullmatch(name)]


def _check_depth(names: Sequence[str], paths: Sequence[Sequence[str]]) -> None:
    """Refuse names of more or fewer levels than the deepest of some scope paths has."""
    deepest = max(paths, key=len, default=())
    if not paths or len(names) == len(deepest):
        return
    depth = len(deepest)
    depth_text = "no level" if not depth else f"{depth} level{'' if depth == 1 else 's'}"
    example = f", such as {printable('/'.join(deepest))!r}" if depth else ""
    raise ValueError(
        f"levels names {len(names)} ({', '.join(names)}), but the deepest scope has {depth_text}{example}: "
        "name each level once"
    )


def _cells(record: Any, *, is_used: bool) -> tuple[Any, ...]:
    usage = record.usage
    return (
        record.scope or None,
        _draw(record.sample),
        record.kind,
        record.model,
        record.served,
        record.prompt,
        record.answer,
        record.finish_reason,
        record.refusal,
        usage.input_tokens,
        usage.output_tokens,
        record.cost,
        is_used,
        record.cache_key,
    )


def _draw(sample: str | None) -> int | str | None:
    """Return the draw's number, or the text that the user gave; ``None`` if there is neither."""
    if sample is None:
        return None
    draw = sample.partition("#")[2]
    return int(draw) if draw.isdecimal() else draw
