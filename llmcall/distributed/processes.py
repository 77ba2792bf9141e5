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
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import resolve as config
from ..core.home import homes
from ..errors import CacheError
from ..scopes import DrawList, Draws, MapIsOverError
from ..stores.cassettes.current import current_cassette, forget_named, only_open
from ..support.failures import process_failures
from ..support.system import after_fork_in_child
from ..traffic import budgets
from ..traffic import usage as metering
from .home import home_at
from .messages import UNPICKLABLE, picklable
from .server import Server, answering_workers
from .tape import WorkerCassette

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor, Future

    from ..many.tasks import Job, Task, TaskPosition, TaskResult
    from ..scopes import ActiveScope, Drawn, ScopedRecord
    from ..stores.cassettes.cassette import Cassette
    from ..traffic.usage import UsageDelta

KEPT_JOBS = 8  # maps whose functions a worker keeps, with their clients and connections


class WorkerError(Exception):
    """The traceback of an error in a worker process; it is the error's cause."""


# In the map's process


class Sender:
    """Sends the tasks of a map to an executor, and counts here what they did in other processes.

    :param run: the run of the map, a ``MapRun``.
    :param executor: its worker processes must be able to get what the tasks need.
    :raises TypeError: if the function or a setting cannot be pickled for them.
    """

    def __init__(self, run: Any, executor: Executor) -> None:
        self.run = run
        self._executor = executor
        self._cassette = run.context.run(current_cassette)
        self._until_closed = ExitStack()
        self._server: Server | None = None  # that the workers ask
        kinds = {kind.__name__ for kind in type(executor).__mro__}
        if "ProcessPoolExecutor" in kinds:
            try:
                pickle.dumps(run.job)  # the executor would wrap the error in its own
            except UNPICKLABLE as error:
                raise TypeError(
                    f"fn cannot be sent to other processes: {error}. It must be a function that can be imported, not "
                    "a lambda or a function defined in another one, and its arguments, such as client=, must be "
                    "picklable"
                ) from error
        if kinds & {"ProcessPoolExecutor", "ClientExecutor"}:  # the latter is Dask's
            self._packed  # noqa: B018 - raises an error that names the remedy
        self._token = os.urandom(8).hex()  # identifies the map in all processes
        _senders[self._token] = self

    def submit(self, task: Task) -> Future[Any]:
        """Send a task; :meth:`collect` takes the future's result."""
        sent: Any = SentTask(self, task)
        return self._executor.submit(sent)

    def remote(self, task: Task) -> RemoteTask:
        """Return a task with what another process needs to run it."""
        state, drawn = self._packed
        if self._server is not None:
            self._server.start()
        name = task.position.name
        return RemoteTask(
            token=self._token,
            state=state,
            run_job=self.run.run_job,
            job=self.run.job,
            item=task.item,
            position=task.position,
            drawn=drawn.get(name, []),
        )

    @functools.cached_property
    def _packed(self) -> tuple[bytes, dict[str, list[Drawn]]]:
        """The state of this process, and by the names of items' scopes what was drawn before the map began."""
        state = self.run.context.copy().run(self._packed_state)
        return state, _by_item(self.run.active)

    def collect(self, outcome: TaskResult | Report, task: Task) -> tuple[Any, BaseException | None]:
        """Return a task's value and error, and count here what the task did in another process."""
        if not isinstance(outcome, Report):
            return outcome
        active = self.run.active
        with suppress(MapIsOverError):  # the draws were retracted
            for drawn in outcome.drawn:
                task.draw_list.add(active.draws.claim(*drawn))
        if active.used_records is not None:
            active.used_records.extend(outcome.used_records)
        client = getattr(self.run.job, "client", None)  # a plain function may use any client
        meter = None if client is None else client.meter
        for model, scope, amounts, arm in outcome.usage:
            metering.count(meter, model, scope, amounts, arm)
        failures = process_failures if self._cassette is None else self._cassette.failures
        for reason, counts, description in outcome.failures:
            for scope, count in counts.items():
                for _ in range(count):
                    failures.add(scope, description, reason)
        if outcome.error is not None:
            outcome.error.__cause__ = WorkerError(f"in another process:\n{outcome.traceback}")
        return outcome.value, outcome.error

    def _packed_state(self) -> bytes:
        """Return the state of this process for its workers, pickled."""
        session, cassette = _session, self._cassette
        if (
            session is not None
            and session.cassette is cassette
            and session.settings is config.settings()
        ):
            # A map in a worker passes on the very same state, so its tasks can join the session of
            # their own map instead of waiting for its end.
            return session.state
        self._server = self._until_closed.enter_context(answering_workers())
        file_and_mode = None
        if cassette is not None:
            self._server.cassettes[cassette.file] = cassette
            file_and_mode = cassette.file, cassette.mode
        open_budgets = tuple(budgets.open_budgets)
        named = [budget for budget in open_budgets if budget.name is not None]
        unnamed = [repr(budget) for budget in open_budgets if budget.name is None]
        state = config.packed(), self._server.address, named, unnamed, file_and_mode
        try:
            return pickle.dumps(state)
        except UNPICKLABLE as error:
            raise TypeError(
                f"the settings cannot be sent to other processes: {error}. A function among them, such as api_key=, "
                "must be one that can be imported, not a lambda or a function defined in another one"
            ) from error

    def close(self) -> None:
        """Forget the map, and answer its workers no more."""
        _senders.pop(self._token, None)
        self._until_closed.close()


class SentTask(NamedTuple):
    """A task as an executor gets it. Pickled, it becomes a :class:`RemoteTask`; in the process of its
    map, it is the same task again.
    """

    sender: Sender
    task: Task

    def __call__(self) -> TaskResult:
        """Run the task in this process."""
        result: TaskResult = self.sender.run.run_task(self.task)
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.sender.remote(self.task),)


_senders: dict[str, Sender] = {}  # of the maps that run in this process, by token


def _unpickled(remote: RemoteTask) -> SentTask | RemoteTask:
    sender = _senders.get(remote.token)
    if sender is None:
        return remote
    return SentTask(sender, sender.run.begun[remote.position.number][remote.position.repeat])


def _by_item(active: ActiveScope) -> dict[str, list[Drawn]]:
    """Return what was drawn in the scopes of items, by the items' names.

    :param active: the scope in which the map runs.
    """
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
    """The result of a task of another process, and what the task did.

    :param traceback: the error's traceback.
    :param drawn: its draws.
    :param used_records: the records that answered its calls, if it ran in an arm.
    :param usage: model, scope, amounts and arm of each addition to the usage.
    :param failures: why calls left no record, how many in each scope, and the first one in words.
    """

    value: Any
    error: BaseException | None
    traceback: str
    drawn: Sequence[Drawn]
    used_records: Sequence[ScopedRecord]
    usage: Sequence[tuple[str, str, UsageDelta, str]]
    failures: Sequence[tuple[str, dict[str, int], str]]


class RemoteTask(NamedTuple):
    """A task of another process.

    :param token: identifies its map.
    :param state: the state of the map's process.
    :param run_job: runs a job in the current context, and returns its value and its error.
    :param drawn: what was drawn in the item's scopes before the map began.
    """

    token: str
    state: bytes
    run_job: Callable[..., tuple[Any, BaseException | None]]
    job: Job
    item: Any
    position: TaskPosition
    drawn: list[Drawn]

    def __call__(self) -> Report:
        """Run the task here, with the settings, cassette and budgets of the map's process."""
        with _session_for(self.state) as session:
            job = _jobs.setdefault(self.token, self.job)  # its clients keep their connections
            while len(_jobs) > KEPT_JOBS:
                _jobs.pop(next(iter(_jobs)), None)
            used_records: deque[ScopedRecord] = deque()
            draw_list = DrawList()
            scope = self.position.scope(Draws(self.drawn), draw_list, used_records)
            run = copy_context().run
            value, error = run(self.run_job, job, self.item, self.position, scope, ())
            return Report(
                value,
                None if error is None else picklable(error),
                "" if error is None else "".join(format_exception(error)),
                draw_list.drawn(),
                list(used_records),
                *session.take_noted(),
            )

    def __repr__(self) -> str:
        return f"RemoteTask({self.position})"


_jobs: dict[str, Job] = {}  # by the token of the map


class _Session:
    """The state of a map's process in a worker.

    Its settings, cassette and budgets apply only while a task runs: the worker may also run functions
    that do not belong to the map.

    :param state: the state, as :class:`Sender` packs it.
    :raises ValueError, CacheError: if a budget without a name, or a cassette, is open in a process that cannot
        be asked from here.
    :ivar tasks: the number of tasks that run in it.
    :ivar cassette: the open cassette of the map's process, or ``None`` if none is open.
    :ivar settings: its settings.
    """

    def __init__(self, state: bytes) -> None:
        self._layers, address, named, unnamed, file_and_mode = pickle.loads(state)
        self._home = home_at(address)
        self._budgets = named if self._home is None else []
        if unnamed and self._home is None:
            raise ValueError(
                f"{unnamed[0]} is open and has no name, so workers on other machines cannot share it. Give it one: "
                "budget(…, name='survey')"
            )
        self.state = state
        self.tasks = 0
        self._usage: deque[tuple[str, str, UsageDelta, str]] = deque()
        self.applied = ExitStack()
        self.cassette: Cassette | None = None
        forget_named()
        if file_and_mode is not None:
            file, mode = file_and_mode
            if self._home is None:
                raise CacheError(
                    f"{file} is open in the process of the map, where workers on other machines cannot record or "
                    "replay. Run the map without a cassette, with [Cache] PATH on a Redis server, or on this machine"
                )
            with config.using(self._layers):
                self.cassette = WorkerCassette(file, mode, self._home)
                self.cassette.start()
        self.settings = self._layers.settings()

    def apply(self) -> None:
        """Apply the settings, budgets and cassette, until ``applied`` is closed."""
        with ExitStack() as stack:
            stack.enter_context(config.using(self._layers))
            stack.enter_context(only_open(self.cassette))
            stack.enter_context(budgets.only_open(self._budgets))
            if self._home is not None:
                homes.append(self._home)
                stack.callback(homes.remove, self._home)
            metering.meters.append(self)
            stack.callback(metering.meters.remove, self)
            self.applied = stack.pop_all()

    def close(self) -> None:
        """Close the cassette."""
        if self.cassette is not None:
            with config.using(self._layers):
                self.cassette.stop()

    def add(self, model: str, scope: str, amounts: UsageDelta, arm: str) -> None:
        """Note an addition to the usage."""
        self._usage.append((model, scope, dict(amounts), arm))

    def take_noted(self) -> tuple[list[Any], list[Any]]:
        """Return and forget what was noted: the usage and the failures."""
        with _session_changed:
            failures = process_failures if self.cassette is None else self.cassette.failures
            # other threads may add more meanwhile
            usage = [self._usage.popleft() for _ in range(len(self._usage))]
            return usage, failures.take()


_session_changed = threading.Condition()
_session: _Session | None = None  # the current one


def _forget_parent() -> None:
    """Forget, in a forked process, the maps and the session of its parent."""
    global _session_changed, _session
    _session_changed = threading.Condition()
    _session = None
    _senders.clear()


after_fork_in_child(_forget_parent)


@contextmanager
def _session_for(state: bytes) -> Iterator[_Session]:
    """Apply a state while a block runs.

    Blocks with the same state share a session; a block with another state waits until it ends.
    """
    global _session
    with _session_changed:
        _session_changed.wait_for(
            lambda: _session is None or _session.state == state or not _session.tasks
        )
        session = _session
        if session is None or session.state != state:
            _session = None
            if session is not None:
                session.close()
            session = _session = _Session(state)
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
