"""Records as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...keys.keys import short_key
from ...scopes import without_repeats
from ...support.display.data_frames import data_frame
from ...support.display.printable import printable

RECORD_COLUMNS = (
    *("scope", "draw", "kind", "model", "served", "prompt", "answer", "finish_reason", "refusal"),
    *("input_tokens", "output_tokens", "cost", "used", "cache_key"),
)
ARMS = "arms"  # a column if a record has arms


def record_frame(
    records: Iterable[Any], is_used: Callable[[Any], bool], levels: Sequence[str] | None = None
) -> Any:
    """Return a DataFrame with a row for each :class:`llmcall.types.Record`, with their arms if any
    record has some.

    :param is_used: tells whether a call used a record.
    :param levels: names for the levels of the scopes, each of which then has a column.
    :raises ValueError: if it names another number of levels than the scopes have, or a column that
        the table has already.
    """
    records = list(records)
    names = [] if levels is None else _checked_levels(list(levels), records)
    frame = data_frame(
        (_cells(record, is_used=is_used(record)) for record in records), RECORD_COLUMNS
    )
    if any(record.arms for record in records):
        frame.insert(2, ARMS, [record.arms for record in records])  # after the draw
    paths = [_levels_of(record) for record in records]
    for level, name in enumerate(names):
        column = [path[level] if level < len(path) else None for path in paths]
        frame.insert(1 + level, name, column)  # after the scope
    return frame


def _levels_of(record: Any) -> list[str]:
    """Return the names in a scope path; a repeat is none, since it stands in its item's scope."""
    path, _ = without_repeats(record.scope)
    return [name for name in path.split("/") if name]


def _checked_levels(names: list[str], records: Sequence[Any]) -> list[str]:
    """Return names for the levels of the scopes, one for each level of the deepest."""
    columns = (*RECORD_COLUMNS, ARMS)
    if len({*columns, *names}) < len(columns) + len(names):
        raise ValueError(
            f"levels names a column twice: {', '.join(names)}; the table has {', '.join(columns)}"
        )
    deepest = max(map(_levels_of, records), key=len, default=names)
    if len(names) != len(deepest):
        raise ValueError(
            f"levels names {len(names)} ({', '.join(names)}), but the deepest scope has {len(deepest)}: "
            f"{printable('/'.join(deepest))!r}; name each level once"
        )
    return names


def _cells(record: Any, *, is_used: bool) -> list[Any]:
    usage = record.usage
    cells = {
        "scope": record.scope or None,
        "draw": _draw(record.sample),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "used": is_used,
        "cache_key": short_key(record.cache_key),
    }
    return [cells[name] if name in cells else getattr(record, name) for name in RECORD_COLUMNS]


def _draw(sample: str | None) -> int | str | None:
    """Return the draw's number, or the text that the user gave; ``None`` if there is neither."""
    if sample is None:
        return None
    draw = sample.partition("#")[2]
    return int(draw) if draw.isdecimal() else draw
