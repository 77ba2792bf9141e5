"""Tables as pandas DataFrames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from ..errors import ConfigError

RECORD_COLUMNS = (
    "scope",
    "draw",
    "kind",
    "model",
    "prompt",
    "answer",
    "input_tokens",
    "output_tokens",
    "cost",
    "cache_key",
)


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


def data_frame(rows: Iterable[Sequence[Any]], names: Sequence[str]) -> Any:
    """Return rows as a DataFrame; their texts may hold lone surrogates.

    :param names: the columns' names.
    """
    pandas = import_pandas()
    rows = list(rows)
    try:
        return pandas.DataFrame(rows, columns=list(names))
    except UnicodeEncodeError:
        return with_inferred_types(pandas.DataFrame(rows, columns=list(names), dtype=object))


def with_inferred_types(frame: Any) -> Any:
    """Return a DataFrame of objects with each column in the type that its values share.

    pandas keeps texts in pyarrow if that is installed, and pyarrow refuses lone surrogates. A column
    with one stays a column of objects.
    """
    columns = {}
    for name in frame:
        columns[name] = frame[name]
        with suppress(UnicodeEncodeError):
            columns[name] = frame[name].infer_objects()
    return import_pandas().DataFrame(columns, columns=frame.columns, index=frame.index)


def record_frame(records: Iterable[Any], used: Callable[[Any], bool] | None = None) -> Any:
    """Return a DataFrame with a row for each :class:`llmcall.Record`.

    :param used: tells whether a call used a record; gives one more column.
    """
    rows = list(records)
    frame = data_frame(map(_row, rows), RECORD_COLUMNS)
    if used is not None:
        frame.insert(len(RECORD_COLUMNS) - 1, "used", [used(record) for record in rows])
    return frame


def _row(record: Any) -> tuple[Any, ...]:
    usage = record.usage
    return (
        record.scope or None,
        _draw(record.sample),
        record.kind,
        record.request.get("model"),
        record.prompt,
        record.answer,
        usage.input_tokens,
        usage.output_tokens,
        record.cost,
        record.cache_key,
    )


def _draw(sample: str | None) -> int | str | None:
    """Return the draw's number, or the text that the user gave; ``None`` if there is neither."""
    if sample is None:
        return None
    draw = sample.partition("#")[2]
    return int(draw) if draw.isdecimal() else draw
