"""The table of a call's answers: a row for each item and repeat."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    get_args,
    get_origin,
    overload,
)

from ..additions import additions
from ..apis.token_usage import total_cost
from ..errors import LLMCallError
from ..keys.keys import short_key
from ..keys.schemas import optional_type
from ..many.map import map as run_map
from ..many.map_options import check_names
from ..support.display import counted
from ..support.frames import data_frame, import_pandas, is_frame, rows_of
from ..support.notices import notice
from .corrections import Conversation
from .rows import RowJob, TableJob, check_rows, cross_rows, row_variables

if TYPE_CHECKING:
    import pandas

    from ..types import Plan


TYPES = {"repeat": int, "tries": int, "cost": float}  # of columns of numbers
# The types of columns with gaps, by pandas' names for the values between them.
GAPS = {"empty": "float64", "boolean": "boolean"}
UNASKED = Conversation(None, None, [], [], 0)  # for a row that failed before its call


def _cells(
    repeat: int,
    answer: Conversation | BaseException,
    field_columns: Mapping[str, str],
    *,
    has_value: bool,
) -> dict[str, Any]:
    """Return what the table says of one draw of a row, by column.

    :param answer: the conversation, or the exception of a row that failed.
    :param field_columns: the fields of the value, by the names of their columns.
    :param has_value: ``True`` if the value has a column of its own.
    """
    if isinstance(answer, BaseException):
        error: BaseException | None = answer
        asked = answer.conversation if isinstance(answer, LLMCallError) else None
        conversation = asked or UNASKED
    else:
        conversation, error = answer, None if answer.is_missing else answer.failure
    reply, replies = conversation.reply, conversation.replies
    value = conversation.fields or conversation.value
    return {
        "repeat": repeat,
        **({"value": conversation.value} if has_value else {}),
        **{column: _field(value, name) for column, name in field_columns.items()},
        "error": None if error is None else f"{type(error).__name__}: {error}",
        "tries": conversation.tries,
        "unread": conversation.unread,
        "refusal": conversation.refusal,
        "served": None if reply is None else reply.model,
        "finish_reason": None if reply is None else reply.finish_reason,
        "cost": total_cost(reply.cost for reply in replies) if replies else None,
        "cache_key": None if reply is None else short_key(reply.cache_key),
    }


def _field(value: object, name: str) -> object:
    """Return a field of a value, or ``None`` without the value or the field."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


class RowMethods:
    """The methods ``map`` and ``table`` of an ``LLMCall`` or an ``@llm`` function."""

    def __map_job__(self) -> RowJob:
        """Return the job of a ``map``'s rows."""
        raise NotImplementedError

    @overload
    def map(
        self, rows: Iterable[object], *, dry_run: Literal[True], **map_options: Any
    ) -> Plan: ...
    @overload
    def map(
        self, rows: Iterable[object], *, dry_run: Literal[False] = False, **map_options: Any
    ) -> list[Any]: ...
    def map(self, rows: Iterable[object], **map_options: Any) -> Plan | list[Any]:
        """Make each row's call, and return the values in the order of the rows.

        :param rows: dicts of the templates' variables, or a pandas DataFrame; columns that the
            templates do not use are ignored. A cell that holds nothing (NaN, NaT, NA, None) is an undefined
            variable.
        :param map_options: those of :func:`llmcall.map`.
        :returns: a list; with ``repeats``, a list of lists; with ``dry_run=True`` a :class:`.Plan`.
        :raises TypeError: for rows that are a dict, a text, a set or a generator that is used up.
        """
        check_names("map", map_options)
        return run_map(self, rows, **map_options)  # type: ignore[no-any-return]

    @overload
    def table(
        self,
        rows: Iterable[object],
        *,
        dry_run: Literal[True],
        vary: Mapping[str, object] | None = None,
        **map_options: object,
    ) -> Plan: ...
    @overload
    def table(
        self,
        rows: Iterable[object],
        *,
        dry_run: Literal[False] = False,
        vary: Mapping[str, object] | None = None,
        **map_options: object,
    ) -> pandas.DataFrame: ...
    def table(
        self,
        rows: Iterable[object],
        *,
        vary: Mapping[str, object] | None = None,
        **map_options: Any,
    ) -> Plan | pandas.DataFrame:
        """Make each row's call, and return a DataFrame with a row for each row and repeat.

        Its columns are those of the rows, and then

        - ``repeat``, counted from 0
        - ``value``; for a pydantic model, dataclass, ``TypedDict`` or ``NamedTuple``, a column for each field in
          its place (named ``value.NAME`` if the table has a column of the field's name). Enums are their values,
          decimals are floats, objects in fields are dicts.
        - ``error``, the class and message of the exception of a row that failed, unless it was raised;
          ``.map(on_error="return")`` has the exceptions
        - ``tries``, the number of requested answers
        - ``unread``, the first answer, if it did not fit the output type
        - ``refusal``, the text in which the model refused. A refusal is an answer: it is not asked
          again and raises nothing, whatever ``on_error`` is, and its row has no value.
        - ``served``, the model that answered, by the name that the server gave
        - ``finish_reason``, such as ``"stop"`` or ``"length"``
        - ``cost``, USD when the answers were made, corrections included; missing if unknown
        - ``cache_key``, the last answer's: its first 12 digits, which ``llmcall cache show`` takes

        A frame's index stays, repeated as its rows are; rows of a list are numbered from 0. A replay
        gives the same table: a reply's ``cached``, the usage and the line at a run's end say which answers
        were recorded.

        :param rows: as for :meth:`map`; none of their columns may have one of those names.
        :param vary: crosses the rows with levels of model parameters, of the texts ``system`` and
            ``user``, of ``history``, or of the templates' variables: a list of values for each, or a
            dict of values by label. The rows are repeated for each combination, with the labels in a column for
            each axis. Each combination has the draws that it has in a table of its own.
        :param map_options: those of :func:`llmcall.map`; the exception that leaves has the answers
            in ``.results``.
        :raises ConfigError: if pandas is not installed.
        :raises ValueError: if a column has one of those names; for an axis that is unknown, has two
            meanings or is a column of the rows.
        """
        check_names("table", map_options, "vary")
        job = self.__map_job__()
        check_rows(rows)
        items: Iterable[object] = rows if is_frame(rows) else list(rows_of(rows))
        given = items
        if vary is not None:
            listed: list[Any] = list(rows_of(items))
            for row in listed:
                row_variables(row)
            cells, job, items = cross_rows(job, listed, vary)
        elif not is_frame(rows):
            job.check(items)
        if map_options.get("dry_run"):
            plan = run_map(job, items, **map_options)
            note = additions("remedies").get("a table not yet asked")
            return plan._replace(notes=(*plan.notes, note)) if plan.misses and note else plan
        pandas = import_pandas()
        frame = given if is_frame(given) else pandas.DataFrame(given)
        if vary is not None:
            frame = pandas.concat([frame.assign(**labels) for labels in cells])
        has_value = not field_names(job.call.output_type)
        others = _cells(0, UNASKED, {}, has_value=has_value)
        field_columns = _field_columns(job.call.columns(), others, frame.columns)
        options = dict(map_options)
        if options.get("on_error") == "none":
            options["on_error"] = "return"  # fills the column ``error``
        answers = run_map(TableJob(**vars(job)), items, **options)
        repeats = options.get("repeats", 1)
        if repeats == 1:
            answers = [[answer] for answer in answers]
        _report_missing([answer for row_answers in answers for answer in row_answers])
        draws = (
            _cells(*draw, field_columns, has_value=has_value)
            for row_answers in answers
            for draw in enumerate(row_answers)
        )
        columns = _cells(0, UNASKED, field_columns, has_value=has_value)
        rows_of_cells = ([*map(_plain_cell, cells.values())] for cells in draws)
        values = data_frame(rows_of_cells, columns, dtype=object).astype(TYPES).infer_objects()
        values = values.astype(_dtypes_with_gaps(values))
        index = frame.index.repeat(repeats)
        frame = frame.reset_index(drop=True)
        table = frame.loc[frame.index.repeat(repeats)].reset_index(drop=True).join(values)
        return table.set_axis(index) if is_frame(given) else table


def _plain_cell(value: object) -> object:
    """Return a value without decimals and objects of the user's classes, which not every file holds."""
    if isinstance(value, Enum):
        return _plain_cell(value.value)
    if isinstance(value, Decimal):
        return float(value)
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    elif is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain_cell(item) for name, item in value.items()}
    return [*map(_plain_cell, value)] if isinstance(value, list) else value


def _dtypes_with_gaps(values: pandas.DataFrame) -> dict[str, str]:
    """Return the types of columns of truth values with gaps, and of gaps alone: not every file holds objects."""
    from pandas.api.types import infer_dtype

    inferred = {name: infer_dtype(values[name]) for name in values if values[name].dtype == object}
    return {name: GAPS[kind] for name, kind in inferred.items() if kind in GAPS}


def _field_columns(
    fields: Iterable[str], others: Collection[str], row_columns: Collection[str]
) -> dict[str, str]:
    """Return the fields of the value by the names of their columns.

    :param others: the table's other columns of answers.
    :raises ValueError: if the rows have one of the columns of answers.
    """
    taken = {*row_columns, *others}
    columns = [(f"value.{field}" if field in taken else field, field) for field in fields]
    names = [*others, *(name for name, _ in columns)]
    for name in names:
        if name in row_columns or names.count(name) > 1:
            raise ValueError(
                f"rename your column {name!r}: the table needs that name for the answers"
            )
    return dict(columns)


def _report_missing(answers: Sequence[Conversation | BaseException]) -> None:
    """Report the number of answers that are missing values."""
    missing = [
        answer for answer in answers if isinstance(answer, Conversation) and answer.is_missing
    ]
    refused = sum(answer.refusal is not None for answer in missing)
    counts = {"refusal": refused, "unread": len(missing) - refused}
    if missing:
        columns = " and ".join(f"{name!r} ({counts[name]})" for name in counts if counts[name])
        notice(
            f"missing values: {len(missing)} of {counted(len(answers), 'answer')}, with the text in {columns}. "
            "To request one again, drop it by cache_key: llmcall cassette forget FILE KEY, or llmcall cache delete KEY"
        )


def field_names(output_type: object) -> tuple[str, ...]:
    """Return the names of the fields of a pydantic model, a dataclass, a ``TypedDict`` or a
    ``NamedTuple``; other types have none.
    """
    if get_origin(output_type) is Annotated:
        return field_names(get_args(output_type)[0])
    inner = optional_type(output_type)
    if inner is not None:
        return field_names(inner)
    if not isinstance(output_type, type):
        return ()
    if hasattr(output_type, "model_fields"):
        return tuple(output_type.model_fields)
    if is_dataclass(output_type):
        return tuple(field.name for field in fields(output_type))
    if hasattr(output_type, "__total__"):
        return tuple(output_type.__annotations__)
    return tuple(getattr(output_type, "_fields", ()))
