"""The home of a worker: the process of a map, asked from another one on the same machine; see ``server.py``."""

from __future__ import annotations

import functools
import os
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Client
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from ..core.waiting import in_thread
from ..scopes import MapIsOverError
from ..stores.cassettes.cassette import Cassette
from ..support.system import lock, this_process
from ..traffic.gate import Turn
from ..traffic.limits import Slot
from .server import Address, EndpointsName, WorkerConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ..apis.usage import TokenUsage
    from ..config.endpoints import Endpoint
    from ..core.waiting import Deadline
    from ..stores.cache.cache import ResponseCache
    from ..traffic.limits import Endpoints
    from ..traffic.queues import Demand
    from ..traffic.reservations import Needs

S = TypeVar("S")
P = ParamSpec("P")
T = TypeVar("T")


class HomeConnection:
    """A connection to the process of a map: what it takes and leads there ends with it.

    :raises OSError: if it is not on this machine, or has ended.
    """

    def __init__(self, address: Address) -> None:
        self._connection = Client(address.path)
        self._connection.send_bytes(address.token)
        self._lock = threading.Lock()

    def ask(
        self,
        held: str,
        method: Callable[Concatenate[S, P], T],
        *arguments: P.args,
        **named: P.kwargs,
    ) -> T:
        """Call a method there.

        :param held: the name of what has it: see :class:`WorkerConnection`.
        :raises MapIsOverError: if the process does not answer any more.
        """
        outcome: tuple[T, BaseException | None]
        try:
            with self._lock:
                self._connection.send((held, method.__name__, arguments, named))
                outcome = self._connection.recv()
        except (EOFError, OSError) as ended:
            raise MapIsOverError("the map that this call belongs to is over") from ended
        except BaseException:  # interrupted: the next one to ask would get this answer
            self._connection.close()
            raise
        value, error = outcome
        if error is not None:
            raise error
        return value


class MapHome:
    """The process of a map, for its workers: its open budgets and limits hold for their sends, too.

    :raises OSError: if it is not on this machine, or has ended.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._process = this_process()
        self._idle = [HomeConnection(address)]

    def borrow(self) -> HomeConnection:
        """Return a connection that nobody else uses; one that failed is not given back."""
        if self._process != this_process():  # a forked process cannot share its parent's
            self._process, self._idle = this_process(), []
        with suppress(IndexError):
            return self._idle.pop()
        try:
            return HomeConnection(self._address)
        except OSError as ended:
            raise MapIsOverError("the map that this call belongs to is over") from ended

    def give_back(self, connection: HomeConnection) -> None:
        """Take back a connection."""
        self._idle.append(connection)

    def ask(
        self,
        held: str,
        method: Callable[Concatenate[S, P], T],
        *arguments: P.args,
        **named: P.kwargs,
    ) -> T:
        """Call a method there: see :meth:`HomeConnection.ask`."""
        connection = self.borrow()
        value = connection.ask(held, method, *arguments, **named)
        self.give_back(connection)
        return value

    def needs(self) -> Needs:
        """Return what the open budgets there have to know of a send."""
        return self.ask("connection", WorkerConnection.needs)

    def lead(self, shared_by: ResponseCache | Cassette) -> _Lead:
        """Return the lead of requests among all workers, which has not begun."""
        return _Lead(self, shared_by)

    def slot(self, pool: Endpoints, slot_type: type[Slot]) -> Slot:
        """Return the slot of a send among those of that process."""
        return _SlotAtHome(self, pool, slot_type)


class _Hold:
    """A call's hold on something in the map's process, by its own connection: if this process is killed, it ends."""

    def __init__(self, home: MapHome) -> None:
        self._home = home
        self._connection: HomeConnection | None = None  # while it holds something there
        self._is_over = False

    def take(
        self,
        method: Callable[Concatenate[WorkerConnection, P], T],
        *arguments: P.args,
        **named: P.kwargs,
    ) -> T:
        """Call a method that waits until it may be held."""
        connection = self._home.borrow()
        value = connection.ask("connection", method, *arguments, **named)
        with lock:
            is_over = self._is_over
            if not is_over:
                self._connection = connection
        if is_over:  # its task was cancelled meanwhile
            self._release(connection)
        return value

    def ask(
        self, method: Callable[Concatenate[Turn, P], T], *arguments: P.args, **named: P.kwargs
    ) -> T | None:
        """Call a method of the turn that it holds; return ``None`` if it holds none."""
        connection = self._connection
        return None if connection is None else connection.ask("turn", method, *arguments, **named)

    def end(self) -> None:
        """Release what it holds, now or as soon as it does; a second time changes nothing."""
        with lock:
            self._is_over = True
            connection, self._connection = self._connection, None
        if connection is not None:
            self._release(connection)

    def _release(self, connection: HomeConnection) -> None:
        connection.ask("connection", WorkerConnection.release)
        self._home.give_back(connection)


class _Lead(_Hold):
    """The right to ask for some requests, held in the process of the map."""

    def __init__(self, home: MapHome, shared_by: ResponseCache | Cassette) -> None:
        super().__init__(home)
        self._shared_by = name_of(shared_by)

    def begin(self, keys: Collection[str], deadline: Deadline) -> None:
        """Wait until nobody else asks for any of them."""
        self.take(WorkerConnection.lead, self._shared_by, keys, deadline)


def name_of(shared_by: ResponseCache | Cassette) -> str:
    """Return the name by which the map's process knows a cassette or cache."""
    if isinstance(shared_by, Cassette):
        return shared_by.file.real_path
    return os.fspath(shared_by.path)


class _SlotAtHome(Slot):
    """The slot of a send in the map's process, whose open budgets count, too: it is held there by a turn.

    :param home: the map's process.
    :param slot_type: the class of the slot there.
    """

    def __init__(self, home: MapHome, pool: Endpoints, slot_type: type[Slot]) -> None:
        super().__init__(pool)
        self._slot_type = slot_type
        self._hold = _Hold(home)

    async def take(self, demand: Demand) -> Endpoint:
        usable = self._pool.usable(time.monotonic())
        keyless = tuple(endpoint._replace(api_key=None) for endpoint in usable)
        name = EndpointsName(self._pool.model, keyless, self._pool.limits)
        # The function is replaced by one that can be pickled.
        demand = demand._replace(is_inside=functools.partial(bool, demand.is_inside()))
        index: int = await in_thread(
            self._hold.take, WorkerConnection.take, name, self._slot_type, demand
        )
        return usable[index]

    def note_sent(self) -> None:
        self._hold.ask(Turn.note_sent)

    def answer_began(self) -> None:
        self._hold.ask(Turn.answer_began)

    def settle(self, tokens: TokenUsage, cost: float | None, calls: int) -> None:
        self._hold.ask(Turn.settle, tokens, cost, calls)

    def rest(self, endpoint: Endpoint, seconds: float, *, is_asked: bool) -> float:
        keyless = endpoint._replace(api_key=None)
        return self._hold.ask(Turn.rest, keyless, seconds, is_asked=is_asked) or 0.0

    def close(self) -> None:
        self._hold.end()
