"""Records as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

from ...additions import additions
from ...keys.keys import key_of
from ...keys.request import Data
from ...scopes.position import without_repeats
from ...support.display import printable
from ...support.frames import frame_of
from ..record import Record

if TYPE_CHECKING:
    import pandas


# Columns with the names of a record's attributes.
SAME_NAMES = (
    *("arms", "kind", "model", "served", "provider"),
    *("prompt", "answer", "finish_reason", "refusal"),
)


def record_frame(
    records: Iterable[Record], is_used: Callable[[Record], bool], levels: Sequence[str] | None
) -> pandas.DataFrame:
    """Return a DataFrame with a row for each :class:`llmcall.types.Record`. It has columns of arms and of
    providers behind a gateway if any record has them.

    :param is_used: returns whether a call used a record.
    :param levels: names for the levels of the scopes, or the name of the only one; each gets a column.
    :raises ValueError: if their number is not the depth of the deepest scope, or one of them is a
        column's name.
    """
    columns = _columns(is_used)
    table: dict[str, list[Data]] = {name: [] for name in columns}
    for record in records:  # one at a time: a large cache has no room for them
        for name, cell in columns.items():
            table[name].append(cell(record))
    levels = [levels] if isinstance(levels, str) else levels
    scopes = table["scope"]
    names = [] if levels is None else _checked_levels(list(levels), scopes, columns)
    for name in ("arms", "provider"):
        if not any(table[name]):
            del table[name]
    level_columns = {
        name: [next(iter(_levels_of(scope)[number:]), None) for scope in scopes]
        for number, name in enumerate(names)
    }
    return frame_of({"scope": scopes, **level_columns, **table})


def _columns(is_used: Callable[[Record], bool]) -> dict[str, Callable[[Record], Data]]:
    """Return the columns of the table: their names, and the functions that fill their cells."""
    return {
        "scope": lambda record: record.scope or None,
        "draw": _draw,
        **{name: attrgetter(name) for name in SAME_NAMES},
        "input_tokens": attrgetter("usage.input_tokens"),
        "output_tokens": attrgetter("usage.output_tokens"),
        "cost": attrgetter("cost"),
        "used": is_used,
        "cache_key": attrgetter("cache_key"),
        "request": lambda record: key_of(record.kind, record.request, None),
        **{
            name: partial(lambda name, record: name in record.notes, name)
            for name in additions("given")
        },
    }


def _levels_of(scope: str | None) -> list[str]:
    """Return the names in a scope path, without repeats, which are in their item's scope."""
    path, _ = without_repeats(scope or "")
    return [name for name in path.split("/") if name]


def _checked_levels(
    names: list[str], scopes: Sequence[str | None], columns: Collection[str]
) -> list[str]:
    """Return the names of the levels, checked to be one for each level of the deepest scope."""
    if len({*columns, *names}) < len(columns) + len(names):
        raise ValueError(
            f"levels names a column twice: {', '.join(names)}; the table has {', '.join(columns)}"
        )
    deepest = max(map(_levels_of, {*scopes}), key=len, default=names)
    if len(names) != len(deepest):
        raise ValueError(
            f"levels names {len(names)} ({', '.join(names)}), but the deepest scope has {len(deepest)}: "
            f"{printable('/'.join(deepest))!r}; name each level once"
        )
    return names


def _draw(record: Record) -> int | str | None:
    """Return the draw's number, or the user's text for it, or ``None``."""
    if record.sample is None:
        return None
    draw = record.sample.partition("#")[2]
    return int(draw) if draw.isdecimal() else draw
