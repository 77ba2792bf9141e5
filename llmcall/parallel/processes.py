"""The tasks of a ``map``, in its threads or in worker processes. To these the state of the map's process goes
with each task, and what the task drew, used and recorded comes back with its result.

While a worker runs a task, the settings, keys, open cassette and named budgets of the map's process
apply in it.
"""

from __future__ import annotations

import functools
import os
import pickle
import threading
from collections import deque
from contextlib import ExitStack, contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from traceback import format_exception
from typing import TYPE_CHECKING, Any, NamedTuple

from ..call import budgets
from ..call import usage as metering
from ..cassettes.cassette import Cassette
from ..cassettes.current import forget_named, only
from ..cassettes.uses import Caller
from ..config import resolve as config
from ..errors import LLMCallError
from ..failures import process_failures
from ..interrupts import current_stops
from ..scopes import Draws, Journal, MapIsOverError
from ..system import after_fork_in_child
from .tasks import NotBegunError, Report, TaskResult, run_job

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Executor, Future
    from contextvars import Context

    from ..call.usage import UsageDelta
    from ..interrupts import Stops
    from ..scopes import ActiveScope, CallOrder, ScopedRecord, ScopedRequest
    from ..values import Record
    from .tasks import Job, TaskPosition

    Gained = list[tuple[Record, CallOrder]]
    Taken = list[tuple[ScopedRequest, tuple[int, tuple[int, ...]]]]

# What pickle raises for an object that it cannot pickle.
UNPICKLABLE = (pickle.PicklingError, TypeError, AttributeError)
KEPT_JOBS = 8  # a worker keeps the functions of so many maps, with their clients and connections


class WorkerError(Exception):
    """The traceback of an error in a worker process; it is the error's cause."""


# In the map's process


@dataclass(eq=False)
class MapGroup:
    """What all tasks of a map share.

    :param job: what to do with each item.
    :param context: the caller's context; each task runs in a copy of it.
    :param active: the scope in which the map runs, or ``None`` outside any.
    :param stops: those of the map, first, and of the maps around it.
    :param cassette: the open cassette, or ``None``.
    :ivar is_over: whether no further task may begin.
    :ivar token: identifies the map in all processes.
    """

    job: Job
    context: Context
    active: ActiveScope | None
    stops: Stops
    cassette: Cassette | None
    is_over: bool = False
    token: str = field(default_factory=lambda: os.urandom(8).hex())

    def check(self, executor: Executor) -> None:
        """Check that an executor's worker processes can get what the tasks need.

        The executor itself would wrap an error of pickle in its own.

        :raises TypeError: if the function or a setting cannot be pickled.
        :raises ValueError: if a budget without a name is open.
        """
        kinds = {kind.__name__ for kind in type(executor).__mro__}
        if "ProcessPoolExecutor" in kinds:
            try:
                pickle.dumps(self.job)
            except UNPICKLABLE as error:
                raise TypeError(
                    f"fn cannot be sent to other processes: {error}. It must be a function that can be imported, not "
                    "a lambda or a function defined in another one, and its arguments, such as client=, must be "
                    "picklable"
                ) from error
        if kinds & {"ProcessPoolExecutor", "ClientExecutor"}:  # the latter is Dask's
            self._packed  # noqa: B018 - raises an error that names the remedy

    def pickled(self, task: Task) -> tuple[Any, ...]:
        """Return how to unpickle a task, in a worker process or in this one."""
        state, taken, gained = self._packed
        _groups[self.token] = self
        name = task.position.name
        fields = self.job, task.item, task.position, taken.get(name, []), gained.get(name, [])
        return _unpickled, (self.token, state, *fields)

    def close(self) -> None:
        """Forget the map."""
        _groups.pop(self.token, None)

    @functools.cached_property
    def _packed(self) -> tuple[bytes, dict[str, Taken], dict[str, Gained]]:
        """The state of this process, and by the names of items' scopes what was drawn, and what the
        cassette gained, before the map began.
        """
        gained = self.cassette.gained() if self.cassette is not None else []
        unscoped = [each for each in gained if self.active is None or not each[0].scope]
        state = self.context.copy().run(_packed_state, self.cassette, unscoped)
        if self.active is None:
            return state, {}, {}
        taken = list(self.active.draws.taken().items())
        return (
            state,
            self._by_item((request.path, (request, numbers)) for request, numbers in taken),
            self._by_item((each[0].scope, each) for each in gained),
        )

    def _by_item(self, entries: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
        """Return entries by the names of the items in whose scopes they are.

        :param entries: each with its scope path.
        """
        assert self.active is not None
        prefix = f"{self.active.path}/"
        found: dict[str, list[Any]] = {}
        for path, entry in entries:
            if path.startswith(prefix):
                found.setdefault(path[len(prefix) :].partition("/")[0], []).append(entry)
        return found

    def apply(self, task: Task, result: TaskResult) -> None:
        """Count in this process what a task did in another one."""
        report = result.report
        if report is None:
            return
        if self.active is not None:
            with suppress(MapIsOverError):  # they were given back
                for request, number in report.drawn:
                    task.journal.add(self.active.draws.claim(request, number))
            if self.active.used_records is not None:
                self.active.used_records.extend(report.used_records)
        client = getattr(self.job, "client", None)  # nobody knows which a plain function uses
        meter = None if client is None else client.meter
        for model, scope, amounts, arm in report.usage:
            metering.count(meter, model, scope, amounts, arm)
        for method, arguments in report.events:
            getattr(self.cassette, method)(*arguments)
        failures = process_failures if self.cassette is None else self.cassette.failures
        for reason, counts, description in report.failures:
            for scope, count in counts.items():
                for _ in range(count):
                    failures.add(scope, description, reason)
        if result.error is not None:
            result.error.__cause__ = WorkerError(f"in another process:\n{report.traceback}")


class Task:
    """One draw of one item. Pickled, it becomes a :class:`RemoteTask`.

    :ivar journal: notes its draws.
    :ivar future: that of its result while an executor has it, else ``None``.
    :ivar result: its result once it has ended, else ``None``.
    :ivar is_noted: whether what it did in another process counts here, too.
    """

    __slots__ = ("future", "group", "is_noted", "item", "journal", "position", "result")

    def __init__(self, group: MapGroup, item: Any, position: TaskPosition) -> None:
        self.group = group
        self.item = item
        self.position = position
        self.journal = Journal(None if group.active is None else group.active.journal)
        self.future: Future[TaskResult] | None = None
        self.is_noted = False
        self.result: TaskResult | None = None

    def run(self) -> TaskResult:
        """Run the task in this process."""
        group, active = self.group, self.group.active
        if group.is_over:
            return TaskResult(error=NotBegunError())
        draws = Draws() if active is None else active.draws
        used_records = None if active is None else active.used_records
        scope = self.position.scope(draws, self.journal, used_records)
        context = group.context.copy()
        return context.run(run_job, group.job, self.item, self.position, scope, group.stops[1:])

    def __reduce__(self) -> tuple[Any, ...]:
        return self.group.pickled(self)


_groups: dict[str, MapGroup] = {}  # those of this process that sent tasks, by token


def _unpickled(token: str, *fields: Any) -> Task | RemoteTask:
    """Return a task that was pickled. In the process of its map, it is an ordinary task again."""
    group = _groups.get(token)
    remote = RemoteTask(token, *fields)
    return remote if group is None else Task(group, remote.item, remote.position)


def _packed_state(cassette: Cassette | None, gained: Gained) -> bytes:
    """Return the state of this process for its workers, pickled.

    :param gained: those records that the cassette gained before the map began and that any item may
        need.
    """
    session = _session
    if (
        session is not None
        and session.cassette is cassette
        and session.settings is config.settings()
    ):
        # A map in a worker passes on the very same state, so its tasks can join the session of
        # their own map instead of waiting for its end.
        return session.state
    path_and_mode = None
    if cassette is not None:
        path_and_mode = os.path.realpath(cassette.path), cassette.mode
    try:
        return pickle.dumps((config.packed(), tuple(budgets.open_budgets), path_and_mode, gained))
    except UNPICKLABLE as error:
        raise TypeError(
            f"the settings cannot be sent to other processes: {error}. A function among them, such as api_key=, must "
            "be one that can be imported, not a lambda or a function defined in another one"
        ) from error


def run_task(task: Task | RemoteTask) -> TaskResult:
    """Run a task: the function that executors get."""
    return task.run()


# In a worker


class RemoteTask(NamedTuple):
    """A task of another process.

    :param token: identifies its map.
    :param state: the state of the map's process.
    :param taken: what was drawn in the item's scopes before the map began.
    :param gained: the records that the cassette gained in these scopes before the map began.
    """

    token: str
    state: bytes
    job: Job
    item: Any
    position: TaskPosition
    taken: Taken
    gained: Gained

    def run(self) -> TaskResult:
        """Run the task here, with the settings, cassette and budgets of the map's process."""
        with _session_for(self.state) as session:
            if session.cassette is not None:
                _add_all(session.cassette, self.gained)
            job = _jobs.setdefault(self.token, self.job)  # its clients keep their connections
            while len(_jobs) > KEPT_JOBS:
                _jobs.pop(next(iter(_jobs)), None)
            used_records: deque[ScopedRecord] = deque()
            journal = Journal()
            scope = self.position.scope(Draws(dict(self.taken)), journal, used_records)
            context = copy_context()
            # A process that was forked in a task of another map inherited that map's.
            context.run(current_stops.set, ())
            result = context.run(run_job, job, self.item, self.position, scope, ())
            traceback = ""
            if result.error is not None:
                traceback = "".join(format_exception(result.error))
                result = TaskResult(error=_picklable(result.error))
            if scope.arm is None:
                used_records.clear()
            return result._replace(report=session.report(journal, used_records, traceback))

    def __repr__(self) -> str:
        return f"RemoteTask({self.position})"


_jobs: dict[str, Job] = {}  # by the token of the map


def _picklable(error: BaseException) -> BaseException:
    """Return an error; if it cannot be pickled and so would break the pool, return a similar one."""
    try:
        pickle.loads(pickle.dumps(error))
    except (*UNPICKLABLE, pickle.PickleError, ValueError, KeyError, ImportError) as reason:
        return LLMCallError(
            f"{type(error).__name__}: {error} (it cannot be sent between processes: {reason})"
        )
    return error


class _Session:
    """The state of a map's process in a worker.

    Its settings, cassette and budgets apply only while a task runs: the worker may also run functions
    that do not belong to the map.

    :param state: the state; see :func:`_packed_state`.
    :ivar tasks: the number of tasks that run in it.
    :ivar cassette: the copy of the open cassette, or ``None`` if none is open.
    :ivar settings: its settings.
    """

    def __init__(self, state: bytes) -> None:
        self._layers, self._budgets, path_and_mode, gained = pickle.loads(state)
        self.state = state
        self.tasks = 0
        self._events: deque[tuple[str, tuple[Any, ...]]] = deque()  # of the cassette
        self._usage: deque[tuple[str, str, UsageDelta, str]] = deque()
        self.applied = ExitStack()
        self.cassette: Cassette | None = None
        forget_named()
        if path_and_mode is not None:
            with config.using(self._layers):
                self.cassette = Cassette(*path_and_mode, write=False)
                self.cassette.events = self._events
                self.cassette.start()
                _add_all(self.cassette, gained)
        self.settings = self._layers.settings()

    def apply(self) -> None:
        """Apply the settings, budgets and cassette, until ``applied`` is closed."""
        with ExitStack() as stack:
            stack.enter_context(config.using(self._layers))
            stack.enter_context(only(self.cassette))
            for budget in self._budgets:
                stack.enter_context(budget)
            metering.watchers.append(self)
            stack.callback(metering.watchers.remove, self)
            self.applied = stack.pop_all()

    def close(self) -> None:
        """Close the cassette."""
        if self.cassette is not None:
            with config.using(self._layers):
                self.cassette.stop()

    def add(self, model: str, scope: str, amounts: UsageDelta, arm: str) -> None:
        """Note an addition to the usage."""
        self._usage.append((model, scope, dict(amounts), arm))

    def report(
        self, journal: Journal, used_records: Sequence[ScopedRecord], traceback: str
    ) -> Report:
        """Return what a task did, with all that the session noted and did not report yet."""
        with _session_changed:
            failures = process_failures if self.cassette is None else self.cassette.failures
            return Report(
                journal.taken(),
                _take_all(self._usage),
                _take_all(self._events),
                list(used_records),
                failures.take(),
                traceback,
            )


_session_changed = threading.Condition()
_session: _Session | None = None  # the current one


def _forget() -> None:
    """Forget, in a forked process, the maps and the session of its parent."""
    global _session_changed, _session
    _session_changed = threading.Condition()
    _session = None
    _groups.clear()


after_fork_in_child(_forget)


@contextmanager
def _session_for(state: bytes) -> Iterator[_Session]:
    """Apply a state while a block runs.

    Blocks with the same state share a session; a block with another state waits until it ends.
    """
    global _session
    with _session_changed:
        while _session is not None and _session.state != state and _session.tasks:
            _session_changed.wait()
        if _session is None or _session.state != state:
            other_session, _session = _session, None
            if other_session is not None:
                other_session.close()
            _session = _Session(state)
        session = _session
        if not session.tasks:
            session.apply()
        session.tasks += 1
    try:
        yield session
    finally:
        with _session_changed:
            session.tasks -= 1
            if not session.tasks:
                session.applied.close()
            _session_changed.notify_all()


def _add_all(cassette: Cassette, gained: Gained) -> None:
    """Add what the cassette of the map's process gained before the map began."""
    for record, order in gained:
        cassette.add(record, Caller(record.scope, order))


def _take_all(queue: deque[Any]) -> list[Any]:
    """Take all items of a queue, to which other threads may add more meanwhile."""
    return [queue.popleft() for _ in range(len(queue))]
