"""What a ``map`` does with each row: ask about it, for the value or for a row of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..call.drivers import drive
from ..errors import LLMCallError, OutputError, short_traceback

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ..clients.base import LLMClient
    from .answers import Answer
    from .conversations import Conversation, SendMessage
    from .templates import Templates


class RowCall(Protocol):
    """What asks about rows; :class:`llmcall.LLMCall` is one."""

    model_params: dict[str, Any]
    """The arguments of its calls, ``on_error`` included."""
    misfits_are_missing: bool
    """Whether an answer that does not fit is a missing value of a table, and no failure."""

    @property
    def client(self) -> LLMClient:
        """The client that it asks."""
        ...

    @property
    def wants_names(self) -> bool:
        """Whether its rows have names outside any scope, too."""
        ...

    def templates(self) -> Templates:
        """Return its templates, compiled."""
        ...

    def columns(self) -> tuple[str, ...]:
        """Return the columns that a table has beside the value."""
        ...

    def run(self, /, **variables: Any) -> Answer:
        """Ask with some variables."""
        ...

    def conversation(self, variables: dict[str, Any]) -> Generator[SendMessage, Any, Conversation]:
        """Ask until an answer fits."""
        ...

    def varied(self, texts: Mapping[str, str | None], params: Mapping[str, Any]) -> Any:
        """Return the same call with other texts or model parameters."""
        ...


class RowJob(NamedTuple):
    """Ask about each row of a ``map``.

    :param variables: returns the templates' variables of a row.
    :param bound: those of them that are the same for all rows.
    """

    call: RowCall
    variables: Callable[[Any], dict[str, Any]]
    bound: Mapping[str, Any] = {}

    def __map_job__(self) -> RowJob:
        return self

    @property
    def client(self) -> LLMClient:
        """Return the client that it asks."""
        return self.call.client

    @property
    def wants_names(self) -> bool:
        """Return whether a row has a name outside any scope, too."""
        return self.call.wants_names

    def run(self, item: Any) -> Any:
        """Ask about a row, and return the value."""
        return self.call.run(**self.variables(item)).value

    def conversation(self, item: Any) -> Generator[SendMessage, Any, Conversation]:
        """Ask about a row until an answer fits."""
        return self.call.conversation(self.variables(item))

    def identity(self, item: Any) -> dict[str, Any]:
        """Return what identifies a row: only the variables, and their fields, that the templates
        use.
        """
        used_variables = self.call.templates().variables
        return {
            name: _used_fields(value, used_variables[name])
            for name, value in self.variables(item).items()
            if name in used_variables and name not in self.bound
        }


class TableJob(NamedTuple):
    """Ask about each row of a table, and return all that is known of the answer.

    :param row_job: asks about a row.
    """

    row_job: RowJob

    def __map_job__(self) -> TableJob:
        return self

    @property
    def wants_names(self) -> bool:
        """Return whether a row has a name outside any scope, too."""
        return self.row_job.wants_names

    @short_traceback
    def run(self, item: Any) -> Conversation:
        """Ask about a row. A refusal is an answer, and raises nothing.

        :raises APIError, OutputError: if no answer fits, unless ``on_error`` is among the call's
            parameters. ``.conversation`` has the answers.
        """
        conversation = drive(self.row_job.conversation(item))
        failure = conversation.failure
        if isinstance(failure, OutputError) and self.row_job.call.misfits_are_missing:
            return conversation._replace(failure=None, is_missing=True)
        is_raised = self.row_job.call.model_params["on_error"] == "raise"
        if failure is None or conversation.refusal is not None or not is_raised:
            return conversation
        if isinstance(failure, LLMCallError):
            is_missing = isinstance(failure, OutputError)
            failure.conversation = conversation._replace(failure=None, is_missing=is_missing)
        raise failure

    def identity(self, item: Any) -> dict[str, Any]:
        """Return what identifies a row."""
        return self.row_job.identity(item)


def row_variables(row: Any) -> dict[str, Any]:
    """Return the templates' variables of a row: all its columns.

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


def _used_fields(value: Any, fields: frozenset[str] | None) -> Any:
    """Return the fields of a dict or a dataclass that are used.

    :param fields: their names; ``None`` means the whole value.
    :returns: the value itself if it lacks one of them or has no fields.
    """
    all_fields = value if isinstance(value, dict) else getattr(value, "__dataclass_fields__", None)
    if all_fields is None or fields is None or not fields <= all_fields.keys():
        return value
    return {
        field: value[field] if all_fields is value else getattr(value, field) for field in fields
    }
