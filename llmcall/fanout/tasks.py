"""One draw of one item of a ``map``: what a thread or another process runs."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, contextmanager
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from ..replay import tapes
from ..replay.scopes import Active, Bound, Draws, Scope
from ..road import stops
from . import workers
from .task_errors import HaltedError, WorkerError, portable, traceback_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context

    from ..replay.cassettes import Cassette
    from ..replay.draws import Counts
    from ..road.stops import Stop
    from .workers import Cargo

__all__ = ["Outcome", "Returned", "Stand", "Task", "Work", "run", "settle"]

KNOWN_JOBS = 8  # maps of which a worker keeps the function, with the clients and connections in it


class Outcome(NamedTuple):
    """Hold what a task came to: a value, or an error.

    :param returned: what comes home with it from another process.
    :param trace: the error's traceback there.
    """

    value: Any = None
    error: BaseException | None = None
    returned: Returned | None = None
    trace: str = ""


class Returned(NamedTuple):
    """Hold what comes home from another process beside an outcome.

    :param counts: the draws of the item's scopes.
    :param cargo: what was used and recorded there.
    """

    counts: Counts
    cargo: Cargo


class Stand(NamedTuple):
    """Hold where a task stands among the others: the names of its scopes, and its place in the order of the calls.

    :param path: the scope in which the map runs; empty outside any.
    :param name: the item's scope in it; empty outside any.
    :param repeat: which draw it is; from 1 on it has a scope of its own.
    :param place: that of the map, the item's index, and the repeat.
    """

    path: str
    name: str
    repeat: int
    place: tuple[int, ...]

    @property
    def number(self) -> int:
        """Return which item it is, counted from 0."""
        return self.place[-2]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Let the task's scopes and place hold for a block; the map's own scope holds already."""
        with ExitStack() as stack:
            stack.enter_context(tapes.at(self.place))
            stack.enter_context(Scope(self.name or None))  # None: none is meant, whatever is open elsewhere
            if self.repeat:
                stack.enter_context(Scope(str(self.repeat)))
            yield


class Work:
    """Hold what all tasks of one map share.

    :param job: is called with an item.
    :param context: the caller's; each task runs in a copy of it.
    :param active: the scope in which the map runs, or ``None`` outside any.
    :param cassette: the one that is open.
    :param folder: gives the folder of the map, which is made when a task first goes to another process.
    """

    def __init__(
        self,
        job: Callable[[Any], Any],
        context: Context,
        active: Active | None,
        stop: Stop,
        cassette: Cassette | None,
        folder: Callable[[], str],
    ) -> None:
        self.job, self.context, self.active, self.stop = job, context, active, stop
        self.cassette = cassette
        self.folder = folder
        self.halted = False
        self._lock = threading.Lock()
        self._packed: bytes | None = None
        self._counts: dict[str, dict[tuple[str, bytes], tuple[int, list[int]]]] | None = None

    @property
    def path(self) -> str:
        """Return the path of the scope in which the map runs; empty outside any."""
        return "" if self.active is None else self.active.path

    def packed(self) -> bytes:
        """Return what a worker of another process is to stand on, pickled."""
        with self._lock:
            if self._packed is None:
                self._packed = self.context.copy().run(workers.pack, self.cassette, self.folder())
            return self._packed

    def halt(self) -> None:
        """Let no task begin any more, wherever it runs."""
        self.halted = True
        self._tell(workers.HALT_FILE)

    def interrupt(self) -> None:
        """Let no call of the tasks begin, wait on or be tried again, wherever they run."""
        self.stop.set()
        self._tell(workers.STOP_FILE)

    def _tell(self, name: str) -> None:
        with self._lock:
            away = self._packed is not None
        if away:
            open(os.path.join(self.folder(), name), "wb").close()

    def counts(self, name: str) -> Counts:
        """Return the draws that were made in an item's scopes before the map began."""
        if self.active is None:
            return {}
        with self._lock:
            if self._counts is None:
                self._counts = _by_name(self.active)
            return self._counts.get(name, {})


def _by_name(active: Active) -> dict[str, dict[tuple[str, bytes], tuple[int, list[int]]]]:
    found: dict[str, dict[tuple[str, bytes], tuple[int, list[int]]]] = {}
    before = f"{active.path}/"
    for key, counted in active.draws.counts().items():
        if key[0].startswith(before):
            found.setdefault(key[0][len(before) :].partition("/")[0], {})[key] = counted
    return found


class Task:
    """Be one draw of one item; pickled, it becomes one that runs in another process."""

    __slots__ = ("_begun", "_mark", "item", "stand", "work")

    def __init__(self, work: Work, item: Any, stand: Stand) -> None:
        self.work, self.item, self.stand = work, item, stand
        self._begun = False
        self._mark: str | None = None  # where another process says that it has begun

    def run(self) -> Outcome:
        """Run it in this process."""
        self._begun = True  # first, so that whoever forbids it meanwhile sees it
        if self.work.halted:
            return Outcome(error=HaltedError())
        return self.work.context.copy().run(self._run)

    def has_begun(self) -> bool:
        """Return whether it runs, or has run, here or in another process of this machine."""
        return self._begun or (self._mark is not None and os.path.exists(self._mark))

    def forget(self) -> None:
        """Remove what another process left of it."""
        if self._mark is not None and os.path.exists(self._mark):
            os.unlink(self._mark)

    def _run(self) -> Outcome:
        with stops.under(self.work.stop), self.stand.inside():
            return _outcome(self.work.job, self.item, self.work.stop)

    def __reduce__(self) -> tuple[Any, ...]:
        work = self.work
        _works[work.folder()] = work
        self._mark = workers.mark_of(work.folder(), self.stand.number, self.stand.repeat)
        counts = work.counts(self.stand.name)
        return _arrived, (workers.here(), work.packed(), work.folder(), work.job, self.item, self.stand, counts)

    def __repr__(self) -> str:
        return f"Task({self.stand})"


class RemoteTask:
    """Be a task of another process."""

    def __init__(
        self, home: tuple[int, bytes], packed: bytes, folder: str, job: Any, item: Any, stand: Stand, counts: Counts
    ) -> None:
        self._parts = home, packed, folder, job, item, stand, counts
        self.packed, self.folder, self.item, self.stand, self.counts = packed, folder, item, stand, counts
        self.job = _known(folder, job)

    def run(self) -> Outcome:
        """Run it here, where settings, cassette and budgets of the map's process hold meanwhile."""
        mark = workers.mark_of(self.folder, self.stand.number, self.stand.repeat)
        if not workers.may_begin(self.folder, mark):
            return Outcome(error=HaltedError())
        with workers.working_with(self.packed, self.folder) as desk:
            draws = Draws(self.counts)
            if self.stand.path:
                outcome: Outcome = Bound(self._run, Active(self.stand.path, draws, None))()
            else:
                with Scope(None):
                    outcome = self._run()
            return outcome._replace(returned=Returned(draws.counts(), desk.cargo()))

    def _run(self) -> Outcome:
        stop = workers.stop_of(self.folder)
        with stops.under(stop), self.stand.inside():
            outcome = _outcome(self.job, self.item, stop)
        error = outcome.error
        return outcome if error is None else Outcome(error=portable(error), trace=traceback_of(error))

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, self._parts  # as where a scheduler passes it on

    def __repr__(self) -> str:
        return f"RemoteTask({self.stand})"


def run(task: Task | RemoteTask) -> Outcome:
    """Run a task; what an executor is given."""
    return task.run()


_jobs: dict[str, Callable[[Any], Any]] = {}


def _known(folder: str, job: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the job of a map as it first came here: clients in it keep their connections."""
    known = _jobs.setdefault(folder, job)
    while len(_jobs) > KNOWN_JOBS:
        _jobs.pop(next(iter(_jobs)), None)
    return known


_works: WeakValueDictionary[str, Work] = WeakValueDictionary()  # of this process, by folder


def _arrived(
    home: tuple[int, bytes], packed: bytes, folder: str, job: Any, item: Any, stand: Stand, counts: Counts
) -> Task | RemoteTask:
    """Return a task that was pickled: for this process, where it never left it."""
    work = _works.get(folder) if home == workers.here() else None
    return RemoteTask(home, packed, folder, job, item, stand, counts) if work is None else Task(work, item, stand)


def _outcome(job: Callable[[Any], Any], item: Any, stop: Stop) -> Outcome:
    try:
        stop.check()
        value = job(item)
        if isinstance(value, CoroutineType):
            value.close()
            raise TypeError("the function of a map is asynchronous; give one that is not, or run it with asyncio.run")
        return Outcome(value)
    except BaseException as error:
        return Outcome(error=error)


def settle(task: Task, outcome: Outcome) -> Outcome:
    """Let what came home with an outcome count here."""
    if outcome.returned is None:
        return outcome
    if task.work.active is not None:
        task.work.active.draws.put(outcome.returned.counts)
    if outcome.error is not None and outcome.trace:
        outcome.error.__cause__ = WorkerError(f"in another process:\n{outcome.trace}")
    return outcome
