"""The tasks of a ``map`` in a worker process.

While a worker runs a task, the settings and keys of the map's process apply in it. That process records the calls of a
worker on its machine, which calls it over the link. A worker on another machine answers its calls itself, from a cache
that the machines share, and notes what the map's process counts.
"""

from __future__ import annotations

import pickle
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from contextvars import copy_context
from traceback import format_exception
from typing import TYPE_CHECKING, NamedTuple

from ...config import resolve as config
from ...core.parents import linked
from ...errors import CacheError, LLMCallError
from ...link.answering import NotedMeter
from ...link.child import Parent
from ...link.messages import UsedAmounts
from ...link.wire import Address
from ...many.tasks import TaskResult, run_job
from ...scopes.active import ActiveScope, ScopedRecord
from ...scopes.draws import DrawList, Drawn, Draws, DrawsElsewhere, MapIsOverError
from ...scopes.position import hold
from ...stores.cassettes.current import none_open
from ...support.system import after_fork_in_child, last_in, lock
from ...traffic import budgets
from ...traffic.usage import meters

if TYPE_CHECKING:
    from ...many.map_run import MapRun
    from ...many.tasks import Job, TaskPosition

# The errors of pickle for an object that it cannot pickle.
UNPICKLABLE = (pickle.PicklingError, TypeError, AttributeError)
maps_here: dict[str, MapRun] = {}  # the maps that run in this process, by token


class Noted(NamedTuple):
    """Notes of a task on another machine, for the map's process to count."""

    drawn: Sequence[Drawn]
    used_records: Sequence[ScopedRecord]
    usage: Sequence[UsedAmounts]


class RemoteResult(NamedTuple):
    """The outcome of a task in another process: its value, or the exception that it raised.

    :param traceback: of the exception.
    :param noted: what the map's process does not know of a task on another machine.
    """

    value: object
    error: BaseException | None
    traceback: str
    noted: Noted | None


class State(NamedTuple):
    """The state of a map's process.

    :param settings: its layers, and the options of its recording or ``None``; pickled.
    :param address: of its link.
    :param ticket: for what a worker does outside the context of a task, such as in a thread.
    :param refusal: why workers on other machines are refused; empty if they are not.
    """

    settings: bytes
    address: Address
    ticket: str
    refusal: str


class RemoteTask(NamedTuple):
    """A task from another process.

    :param token: identifies its map.
    :param ticket: of the worker's calls for this task.
    :param drawn: what was drawn in the item's scopes before the map began.
    """

    token: str
    state: State
    job: Job
    item: object
    position: TaskPosition
    ticket: str
    drawn: Sequence[Drawn]

    def __call__(self) -> TaskResult | RemoteResult:
        """Run the task here, with the settings of the map's process."""
        if (map_here := maps_here.get(self.token)) is not None:
            # This is that process: the executor pickled the task for threads of its own.
            return map_here.run_task(map_here.begun[self.position.number][self.position.repeat])
        with _running(self) as session:
            position, noted = self.position, None
            if session.is_linked:
                place = position.position._replace(order=())
                draws = DrawsElsewhere(place.path, place.branches, self.ticket)
                scope = position._replace(position=place).scope(draws)
                result = copy_context().run(self._run, session.job, scope)
            else:
                draw_list, used_records = DrawList(), deque[ScopedRecord]()
                scope = position.scope(Draws(self.drawn), draw_list, used_records)
                result = copy_context().run(self._run, session.job, scope)
                with lock:  # other threads may note more
                    usage, session.meter.noted = session.meter.noted, []
                noted = Noted(draw_list.drawn(), [*used_records], usage)
        if (error := result.error) is None:
            return RemoteResult(result.value, None, "", noted)
        return RemoteResult(None, _picklable(error), "".join(format_exception(error)), noted)

    def _run(self, job: Job, scope: ActiveScope) -> TaskResult:
        hold(ticket=self.ticket)
        return run_job(job, self.item, self.position, scope, ())

    def __repr__(self) -> str:  # without the state, which has keys: Dask logs it
        return f"RemoteTask({self.position})"


def _picklable(error: BaseException) -> BaseException:
    """Return an error; if it cannot be pickled and so would break a pool, return a similar one."""
    try:
        pickle.loads(pickle.dumps(error))
    except (*UNPICKLABLE, pickle.PickleError, ValueError, KeyError, ImportError) as reason:
        return LLMCallError(
            f"{type(error).__name__}: {error} (it cannot be sent between processes: {reason})"
        )
    return error


class _Session:
    """The state of a map's process in a worker, and the map's job, whose clients keep their connections.

    It applies only while tasks run: the worker may also run functions that do not belong to the map.

    :ivar is_linked: ``True`` if the map's process can be reached; else the worker is on another machine.
    :ivar tasks: the number of those that run.
    :ivar applied: applies the state while there are any.
    :raises CacheError: if workers on other machines are refused, and this is one.
    """

    def __init__(self, task: RemoteTask) -> None:
        state = task.state
        self.token, self.job = task.token, task.job
        self._layers, self._recording = pickle.loads(state.settings)
        self._parent = Parent(state.address, state.ticket, MapIsOverError)
        self.is_linked = self._parent.is_alive()
        if state.refusal and not self.is_linked:
            raise CacheError(state.refusal)
        self.meter = NotedMeter(None)
        self.tasks = 0
        self.applied = ExitStack()

    @contextmanager
    def applying(self) -> Iterator[None]:
        """Apply the state for a block."""
        with config.using(self._layers), none_open(), budgets.all_closed():
            if not self.is_linked:
                with last_in(meters, self.meter):
                    yield
                return
            recording: AbstractContextManager[None] = nullcontext()
            if self._recording is not None:
                from ...programs.linked import recording_linked

                recording = recording_linked(self._recording)
            with closing(self._parent), linked(self._parent), recording:
                yield


_session: _Session | None = None  # of the last task
_changed = threading.Condition()


@contextmanager
def _running(task: RemoteTask) -> Iterator[_Session]:
    """Apply the session of a task while a block runs. A block with another one waits until it ends."""
    global _session
    with _changed:
        _changed.wait_for(
            lambda: _session is None or not _session.tasks or _session.token == task.token
        )
        if (session := _session) is None or session.token != task.token:
            session = _session = _Session(task)
        if not session.tasks:
            session.applied.enter_context(session.applying())
        session.tasks += 1
    try:
        yield session
    finally:
        with _changed:
            session.tasks -= 1
            if not session.tasks:
                session.applied.close()
            _changed.notify_all()


@after_fork_in_child
def _forget_parent() -> None:
    """Forget, in a forked process, the maps and the session of its parent."""
    global _changed, _session
    _changed, _session = threading.Condition(), None
    maps_here.clear()
