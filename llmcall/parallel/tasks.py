"""What a task of a ``map`` does, in any process: its job, its scopes, its result."""

from __future__ import annotations

from concurrent.futures import CancelledError
from contextvars import ContextVar
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .. import askers, scopes
from ..interrupts import check_stops
from ..scopes import Draws, Journal, reserved_name

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Sequence

    from ..call.usage import UsageDelta
    from ..interrupts import Stops
    from ..scopes import ActiveScope, ScopedRecord, ScopedRequest

# The name of the item that a task runs; empty outside any scope, unless its job wants one.
current_item: ContextVar[str] = ContextVar("llmcall item", default="")


class Job(Protocol):
    """What a map does with each item."""

    def run(self, item: Any) -> Any:
        """Return an item's result."""

    def identity(self, item: Any) -> Any:
        """Return what identifies an item."""


class FunctionJob(NamedTuple):
    """Call a function with each item."""

    function: Callable[[Any], Any]

    def run(self, item: Any) -> Any:
        """Call the function."""
        return self.function(item)

    def identity(self, item: Any) -> Any:
        """Return what identifies an item: the whole item."""
        return item


def job_of(function: Any) -> Job:
    """Return what a map does with each item.

    :param function: a callable with one argument, or an ``LLMCall`` or ``@llm`` function, whose
        method ``__map_job__`` returns its job.
    :raises TypeError: if it cannot be called, or is asynchronous.
    """
    from inspect import iscoroutinefunction

    if hasattr(type(function), "__map_job__"):
        return function.__map_job__()  # type: ignore[no-any-return]
    if not callable(function):
        raise TypeError(
            f"fn is {function!r}; it must be a function, an LLMCall or an @llm function"
        )
    if iscoroutinefunction(function):
        raise TypeError(
            f"{function.__qualname__} is asynchronous: pass a synchronous function, or use asyncio.gather"
        )
    return FunctionJob(function)


class TaskPosition(NamedTuple):
    """The scopes of one draw of one item, and its order among the calls.

    :param path: the path of its scope; outside any scope, only a further draw has one.
    :param name: the item's name, which is that of its scope; empty outside any scope, unless the job
        wants one.
    :param number: the item's number, from 0.
    :param repeat: the number of the draw, from 0; each further draw has a scope of its own.
    :param order: the map's order, then the item's number and the repeat.
    :param is_in_default: whether the map runs in the default scope.
    :param forks: the arm in which the map runs, and the cell of a table that varies.
    """

    path: str
    name: str
    number: int
    repeat: int
    order: scopes.CallOrder
    is_in_default: bool = False
    forks: scopes.Forks = ()

    def scope(
        self,
        draws: Draws,
        journal: Journal | None = None,
        used_records: deque[ScopedRecord] | None = None,
    ) -> ActiveScope:
        """Return its scope; with an empty path none, even if one is open elsewhere.

        :param draws: counts its draws.
        :param journal: notes them, or ``None``.
        :param used_records: receives the records that answer its calls, or ``None``.
        """
        without_default = None
        if self.is_in_default:
            path_without_default = reserved_name(self.repeat) if self.repeat else ""
            without_default = scopes.ActiveScope(path_without_default, Draws())
        return scopes.ActiveScope(
            self.path,
            draws,
            without_default=without_default,
            forks=self.forks,
            journal=journal,
            used_records=used_records,
            order=self.order,
        )


class Report(NamedTuple):
    """What a task did in a worker process.

    :param drawn: what it drew.
    :param usage: model, scope, amounts and arm of each addition to the usage.
    :param events: the names and arguments of the cassette's methods that were called.
    :param used_records: the records that answered its calls, if it ran in an arm.
    :param failures: why calls left no record, how many in each scope, and the first one in words.
    :param traceback: that of its error.
    """

    drawn: Sequence[tuple[ScopedRequest, int]]
    usage: Sequence[tuple[str, str, UsageDelta, str]]
    events: Sequence[tuple[str, tuple[Any, ...]]]
    used_records: Sequence[ScopedRecord]
    failures: Sequence[tuple[str, dict[str, int], str]]
    traceback: str


class TaskResult(NamedTuple):
    """A task's value or its error.

    :param value: what the function returned.
    :param error: the exception that it raised, or ``None``.
    :param report: what it did in a worker process; ``None`` if it ran here.
    """

    value: Any = None
    error: BaseException | None = None
    report: Report | None = None


class NotBegunError(CancelledError):
    """Raised for a task that did not begin. Any other ``CancelledError`` is the function's own."""


def run_job(
    job: Job, item: Any, position: TaskPosition, scope: ActiveScope, outer_stops: Stops
) -> TaskResult:
    """Run a job in the current context, unless a map around its own was interrupted."""
    try:
        check_stops(outer_stops)
        current_item.set(position.name)
        # An item's calls have the same asker in every thread.
        askers.enter_item(position.name or str(position.number), position.repeat)
        with scope:
            value = job.run(item)
            if isinstance(value, CoroutineType):
                value.close()
                raise TypeError(
                    "the function of a map is asynchronous; pass one that is not, or call asyncio.run in it"
                )
            scope.check_is_inmost()
        return TaskResult(value)
    except BaseException as error:  # noqa: BLE001 - the map's run gets it, and on_error decides
        return TaskResult(error=error)
