"""The jobs of the rows of a ``map`` or a table, and their cells with ``vary``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core import threads
from ..errors import LLMCallError, TemplateError
from ..many.names import item_label
from ..models.catalog import parameters_of
from ..support.arguments import nearest
from ..support.frames import IncompleteRow, holds_nothing, is_at_hand, rows_of
from .corrections import Conversation, GetReply, SendMessage
from .template import CALL

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..clients.base import LLMClient
    from ..keys.request import Data
    from .llm_call import LLMCall


@dataclass(frozen=True, eq=False)
class RowJob:
    """A job with a call for each row of a ``map``.

    :param row_variables: returns the templates' variables for a row.
    :param bound: the variables that are the same for all rows.
    :param is_named: ``True`` if rows need names even without a scope.
    :param axes: with ``vary``, the columns that hold the labels of a row's cell.
    :param calls: with ``vary``, the call for each combination of labels.
    """

    call: LLMCall
    row_variables: Callable[[Any], dict[str, Any]]
    bound: Mapping[str, Data] = field(default_factory=dict)
    is_named: bool = False
    axes: tuple[str, ...] = ()
    calls: Mapping[tuple[Any, ...], LLMCall] = field(default_factory=dict)

    def __map_job__(self) -> Self:
        return self

    @property
    def client(self) -> LLMClient:
        """Return the client."""
        return self.call.client

    def call_for(self, item: Any) -> LLMCall:
        """Return a row's call; with ``vary``, its cell's."""
        return self.calls[tuple(item[axis] for axis in self.axes)] if self.axes else self.call

    def check(self, items: object) -> None:
        """Raise an error for items that are not rows.

        :raises TypeError: with what to write instead.
        """
        check_rows(items)
        if isinstance(items, (list, tuple)):
            for item in items:
                self.row_variables(item)

    def rehearse(self, items: object) -> None:
        """Render the prompts of the rows of a list or a frame; nothing is sent.

        :raises TemplateError, TypeError, ValueError: with the first row that has no prompt.
        """
        if is_at_hand(items):
            for number, item in enumerate(rows_of(items)):
                try:
                    variables = self.variables(item, number)
                    if self.call.parameters and not self.axes:  # a varied text need not use all
                        self.call.refuse_unused(variables)
                    self.call_for(item).check(variables)
                except (TemplateError, TypeError, ValueError) as error:
                    kinds = (TemplateError, TypeError, ValueError)
                    kind = next(kind for kind in kinds if isinstance(error, kind))
                    raise kind(f"{error} ({item_label(number)})") from error

    def variables(self, item: Any, number: int | None = None) -> dict[str, Any]:
        """Return the templates' variables for a row. Empty cells are undefined.

        :param number: the row's number, from 0, for messages.
        """
        row = "this row" if number is None else f"row {number}"
        missing: Iterable[Any] = ()
        if isinstance(item, IncompleteRow):
            missing, row = item.missing, f"row {item.label!r}"
        elif isinstance(item, Mapping):
            missing = [name for name, value in item.items() if holds_nothing(value)]
        return self.row_variables(with_undefined(item, missing, row))

    def run(self, item: Any) -> Any:
        """Make a row's call, and return the value."""
        return threads.run(self.call_for(item).answer(self.variables(item))).value

    async def conversation(
        self, item: object, get_reply: GetReply = SendMessage.reply
    ) -> Conversation:
        """Make a row's call until an answer fits."""
        call = self.call_for(item)
        return await call.conversation(self.variables(item), get_reply)

    def identity(self, item: object) -> dict[str, Data]:
        """Return the variables, and their fields, that the templates use; they identify a row."""
        used_variables = self.call_for(item).templates().variables
        return {
            name: used_fields(value, used_variables[name])
            for name, value in self.row_variables(item).items()
            if name in used_variables and name not in self.bound
        }


def with_undefined(
    values: dict[str, Any], missing: Iterable[Any], row: str = CALL
) -> dict[str, Any]:
    """Return the values of a row or a call, with empty ones as undefined variables.

    :param missing: their names.
    :param row: the row, in words.
    """
    if not missing:
        return values
    from .jinja import undefined_cell

    return {**values, **{name: undefined_cell(name, values[name], row) for name in missing}}


class TableJob(RowJob):
    """A job with a call for each row of a table, which returns the whole conversation."""

    def run(self, item: object) -> Conversation:
        """Make a row's call. A missing value is an answer, and raises nothing.

        :raises APIError, OutputError: if no answer fits, unless the call's ``on_error`` is another.
            ``.conversation`` has the answers.
        """
        conversation = threads.run(self.conversation(item, _reply_or_error))
        failure = conversation.failure
        is_raised = self.call_for(item).model_params["on_error"] == "raise"
        if failure is None or conversation.is_missing or not is_raised:
            return conversation
        if isinstance(failure, LLMCallError):
            failure.conversation = conversation._replace(failure=None)
        raise failure


async def _reply_or_error(message: SendMessage) -> object:
    """Return the reply, or the API's error, which the row has whatever the call's ``on_error`` is."""
    return await message._replace(params={**message.params, "on_error": "return"}).reply()


def check_rows(rows: object) -> None:
    """Refuse a value that Python would split into wrong rows, such as a text into letters.

    :raises TypeError: with what to write instead. A dict may be meant as one row, or as columns.
    """
    if isinstance(rows, Mapping):
        hint = "write [row] for one row, or pandas.DataFrame(columns) for a dict of columns"
    elif isinstance(rows, (str, bytes, bytearray)):
        hint = "put the rows into a list"
    elif hasattr(rows, "to_pandas") and hasattr(rows, "columns"):
        hint = "write rows.to_pandas()"
    elif isinstance(rows, Iterable):
        return
    else:
        hint = "it has no rows"
    raise TypeError(
        f"rows is {type(rows).__name__}; it must be a list with a dict for each row, or a pandas DataFrame "
        f"({hint})"
    )


def row_variables(row: object) -> dict[str, Any]:
    """Return the templates' variables for a row: all its columns whose name a template can use.

    :raises TypeError: if it is not a row.
    """
    if not isinstance(row, Mapping):
        raise TypeError(
            f"a row is {type(row).__name__}; it must be a dict of the templates' variables"
        )
    return {name: value for name, value in row.items() if isinstance(name, str)}


def used_fields(value: object, fields: frozenset[str] | None) -> Any:
    """Return the fields of a dict or a dataclass that the templates use.

    :param fields: their names; ``None`` means the whole value.
    :returns: the value itself if it has no fields, or lacks one.
    """
    all_fields = value if isinstance(value, dict) else getattr(value, "__dataclass_fields__", None)
    if all_fields is None or fields is None or not fields <= all_fields.keys():
        return value
    return {
        field: value[field] if all_fields is value else getattr(value, field)
        for field in sorted(fields)
    }


TEMPLATES = ("system", "user", "history")


def cross_rows(
    job: RowJob, rows: Sequence[Mapping[str, object]], vary: Mapping[str, object]
) -> tuple[list[dict[str, Any]], RowJob, list[dict[str, Any]]]:
    """Return the cells as labels by axis, the job of all cells, and the rows of one cell after another with
    their labels. The last axis changes first.

    :param job: a row's job; its call's method ``varied`` returns the same call with
        other texts and model parameters.
    :param vary: the levels by axis: a list of values, or a dict of values by label.
    :raises TypeError: if an axis has neither a list nor a dict of levels.
    :raises ValueError: for an unknown axis, and for one that has two meanings or is a column.
    """
    axes = {name: _levels(name, axis) for name, axis in vary.items()}
    cells = [dict(zip(axes, labels, strict=True)) for labels in itertools.product(*axes.values())]
    parameters = parameters_of("chat") - set(TEMPLATES)
    calls = {}
    for cell in cells:
        texts, params = (
            {name: axes[name][label] for name, label in cell.items() if name in names}
            for names in (TEMPLATES, parameters)
        )
        calls[tuple(cell.values())] = job.call.varied(texts, params)
    used = (call.templates().variables for call in calls.values())
    variables = {name for names in used for name in names if name not in job.bound}
    columns = {name for row in rows for name in row}
    for name in axes:
        _check_axis(name, parameters, variables, columns)
    levels = {name: axes[name] if name in variables else None for name in axes}
    varied = replace(
        job,
        row_variables=partial(_variables, job.row_variables, levels),
        axes=tuple(axes),
        calls=calls,
    )
    return cells, varied, [_labelled(row, cell) for cell in cells for row in rows]


def _labelled(row: Mapping[str, object], cell: dict[str, Any]) -> dict[str, Any]:
    return row.with_columns(cell) if isinstance(row, IncompleteRow) else {**cell, **row}


def _variables(
    variables: Callable[[Any], dict[str, object]],
    levels: Mapping[str, Mapping[Any, object] | None],
    row: Mapping[str, object],
) -> dict[str, object]:
    """Return the variables of a row with labels.

    :param variables: returns the variables of a row without labels.
    :param levels: by axis, the variable's values by label, or ``None`` if it is not a variable.
    """
    columns = {name: value for name, value in row.items() if name not in levels}
    varied = {name: values[row[name]] for name, values in levels.items() if values is not None}
    return variables({**columns, **varied})


def _check_axis(
    name: str, parameters: Collection[str], variables: Collection[str], columns: Collection[object]
) -> None:
    """Refuse an axis that is unknown, a column, or two things by its name.

    :param parameters: those of a model.
    :param variables: those of the templates.
    :raises ValueError: if it is one of these.
    """
    kinds = {"parameter": parameters, "template": TEMPLATES, "variable": variables}
    found = [kind for kind, names in kinds.items() if name in names]
    if not found:
        hint = nearest(name, sorted({*parameters, *TEMPLATES, *variables})) or "."
        raise ValueError(
            f"vary has the unknown axis {name!r}{hint} An axis is a model parameter, a template "
            f"({', '.join(TEMPLATES)}) or a variable of the templates "
            f"({', '.join(sorted(variables)) or 'they have none'})"
        )
    if len(found) > 1:
        raise ValueError(
            f"the axis {name!r} of vary is both a {found[0]} and a variable of the templates: rename the variable"
        )
    if name in columns:
        raise ValueError(
            f"the axis {name!r} of vary is also a column of the rows: leave out one of them"
        )


def _levels(name: object, axis: object) -> dict[Any, Any]:
    """Return the levels of an axis by label; values in a list are their own labels."""
    if not isinstance(axis, (Mapping, list, tuple)):
        raise TypeError(
            f"vary[{name!r}] is {type(axis).__name__}; it must be a list of values, or a dict of values by label"
        )
    return dict(axis) if isinstance(axis, Mapping) else dict(zip(axis, axis, strict=True))
