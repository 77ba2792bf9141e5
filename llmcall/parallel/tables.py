"""The table of a ``map``: a row for each item and repeat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..display.data_frames import data_frame
from ..values import total_cost

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

ANSWER_COLUMNS = (
    "repeat",
    "value",
    "error",
    "tries",
    "unread",
    "refusal",
    "served",
    "finish_reason",
    "cached",
    "cost",
    "cache_key",
)
BEFORE_FIELDS = ANSWER_COLUMNS.index("value") + 1
TYPES = {"repeat": int, "tries": int, "cost": float}


def answer_table(
    frame: Any,
    repeats: int,
    fields: Sequence[str],
    ask: Callable[[], Sequence[Any]],
) -> Any:
    """Return a DataFrame with a row for each item and repeat: the item's columns, then the answer's.

    :param frame: the items' columns, a DataFrame.
    :param fields: the names of the value's fields, which have columns of their own.
    :param ask: asks about the items, and returns for each its
        :class:`~llmcall.typed.conversations.Conversation`, or the exception with which it failed;
        with repeats, a list of these.
    :raises ValueError: if the rows have a column with the name of an answer's column, or two
        columns have the same name.
    """
    clashing = [name for name in ANSWER_COLUMNS if name in frame.columns]
    if clashing:
        raise ValueError(
            f"the rows have a column {clashing[0]!r}, which the table needs for the answers: rename it"
        )
    names = list(ANSWER_COLUMNS)
    names[BEFORE_FIELDS:BEFORE_FIELDS] = _field_columns(fields, [*frame.columns, *ANSWER_COLUMNS])
    for name in names:
        if name in frame.columns or names.count(name) > 1:
            raise ValueError(
                f"the table would have two columns named {name!r}: rename the one in your rows"
            )
    answers = ask()
    if repeats == 1:
        answers = [[answer] for answer in answers]
    frame = frame.reset_index(drop=True)
    table = frame.loc[frame.index.repeat(repeats)].reset_index(drop=True)
    cells = [
        _cells(repeat, answer, fields)
        for item_answers in answers
        for repeat, answer in enumerate(item_answers)
    ]
    columns = data_frame(cells, names, dtype=object)
    return table.join(_with_types(columns.astype(TYPES)))


def _with_types(columns: Any) -> Any:
    """Return columns whose values have the type that they have in common. Values of several types,
    and whole numbers that pandas would round beside a missing value, stay as they are.
    """
    typed_columns = columns.infer_objects()
    for name in columns:
        pairs = zip(columns[name], typed_columns[name], strict=True)
        if any(isinstance(old, int) and int(new) != old for old, new in pairs):
            typed_columns[name] = columns[name]
    return typed_columns


def _field_columns(fields: Sequence[str], columns: Collection[Any]) -> list[str]:
    """Return the names of the fields' columns.

    :param columns: the names of the table's other columns.
    """
    return [f"value.{name}" if name in columns else name for name in fields]


def _cells(repeat: int, answer: Any, fields: Sequence[str]) -> list[Any]:
    """Return the cells of one draw of a row.

    :param answer: a :class:`~llmcall.typed.conversations.Conversation`, or the exception with which
        the row failed.
    """
    error = None
    if isinstance(answer, BaseException):
        error, answer = answer, getattr(answer, "conversation", None)
    if answer is None:  # it failed before anything was asked
        return [repeat, None, *(None for _ in fields), error, 0, *(None for _ in range(7))]
    if answer.refusal is None:
        error = error or answer.failure
    reply, replies = answer.reply, answer.replies
    return [
        repeat,
        answer.value,
        *(_field(answer.fields or answer.value, name) for name in fields),
        error,
        answer.tries,
        answer.unread,
        answer.refusal,
        None if reply is None else reply.model,
        None if reply is None else reply.finish_reason,
        None if reply is None else all(each.cached for each in replies),
        total_cost(each.cost for each in replies) if replies else None,
        None if reply is None else reply.cache_key,
    ]


def _field(value: Any, name: str) -> Any:
    """Return a field of a value; ``None`` if there is no value, or it lacks the field."""
    if isinstance(value, Mapping):
        return value.get(name)
    return getattr(value, name, None)
