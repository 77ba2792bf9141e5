"""The tasks of a ``map``, one for each draw of each item: its job, its scope and its result; and their threads."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from ..clients.base import LLMClient
from ..scopes.active import ActiveScope, OpenedBy, ScopedRecord
from ..scopes.callers import Caller, enter_item
from ..scopes.draws import DrawList, Draws, Item
from ..scopes.position import Branch, CallOrder, Position, is_reserved_name, reserved_name
from ..support.display import one_line, printable
from ..support.frames import is_at_hand, rows_of
from ..support.waits import Stops, check_stops
from .names import MAX_TEXT_CHARACTERS, ItemNames, item_label

if TYPE_CHECKING:
    from ..typed.rows import RowJob

    Function: TypeAlias = Callable[[Any], Any] | "HasJob"  # what a map runs over its items
    Job: TypeAlias = "FunctionJob | RowJob"


class HasJob(Protocol):
    """An ``LLMCall``, an ``@llm`` function, or another object with a job for items."""

    def __map_job__(self) -> RowJob:
        """Return the job of a map with it."""


class FunctionJob(NamedTuple):
    """A job that calls a function with each item; a ``RowJob`` makes a call for each row.

    :param is_named: ``True`` if items need names even without a scope.
    :param axes: the columns that hold the labels of a row's cell; it has none.
    """

    function: Callable[[Any], object]
    is_named: bool = False
    axes: tuple[str, ...] = ()

    @property
    def client(self) -> LLMClient | None:
        """The client whose method it is."""
        owner = getattr(self.function, "__self__", None)
        return owner if isinstance(owner, LLMClient) else None

    def check(self, items: object) -> None:
        """Take whatever Python iterates over."""

    def rehearse(self, items: object) -> None:
        """Prepare nothing: it has no prompts."""

    def run(self, item: object) -> object:
        """Call the function."""
        return self.function(item)

    def identity(self, item: object) -> object:
        """Return the whole item, which identifies itself."""
        return item


def job_of(function: Function) -> Job:
    """Return the job of a map with a function.

    :param function: a callable with one argument, or an ``LLMCall`` or ``@llm`` function, whose
        method ``__map_job__`` returns its job.
    :raises TypeError: if it cannot be called, or is asynchronous.
    """
    from inspect import iscoroutinefunction

    if hasattr(type(function), "__map_job__"):
        return function.__map_job__()  # type: ignore[union-attr]  # by its class, which a class lacks
    if not callable(function):
        raise TypeError(
            f"fn is {function!r}; it must be a function, an LLMCall or an @llm function"
        )
    if iscoroutinefunction(function):
        raise TypeError(
            f"{function.__qualname__} is asynchronous: pass a synchronous function, or use asyncio.gather"
        )
    return FunctionJob(function)


MISSING: object = object()  # a result that does not exist yet


class TaskPosition(NamedTuple):
    """The position of one draw of one item.

    :param position: of its calls; outside any scope, only draws after the first have a path. Its order is the
        map's, then the item's number and the repeat.
    :param name: the name of the item and its scope; empty outside any scope, unless the job names its
        items.
    :param number: the item's number, from 0.
    :param repeat: the number of the draw, from 0; each draw after the first has its own scope.
    :param is_in_default: ``True`` if the map runs in the default scope.
    :param opened_by: who opened its scope: ``"map"`` if the map runs outside any of the program's.
    :param maker: the name of the map's caller, or ``None`` if callers have no names.
    """

    position: Position
    name: str
    number: int
    repeat: int
    is_in_default: bool = False
    opened_by: OpenedBy = "program"
    maker: str | None = None

    def set_caller(self) -> None:
        """Set the item's caller, the same in every thread and process, for the rest of the context."""
        enter_item(self.name or str(self.number), self.repeat, self.maker)

    def scope(
        self,
        draws: Draws,
        draw_list: DrawList | None = None,
        used_records: deque[ScopedRecord] | None = None,
    ) -> ActiveScope:
        """Return its scope; an empty path means none, even if a scope is open elsewhere.

        :param draws: counts its draws.
        :param draw_list: gets them, or ``None``.
        :param used_records: receives the records that answer its calls, or ``None``.
        """
        without_default = None
        if self.is_in_default:
            path_without_default = reserved_name(self.repeat) if self.repeat else ""
            without_default = ActiveScope(Position(path_without_default), Draws())
        return ActiveScope(
            self.position,
            draws,
            without_default=without_default,
            item=Item(self.name, draw_list),
            used_records=used_records,
            opened_by=self.opened_by,
        )


class Task:
    """One draw of one item.

    :ivar draw_list: its draws.
    :ivar future: on an executor, the future of its result until it has finished; else ``None``.
    :ivar value: its result for the caller, or ``MISSING``.
    :ivar error: the exception that it raised, or ``None``.
    """

    __slots__ = ("draw_list", "error", "future", "item", "position", "value")

    def __init__(self, item: object, position: TaskPosition, parent: DrawList | None) -> None:
        self.item = item
        self.position = position
        self.draw_list = DrawList(parent)
        self.future: Future[TaskResult] | None = None
        self.value = MISSING
        self.error: BaseException | None = None

    def in_words(self, total: int | None) -> str:
        """Return its item in words: the number, from 1, and its key or the beginning of its text.

        :param total: the number of items, or ``None`` if it is unknown.
        """
        number, name = item_label(self.position.number), self.position.name
        if not name or is_reserved_name(name):
            name = printable(repr(self.item))
        of_all = "" if total is None else f" of {total}"
        return f"{number}{of_all} ({one_line(name, MAX_TEXT_CHARACTERS)})"


def tasks_of(
    job: Job,
    items: object,
    repeats: int,
    names: ItemNames,
    active: ActiveScope,
    order: CallOrder,
    maker: Caller | None,
) -> Iterator[Task]:
    """Yield the tasks of a map, in order. Items are taken one by one; those that are all there are named before the
    first.

    :param active: the scope in which the map runs; its path is empty outside any.
    :param order: the order of the map among the calls.
    :param maker: the map's caller, or ``None`` if callers have no names.
    """
    path = active.path
    is_in_default = active.without_default is not None
    branches = active.position.branches
    table = os.urandom(8).hex()  # identifies the table to which the cells belong

    def cell_of(item: Any) -> tuple[object, ...]:
        return tuple(item[axis] for axis in job.axes)

    def name_of(number: int, item: object) -> str:
        takes_all = is_in_default or not path
        is_named = path or job.is_named
        return names.name(item, number, cell_of(item), takes_all=takes_all) if is_named else ""

    given = None
    if is_at_hand(items):
        given = iter([name_of(number, item) for number, item in enumerate(rows_of(items))])
    for number, item in enumerate(rows_of(items)):
        cell = cell_of(item)
        name = name_of(number, item) if given is None else next(given)
        if cell:
            branches = *active.position.branches, Branch(table, "", repr(cell))
        for repeat in range(repeats):
            steps = path, name if path else "", reserved_name(repeat) if repeat else ""
            position = TaskPosition(
                position=Position(
                    "/".join(filter(None, steps)), (*order, number, repeat), branches
                ),
                name=name,
                number=number,
                repeat=repeat,
                is_in_default=is_in_default,
                opened_by="map" if active.opened_by == "map" else "program",
                maker=None if maker is None else maker.name,
            )
            yield Task(item, position, active.item.draws)
        del item  # items may be large: keep none while waiting


class TaskResult(NamedTuple):
    """A task's value, or the exception that it raised."""

    value: object = None
    error: BaseException | None = None


class NotBegunError(CancelledError):
    """The error of a task that did not begin. Any other ``CancelledError`` is the function's own."""


def run_job(
    job: Job, item: object, position: TaskPosition, scope: ActiveScope, outer_stops: Stops
) -> TaskResult:
    """Run a job in the current context, unless an outer map was interrupted."""
    try:
        check_stops(outer_stops)
        position.set_caller()
        with scope:
            value = job.run(item)
            if isinstance(value, CoroutineType):
                value.close()
                raise TypeError(
                    "the function of a map returned a coroutine; pass a synchronous function, or call asyncio.run in it"
                )
            scope.check_is_inmost()
        return TaskResult(value)
    except BaseException as error:  # noqa: BLE001 - the map's run gets it, and on_error decides
        return TaskResult(error=error)


class DaemonThreads:
    """Daemon threads: neither a map that is left nor the end of the interpreter waits for them.

    Calls that only compute, such as replays, are quicker in one thread than in many, which pass the
    interpreter's lock to one another. So one thread may make the first calls; the code that waits for them
    calls :meth:`start_all` as soon as one is slow.

    :param max_threads: the largest number of threads.
    :param with_one: ``True`` if only one thread starts until :meth:`start_all`.
    :ivar all_started: ``True`` if a thread starts for each call, up to the largest number.
    """

    def __init__(self, max_threads: int, *, with_one: bool) -> None:
        self.all_started = not with_one
        self._max_threads = max_threads
        self._thread_count = 0
        self._submitted_count = 0
        self._todo: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def submit(self, work: Callable[[], None]) -> None:
        """Call a function in a thread; the function must not raise."""
        self._todo.put(work)
        self._submitted_count += 1
        self._start()

    def start_all(self) -> None:
        """Start a thread for each call that was submitted, and for those to come."""
        self.all_started = True
        self._start()

    def _start(self) -> None:
        wanted = min(self._submitted_count, self._max_threads if self.all_started else 1)
        while self._thread_count < wanted:
            self._thread_count += 1
            name = f"llmcall map {self._thread_count}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while (work := self._todo.get()) is not None:
            work()
            del work  # keep nothing while waiting for the next one

    def end(self) -> None:
        """End the threads after all submitted calls."""
        for _ in range(self._thread_count):
            self._todo.put(None)
