"""The state of a map's process in its worker processes.

While a worker runs a task, the settings, keys, open cassette and named budgets of the map's process
apply in it. What the task used and recorded is sent to the map's process with its result.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections import deque
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ..call import budgets
from ..call import usage as metering
from ..cassettes import current as cassettes
from ..cassettes.cassette import Cassette
from ..cassettes.parent import with_state_of_parent
from ..cassettes.stack import only
from ..config import resolve as config
from ..errors import LLMCallError
from ..failures import process_failures
from ..queues import take_all
from ..system import after_fork_in_child
from ..types import FROM_FUNCTION
from .task_results import CassetteEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..call.usage import UsageDelta
    from ..scopes import CallOrder
    from ..types import Record, Request
    from .jobs import Job
    from .task_results import TaskResult

    Gained = list[tuple[Record, CallOrder]]

# What pickle raises for an object that it cannot pickle.
UNPICKLABLE = (pickle.PicklingError, TypeError, AttributeError)


def check_picklable(job: Job) -> None:
    """Refuse a job that cannot be sent to another process.

    :raises TypeError: saying why.
    """
    try:
        pickle.dumps(job)
    except UNPICKLABLE as error:
        raise TypeError(
            f"fn cannot be sent to other processes: {error}. It must be a function that can be imported, not a lambda "
            "or a function defined in another one, and its arguments, such as client=, must be picklable"
        ) from error


def picklable(error: BaseException) -> BaseException:
    """Return an error; if it cannot be pickled and so would break the pool, return a similar one."""
    try:
        pickle.loads(pickle.dumps(error))
    except (*UNPICKLABLE, pickle.PickleError, ValueError, KeyError, ImportError) as reason:
        return LLMCallError(
            f"{type(error).__name__}: {error} (it cannot be sent between processes: {reason})"
        )
    return error


def pack_state(cassette: Cassette | None, gained: Gained) -> bytes:
    """Return the state of this process for its workers, pickled.

    :param cassette: the open cassette.
    :param gained: those records that the cassette gained before the map began and that any item may
        need.
    :raises ValueError: if a budget without a name is open.
    :raises TypeError: if a setting is a function that cannot be pickled.
    """
    session = _session
    if (
        session is not None
        and session.cassette is cassette
        and session.generation == config.layers.generation
    ):
        # A map in a worker passes on the very same state, so its tasks can join the session of
        # their own map instead of waiting for its end.
        return session.state
    path_and_mode = None
    if cassette is not None:
        path_and_mode = os.path.realpath(cassette.path), cassette.mode
    try:
        return pickle.dumps((config.pack(), tuple(budgets.open_budgets), path_and_mode, gained))
    except UNPICKLABLE as error:
        raise TypeError(
            f"the settings cannot be sent to other processes: {error}. A function among them, such as api_key=, must "
            "be one that can be imported, not a lambda or a function defined in another one"
        ) from error


class WorkerSession:
    """The state of a map's process in a worker.

    Its settings, cassette and budgets apply only while a task runs: the worker may also run functions
    that do not belong to the map.

    :param state: the state; see :func:`pack_state`.
    :ivar tasks: the number of tasks that run in it.
    :ivar cassette: the copy of the open cassette, or ``None`` if none is open.
    :ivar generation: the generation of its settings.
    """

    def __init__(self, state: bytes) -> None:
        settings, self._budgets, path_and_mode, gained = pickle.loads(state)
        self.state = state
        self.tasks = 0
        self._usage: deque[tuple[str, str, UsageDelta, str]] = deque()
        self._task_context = ExitStack()  # what applies while a task runs
        self.cassette: WorkerCassette | None = None
        cassettes.forget_named()
        self._layers = config.unpacked(settings)
        if path_and_mode is not None:
            with config.using(self._layers):
                self.cassette = WorkerCassette(*path_and_mode)
                self.cassette.start()
                self.cassette.add_earlier(gained)
        self.generation = self._layers.generation

    def begin_task(self) -> None:
        """Begin a task: from the first one on, the settings, budgets and cassette apply."""
        self.tasks += 1
        if self.tasks > 1:
            return
        with ExitStack() as stack:
            stack.enter_context(config.using(self._layers))
            stack.enter_context(with_state_of_parent())
            stack.enter_context(only(self.cassette))
            for budget in self._budgets:
                stack.enter_context(budget)
            metering.watchers.append(self)
            stack.callback(metering.watchers.remove, self)
            self._task_context = stack.pop_all()

    def end_task(self) -> None:
        """End a task; after the last one, the settings, budgets and cassette do not apply any more."""
        self.tasks -= 1
        if not self.tasks:
            self._task_context.close()

    def close(self) -> None:
        """Close the cassette."""
        if self.cassette is not None:
            with config.using(self._layers):
                self.cassette.stop()

    def add(self, model: str, scope: str, amounts: UsageDelta, arm: str) -> None:
        """Note an addition to the usage."""
        self._usage.append((model, scope, dict(amounts), arm))

    def with_report(self, result: TaskResult) -> TaskResult:
        """Return a result with all notes of the session that were not reported yet."""
        cassette = self.cassette
        with _session_changed:
            failures = process_failures if cassette is None else cassette.failures
            return result._replace(
                usage=take_all(self._usage),
                events=[] if cassette is None else take_all(cassette.events),
                failures=failures.take(),
            )


_session_changed = threading.Condition()
_session: WorkerSession | None = None  # the current one


def _forget_session() -> None:
    """Forget, in a forked process, the session of its parent."""
    global _session_changed, _session
    _session_changed = threading.Condition()
    _session = None


after_fork_in_child(_forget_session)


@contextmanager
def session_for(state: bytes) -> Iterator[WorkerSession]:
    """Apply a state while a block runs.

    Blocks with the same state share a session; a block with another state waits until it ends.
    """
    global _session
    with _session_changed:
        while _session is not None and _session.state != state and _session.tasks:
            _session_changed.wait()
        if _session is not None and _session.state != state:
            other_session = _session
            _session = None
            other_session.close()
        if _session is None:
            _session = WorkerSession(state)
        session = _session
        session.begin_task()
    try:
        yield session
    finally:
        with _session_changed:
            session.end_task()
            _session_changed.notify_all()


class WorkerCassette(Cassette):
    """A copy of the cassette that is open in the map's process: it reads the same file, writes
    nothing, and notes each call that the original has to repeat.

    :ivar events: the calls that were not reported yet; see :class:`TaskResult`.
    """

    def __init__(self, path: str, mode: str) -> None:
        super().__init__(path, mode, write=False)
        self.events: deque[CassetteEvent] = deque()

    def _note(self, method: str, *arguments: Any) -> None:
        self.events.append(CassetteEvent(method, arguments))

    def settle(self, header: dict[str, Any]) -> None:
        """Take the first caller's header, and refuse another one; see :meth:`Cassette.settle`."""
        super().settle(header)
        self._note("settle", header)

    def find(self, request: Request | str, path: str, order: CallOrder) -> Record | None:
        """Return the recorded answer of a request, or the record of a key, or ``None``."""
        record = super().find(request, path, order)
        if record is not None:
            self._note("find", record.cache_key, path, order)
        return record

    def count_replay(self) -> None:
        """Count a call that the cassette answered."""
        super().count_replay()
        self._note("count_replay")

    def add(
        self,
        record: Record,
        path: str,
        order: CallOrder,
        source: str = FROM_FUNCTION,
        replace: bool = False,
    ) -> Record:
        """Add an answer, unless one is recorded already; see :meth:`Cassette.add`."""
        recorded = super().add(record, path, order, source, replace)
        self._note("add", recorded, path, order, source, replace)
        return recorded

    def add_earlier(self, gained: Gained) -> None:
        """Add what the original gained before the map began."""
        for record, order in gained:
            super().add(record, record.scope, order)
