"""The table of a call's answers: a row for each item and repeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from ..apis.usage import total_cost
from ..keys.keys import short_key
from ..keys.schemas import optional_type
from ..many.map import map as run_map
from ..many.rows import is_frame, rows_of
from ..many.vary import crossed
from ..support.display.data_frames import data_frame, import_pandas
from ..support.notices import notice
from .conversations import Conversation
from .rows import TableJob, row_variables

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .rows import RowJob

BEFORE_FIELDS = ("repeat", "value")
AFTER_FIELDS = (
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
TYPES = {"repeat": int, "tries": int, "cost": float}


def table(
    job: RowJob, rows: Iterable[Any], vary: Mapping[str, Any] | None, map_options: dict[str, Any]
) -> Any:
    """Return the table of rows, or its plan; see :meth:`llmcall.LLMCall.table`."""
    items: Any = rows if is_frame(rows) else list(rows_of(rows))
    frame = items
    if vary is not None:
        cells, job, items = crossed(job, [row_variables(row) for row in rows_of(items)], vary)
    if map_options.get("dry_run"):
        return run_map(job, items, **map_options)
    pandas = import_pandas()
    keeps_index = is_frame(frame)
    if not keeps_index:
        frame = pandas.DataFrame(frame)
    if vary is not None:
        frame = pandas.concat([frame.assign(**labels) for labels in cells])
    taken = {*frame.columns, *BEFORE_FIELDS, *AFTER_FIELDS}
    columns = {field: f"value.{field}" if field in taken else field for field in job.call.columns()}
    names = [*BEFORE_FIELDS, *columns.values(), *AFTER_FIELDS]
    for name in names:
        if name in frame.columns or names.count(name) > 1:
            raise ValueError(
                f"the table would have two columns {name!r}, one of them for the answers: rename yours"
            )
    options = dict(map_options)
    if options.get("on_error") == "none":
        options["on_error"] = "return"  # the column ``error`` has what "none" leaves out
    answers: Any = run_map(TableJob(*job), items, **options)
    repeats = options.get("repeats", 1)
    if repeats == 1:
        answers = [[answer] for answer in answers]
    draws = [draw for each in answers for draw in enumerate(each)]
    _report_missing([answer for _, answer in draws])
    values = data_frame([_cells(*draw, list(columns)) for draw in draws], names, dtype=object)
    index = frame.index.repeat(repeats)
    frame = frame.reset_index(drop=True)
    table = frame.loc[frame.index.repeat(repeats)].reset_index(drop=True)
    table = table.join(values.astype(TYPES).infer_objects())
    return table.set_axis(index) if keeps_index else table


def _report_missing(answers: Sequence[Any]) -> None:
    """Report how many answers are missing values."""
    missing = [each for each in answers if isinstance(each, Conversation) and each.is_missing]
    refused = sum(conversation.refusal is not None for conversation in missing)
    counts = {"refusal": refused, "unread": len(missing) - refused}
    if missing:
        columns = " and ".join(f"{name} ({counts[name]})" for name in counts if counts[name])
        notice(
            f"{len(missing)} of {len(answers)} answers are missing values; their texts stand in the table under "
            f"{columns}"
        )


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
    if not answer.is_missing:
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
        None if reply is None else short_key(reply.cache_key),
    ]


def _field(value: Any, name: str) -> Any:
    """Return a field of a value; ``None`` if there is no value, or it lacks the field."""
    if isinstance(value, Mapping):
        return value.get(name)
    return getattr(value, name, None)


def fields_of(output_type: Any) -> tuple[str, ...]:
    """Return the names of a pydantic model's, a dataclass's or a ``TypedDict``'s fields; of any
    other type there are none.
    """
    if get_origin(output_type) is Annotated:
        return fields_of(get_args(output_type)[0])
    inner = optional_type(output_type)
    if inner is not None:
        return fields_of(inner)
    if not isinstance(output_type, type):
        return ()
    if hasattr(output_type, "model_fields"):
        return tuple(output_type.model_fields)
    if is_dataclass(output_type):
        return tuple(field.name for field in fields(output_type))
    is_typed_dict = hasattr(output_type, "__total__")
    return tuple(output_type.__annotations__) if is_typed_dict else ()
