"""The tasks of a ``map`` in a worker process.

While a worker runs a task, the settings and keys of the map's process apply in it. That process records the calls of a
worker on its machine, which calls it over the link; of one on another machine see ``elsewhere.py``.
"""

from __future__ import annotations

import functools
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import copy_context
from traceback import format_exception
from typing import TYPE_CHECKING, NamedTuple

from ...config import resolve as config
from ...config.resolve import Layers
from ...core.parents import linked
from ...link.child import Parent
from ...link.wire import Address
from ...many.tasks import TaskResult, run_job
from ...scopes.active import ActiveScope, ScopedRecord
from ...scopes.draws import DrawList, Drawn, Draws, DrawsElsewhere, MapIsOverError
from ...scopes.position import hold_ticket
from ...stores.cassettes.current import none_open
from ...support.system import after_fork_in_child
from ...traffic import budgets
from .elsewhere import Elsewhere, Noted, picklable

if TYPE_CHECKING:
    from ...many.map_run import MapRun
    from ...many.tasks import Job, TaskPosition

KEPT = 8  # jobs and states of maps that a worker keeps, with their clients and connections
maps_here: dict[str, MapRun] = {}  # the maps that run in this process, by token


class RemoteResult(NamedTuple):
    """The outcome of a task in another process: its value, or the exception that it raised.

    :param traceback: of the exception.
    :param noted: what the map's process does not know of a task on another machine.
    """

    value: object
    error: BaseException | None
    traceback: str
    noted: Noted | None


class RemoteTask(NamedTuple):
    """A task of another process.

    :param token: identifies its map.
    :param state: the state of the map's process, pickled.
    :param ticket: of the worker's calls for this task.
    :param drawn: what was drawn in the item's scopes before the map began.
    """

    token: str
    state: bytes
    job: Job
    item: object
    position: TaskPosition
    ticket: str
    drawn: list[Drawn]

    def __call__(self) -> TaskResult | RemoteResult:
        """Run the task here, with the settings of the map's process."""
        if (map_here := maps_here.get(self.token)) is not None:
            # This is that process: the executor pickled the task for threads of its own.
            return map_here.run_task(map_here.begun[self.position.number][self.position.repeat])
        with _running(self.state) as session:
            if session.elsewhere is not None:
                used_records: deque[ScopedRecord] = deque()
                draw_list = DrawList()
                scope = self.position.scope(Draws(self.drawn), draw_list, used_records)
                result = copy_context().run(self._run, scope)
                noted = session.elsewhere.take_noted(draw_list.drawn(), used_records)
            else:
                position, noted = self.position.position._replace(order=()), None
                draws = DrawsElsewhere(position.path, position.branches, self.ticket)
                scope = self.position._replace(position=position).scope(draws)
                result = copy_context().run(self._run, scope)
            if (error := result.error) is None:
                return RemoteResult(result.value, None, "", noted)
            return RemoteResult(None, picklable(error), "".join(format_exception(error)), noted)

    def _run(self, scope: ActiveScope) -> TaskResult:
        hold_ticket(self.ticket)
        job = _kept(self.token, self.job)
        return run_job(job, self.item, self.position, scope, ())

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

    :param address: of its link.
    :param ticket: for what a worker does outside the context of a task, such as in a thread.
    :param has_budget: ``True`` if a budget is open.
    :param cassette: the file of the open cassette, or ``None``.
    :param recording: records the worker's own clients for a block.
    """

    layers: Layers
    address: Address
    ticket: str
    has_budget: bool
    cassette: str | None
    recording: Callable[[], AbstractContextManager[object]]


class _Session:
    """The state of a map's process in a worker.

    It applies only while tasks run: the worker may also run functions that do not belong to the map.

    :param packed: the state, pickled.
    :ivar elsewhere: notes the calls of a worker on another machine; else ``None``.
    :raises CacheError: if a budget or a cassette is open in a process that cannot be reached from here.
    """

    def __init__(self, packed: bytes) -> None:
        state: State = pickle.loads(packed)
        self._state = state
        self._parent = Parent(state.address, state.ticket, MapIsOverError)
        self.elsewhere: Elsewhere | None = None
        if not self._parent.is_alive():
            self.elsewhere = Elsewhere(has_budget=state.has_budget, cassette=state.cassette)
        self._tasks = 0
        self._applied = ExitStack()

    def begin_task(self) -> None:
        """Apply the state, if it is the first task."""
        if not self._tasks:
            self._apply()
        self._tasks += 1

    def _apply(self) -> None:
        with ExitStack() as stack:
            stack.enter_context(config.using(self._state.layers))
            stack.enter_context(none_open())
            stack.enter_context(budgets.all_closed())
            if self.elsewhere is not None:
                stack.enter_context(self.elsewhere.noting())
            else:
                stack.callback(self._parent.close)
                stack.enter_context(linked(self._parent))
                stack.enter_context(self._state.recording())
            self._applied = stack.pop_all()

    def end_task(self) -> bool:
        """Return whether it was the last task; then the state no longer applies."""
        self._tasks -= 1
        if not self._tasks:
            self._applied.close()
        return not self._tasks


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
    maps_here.clear()
