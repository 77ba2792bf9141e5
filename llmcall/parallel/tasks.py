"""One draw of one item of a ``map``: what a thread or another process runs."""

from __future__ import annotations

import threading
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from ..config import resolve as config
from ..engine import interrupts
from ..notices import warn_once
from ..replay.scopes import Draws, path_of
from . import boards, workers
from .task_errors import HaltedError, WorkerError, portable, traceback_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from ..cassettes.cassette import Cassette
    from ..engine.interrupts import Stop
    from ..replay.scopes import Active, Counts
    from .boards import Board
    from .stands import Stand
    from .workers import Cargo

__all__ = ["Outcome", "Returned", "Task", "Work", "run"]

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


class Work:
    """Hold what all tasks of one map share.

    :param job: is called with an item.
    :param context: the caller's; each task runs in a copy of it.
    :param active: the scope in which the map runs, or ``None`` outside any.
    :param cassette: the one that is open.
    :param comes_back: whether anybody can come back to the scope of an item after the item.
    """

    def __init__(
        self,
        job: Callable[[Any], Any],
        context: Context,
        active: Active | None,
        stop: Stop,
        cassette: Cassette | None,
        comes_back: bool = True,
    ) -> None:
        self.job, self.context, self.active, self.stop = job, context, active, stop
        self.cassette = cassette
        self.halted = False
        self._draws = active.draws if active is not None and comes_back else None
        self._lock = threading.Lock()
        self._away: tuple[Board, bytes] | None = None
        self._counts: dict[str, dict[bytes, tuple[int, list[int]]]] | None = None

    @property
    def path(self) -> str:
        """Return the path of the scope in which the map runs; empty outside any."""
        return "" if self.active is None else self.active.path

    def draws(self) -> Draws:
        """Return what counts the draws of the next item: where nobody can come back to them, they go with the item."""
        return Draws() if self._draws is None else self._draws

    def away(self) -> tuple[Board, bytes]:
        """Return the map's board, and what a worker of another process is to stand on, pickled."""
        with self._lock:
            if self._away is None:
                self._away = self.context.copy().run(self._packed)
            return self._away

    def _packed(self) -> tuple[Board, bytes]:
        board = boards.new_board(config.settings())
        _works[board.name] = self
        try:
            return board, workers.pack(self.cassette, board)
        except BaseException:
            board.remove()
            raise

    def board(self) -> Board | None:
        """Return the map's board, or ``None`` where no task went to another process."""
        with self._lock:
            return None if self._away is None else self._away[0]

    def halt(self) -> None:
        """Let no task begin any more, wherever it runs."""
        self.halted = True
        self._tell(boards.HALT)

    def interrupt(self) -> None:
        """Let no call of the tasks begin, wait on or be tried again, wherever they run."""
        self.stop.set()
        self._tell(boards.STOP)

    def _tell(self, mark: str) -> None:
        board = self.board()
        if board is None:
            return
        try:
            board.post(mark)
        except OSError as error:
            warn_once(f"{board.place} takes no marks ({error}): {boards.UNHEARD}")

    def end(self) -> None:
        """Remove what the map and its workers left for each other."""
        board = self.board()
        if board is not None:
            board.remove()

    def counts(self, name: str) -> Counts:
        """Return the draws that were made in an item's scopes before the map began."""
        if self.active is None:
            return {}
        with self._lock:
            if self._counts is None:
                self._counts = _by_name(self.active)
            return self._counts.get(name, {})


def _by_name(active: Active) -> dict[str, dict[bytes, tuple[int, list[int]]]]:
    found: dict[str, dict[bytes, tuple[int, list[int]]]] = {}
    before = f"{active.path}/"
    for key, counted in active.draws.counts().items():
        path = path_of(key)
        if path.startswith(before):
            found.setdefault(path[len(before) :].partition("/")[0], {})[key] = counted
    return found


class Task:
    """Be one draw of one item; pickled, it becomes one that runs in another process."""

    __slots__ = ("_begun", "draws", "item", "stand", "work")

    def __init__(self, work: Work, item: Any, stand: Stand, draws: Draws) -> None:
        self.work, self.item, self.stand, self.draws = work, item, stand, draws
        self._begun = False

    def run(self) -> Outcome:
        """Run it in this process."""
        self._begun = True  # first, so that whoever forbids it meanwhile sees it
        if self.work.halted:
            return Outcome(error=HaltedError())
        return self.work.context.copy().run(self._run)

    def has_begun(self, marks: set[str]) -> bool:
        """Return whether it runs, or has run, here or in another process.

        :param marks: those on the map's board.
        """
        return self._begun or self.stand.mark in marks

    def settle(self, outcome: Outcome) -> Outcome:
        """Let what came home with an outcome count here."""
        if outcome.returned is None:
            return outcome
        board = self.work.board()
        if board is not None:
            board.withdraw(self.stand.mark)
        self.draws.put(outcome.returned.counts)
        if outcome.error is not None and outcome.trace:
            outcome.error.__cause__ = WorkerError(f"in another process:\n{outcome.trace}")
        return outcome

    def _run(self) -> Outcome:
        with interrupts.under(self.work.stop), self.stand.inside(self.draws):
            return _outcome(self.work.job, self.item, self.work.stop)

    def __reduce__(self) -> tuple[Any, ...]:
        work = self.work
        board, packed = work.away()
        counts = work.counts(self.stand.name)
        return _arrived, (
            Parcel(workers.here(), packed, board.place, board.name, work.job, self.item, self.stand, counts),
        )

    def __repr__(self) -> str:
        return f"Task({self.stand})"


class Parcel(NamedTuple):
    """Hold what of a task goes to another process.

    :param home: the map's process.
    :param luggage: what a worker is to stand on, pickled.
    :param place: that of the map's board.
    :param board: its name.
    :param counts: the draws that were made in the item's scopes before the map began.
    """

    home: tuple[int, bytes]
    luggage: bytes
    place: str
    board: str
    job: Any
    item: Any
    stand: Stand
    counts: Counts


class RemoteTask:
    """Be a task of another process."""

    def __init__(self, parcel: Parcel) -> None:
        self._parcel = parcel  # a scheduler may unpickle it, and has neither board nor clients

    def run(self) -> Outcome:
        """Run it here, where settings, cassette and budgets of the map's process hold meanwhile."""
        parcel = self._parcel
        board = boards.board_at(parcel.place, parcel.board)
        if not board.begin(parcel.stand.mark):
            return Outcome(error=HaltedError())
        with workers.working_with(parcel.luggage, board) as desk:
            draws = Draws(parcel.counts)
            with workers.watched(board) as stop, interrupts.under(stop), parcel.stand.inside(draws):
                outcome = _outcome(_known(parcel.board, parcel.job), parcel.item, stop)
            returned = Returned(draws.counts(), desk.cargo())
        error = outcome.error
        if error is None:
            return Outcome(outcome.value, returned=returned)
        return Outcome(None, portable(error), returned, traceback_of(error))

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self._parcel,)  # as where a scheduler passes it on

    def __repr__(self) -> str:
        return f"RemoteTask({self._parcel.stand})"


def run(task: Task | RemoteTask) -> Outcome:
    """Run a task; what an executor is given."""
    return task.run()


_jobs: dict[str, Callable[[Any], Any]] = {}


def _known(board: str, job: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the job of a map as it first came here: clients in it keep their connections."""
    known = _jobs.setdefault(board, job)
    while len(_jobs) > KNOWN_JOBS:
        _jobs.pop(next(iter(_jobs)), None)
    return known


_works: WeakValueDictionary[str, Work] = WeakValueDictionary()  # of this process, by the name of the board


def _arrived(parcel: Parcel) -> Task | RemoteTask:
    """Return a task that was pickled: for this process, where it never left it."""
    work = _works.get(parcel.board) if parcel.home == workers.here() else None
    return RemoteTask(parcel) if work is None else Task(work, parcel.item, parcel.stand, work.draws())


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
