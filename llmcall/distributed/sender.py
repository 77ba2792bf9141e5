"""The tasks of a ``map``, as its process sends them to worker processes.

Each task takes the state of the map's process along, and brings back what it drew and used there, with its
result: nobody else draws in the scope of its item. ``worker.py`` runs it.
"""

from __future__ import annotations

import functools
import os
import pickle
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from ..config import resolve as config
from ..scopes import PROGRAM_SCOPE, Draws, MapIsOverError
from ..stores.cassettes.current import current_cassette
from ..support.failures import process_failures
from ..support.listeners import listeners
from ..traffic import reservations
from ..traffic import usage as metering
from .draws import HomeAskers
from .server import UNPICKLABLE, MapServer, answering_workers
from .tape import OpenCassette
from .worker import RemoteTask, Report, State, current_session, maps_here

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    from ..many.run import MapRun
    from ..many.tasks import Task, TaskResult
    from ..scopes import ActiveScope, Drawn
    from ..stores.cassettes.cassette import Cassette


class WorkerError(Exception):
    """The traceback of an error in a worker process; it is the error's cause."""


class TaskSender:
    """Sends the tasks of a map to an executor, and counts here what they did in other processes.

    :param executor: its worker processes must be able to get what the tasks need.
    :raises TypeError: if the function or a setting cannot be pickled for them.
    """

    def __init__(self, run: MapRun, executor: Executor) -> None:
        self.run = run
        self._executor = executor
        self._token = os.urandom(8).hex()  # identifies the map in all processes
        self._draws: str | None = None  # the name of its draws in the process that the workers ask
        self._cassette: Cassette | None = run.context.run(current_cassette)
        self._until_closed = ExitStack()
        self._server: MapServer | None = None  # that the workers ask
        # Both raise an error that names the remedy, which the executor's would not. Loky and Dask pickle more
        # functions than Python does.
        kinds = {kind.__name__: kind.__module__ for kind in type(executor).__mro__}
        if kinds.get("ProcessPoolExecutor") == "concurrent.futures.process":
            _pickled(run.job, "fn")
        if kinds.keys() & {"ProcessPoolExecutor", "ClientExecutor"}:
            self._packed  # noqa: B018
        maps_here[self._token] = run

    def submit(self, task: Task) -> Future[TaskResult | Report]:
        """Send a task; :meth:`collect` takes the future's result."""
        return self._executor.submit(SentTask(self, task))

    def remote(self, task: Task) -> RemoteTask:
        """Return a task as another process gets it."""
        state, drawn_by_item = self._packed
        if self._server is not None:
            self._server.start()
        drawn = drawn_by_item.get(task.position.name, [])
        job, run_job = self.run.job, self.run.run_job
        return RemoteTask(
            self._token, state, job, run_job, task.item, task.position, drawn, self._draws
        )

    @functools.cached_property
    def _packed(self) -> tuple[bytes, dict[str, list[Drawn]]]:
        """The state of this process, pickled, and by the names of items' scopes what was drawn before the map began."""
        state = self.run.context.copy().run(self._packed_state)
        return state, _by_item(self.run.active)

    def _packed_state(self) -> bytes:
        outer = current_session()
        if outer and outer.cassette is self._cassette and outer.settings is config.settings():
            # A map in a worker passes on the very same state: its tasks need not wait for the end of the outer one's.
            new_askers = self.run.active.draws.new_askers
            self._draws = new_askers.draws if isinstance(new_askers, HomeAskers) else None
            return outer.packed
        server = self._server = self._until_closed.enter_context(answering_workers())
        self._draws = self._token
        server.draws[self._token] = self.run.active.draws
        self._until_closed.callback(server.draws.pop, self._token)
        cassette = None
        if self._cassette is not None:
            server.cassettes[self._cassette.file.real_path] = self._cassette
            opened = self._cassette
            cassette = OpenCassette(
                opened.file.real_path, opened.mode, opened.owner, opened.around, opened.may_record
            )
        has_budget = bool(reservations.open_budgets)
        state = State(config.packed(), server.address, has_budget, cassette)
        return _pickled(state, "the settings")

    def collect(
        self, outcome: TaskResult | Report, task: Task
    ) -> tuple[object, BaseException | None]:
        """Return a task's value and error, and count here what the task did in another process."""
        if not isinstance(outcome, Report):
            return outcome
        active = self.run.active
        with suppress(MapIsOverError):  # the draws were retracted
            for drawn in outcome.drawn:
                task.draw_list.add(self._draws_of(drawn).claim(*drawn))
        if active.used_records is not None:
            active.used_records.extend(outcome.used_records)
        client = self.run.job.client
        meter = None if client is None else client.meter
        for usage in outcome.usage:
            metering.count(meter, *usage, cassette=self._cassette)
        failures = process_failures if self._cassette is None else self._cassette.failures
        for reason, calls in outcome.failures:
            for scope, words, was_sent, was_answered in calls:
                failures.add(scope, words, reason, was_sent=was_sent, was_answered=was_answered)
        if outcome.refused is not None:
            for listener in listeners:
                listener.refused(None, outcome.refused)
        if outcome.error is not None:
            outcome.error.__cause__ = WorkerError(f"in another process:\n{outcome.traceback}")
        return outcome.value, outcome.error

    def _draws_of(self, drawn: Drawn) -> Draws:
        """Return what counts a draw: the map's draws, or, outside any scope, those of a program's calls; the repeats
        of a map there have paths, too, and are the map's.
        """
        path, _ = drawn.request
        is_outside = not self.run.active.path and path.partition("/")[0] == PROGRAM_SCOPE
        if is_outside and self._cassette is not None:
            return self._cassette.program_scope.draws
        return self.run.active.draws

    def close(self) -> None:
        """Forget the map, and answer its workers no more."""
        maps_here.pop(self._token, None)
        self._until_closed.close()


def _pickled(value: object, name: str) -> bytes:
    try:
        return pickle.dumps(value)
    except UNPICKLABLE as error:
        raise TypeError(
            f"{name} cannot be sent to other processes: {error}. A function, such as fn, api_key= or actor=, must be "
            "one that can be imported, not a lambda or a function defined in another one, and arguments, such as "
            "client=, must be picklable"
        ) from error


class SentTask:
    """A task as an executor gets it. It runs in this process; pickled, it becomes a :class:`RemoteTask`."""

    def __init__(self, sender: TaskSender, task: Task) -> None:
        self._sender = sender
        self._task = task

    def __call__(self) -> TaskResult | Report:
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
