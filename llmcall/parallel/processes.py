"""The tasks of a ``map``, in this process or in a worker of another one.

What holds in the map's process holds in a worker: settings with their keys, open cassette, named
budgets. What a task drew, used and recorded there comes home with its result.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections import defaultdict, deque
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from functools import cached_property
from traceback import format_exception
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from .. import askers, scopes
from ..cassettes import current as cassettes
from ..cassettes.cassette import Cassette
from ..config import resolve as config
from ..engine import budgets
from ..engine import usage as metering
from ..engine.interrupts import check_stops, current_stops
from ..errors import LLMCallError
from ..failures import process_failures
from ..scopes import Draws, Number, ScopedRequest, split_counts
from ..system import after_fork_in_child
from ..types import FROM_FUNCTION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextvars import Context

    from ..cassettes.uses import Place
    from ..engine.interrupts import Stops
    from ..engine.usage import UsageDelta
    from ..scopes import Active, Counts
    from ..scopes.equal_requests import EqualRequests, Recorded
    from ..types import Record, Request
    from .items import Job, TaskPosition

    Gained = list[tuple[Record, Place]]
    Event = tuple[str, tuple[Any, ...], str]

KNOWN_JOBS = 8  # maps of which a worker keeps the function, with the clients and connections in it


class Outcome(NamedTuple):
    """Hold what a task came to: a value, or an error; and, of one that ran in a worker, what it did
    there.

    :param traceback: the error's, there.
    :param draws: the numbers that it drew.
    :param usage: model, scope, amounts and arm of each addition to the usage.
    :param events: what was done with the cassette: the name of the method, its arguments, and the
        scope path in which it was called, which decides the record's place among the others.
    :param used: the records that its calls got, if it ran in an arm that gathers them.
    :param failures: why calls left no record, how many in each scope, and the first of them in
        words.
    """

    value: Any = None
    error: BaseException | None = None
    traceback: str = ""
    draws: Sequence[Number] = ()
    usage: Sequence[tuple[str, str, UsageDelta, str]] = ()
    events: Sequence[Event] = ()
    used: Sequence[Record] = ()
    failures: Sequence[tuple[str, dict[str, int], str]] = ()


class NotBegunError(CancelledError):
    """Say that a task did not begin; any other ``CancelledError`` is of a future that its function
    asked.
    """


class WorkerError(Exception):
    """Show, as the cause of an error from another process, its traceback there."""


class TaskDraws(Draws):
    """Count a task's draws where those of its scope are counted, and note them: a map that ends
    early gives them back.

    :param around: count the draws of the scope.
    :ivar taken: the numbers that were drawn and not given back.
    """

    __slots__ = ("_around", "_is_over", "taken")

    def __init__(self, around: Draws) -> None:  # counts nothing itself
        self.since = around.since
        self._around = around
        self._is_over = False
        self.taken: list[Number] = []

    def equal(
        self, request: ScopedRequest, source: object, recorded: Callable[[], Recorded]
    ) -> EqualRequests:
        """Return the equal requests of a scope; see :meth:`Draws.equal`."""
        return self._around.equal(request, source, recorded)

    def take(
        self,
        request: ScopedRequest,
        asker: str | None = None,
        equal: EqualRequests | None = None,
    ) -> int:
        """Return the number of a draw; see :meth:`Draws.take`.

        :raises KeyboardInterrupt: once the draws were given back: the task's map is over.
        """
        number = self._around.take(request, asker, equal)
        self.taken.append(Number(request, number))
        if self._is_over:
            self.give_back(request, number)
            raise KeyboardInterrupt("the map that this call belongs to is over")
        return number

    def claim(self, request: ScopedRequest, number: int) -> None:
        """Mark a number as taken that another process took."""
        self._around.claim(request, number)
        self.taken.append(Number(request, number))

    def end(self, request: ScopedRequest, stored_at: float | None) -> None:
        """Note that a call has its answer; see :meth:`Draws.end`."""
        self._around.end(request, stored_at)

    def counts(self) -> Counts:
        """Return what is counted, for another process to go on from."""
        return self._around.counts()

    def give_back(self, request: ScopedRequest, number: int) -> None:
        """Make a number free again, unless it is already."""
        try:
            self.taken.remove(Number(request, number))
        except ValueError:
            return
        self._around.give_back(request, number)

    def give_all_back(self) -> None:
        """Make all numbers free again."""
        self._is_over = True
        for number in self.taken.copy():
            self.give_back(*number)


class TaskGroup:
    """Hold what all tasks of one map share.

    :param job: what is done with an item.
    :param context: the caller's; each task runs in a copy of it.
    :param active: the scope in which the map runs, or ``None`` outside any.
    :param stops: what is done once the map, or one around it, was interrupted; its own first.
    :param cassette: the one that is open.
    :ivar around: those of the maps around it.
    :ivar path: that of the scope; empty outside any.
    :ivar is_over: whether no task may begin any more.
    :ivar failures: gather what its calls in other processes left unrecorded.
    :ivar meter: counts what they used.
    """

    def __init__(
        self,
        job: Job,
        context: Context,
        active: Active | None,
        stops: Stops,
        cassette: Cassette | None,
    ) -> None:
        self.job, self.context, self.active, self.stops, self.cassette = (
            job,
            context,
            active,
            stops,
            cassette,
        )
        self.around = stops[1:]
        self.path = "" if active is None else active.path
        self.is_over = False
        self.failures = process_failures if cassette is None else cassette.failures
        client = getattr(job, "client", None)  # those that a plain function asks are not known here
        self.meter = metering.Meter() if client is None else client.meter
        self.token = os.urandom(8).hex()
        _groups[self.token] = self

    @cached_property
    def packed(self) -> tuple[bytes, dict[str, Counts], dict[str, Gained]]:
        """Return what holds here, and is to hold in a worker, pickled; and what was before the map
        began.

        That is, by the names of items' scopes, the draws that were made and what the cassette
        gained.

        :raises ValueError: where a budget without a name is open.
        :raises TypeError: where a setting is a function that cannot be pickled.
        """
        return self.context.copy().run(self._packed)

    def _packed(self) -> tuple[bytes, dict[str, Counts], dict[str, Gained]]:
        gained = self.cassette.gained() if self.cassette is not None else []
        counts: dict[str, Counts] = {}
        by_item: defaultdict[str, Gained] = defaultdict(list)
        if self.active is not None:
            before = f"{self.active.path}/"
            counts = split_counts(self.active.draws.counts(), self.active.path)
            for record, place in gained:
                if record.scope.startswith(before):
                    by_item[record.scope[len(before) :].partition("/")[0]].append((record, place))
            gained = [(record, place) for record, place in gained if not record.scope]
        return pack_state(self.cassette, gained), counts, by_item


# of this process, by their tokens
_groups: WeakValueDictionary[str, TaskGroup] = WeakValueDictionary()


class Task:
    """Be one draw of one item; pickled, it becomes one that runs in another process.

    :ivar draws: count its draws.
    """

    __slots__ = ("draws", "group", "item", "position")

    def __init__(self, group: TaskGroup, item: Any, position: TaskPosition) -> None:
        self.group, self.item, self.position = group, item, position
        self.draws = TaskDraws(Draws() if group.active is None else group.active.draws)

    def run(self) -> Outcome:
        """Run it in this process."""
        group = self.group
        if group.is_over:
            return Outcome(error=NotBegunError())
        return group.context.copy().run(
            _outcome,
            group.job,
            self.item,
            self.position,
            self.draws,
            group.around,
            None if group.active is None else group.active.used,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        group, name = self.group, self.position.name
        state, counts, gained = group.packed
        return _arrived, (
            group.token,
            state,
            group.job,
            self.item,
            self.position,
            counts.get(name, {}),
            gained.get(name, []),
        )


class RemoteTask(NamedTuple):
    """Be a task of another process.

    :param token: tells the map from others.
    :param state: what is to hold; see :attr:`TaskGroup.packed`.
    :param counts: the draws that were made in the item's scopes before the map began.
    :param gained: what the cassette gained there.
    """

    token: str
    state: bytes
    job: Job
    item: Any
    position: TaskPosition
    counts: Counts
    gained: Gained

    def run(self) -> Outcome:
        """Run it here, where settings, cassette and budgets of the map's process hold meanwhile."""
        with session_for(self.state) as session:
            if session.cassette is not None:
                session.cassette.know(self.gained)
            draws = TaskDraws(Draws(self.counts))
            job = _known(self.token, self.job)
            context = copy_context()
            # a process that was forked in a task of another map has that one's
            context.run(current_stops.set, ())
            used: deque[Record] = deque()
            outcome = context.run(_outcome, job, self.item, self.position, draws, (), used)
            if (error := outcome.error) is not None:
                outcome = Outcome(
                    error=_picklable(error), traceback="".join(format_exception(error))
                )
            gathered = list(used) if self.position.arm is not None else []
            return session.report(outcome._replace(draws=draws.taken, used=gathered))

    def __repr__(self) -> str:
        return f"RemoteTask({self.position})"


def run_task(task: Task | RemoteTask) -> Outcome:
    """Run a task; what an executor is given."""
    return task.run()


def _arrived(*fields: Any) -> Task | RemoteTask:
    """Return a task that was pickled: for this process, where it never left it."""
    remote = RemoteTask(*fields)
    group = _groups.get(remote.token)
    return remote if group is None else Task(group, remote.item, remote.position)


def _outcome(
    job: Job,
    item: Any,
    position: TaskPosition,
    draws: Draws,
    around: Stops,
    used: deque[Record] | None,
) -> Outcome:
    """Run a task in a context of its own, unless one of the maps around its own was interrupted.

    :param used: gathers the records that its calls get, or ``None``.
    """
    try:
        check_stops(around)
        # Whichever thread runs it, an item asks under its own name.
        asker = askers.running_item(position.name or str(position.number), position.repeat)
        with position.stand(draws, used) as active, asker:
            value = job.run(item)
            if isinstance(value, CoroutineType):
                value.close()
                raise TypeError(
                    "the function of a map is asynchronous; give one that is not, or use asyncio.run"
                )
            active.check_is_inmost()
        return Outcome(value)
    except BaseException as error:  # noqa: BLE001 - it travels to the run, where on_error decides
        return Outcome(error=error)


_jobs: dict[str, Job] = {}


def _known(token: str, job: Job) -> Job:
    """Return the job of a map as it first came here: clients in it keep their connections."""
    known = _jobs.setdefault(token, job)
    while len(_jobs) > KNOWN_JOBS:
        _jobs.pop(next(iter(_jobs)), None)
    return known


def check_picklable(job: Job) -> None:
    """Refuse a job that cannot be sent to another process.

    :raises TypeError: saying why.
    """
    try:
        pickle.dumps(job)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise TypeError(
            f"fn cannot be sent to other processes: {error}. It must be a function that can be imported, not a lambda "
            "or one inside another, and what it holds, such as client=, must be picklable"
        ) from error


def _picklable(error: BaseException) -> BaseException:
    """Return an error as it is, where it can be unpickled; one that cannot would break the pool of
    processes.
    """
    try:
        pickle.loads(pickle.dumps(error))
    except (
        pickle.PickleError,
        TypeError,
        AttributeError,
        ValueError,
        KeyError,
        ImportError,
    ) as reason:
        return LLMCallError(
            f"{type(error).__name__}: {error} (it cannot be sent between processes: {reason})"
        )
    return error


# What holds in a worker


def pack_state(cassette: Cassette | None, gained: Gained) -> bytes:
    """Return what is to hold in a worker, pickled: all that holds in this process now.

    :param cassette: the one that is open.
    :param gained: what it gained before the map began, and every item may ask for.
    :raises ValueError: where a budget without a name is open.
    :raises TypeError: where a setting is a function that cannot be pickled.
    """
    for session in _sessions:
        if session.cassette is cassette and session.generation == config.layers.generation:
            # the very same, so that a map inside a map's task never waits for its session's end
            return session.state
    named = None if cassette is None else (os.path.realpath(cassette.path), cassette.mode)
    try:
        return pickle.dumps((config.pack(), tuple(budgets.open_budgets), named, gained))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise TypeError(
            f"the settings cannot travel to other processes: {error}. A function among them, such as api_key=, must be "
            "one that can be imported, not a lambda or one inside another"
        ) from error


class WorkerSession:
    """Let the state of another process hold in this one, until it is closed; it watches what is
    used meanwhile.

    :ivar users: how many tasks run in it.
    :ivar cassette: the one that stands for the open one of the other process.
    :ivar generation: that of the settings in it.
    :ivar close: a function that lets the state hold no longer.
    """

    def __init__(self, state: bytes) -> None:
        settings, open_budgets, named, gained = pickle.loads(state)
        self.state = state
        self.users = 0
        self._usage: deque[tuple[str, str, UsageDelta, str]] = deque()
        self.cassette: WorkerCassette | None = None
        cassettes.forget_inherited()
        config.unpack(settings)
        with ExitStack() as opened:
            for budget in open_budgets:
                opened.enter_context(budget)
            metering.watchers.append(self)
            opened.callback(metering.watchers.remove, self)
            if named is not None:
                self.cassette = WorkerCassette(*named)
                opened.enter_context(self.cassette)
                self.cassette.know(gained)
            self.close = opened.pop_all().close
        self.generation = config.layers.generation

    def add(self, model: str, scope: str, amounts: UsageDelta, arm: str) -> None:
        """Keep an addition to the usage."""
        self._usage.append((model, scope, dict(amounts), arm))

    def report(self, outcome: Outcome) -> Outcome:
        """Return what a task came to, with what was not sent home yet."""
        cassette = self.cassette
        with _changed:
            failures = process_failures if cassette is None else cassette.failures
            events = _taken(cassette.events) if cassette is not None else []
            return outcome._replace(
                usage=_taken(self._usage), events=events, failures=failures.take()
            )


def _taken(kept: deque[Any]) -> list[Any]:
    """Take what is in a deque, into which other threads may put more meanwhile."""
    return [kept.popleft() for _ in range(len(kept))]


_changed = threading.Condition()
_sessions: list[WorkerSession] = []  # the one that holds in this process


def _begin_anew() -> None:
    """Forget, in a forked process, what the parent works at."""
    global _changed, _groups
    _changed, _groups = threading.Condition(), WeakValueDictionary()
    _sessions.clear()


after_fork_in_child(_begin_anew)


@contextmanager
def session_for(state: bytes) -> Iterator[WorkerSession]:
    """Let a state hold while a block runs, together with others that work with the same; others are
    waited for.
    """
    with _changed:
        while _sessions and _sessions[0].state != state and _sessions[0].users:
            _changed.wait()
        if _sessions and _sessions[0].state != state:
            _sessions.pop().close()
        if not _sessions:
            _sessions.append(WorkerSession(state))
        session = _sessions[0]
        session.users += 1
    try:
        yield session
    finally:
        with _changed:
            session.users -= 1
            _changed.notify_all()


class WorkerCassette(Cassette):
    """Be a cassette of another process: it reads the same file, writes nothing, and notes all that
    is done with it.

    :ivar events: what was done and not reported yet; see :class:`Outcome`.
    """

    def __init__(self, path: str, mode: str) -> None:
        super().__init__(path, mode, write=False)
        self.events: deque[Event] = deque()

    def _tell_home(self, method: str, *arguments: Any) -> None:
        self.events.append((method, arguments, scopes.current_path()))

    def settle(self, header: dict[str, Any]) -> None:
        """Let the callers' headers be the same, and that of the cassette at home; see
        :meth:`Cassette.settle`.
        """
        super().settle(header)
        self._tell_home("settle", header)

    def find(self, asked: Request | str, place: Place) -> Record | None:
        """Return the recorded answer of a request, or the record of a key; ``None`` where there is
        none.
        """
        found = super().find(asked, place)
        if found is not None:
            self._tell_home("find", found.cache_key, place)
        return found

    def count_replay(self) -> None:
        """Count a call that it answered."""
        super().count_replay()
        self._tell_home("count_replay")

    def add(self, record: Record, place: Place, source: str = FROM_FUNCTION) -> Record:
        """Take in an answer, and return the one that counts: whatever was recorded first."""
        kept = super().add(record, place, source)
        self._tell_home("add", kept, place, source)
        return kept

    def know(self, gained: Gained) -> None:
        """Take in what the cassette at home gained before."""
        for record, place in gained:
            super().add(record, place)


def take_report(task: Task, outcome: Outcome) -> None:
    """Let what a task did in another process count here."""
    group = task.group
    for number in outcome.draws:
        task.draws.claim(*number)
    for model, scope, amounts, arm in outcome.usage:
        metering.count(group.meter, model, scope, amounts, arm)
    if group.active is not None and group.active.used is not None:
        group.active.used.extend(outcome.used)
    for method, arguments, scope in outcome.events:
        with scopes.Active(scope, Draws()):
            getattr(group.cassette, method)(*arguments)
    for why, counted, first in outcome.failures:
        for scope, count in counted.items():
            for _ in range(count):
                group.failures.add(scope, first, why)
    if outcome.error is not None and outcome.traceback:
        outcome.error.__cause__ = WorkerError(f"in another process:\n{outcome.traceback}")
