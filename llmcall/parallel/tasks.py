"""The tasks of a ``map``: each is one draw of one item.

A task runs in the map's process. Pickled, it becomes a task that runs in a worker process, and its
result contains what it drew, used and recorded there.
"""

from __future__ import annotations

import os
from collections import deque
from contextvars import copy_context
from traceback import format_exception
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from .. import askers
from ..call import usage as metering
from ..failures import process_failures
from ..interrupts import check_stops, current_stops
from ..scopes import Draws, Journal
from ..system import after_fork_in_child
from .positions import TaskPosition, current_item
from .task_results import NotBegunError, TaskResult, WorkerError
from .workers import pack_state, picklable, session_for

if TYPE_CHECKING:
    from contextvars import Context

    from ..cassettes.cassette import Cassette
    from ..interrupts import Stops
    from ..scopes import ActiveScope, ScopedRecord, ScopedRequest
    from .jobs import Job
    from .workers import Gained

KEPT_JOBS = 8  # a worker keeps the functions of so many maps, with their clients and connections


class PackedGroup(NamedTuple):
    """What the worker processes of a map need.

    :param state: the state of the map's process, pickled.
    :param taken: what was drawn before the map began, by the names of items' scopes.
    :param gained: the records that the cassette gained before the map began, by the same names.
    """

    state: bytes
    taken: dict[str, dict[ScopedRequest, tuple[int, tuple[int, ...]]]]
    gained: dict[str, Gained]


class TaskGroup:
    """What all tasks of a map share.

    :param job: what to do with each item.
    :param context: the caller's context; each task runs in a copy of it.
    :param active: the scope in which the map runs, or ``None`` outside any.
    :param stops: futures that are done once the map, or one around it, is interrupted; its own is
        first.
    :param cassette: the open cassette, or ``None``.
    :ivar outer_stops: the futures of the maps around it.
    :ivar path: the scope's path; empty outside any.
    :ivar is_over: whether no further task may begin.
    :ivar failures: the calls in worker processes that left no record.
    :ivar meter: counts what the calls in worker processes used.
    """

    def __init__(
        self,
        job: Job,
        context: Context,
        active: ActiveScope | None,
        stops: Stops,
        cassette: Cassette | None,
    ) -> None:
        self.job = job
        self.context = context
        self.active = active
        self.stops = stops
        self.outer_stops = stops[1:]
        self.cassette = cassette
        self.path = "" if active is None else active.path
        self.is_over = False
        self.failures = process_failures if cassette is None else cassette.failures
        client = getattr(job, "client", None)  # nobody knows which clients a plain function uses
        self.meter = metering.Meter() if client is None else client.meter
        self._packed: PackedGroup | None = None
        self.token = os.urandom(8).hex()
        _groups[self.token] = self

    def pack(self) -> PackedGroup:
        """Return what worker processes need, packed by the first call.

        :raises ValueError: if a budget without a name is open.
        :raises TypeError: if a setting is a function that cannot be pickled.
        """
        if self._packed is None:
            self._packed = self.context.copy().run(self._pack)
        return self._packed

    def _pack(self) -> PackedGroup:
        gained = self.cassette.gained() if self.cassette is not None else []
        taken: dict[str, dict[ScopedRequest, tuple[int, tuple[int, ...]]]] = {}
        by_item: dict[str, Gained] = {}
        if self.active is not None:
            prefix = f"{self.active.path}/"
            for request, numbers in self.active.draws.taken().items():
                if request.path.startswith(prefix):
                    name = request.path[len(prefix) :].partition("/")[0]
                    taken.setdefault(name, {})[request] = numbers
            for record, order in gained:
                if record.scope.startswith(prefix):
                    name = record.scope[len(prefix) :].partition("/")[0]
                    by_item.setdefault(name, []).append((record, order))
            gained = [(record, order) for record, order in gained if not record.scope]
        return PackedGroup(pack_state(self.cassette, gained), taken, by_item)


# The groups of this process, by token.
_groups: WeakValueDictionary[str, TaskGroup] = WeakValueDictionary()


class Task:
    """One draw of one item. Pickled, it becomes a :class:`RemoteTask`.

    :ivar journal: notes its draws.
    :ivar result: its result once it has finished, else ``None``.
    """

    __slots__ = ("group", "item", "journal", "position", "result")

    def __init__(self, group: TaskGroup, item: Any, position: TaskPosition) -> None:
        self.group = group
        self.item = item
        self.position = position
        self.journal = Journal(None if group.active is None else group.active.journal)
        self.result: TaskResult | None = None

    def run(self) -> TaskResult:
        """Run the task in this process."""
        group = self.group
        if group.is_over:
            return TaskResult(error=NotBegunError())
        active = group.active
        scope = self.position.enter(
            Draws() if active is None else active.draws,
            self.journal,
            None if active is None else active.used_records,
        )
        return group.context.copy().run(
            _run, group.job, self.item, self.position, scope, group.outer_stops
        )

    def __reduce__(self) -> tuple[Any, ...]:
        group = self.group
        name = self.position.name
        packed = group.pack()
        return _unpickled, (
            group.token,
            packed.state,
            group.job,
            self.item,
            self.position,
            packed.taken.get(name, {}),
            packed.gained.get(name, []),
        )


class RemoteTask(NamedTuple):
    """A task of another process.

    :param token: identifies the task's group.
    :param state: the state of the map's process.
    :param taken: what was drawn in the item's scopes before the map began.
    :param gained: the records that the cassette gained in these scopes before the map began.
    """

    token: str
    state: bytes
    job: Job
    item: Any
    position: TaskPosition
    taken: dict[ScopedRequest, tuple[int, tuple[int, ...]]]
    gained: Gained

    def run(self) -> TaskResult:
        """Run the task here, with the settings, cassette and budgets of the map's process."""
        with session_for(self.state) as session:
            if session.cassette is not None:
                session.cassette.add_earlier(self.gained)
            journal = Journal()
            job = _kept_job(self.token, self.job)
            context = copy_context()
            # A process that was forked in a task of another map inherited that map's.
            context.run(current_stops.set, ())
            used_records: deque[ScopedRecord] = deque()
            scope = self.position.enter(Draws(self.taken), journal, used_records)
            result = context.run(_run, job, self.item, self.position, scope, ())
            error = result.error
            if error is not None:
                traceback = "".join(format_exception(error))
                result = TaskResult(error=picklable(error), traceback=traceback)
            result = result._replace(
                draws=journal.taken(),
                used_records=list(used_records) if scope.arm is not None else [],
            )
            return session.with_report(result)

    def __repr__(self) -> str:
        return f"RemoteTask({self.position})"


def run_task(task: Task | RemoteTask) -> TaskResult:
    """Run a task: the function that executors get."""
    return task.run()


def _unpickled(*fields: Any) -> Task | RemoteTask:
    """Return a task that was pickled. In the process of its map, it is an ordinary task again."""
    remote = RemoteTask(*fields)
    group = _groups.get(remote.token)
    return remote if group is None else Task(group, remote.item, remote.position)


def _run(
    job: Job,
    item: Any,
    position: TaskPosition,
    scope: ActiveScope,
    outer_stops: Stops,
) -> TaskResult:
    """Run a task in the current context, unless a map around its own was interrupted."""
    try:
        check_stops(outer_stops)
        # An item's calls have the same asker in every thread.
        asker = askers.running_item(position.name or str(position.number), position.repeat)
        current_item.set(position.item)
        with scope, asker:
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


_jobs: dict[str, Job] = {}


def _kept_job(token: str, job: Job) -> Job:
    """Return the job of a map as this process first got it: its clients keep their connections."""
    kept_job = _jobs.setdefault(token, job)
    while len(_jobs) > KEPT_JOBS:
        _jobs.pop(next(iter(_jobs)), None)
    return kept_job


def apply_report(task: Task, result: TaskResult) -> None:
    """Count in this process what a task did in another one."""
    group = task.group
    for request, number in result.draws:
        if group.active is not None:
            task.journal.add(group.active.draws.claim(request, number))
    for model, scope, amounts, arm in result.usage:
        metering.count(group.meter, model, scope, amounts, arm)
    if group.active is not None and group.active.used_records is not None:
        group.active.used_records.extend(result.used_records)
    for event in result.events:
        getattr(group.cassette, event.method)(*event.arguments)
    for reason, counts, description in result.failures:
        for scope, count in counts.items():
            for _ in range(count):
                group.failures.add(scope, description, reason)
    if result.error is not None and result.traceback:
        result.error.__cause__ = WorkerError(f"in another process:\n{result.traceback}")


def _forget_groups() -> None:
    """Forget, in a forked process, the maps of its parent."""
    global _groups
    _groups = WeakValueDictionary()


after_fork_in_child(_forget_groups)
