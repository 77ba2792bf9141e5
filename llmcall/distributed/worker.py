"""The tasks of a ``map`` in a worker process.

While a worker runs a task, the settings and keys of the map's process apply in it. The open cassette, the
budgets and the limits are that process's own: a worker on its machine asks it (``home.py``). One on another
machine has limits of its own, and neither budget nor cassette.
"""

from __future__ import annotations

import functools
import pickle
import threading
from collections import deque
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from traceback import format_exception
from typing import TYPE_CHECKING, NamedTuple

from ..config import resolve as config
from ..core.home import homes
from ..errors import CacheError
from ..scopes import DrawList, Draws, own_askers
from ..stores.cassettes.current import only_open
from ..support.failures import process_failures
from ..support.listeners import CallListener, listeners
from ..support.system import after_fork_in_child
from ..traffic import reservations
from ..traffic import usage as metering
from .draws import HomeAskers
from .home import MapHome
from .server import Address, picklable
from .tape import OpenCassette, WorkerCassette

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..config.resolve import Layers
    from ..many.jobs import Job
    from ..many.run import MapRun
    from ..many.tasks import TaskPosition, TaskResult
    from ..scopes import ActiveScope, Drawn, NewAskers, ScopedRecord
    from ..support.failures import UnrecordedCall
    from ..support.waits import Stops
    from ..traffic.usage import Hits, UsageDelta

KEPT = 8  # jobs and states of maps that a worker keeps, with their clients and connections

UsageEntry = tuple[str, str, "UsageDelta", str]  # model, scope, amounts and arm
FailureEntry = tuple[str, list["UnrecordedCall"]]  # why calls left no record, and the calls

maps_here: dict[str, MapRun] = {}  # the maps that run in this process, by token


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
        if (map_here := maps_here.get(self.token)) is not None:
            # This is that process: the executor pickled the task for threads of its own.
            return map_here.run_task(map_here.begun[self.position.number][self.position.repeat])
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

    :param has_budget: whether a budget is open.
    """

    layers: Layers
    address: Address
    has_budget: bool
    cassette: OpenCassette | None


class _Session(CallListener):
    """The state of a map's process in a worker.

    It applies only while tasks run: the worker may also run functions that do not belong to the map.

    :param packed: the state, pickled.
    :raises CacheError: if a budget or a cassette is open in a process that cannot be asked from here.
    """

    def __init__(self, packed: bytes) -> None:
        state: State = pickle.loads(packed)
        self.packed = packed
        self.settings = state.layers.settings()
        self.cassette: WorkerCassette | None = None
        self._layers = state.layers
        self.home: MapHome | None = None
        self._usage: deque[UsageEntry] = deque()
        self._refused: Exception | None = None
        self._tasks = 0
        self._applied = ExitStack()
        try:
            self.home = MapHome(state.address)
        except OSError:  # it is on another machine
            if state.has_budget:
                raise CacheError(
                    "a budget is open in the process of the map, and does not limit workers on other machines. Run "
                    "the map without a budget, or on this machine"
                ) from None
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
            stack.enter_context(reservations.all_closed())
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

    def add_hit(self, hits: Hits, saved: float | None) -> None:
        """Note an addition to the usage."""
        model, scope, arm, _, _ = hits
        self.add(model, scope, metering.hit_amounts(hits, 1, saved), arm)

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


def current_session() -> _Session | None:
    """Return the state of another map's process that applies here, or ``None``."""
    return _current


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
    maps_here.clear()
