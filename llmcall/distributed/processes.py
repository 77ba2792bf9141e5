"""The tasks of a ``map`` in worker processes.

Each task takes the state of the map's process along, and brings back what it drew and used there, with its
result: nobody else draws in the scope of its item.

While a worker runs a task, the settings and keys of the map's process apply in it. The open cassette, the
budgets and the limits are that process's own: a worker on its machine asks it (``home.py``). One on another
machine opens the named budgets itself, has limits of its own, and no cassette.
"""

from __future__ import annotations

import functools
import os
import pickle
import threading
from collections import deque
from contextlib import ExitStack, contextmanager, suppress
from contextvars import copy_context
from traceback import format_exception
from typing import TYPE_CHECKING, NamedTuple

from ..config import resolve as config
from ..core.home import homes
from ..errors import CacheError
from ..scopes import PROGRAM_SCOPE, DrawList, Draws, MapIsOverError, own_askers
from ..stores.cassettes.current import current_cassette, only_open
from ..support.failures import process_failures
from ..support.listeners import CallListener, listeners
from ..support.system import after_fork_in_child
from ..traffic import reservations
from ..traffic import usage as metering
from .home import HomeAskers, MapHome
from .server import UNPICKLABLE, Address, MapServer, answering_workers, picklable
from .tape import OpenCassette, WorkerCassette

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor, Future

    from ..config.resolve import Layers
    from ..many.run import MapRun
    from ..many.tasks import Job, Task, TaskPosition, TaskResult
    from ..scopes import ActiveScope, Drawn, NewAskers, ScopedRecord
    from ..stores.cassettes.cassette import Cassette
    from ..support.waits import Stops
    from ..traffic.budgets import Budget
    from ..traffic.usage import UsageDelta

KEPT = 8  # jobs and states of maps that a worker keeps, with their clients and connections

UsageEntry = tuple[str, str, "UsageDelta", str]  # model, scope, amounts and arm
# Why calls left no record, how many in each scope, and the first one in words.
FailureEntry = tuple[str, dict[str, int], str]


class WorkerError(Exception):
    """The traceback of an error in a worker process; it is the error's cause."""


# In the map's process


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
        _senders[self._token] = self

    def submit(self, task: Task) -> Future[TaskResult | Report]:
        """Send a task; :meth:`collect` takes the future's result."""
        return self._executor.submit(SentTask(self, task))

    def fields(self, task: Task) -> tuple[object, ...]:
        """Return the fields of a :class:`RemoteTask`."""
        state, drawn_by_item = self._packed
        if self._server is not None:
            self._server.start()
        drawn = drawn_by_item.get(task.position.name, [])
        job, run_job = self.run.job, self.run.run_job
        return self._token, state, job, run_job, task.item, task.position, drawn, self._draws

    @functools.cached_property
    def _packed(self) -> tuple[bytes, dict[str, list[Drawn]]]:
        """The state of this process, pickled, and by the names of items' scopes what was drawn before the map began."""
        state = self.run.context.copy().run(self._packed_state)
        return state, _by_item(self.run.active)

    def _packed_state(self) -> bytes:
        outer = _current
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
        open_budgets: bytes | ValueError
        try:
            open_budgets = pickle.dumps(list(reservations.open_budgets))
        except ValueError as error:  # one has no name
            open_budgets = error
        state = State(config.packed(), server.address, open_budgets, cassette)
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
        client = getattr(self.run.job, "client", None)  # a plain function may use any client
        meter = None if client is None else client.meter
        for usage in outcome.usage:
            metering.count(meter, *usage)
        failures = process_failures if self._cassette is None else self._cassette.failures
        for reason, counts, description in outcome.failures:
            for scope, count in counts.items():
                for _ in range(count):
                    failures.add(scope, description, reason)
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
        (path, _), *_ = drawn
        is_outside = not self.run.active.path and path.partition("/")[0] == PROGRAM_SCOPE
        if is_outside and self._cassette is not None:
            return self._cassette.program_scope.draws
        return self.run.active.draws

    def close(self) -> None:
        """Forget the map, and answer its workers no more."""
        _senders.pop(self._token, None)
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
        return RemoteTask, self._sender.fields(self._task)


_senders: dict[str, TaskSender] = {}  # of the maps that run in this process, by token


def _by_item(active: ActiveScope) -> dict[str, list[Drawn]]:
    """Return what was drawn in the scopes of a map's items, by the items' names."""
    prefix = f"{active.path}/"
    by_name: dict[str, list[Drawn]] = {}
    for drawn in active.draws.drawn():
        (path, _), *_ = drawn
        if path.startswith(prefix):
            name = path[len(prefix) :].partition("/")[0]
            by_name.setdefault(name, []).append(drawn)
    return by_name


# In a worker


class Report(NamedTuple):
    """The result of a task of another process, and what the task drew and used there.

    :param refused: the first error of a call that was refused, which the task may have caught.
    """

    value: object
    error: BaseException | None
    traceback: str
    drawn: Sequence[Drawn]
    used_records: Sequence[ScopedRecord]
    usage: Sequence[UsageEntry]
    failures: Sequence[FailureEntry]
    refused: Exception | None


class RemoteTask(NamedTuple):
    """A task of another process.

    :param token: identifies its map.
    :param state: the state of the map's process, pickled.
    :param run_job: runs a job in the current context.
    :param drawn: what was drawn in the item's scopes before the map began.
    :param draws: the name of the map's draws in the process that this one asks, or ``None``.
    """

    token: str
    state: bytes
    job: Job
    run_job: Callable[[Job, object, TaskPosition, ActiveScope, Stops], TaskResult]
    item: object
    position: TaskPosition
    drawn: list[Drawn]
    draws: str | None

    def __call__(self) -> TaskResult | Report:
        """Run the task here, with the settings, cassette and budgets of the map's process."""
        if (sender := _senders.get(self.token)) is not None:
            # This is that process: the executor pickled the task for threads of its own.
            return sender.run.run_task(sender.run.begun[self.position.number][self.position.repeat])
        with _running(self.state) as session:
            used_records: deque[ScopedRecord] = deque()
            draw_list = DrawList()
            new_askers: NewAskers = own_askers
            # Forks share what their askers draw; outside any, nobody else draws in the item's scope.
            if self.position.position.forks and self.draws and session.home is not None:
                new_askers = HomeAskers(session.home, self.draws)
            draws = Draws(self.drawn, new_askers=new_askers)
            scope = self.position.scope(draws, draw_list, used_records)
            run = copy_context().run
            value, error = run(
                self.run_job, _kept(self.token, self.job), self.item, self.position, scope, ()
            )
            return Report(
                value,
                None if error is None else picklable(error),
                "" if error is None else "".join(format_exception(error)),
                draw_list.drawn(),
                list(used_records),
                *session.take_noted(),
            )

    def __repr__(self) -> str:  # without the state, which has keys: Dask logs it
        return f"RemoteTask({self.position})"


_jobs: dict[str, Job] = {}  # by the token of the map


def _kept(token: str, job: Job) -> Job:
    """Return the job of a map as its first task brought it: its clients keep their connections."""
    job = _jobs.setdefault(token, job)
    while len(_jobs) > KEPT:
        _jobs.pop(next(iter(_jobs)), None)
    return job


class State(NamedTuple):
    """The state of a map's process.

    :param budgets: those that are open, pickled, or the error of one without a name.
    """

    layers: Layers
    address: Address
    budgets: bytes | ValueError
    cassette: OpenCassette | None


class _Session(CallListener):
    """The state of a map's process in a worker.

    It applies only while tasks run: the worker may also run functions that do not belong to the map.

    :param packed: the state, pickled.
    :raises ValueError, CacheError: if a budget without a name, or a cassette, is open in a process that cannot
        be asked from here.
    """

    def __init__(self, packed: bytes) -> None:
        state: State = pickle.loads(packed)
        self.packed = packed
        self.settings = state.layers.settings()
        self.cassette: WorkerCassette | None = None
        self._layers = state.layers
        self._budgets: list[Budget] = []
        self.home: MapHome | None = None
        self._usage: deque[UsageEntry] = deque()
        self._refused: Exception | None = None
        self._tasks = 0
        self._applied = ExitStack()
        try:
            self.home = MapHome(state.address)
        except OSError:  # it is on another machine
            if isinstance(state.budgets, ValueError):
                raise state.budgets from None
            self._budgets = pickle.loads(state.budgets)
        if state.cassette is None:
            return
        if self.home is None:
            raise CacheError(
                f"{state.cassette.file} is open in the process of the map, where workers on other machines cannot "
                "record or replay. Run the map without a cassette, with [Cache] PATH on a Redis server, or on this "
                "machine"
            )
        self.cassette = WorkerCassette(state.cassette, self.home)

    def begin_task(self) -> None:
        """Apply the settings, budgets and cassette, if it is the first task."""
        self._tasks += 1
        if self._tasks > 1:
            return
        with ExitStack() as stack:
            stack.enter_context(config.using(self._layers))
            stack.enter_context(only_open(self.cassette))
            if self.cassette is not None:
                stack.enter_context(self.cassette.around(self.cassette))
            stack.enter_context(reservations.only_open(self._budgets))
            if self.home is not None:
                homes.append(self.home)
                stack.callback(homes.remove, self.home)
            metering.meters.append(self)
            stack.callback(metering.meters.remove, self)
            listeners.append(self)
            stack.callback(listeners.remove, self)
            self._applied = stack.pop_all()

    def end_task(self) -> bool:
        """Return whether it was the last task; then the state applies no more."""
        self._tasks -= 1
        if not self._tasks:
            self._applied.close()
        return not self._tasks

    def add(self, model: str, scope: str, amounts: UsageDelta, arm: str) -> None:
        """Note an addition to the usage."""
        self._usage.append((model, scope, dict(amounts), arm))

    def refused(self, call: object, error: Exception) -> None:
        """Note the first error of a call that was refused."""
        self._refused = self._refused or picklable(error)

    def take_noted(
        self,
    ) -> tuple[list[UsageEntry], list[FailureEntry], Exception | None]:
        """Return and forget what was noted: the usage, the failures and the first refusal."""
        failures = process_failures if self.cassette is None else self.cassette.failures
        with _changed:  # other threads may add more meanwhile
            usage = [self._usage.popleft() for _ in range(len(self._usage))]
            refused, self._refused = self._refused, None
            return usage, failures.take(), refused


_session = functools.lru_cache(KEPT)(_Session)
_current: _Session | None = None  # the one that applies
_changed = threading.Condition()


@contextmanager
def _running(packed: bytes) -> Iterator[_Session]:
    """Apply a state while a block runs. A block with another state waits until it ends."""
    global _current
    with _changed:
        session = _session(packed)
        _changed.wait_for(lambda: _current in (None, session))
        session.begin_task()
        _current = session
    try:
        yield session
    finally:
        with _changed:
            if session.end_task():
                _current = None
                _changed.notify_all()


@after_fork_in_child
def _forget_parent() -> None:
    """Forget, in a forked process, the maps and the session of its parent."""
    global _changed, _current
    _changed, _current = threading.Condition(), None
    _session.cache_clear()
    _senders.clear()
