"""Records as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..display.data_frames import data_frame
from ..display.printable import printable
from ..scopes import without_repeats

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


def record_frame(
    records: Iterable[Any], is_used: Callable[[Any], bool], levels: Sequence[str] | None = None
) -> Any:
    """Return a DataFrame with a row for each :class:`llmcall.types.Record`.

    :param is_used: tells whether a call used a record.
    :param levels: names for the levels of the scopes, each of which then has a column.
    :raises TypeError: if ``levels`` is not a list of texts.
    :raises ValueError: if it names another number of levels than the scopes have, or a column that
        the table has already.
    """
    records = list(records)
    names = [] if levels is None else _checked_levels(levels, records)
    frame = data_frame(
        (_cells(record, is_used=is_used(record)) for record in records), RECORD_COLUMNS
    )
    paths = [_levels_of(record) for record in records]
    for level, name in enumerate(names):
        column = [path[level] if level < len(path) else None for path in paths]
        frame.insert(BEFORE_LEVELS + level, name, column)
    return frame


def _levels_of(record: Any) -> list[str]:
    """Return the names in a scope path; a repeat is none, since it stands in its item's scope."""
    path, _ = without_repeats(record.scope)
    return [name for name in path.split("/") if name]


def _checked_levels(levels: Any, records: Sequence[Any]) -> list[str]:
    """Return names for the levels of the scopes, one for each level of the deepest."""
    is_list = isinstance(levels, Sequence) and not isinstance(levels, str)
    if not is_list or not all(isinstance(name, str) for name in levels):
        raise TypeError(f"levels is {levels!r}; it must be a list of names, one for each level")
    names = list(levels)
    if len({*RECORD_COLUMNS, *names}) < len(RECORD_COLUMNS) + len(names):
        raise ValueError(
            f"levels names a column twice: {', '.join(names)}; the table has {', '.join(RECORD_COLUMNS)}"
        )
    deepest = max(map(_levels_of, records), key=len, default=names)
    if len(names) != len(deepest):
        raise ValueError(
            f"levels names {len(names)} ({', '.join(names)}), but the deepest scope has {len(deepest)}: "
            f"{printable('/'.join(deepest))!r}; name each level once"
        )
    return names


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
