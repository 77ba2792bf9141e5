"""The tasks of a ``map``, as its process sends them to worker processes; ``worker.py`` runs them."""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING

from ...config import resolve as config
from ...link import messages, programs
from ...link.link_server import Link
from ...many.tasks import Task, TaskResult
from ...scopes.active import ActiveScope
from ...scopes.draws import Drawn, MapIsOverError
from ...scopes.position import hold_scope
from ...stores.cassettes.current import open_current_cassette
from ...support.failures import process_failures
from ...support.listeners import notify
from ...traffic import budgets
from ...traffic import usage as metering
from .elsewhere import UNPICKLABLE, Noted
from .worker import RemoteResult, RemoteTask, State, maps_here

if TYPE_CHECKING:
    from ...many.map_run import MapRun
    from ...stores.cassettes.cassette import Cassette


class WorkerError(Exception):
    """The traceback of an error in a worker process; it is the error's cause."""


class TaskSender:
    """A sender of a map's tasks to an executor.

    :param executor: its worker processes must be able to get what the tasks need.
    :raises TypeError: if the function or a setting cannot be pickled for them.
    """

    def __init__(self, run: MapRun, executor: Executor) -> None:
        self.run = run
        self._executor = executor
        self._token = os.urandom(8).hex()  # identifies the map in all processes
        self._cassette: Cassette | None = run.context.run(open_current_cassette)
        self._until_closed = ExitStack()
        self._link: Link  # that the workers call
        self._tickets: dict[Task, str] = {}
        # Both raise an error that names the remedy, which the executor's would not. Loky and Dask pickle more
        # functions than Python does.
        kinds = {kind.__name__: kind.__module__ for kind in type(executor).__mro__}
        if kinds.get("ProcessPoolExecutor") == "concurrent.futures.process":
            _pickled(run.job, "fn")
        if kinds.keys() & {"ProcessPoolExecutor", "ClientExecutor"}:
            self._packed  # noqa: B018
        maps_here[self._token] = run

    def submit(self, task: Task) -> Future[TaskResult | RemoteResult]:
        """Send a task; :meth:`note` takes the future's result."""
        return self._executor.submit(SentTask(self, task))

    def remote(self, task: Task) -> RemoteTask:
        """Return a task as another process gets it."""
        state, drawn_by_item = self._packed
        self._link.start()
        run, client = self.run, self.run.job.client
        context, order = run.context.copy(), task.position.position.order
        context.run(task.position.set_caller)
        context.run(hold_scope, run.scope_of(task))
        base = self._link.admit(context, order, None if client is None else client.meter)
        self._tickets[task] = base.ticket
        drawn = drawn_by_item.get(task.position.name, [])
        return RemoteTask(
            self._token,
            state,
            run.job,
            task.item,
            task.position,
            base.ticket,
            drawn,
        )

    @functools.cached_property
    def _packed(self) -> tuple[bytes, dict[str, list[Drawn]]]:
        """Return the pickled state of this process, and the earlier draws in each item's scope."""
        state = self.run.context.copy().run(self._packed_state)
        return state, _by_item(self.run.active)

    def _packed_state(self) -> bytes:
        record: Callable[[], AbstractContextManager[object]] = nullcontext
        recording = programs.innermost_recorder()
        if recording is not None:
            record = functools.partial(programs.record_linked, recording.options())
        self._link = Link()
        with ExitStack() as stack:
            stack.callback(self._link.close, 0)
            state = State(
                config.packed(),
                self._link.address,
                self._link.admit().ticket,
                bool(budgets.open_budgets),
                None if self._cassette is None else self._cassette.file.real_path,
                record,
            )
            packed = _pickled(state, "the settings")
            self._until_closed = stack.pop_all()
        return packed

    def note(self, received: TaskResult | RemoteResult, task: Task) -> None:
        """Note the end of a task, and count here what it did on another machine."""
        if (ticket := self._tickets.pop(task, None)) is not None:
            self._link.take(messages.Dismiss(ticket))
        if not isinstance(received, RemoteResult):  # it ran here, or never
            return
        if received.noted is not None:
            self._count(received.noted, task)
        if received.error is not None:
            received.error.__cause__ = WorkerError(f"in another process:\n{received.traceback}")

    def _count(self, noted: Noted, task: Task) -> None:
        active, client = self.run.active, self.run.job.client
        with suppress(MapIsOverError):  # the draws were retracted
            for drawn in noted.drawn:
                task.draw_list.add(active.draws.claim(*drawn))
        if active.used_records is not None:
            active.used_records.extend(noted.used_records)
        meter = None if client is None else client.meter
        for usage in noted.usage:
            metering.count(meter, *usage)
        for reason, calls in noted.failures:
            for scope, words in calls:
                process_failures.add(scope, words, reason)
        if noted.refused is not None:
            notify("refused", None, noted.refused)

    def close(self) -> None:
        """Forget the map, and stop answering its workers."""
        maps_here.pop(self._token, None)
        self._until_closed.close()


def _pickled(value: object, name: str) -> bytes:
    try:
        return pickle.dumps(value)
    except UNPICKLABLE as error:
        raise TypeError(
            f"{name} cannot be sent to other processes: {error}. A function, such as fn, api_key= or actor=, must be "
            "importable, not a lambda or a function defined inside another, and arguments, such as client=, must be "
            "picklable"
        ) from error


class SentTask:
    """A task as an executor gets it. It runs in this process; pickled, it becomes a :class:`RemoteTask`."""

    def __init__(self, sender: TaskSender, task: Task) -> None:
        self._sender = sender
        self._task = task

    def __call__(self) -> TaskResult | RemoteResult:
        """Run the task."""
        return self._sender.run.run_task(self._task)

    def __reduce__(self) -> tuple[object, ...]:
        return RemoteTask, tuple(self._sender.remote(self._task))


def _by_item(active: ActiveScope) -> dict[str, list[Drawn]]:
    """Return what was drawn in the scopes of a map's items, by the items' names."""
    prefix = f"{active.path}/"
    by_name: dict[str, list[Drawn]] = {}
    for drawn in active.draws.drawn():
        path, _ = drawn.request
        if path.startswith(prefix):
            name = path[len(prefix) :].partition("/")[0]
            by_name.setdefault(name, []).append(drawn)
    return by_name
