"""The process of a map, as its workers on the same machine ask it: what is one thing for all of them is there.

The process listens at a socket (on Windows, a pipe), of which nobody else knows the token. A worker knows
both from the tasks of the map.
It looks up and adds the records of the open cassette there. For each send, it asks there for its turn, on a
connection that it keeps until the send is over: so if the worker is killed, the process sees the
connection's end and releases what the send held.

An HTTP server, such as the one that answers child processes, was rejected: it takes some milliseconds for
each question, and a call has seven.
"""

from __future__ import annotations

import copy
import hmac
import os
import pickle
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED
from concurrent.futures import wait as wait_for_futures
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Client, Listener, wait
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.effects import in_thread
from ..core.nesting import Owner, waiting
from ..core.share import Flight, flights
from ..errors import LLMCallError
from ..scopes import MapIsOverError
from ..stores.cache.cache import shared_cache
from ..stores.cassettes.cassette import Cassette
from ..support.blocking import run_blocking
from ..support.system import ProcessLock, after_fork_in_child, lock, this_process
from ..support.waits import Stop, check_stops, set_stops
from ..traffic.limits import Endpoints, Limits, Slot
from ..traffic.turns import Turn, current_needs, new_turn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from multiprocessing.connection import Connection

    from ..config.endpoints import Endpoint
    from ..core.deadline import Deadline
    from ..core.home import LedFlights
    from ..errors import APIError
    from ..stores.cache.cache import ResponseCache
    from ..stores.record import Record
    from ..traffic.budgets import Needs
    from ..traffic.ledgers import Amounts

TOKEN_BYTES = 16
BACKLOG = 256  # workers' threads that connect at once


# The errors of pickle for an object that it cannot pickle.
UNPICKLABLE = (pickle.PicklingError, TypeError, AttributeError)


def picklable(error: BaseException) -> BaseException:
    """Return an error; if it cannot be pickled and so would break a pool, return a similar one."""
    try:
        pickle.loads(pickle.dumps(error))
    except (*UNPICKLABLE, pickle.PickleError, ValueError, KeyError, ImportError) as reason:
        return LLMCallError(
            f"{type(error).__name__}: {error} (it cannot be sent between processes: {reason})"
        )
    return error


class Address(NamedTuple):
    """The address of a process for the workers of its maps.

    :param path: of the socket or pipe.
    :param token: what a worker sends first.
    """

    path: Any
    token: bytes


# What holds the answers that calls share: whether it is a cassette, and its path.
SharedBy = tuple[bool, str]


# In the process of a map


class Server:
    """Answers the workers of this process's maps, each connection in a thread, until it is closed.

    :ivar stop: is done once it is closed: what waits here for a worker ends.
    """

    def __init__(self) -> None:
        # Linux has addresses that are no files: a folder for temporary files may have too long a name for one.
        name = f"\0llmcall-{os.urandom(TOKEN_BYTES).hex()}" if sys.platform == "linux" else None
        self._listener = Listener(name, backlog=BACKLOG)
        self.address = Address(self._listener.address, os.urandom(TOKEN_BYTES))
        self.maps = 0
        self.cassettes: dict[str, Cassette] = {}  # of its maps, by file
        self.stop = Stop()
        self._end, self._ends = Pipe(duplex=False)  # readable once it is closed
        self.connections: set[Connection] = set()
        self._endpoints: dict[tuple[Any, ...], Endpoints] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Answer from now on; whoever connected before has waited. Python warns of a process that is forked
        beside threads, so this comes after the first worker was started.
        """
        with lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._accept, name="llmcall home", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """End the thread, and the connections."""
        self.stop.set_result(None)
        self._ends.send_bytes(b"end")
        if self._thread is not None:
            with suppress(OSError):
                Client(self.address.path).close()  # wakes the thread
            self._thread.join()
        self._listener.close()
        self._close_end()

    def _close_end(self) -> None:
        """Close what ended the threads, after the last one."""
        with lock:
            if self.stop.done() and not self.connections:
                self._end.close()
                self._ends.close()

    def leave(self) -> None:
        """Close the copies of a forked process: a worker that asks would wait for them after this one's end."""
        self._listener.close()
        for connection in self.connections:
            connection.close()

    def endpoints_of(self, endpoints: Sequence[Endpoint], limits: Limits) -> Endpoints:
        """Return endpoints that workers ask in turn."""
        key = tuple(endpoints), limits
        with lock:
            if key not in self._endpoints:
                self._endpoints[key] = Endpoints(endpoints, limits)
            return self._endpoints[key]

    def _accept(self) -> None:
        while True:
            connection = self._listener.accept()
            if self.stop.done():
                connection.close()
                return
            name = "llmcall home of a worker"
            threading.Thread(target=self._serve, args=(connection,), name=name, daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        self.connections.add(connection)
        set_stops((self.stop,))
        visit = Visit(self)
        try:
            with connection, suppress(EOFError, OSError):  # the worker closed it, or was killed
                if not hmac.compare_digest(connection.recv_bytes(TOKEN_BYTES), self.address.token):
                    return
                while self._end not in wait([connection, self._end]):
                    name, arguments = connection.recv()
                    connection.send(_outcome(getattr(visit, name), arguments))
        finally:
            visit.release()
            visit.end_flights((), None)
            self.connections.discard(connection)
            self._close_end()


def _outcome(function: Any, arguments: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    try:
        return function(*arguments), None
    except BaseException as error:  # noqa: BLE001 - the worker that asked raises it
        return None, picklable(error)


class Visit:
    """One worker's connection: its public methods are what the worker may ask.

    :param server: answers it.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._turn: Turn | None = None
        self._flights: dict[
            tuple[ResponseCache | Cassette, str], Flight
        ] = {}  # that the worker leads

    def lead(self, shared_by: SharedBy, keys: Collection[str]) -> set[str]:
        """Lead the flight of each request that has none; return the keys of these."""
        store = self._store(shared_by)
        with lock:
            new = {(store, key) for key in keys} - flights.keys()
            self._flights = {key: Flight(Owner(), stream=False) for key in new}
            flights.update(self._flights)
        return {key for _, key in new}

    def end_flights(self, answered: Collection[str], error: APIError | None) -> None:
        """End the flights that the worker leads: see :class:`LedFlights`."""
        ended, self._flights = self._flights, {}
        for flight_key, flight in ended.items():
            with lock:
                flights.pop(flight_key, None)
            flight.set_exception(None if flight_key[1] in answered else error)

    def follow(self, shared_by: SharedBy, key: str, seconds: float | None) -> None:
        """Wait for a flight.

        :raises APIError: the leader's, if it is shared.
        """
        flight = flights.get((self._store(shared_by), key))
        if flight is None:
            return
        wait_for_futures([flight, self._server.stop], seconds, FIRST_COMPLETED)
        check_stops((self._server.stop,))
        if flight.done() and (error := flight.exception()) is not None:
            raise copy.copy(error)

    def _store(self, shared_by: SharedBy) -> ResponseCache | Cassette:
        is_cassette, path = shared_by
        return self._server.cassettes[path] if is_cassette else shared_cache(path)

    def get_record(self, file: str, *arguments: Any) -> Record | None:
        """Return a cassette's record without counting it as used: see :meth:`Cassette.get`."""
        return self._server.cassettes[file].get(*arguments)

    def find_record(self, file: str, *arguments: Any) -> Record | None:
        """Return a cassette's record for a call: see :meth:`Cassette.find`."""
        return self._server.cassettes[file].find(*arguments)

    def add_record(self, file: str, *arguments: Any) -> Record:
        """Add an answer to a cassette: see :meth:`Cassette.add`."""
        return self._server.cassettes[file].add(*arguments)

    def needs(self) -> Needs:
        """Return what the open budgets have to know of a send."""
        return current_needs()

    def take(
        self,
        label: str,
        endpoints: Sequence[Endpoint],
        limits: Limits,
        is_adaptive: bool,
        seconds_left: float | None,
        needed: Amounts | None,
        tokens: int | None,
        is_inner: bool,
    ) -> tuple[int, bool]:
        """Wait for the turn of a send.

        :returns: the index of the endpoint to ask, and whether more are under way there than it allows.
        """
        from ..core.deadline import Deadline
        from ..traffic.adaptive import AdaptiveSlot

        pool = self._server.endpoints_of(endpoints, limits)
        slot = AdaptiveSlot(pool) if is_adaptive else Slot(pool)
        deadline = Deadline(None if seconds_left is None else time.monotonic() + seconds_left)
        turn = self._turn = new_turn(label, pool, slot, deadline)
        turn.is_inner = is_inner
        try:
            endpoint = run_blocking(turn.take(needed, tokens))
        except BaseException:
            self.release()
            raise
        return pool.endpoints.index(endpoint), turn.is_over_limit

    def note_sent(self) -> None:
        """Count the send as sent."""
        self._held.note_sent()

    def set_stuck(self, is_stuck: bool) -> None:
        """Note whether the send ends only after a call that waits inside it."""
        with lock:
            self._held.set_stuck(is_stuck)

    def settle(self, tokens: int | None, cost: float | None, calls: int) -> None:
        """Count what the send used."""
        self._held.settle(tokens, cost, calls)

    def rest(self, index: int, seconds: float, is_asked: bool) -> float:
        """Let an endpoint rest after a 429."""
        turn = self._held
        return turn.rest(turn.endpoints.endpoints[index], seconds, is_asked=is_asked)

    def release_slot(self) -> None:
        """Release the endpoint."""
        self._held.release_slot()

    def release(self) -> None:
        """Release everything that the send holds, if there is one."""
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.release()

    @property
    def _held(self) -> Turn:
        assert self._turn is not None  # a worker asks for it before
        return self._turn


_server: Server | None = None
_server_lock = ProcessLock()


@contextmanager
def answering_workers() -> Iterator[Server]:
    """Answer the workers of this process's maps for a block; overlapping blocks share the server."""
    global _server
    with _server_lock:
        server = _server = _server or Server()
        server.maps += 1
    try:
        yield server
    finally:
        with _server_lock:
            server.maps -= 1
            if not server.maps:
                _server = None
        if not server.maps:
            server.close()


@after_fork_in_child
def _leave_server() -> None:
    global _server
    if _server is not None:
        _server.leave()
    _server = None


# In a worker


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
