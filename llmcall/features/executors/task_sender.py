"""The tasks of a ``map``, as its process sends them to worker processes; ``worker.py`` runs them."""

from __future__ import annotations

import functools
import os
import pickle
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import TYPE_CHECKING

from ...additions import additions
from ...config import resolve as config
from ...link import messages, programs
from ...link.link import Link
from ...many.tasks import Task, TaskResult
from ...scopes.draws import Drawn, MapIsOverError
from ...scopes.position import hold_scope
from ...stores.cassettes.current import open_current_cassette
from ...traffic import budgets
from ...traffic import usage as metering
from .worker import UNPICKLABLE, Noted, RemoteResult, RemoteTask, State, maps_here

if TYPE_CHECKING:
    from ...many.map_run import MapRun


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
        self._tickets: dict[Task, str] = {}
        self._link: Link | None = None  # that the workers call
        # Both raise an error that names the remedy, which a pool's would not. Loky and Dask pickle more functions.
        if type(executor).__module__ == "concurrent.futures.process":
            _pickled(run.job, "fn")
            self._state  # noqa: B018
        maps_here[self._token] = run

    def submit(self, task: Task) -> Future[TaskResult | RemoteResult]:
        """Send a task; :meth:`note` takes the future's result."""
        return self._executor.submit(SentTask(self, task))

    def remote(self, task: Task) -> RemoteTask:
        """Return a task as another process gets it."""
        state = self._state
        assert self._link is not None
        self._link.begin()
        run, client, position = self.run, self.run.job.client, task.position
        context = run.context.copy()
        context.run(position.set_caller)
        context.run(hold_scope, run.scope_of(task))
        base = self._link.admit(
            context, position.position.order, None if client is None else client.meter
        )
        self._tickets[task] = base.ticket
        drawn = self._drawn_before.get(position.name, [])
        return RemoteTask(self._token, state, run.job, task.item, position, base.ticket, drawn)

    @functools.cached_property
    def _state(self) -> State:
        """The state of this process, for its workers."""
        return self.run.context.copy().run(self._state_here)

    def _state_here(self) -> State:
        recording, cassette, refusal = programs.innermost_recorder(), open_current_cassette(), ""
        options = None if recording is None else recording.options()
        settings = _pickled((config.packed(), options), "the settings")
        if budgets.open_budgets:
            refusal = (
                "the budget around this map cannot limit workers on other machines. Run the map without a budget, "
                "or on this machine"
            )
        elif cassette is not None:
            shared = additions("remedies").get("a cassette on another machine")
            remedy = f"{shared}, " if shared else ""
            refusal = (
                f"workers on other machines cannot record on or replay {cassette.file.real_path}, which is open around "
                f"this map. Run the map without a cassette, {remedy}or on this machine"
            )
        self._link = Link()
        return State(settings, self._link.address, self._link.admit().ticket, refusal)

    @functools.cached_property
    def _drawn_before(self) -> dict[str, list[Drawn]]:
        """What was drawn in the scopes of the map's items, by the items' names."""
        prefix, by_name = f"{self.run.active.path}/", dict[str, list[Drawn]]()
        for drawn in self.run.active.draws.drawn():
            if drawn.request[0].startswith(prefix):
                name = drawn.request[0].removeprefix(prefix).partition("/")[0]
                by_name.setdefault(name, []).append(drawn)
        return by_name

    def note(self, received: TaskResult | RemoteResult, task: Task) -> None:
        """Note the end of a task, and count here what it did on another machine."""
        if (ticket := self._tickets.pop(task, None)) is not None and self._link is not None:
            self._link.take(messages.Dismiss(ticket))
        if isinstance(received, RemoteResult):  # else it ran here, or never
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
        for usage in noted.usage:
            metering.count(None if client is None else client.meter, *usage)

    def close(self) -> None:
        """Forget the map, and stop answering its workers."""
        maps_here.pop(self._token, None)
        if self._link is not None:
            self._link.close(0)


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
