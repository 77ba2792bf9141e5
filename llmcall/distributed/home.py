"""The home of a worker: the process of a map, asked from another one on the same machine; see ``server.py``."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, suppress
from multiprocessing.connection import Client
from typing import TYPE_CHECKING, Any

from ..core.effects import in_thread
from ..core.nesting import waiting
from ..scopes import MapIsOverError
from ..stores.cassettes.cassette import Cassette
from ..support.system import lock, this_process
from ..traffic.limits import Endpoints, Slot
from ..traffic.turns import Turn
from .messages import Address, SharedBy, picklable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from ..config.endpoints import Endpoint
    from ..core.deadline import Deadline
    from ..core.home import LedFlights
    from ..errors import APIError
    from ..stores.cache.cache import ResponseCache
    from ..traffic.budgets import Needs
    from ..traffic.ledgers import Amounts


class _Asking:
    """A connection to the process of the map.

    :raises OSError: if it is not on this machine, or has ended.
    """

    def __init__(self, address: Address) -> None:
        self._connection = Client(address.path)
        self._connection.send_bytes(address.token)
        self._lock = threading.Lock()

    def ask(self, name: str, *arguments: Any) -> Any:
        """Return what a method of :class:`Visit` returns there.

        :raises MapIsOverError: if the process does not answer any more.
        """
        try:
            with self._lock:
                self._connection.send((name, arguments))
                value, error = self._connection.recv()
        except (EOFError, OSError) as ended:
            raise MapIsOverError("the map that this call belongs to is over") from ended
        except BaseException:  # interrupted: the next one to ask would get this answer
            self._connection.close()
            raise
        if error is not None:
            raise error
        return value


def home_at(address: Address) -> Home | None:
    """Return the process of a map, or ``None`` if it is on another machine."""
    try:
        return Home(address)
    except OSError:
        return None


class Home:
    """The process of a map, for its workers: its open budgets and limits hold for their sends, too.

    :raises OSError: if it is not on this machine, or has ended.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._process = this_process()
        self._idle = [_Asking(address)]

    @contextmanager
    def lending(self) -> Iterator[_Asking]:
        """Lend a connection to a block; one in which it failed is used no more."""
        connection = self.borrow()
        yield connection
        self.give_back(connection)

    def borrow(self) -> _Asking:
        """Return a connection that nobody else uses."""
        if self._process != this_process():  # a forked process cannot share its parent's
            self._process, self._idle = this_process(), []
        with suppress(IndexError):
            return self._idle.pop()
        try:
            return _Asking(self._address)
        except OSError as ended:
            raise MapIsOverError("the map that this call belongs to is over") from ended

    def give_back(self, connection: _Asking) -> None:
        """Take back a connection."""
        self._idle.append(connection)

    def needs(self) -> Needs:
        """Return what the open budgets there have to know of a send."""
        with self.lending() as connection:
            return connection.ask("needs")  # type: ignore[no-any-return]

    def lead(self, shared_by: ResponseCache | Cassette, keys: Collection[str]) -> LedFlights:
        """Lead the flight of each request that has none there."""
        connection = self.borrow()
        led = connection.ask("lead", _named(shared_by), list(keys))
        return _FlightsAtHome(self, connection, led)

    def follow(self, shared_by: ResponseCache | Cassette, key: str, seconds: float | None) -> None:
        """Wait for a flight there, for some seconds at most."""
        with self.lending() as connection:
            connection.ask("follow", _named(shared_by), key, seconds)

    def turn(self, label: str, endpoints: Endpoints, slot: Slot, deadline: Deadline) -> Turn:
        """Return the turn of a send among those of that process and of this one."""
        return _TurnAtHome(self, label, endpoints, slot, deadline)


def _named(shared_by: ResponseCache | Cassette) -> SharedBy:
    """Return the name by which the map's process knows a cache or cassette."""
    if isinstance(shared_by, Cassette):
        return True, shared_by.file
    return False, os.fspath(shared_by.path)


class _FlightsAtHome:
    """The flights that a call leads in the map's process, on a connection that is kept until they end: if
    this process is killed, another one takes the lead.
    """

    def __init__(self, home: Home, connection: _Asking, keys: set[str]) -> None:
        self._home = home
        self._connection = connection
        self.keys = keys

    def end(self, answered: Collection[str], error: APIError | None) -> None:
        """End the flights: see :class:`LedFlights`."""
        shared_error = None if error is None else picklable(error)
        self._connection.ask("end_flights", list(answered), shared_error)
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
        self._connection: _Asking | None = None  # while it holds something there
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
        found: tuple[int, bool] = connection.ask(
            "take",
            self._label,
            [endpoint._replace(api_key=None) for endpoint in self._usable],
            self.endpoints.limits,
            self._slot.is_adaptive,
            self._deadline.time_left(),
            needed,
            tokens,
            self.is_inner,
        )
        with lock:
            is_left = self._is_left
            if not is_left:
                self._connection = connection
        if is_left:  # its task was cancelled meanwhile
            connection.ask("release")
            self._home.give_back(connection)
        return found

    def _tell(self, name: str, *arguments: Any) -> Any:
        """Tell the map's process of the send; return ``None`` if it holds nothing there any more."""
        connection = self._connection
        return None if connection is None else connection.ask(name, *arguments)

    def note_sent(self) -> None:
        self._tell("note_sent")

    def set_stuck(self, is_stuck: bool) -> None:
        super().set_stuck(is_stuck)
        self._tell("set_stuck", is_stuck)

    def settle(self, tokens: int | None, cost: float | None, calls: int) -> None:
        super().settle(tokens, cost, calls)
        self._tell("settle", tokens, cost, calls)

    def rest(self, endpoint: Endpoint, seconds: float, *, is_asked: bool) -> float:
        index = self._usable.index(endpoint)
        return float(self._tell("rest", index, seconds, is_asked))

    def release_slot(self) -> None:
        super().release_slot()
        self._is_left = True
        self._tell("release_slot")

    def release(self) -> None:
        super().release()
        with lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.ask("release")
            self._home.give_back(connection)

    @property
    def is_released(self) -> bool:
        return self._connection is None and super().is_released
