"""The home of a worker: the process of a map, asked from another one on the same machine; see ``server.py``."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Client
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from ..core.effects import in_thread
from ..core.nesting import waiting
from ..scopes import MapIsOverError
from ..stores.cassettes.cassette import Cassette
from ..support.system import lock, this_process
from ..traffic.turns import Turn
from .messages import Address, picklable
from .server import Visit

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ..config.endpoints import Endpoint
    from ..core.deadline import Deadline
    from ..core.home import LedFlights
    from ..errors import APIError
    from ..stores.cache.cache import ResponseCache
    from ..traffic.budgets import Needs
    from ..traffic.ledgers import Amounts
    from ..traffic.limits import Endpoints, Slot

S = TypeVar("S")
P = ParamSpec("P")
T = TypeVar("T")


class Asking:
    """A connection to the process of a map: what it takes and leads there ends with it.

    :raises OSError: if it is not on this machine, or has ended.
    """

    def __init__(self, address: Address) -> None:
        self._connection = Client(address.path)
        self._connection.send_bytes(address.token)
        self._lock = threading.Lock()

    def ask(
        self,
        owner: str,
        method: Callable[Concatenate[S, P], T],
        *arguments: P.args,
        **named: P.kwargs,
    ) -> T:
        """Call a method there.

        :param owner: the name of the object that has it: see :class:`Visit`.
        :raises MapIsOverError: if the process does not answer any more.
        """
        outcome: tuple[T, BaseException | None]
        try:
            with self._lock:
                self._connection.send((owner, method.__name__, arguments, named))
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


class Home:
    """The process of a map, for its workers: its open budgets and limits hold for their sends, too.

    :raises OSError: if it is not on this machine, or has ended.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._process = this_process()
        self._idle = [Asking(address)]

    def borrow(self) -> Asking:
        """Return a connection that nobody else uses; one that failed is not given back."""
        if self._process != this_process():  # a forked process cannot share its parent's
            self._process, self._idle = this_process(), []
        with suppress(IndexError):
            return self._idle.pop()
        try:
            return Asking(self._address)
        except OSError as ended:
            raise MapIsOverError("the map that this call belongs to is over") from ended

    def give_back(self, connection: Asking) -> None:
        """Take back a connection."""
        self._idle.append(connection)

    def ask(
        self,
        owner: str,
        method: Callable[Concatenate[S, P], T],
        *arguments: P.args,
        **named: P.kwargs,
    ) -> T:
        """Call a method there: see :meth:`Asking.ask`."""
        connection = self.borrow()
        value = connection.ask(owner, method, *arguments, **named)
        self.give_back(connection)
        return value

    def needs(self) -> Needs:
        """Return what the open budgets there have to know of a send."""
        return self.ask("visit", Visit.needs)

    def lead(self, shared_by: ResponseCache | Cassette, keys: Collection[str]) -> LedFlights:
        """Lead the flight of each request that has none there."""
        return _FlightsAtHome(self, shared_by, keys)

    def follow(self, shared_by: ResponseCache | Cassette, key: str, seconds: float | None) -> None:
        """Wait for a flight there, for some seconds at most."""
        self.ask("visit", Visit.follow, _name(shared_by), key, seconds)

    def turn(self, label: str, endpoints: Endpoints, slot: Slot, deadline: Deadline) -> Turn:
        """Return the turn of a send among those of that process and of this one."""
        return _TurnAtHome(self, label, endpoints, slot, deadline)


def _name(shared_by: ResponseCache | Cassette) -> str:
    return shared_by.file if isinstance(shared_by, Cassette) else os.fspath(shared_by.path)


class _FlightsAtHome:
    """The flights that a call leads in the map's process, on a connection that is kept until they end: if
    this process is killed, another one takes the lead.
    """

    def __init__(
        self, home: Home, shared_by: ResponseCache | Cassette, keys: Collection[str]
    ) -> None:
        self._home = home
        self._connection = home.borrow()
        self.keys = self._connection.ask("visit", Visit.lead, _name(shared_by), list(keys))

    def end(self, answered: Collection[str], error: APIError | None) -> None:
        """End the flights: see :class:`LedFlights`."""
        shared_error = None if error is None else picklable(error)
        self._connection.ask("visit", Visit.end_flights, list(answered), shared_error)
        self._home.give_back(self._connection)


class _TurnAtHome(Turn):
    """The turn of a send among those of the map's process; the budgets that are open here count, too.

    :param home: the map's process.
    """

    def __init__(
        self, home: Home, label: str, endpoints: Endpoints, slot: Slot, deadline: Deadline
    ) -> None:
        super().__init__(label, endpoints, slot, deadline)
        self._home = home
        self._usable: list[Endpoint] = []
        self._connection: Asking | None = None  # while it holds something there
        self._is_left = False
        self._is_over_limit = False

    @property
    def is_over_limit(self) -> bool:
        return self._is_over_limit

    async def _admit(self, needed: Amounts | None, tokens: int | None) -> Endpoint:
        self._usable = self.endpoints.usable(time.monotonic())
        with waiting(self.holder) as self.is_inner:
            index, self._is_over_limit = await in_thread(self._take, needed, tokens)
        return self._usable[index]

    def _take(self, needed: Amounts | None, tokens: int | None) -> tuple[int, bool]:
        connection = self._home.borrow()
        taken = connection.ask(
            "visit",
            Visit.take,
            self._label,
            [endpoint._replace(api_key=None) for endpoint in self._usable],
            self.endpoints.limits,
            type(self._slot),
            self._deadline,
            needed,
            tokens,
            self.is_inner,
        )
        with lock:
            is_left = self._is_left
            if not is_left:
                self._connection = connection
        if is_left:  # its task was cancelled meanwhile
            self._leave(connection)
        return taken

    def _leave(self, connection: Asking) -> None:
        connection.ask("visit", Visit.release)
        self._home.give_back(connection)

    def note_sent(self) -> None:
        if self._connection is not None:
            self._connection.ask("turn", Turn.note_sent)

    def set_stuck(self, is_stuck: bool) -> None:
        super().set_stuck(is_stuck)
        if self._connection is not None:
            self._connection.ask("visit", Visit.set_stuck, is_stuck)

    def settle(self, tokens: int | None, cost: float | None, calls: int) -> None:
        super().settle(tokens, cost, calls)
        if self._connection is not None:
            self._connection.ask("turn", Turn.settle, tokens, cost, calls)

    def rest(self, endpoint: Endpoint, seconds: float, *, is_asked: bool) -> float:
        assert self._connection is not None  # it was sent
        keyless = endpoint._replace(api_key=None)
        return self._connection.ask("turn", Turn.rest, keyless, seconds, is_asked=is_asked)

    def release_slot(self) -> None:
        super().release_slot()
        self._is_left = True
        if self._connection is not None:
            self._connection.ask("turn", Turn.release_slot)

    def release(self) -> None:
        super().release()
        with lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            self._leave(connection)

    @property
    def is_released(self) -> bool:
        return self._connection is None and super().is_released
