"""The jobs that ask about the rows of a ``map`` or a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import LLMCallError
from ..many.names import IncompleteRow
from ..support.waits import run_blocking
from .conversations import SendMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from ..clients.base import LLMClient
    from ..config.settings import Settings
    from ..keys.request import Data
    from .conversations import Ask, Conversation
    from .llm_call import LLMCall


@dataclass(frozen=True, eq=False)
class RowJob:
    """Asks about each row of a ``map``.

    :param row_variables: returns the templates' variables for a row.
    :param bound: the variables that are the same for all rows.
    :param is_named: whether rows need names even without a scope.
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
        """Return the client that asks."""
        return self.call.client

    @property
    def settings(self) -> Settings:
        """Return the client's settings."""
        return self.client.settings

    @property
    def window(self) -> str:
        """Return the window in which its calls are answered."""
        return str(self.call.model_params.get("window") or self.settings.window)

    def call_for(self, item: Any) -> LLMCall:
        """Return the call that asks about a row; with ``vary``, its cell's call."""
        return self.calls[tuple(item[axis] for axis in self.axes)] if self.axes else self.call

    def check(self, items: object) -> None:
        """Refuse items that are no rows.

        :raises TypeError: with what to write instead.
        """
        check_rows(items)
        if isinstance(items, (list, tuple)):
            for item in items:
                self.row_variables(item)

    def variables(self, item: Any) -> dict[str, Any]:
        """Return the templates' variables for a row. A frame's cells that hold nothing are undefined."""
        if isinstance(item, IncompleteRow):
            from .jinja import undefined_cell

            cells = {name: undefined_cell(name, item[name], item.label) for name in item.missing}
            item = {**item, **cells}
        return self.row_variables(item)

    def run(self, item: Any) -> Any:
        """Ask about a row, and return the value."""
        return self.call_for(item).run(**self.variables(item)).value

    async def conversation(self, item: object, ask: Ask = SendMessage.reply) -> Conversation:
        """Ask about a row until an answer fits."""
        call = self.call_for(item)
        return await call.conversation(self.variables(item), ask)

    def identity(self, item: object) -> dict[str, Data]:
        """Return the variables, and their fields, that the templates use; they identify a row."""
        used_variables = self.call_for(item).templates().variables
        return {
            name: _used_fields(value, used_variables[name])
            for name, value in self.row_variables(item).items()
            if name in used_variables and name not in self.bound
        }


class TableJob(RowJob):
    """Asks about each row of a table, and returns the whole conversation."""

    def run(self, item: Any) -> Conversation:
        """Ask about a row. A missing value is an answer, and raises nothing.

        :raises APIError, OutputError: if no answer fits, unless the call's ``on_error`` is another.
            ``.conversation`` has the answers.
        """
        conversation = run_blocking(self.conversation(item))
        failure = conversation.failure
        is_raised = self.call_for(item).model_params["on_error"] == "raise"
        if failure is None or conversation.is_missing or not is_raised:
            return conversation
        if isinstance(failure, LLMCallError):
            failure.conversation = conversation._replace(failure=None)
        raise failure


def check_rows(rows: object) -> None:
    """Refuse what Python would take apart into rows that nobody meant, such as a text into its letters.

    :raises TypeError: with what to write instead. A dict may be meant as one row, or as columns.
    """
    if isinstance(rows, Mapping):
        hint = "write [row] for one row, or pandas.DataFrame(columns) for a dict of columns"
    elif isinstance(rows, (str, bytes, bytearray)):
        hint = "put what is asked about into a list"
    elif isinstance(rows, (set, frozenset)):
        hint = "a set has no order, so sort it into a list"
    elif getattr(rows, "gi_frame", ...) is None:
        hint = "this one is used up: keep its rows in a list"
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
    """Return the templates' variables for a row: all its columns.

    :raises TypeError: if it is not a row.
    """
    if not isinstance(row, Mapping):
        raise TypeError(
            f"a row is {type(row).__name__}; it must be a dict of the templates' variables"
        )
    unnamed = [name for name in row if not isinstance(name, str)]
    if unnamed:
        raise TypeError(f"a row has the column {unnamed[0]!r}; a column's name must be a string")
    return dict(row)


def _used_fields(value: object, fields: frozenset[str] | None) -> Any:
    """Return the fields of a dict or a dataclass that the templates use.

    :param fields: their names; ``None`` means the whole value.
    :returns: the value itself if it has no fields, or lacks one.
    """
    all_fields = value if isinstance(value, dict) else getattr(value, "__dataclass_fields__", None)
    if all_fields is None or fields is None or not fields <= all_fields.keys():
        return value
    return {
        field: value[field] if all_fields is value else getattr(value, field) for field in fields
    }
