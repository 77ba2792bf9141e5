"""The process of a map answers its workers on the same machine: what is one thing for all of them is here.

It listens at a socket (on Windows, a pipe), whose token nobody else knows. A worker has the address and the
token from the tasks of the map. It looks up and adds the records of the open cassette here, and in an arm it asks
whose draw is whose. For each send, it asks for its turn, on a connection that it keeps until the send is over: so if
the worker is killed, the connection ends, and what the send held is released.

An HTTP server, such as the one that answers child processes, was rejected: it takes some milliseconds for
each question, and a call has about ten.
"""

from __future__ import annotations

import hmac
import os
import pickle
import sys
import threading
from concurrent.futures import FIRST_COMPLETED
from concurrent.futures import wait as wait_for_futures
from contextlib import contextmanager, suppress
from multiprocessing.connection import Client, Listener
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..core.share import LATE, Flight, flights
from ..errors import LLMCallError
from ..scopes import Asker, MapIsOverError, Numbers, RecordedAskers
from ..stores.cache.cache import shared_cache
from ..support.blocking import run_blocking
from ..support.stops import Stop
from ..support.system import ProcessLock, after_fork_in_child, lock
from ..support.waits import OpenCall, check_stops, set_stops
from ..traffic.gate import Turn, current_needs, new_slot
from ..traffic.limits import Endpoints

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from multiprocessing.connection import Connection

    from ..config.endpoints import Endpoint
    from ..core.waiting import Deadline
    from ..scopes import Askers, Draws, Forks, ScopedRequest
    from ..stores.cache.cache import ResponseCache
    from ..stores.cassettes.cassette import Cassette
    from ..traffic.limits import Limits, Slot
    from ..traffic.queues import Demand
    from ..traffic.reservations import Needs

E = TypeVar("E", bound=BaseException)
TOKEN_BYTES = 16
BACKLOG = 256  # workers' threads that connect at once
TICK = 0.2  # seconds in which the threads notice that the server is closed


class Address(NamedTuple):
    """The address of a process for the workers of its maps.

    :param path: of the socket or pipe.
    :param token: what a worker sends first.
    """

    path: str
    token: bytes


class AskersName(NamedTuple):
    """The name of a request's askers for the workers of a map.

    :param draws: the name of the map's draws.
    :param shared_by: the file of the cassette, or the cache's path, that holds the request's records.
    """

    draws: str
    request: ScopedRequest
    shared_by: str


class EndpointsName(NamedTuple):
    """The name of the endpoints of a model, without their keys, which workers ask in turn."""

    model: str
    endpoints: tuple[Endpoint, ...]
    limits: Limits


# The errors of pickle for an object that it cannot pickle.
UNPICKLABLE = (pickle.PicklingError, TypeError, AttributeError)


def picklable(error: E) -> E | LLMCallError:
    """Return an error; if it cannot be pickled and so would break a pool, return a similar one."""
    try:
        pickle.loads(pickle.dumps(error))
    except (*UNPICKLABLE, pickle.PickleError, ValueError, KeyError, ImportError) as reason:
        return LLMCallError(
            f"{type(error).__name__}: {error} (it cannot be sent between processes: {reason})"
        )
    return error


class MapServer:
    """Answers the workers of this process's maps, each connection in a thread, until it is closed.

    :ivar cassettes: those of its maps, by file.
    :ivar draws: those of its maps, by the maps' tokens.
    :ivar stop: is done once it is closed: what waits here for a worker ends.
    """

    def __init__(self) -> None:
        # Linux has addresses that are no files: a folder for temporary files may have too long a name for one.
        name = f"\0llmcall-{os.urandom(TOKEN_BYTES).hex()}" if sys.platform == "linux" else None
        self._listener = Listener(name, backlog=BACKLOG)
        self.address = Address(self._listener.address, os.urandom(TOKEN_BYTES))
        self.maps = 0
        self.cassettes: dict[str, Cassette] = {}
        self.draws: dict[str, Draws] = {}
        self.stop = Stop()
        self._connections: set[Connection] = set()
        self._endpoints: dict[EndpointsName, Endpoints] = {}
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
        """Accept no more connections; the open ones end within a moment."""
        self.stop.set_result(None)
        if self._thread is not None:
            with suppress(OSError):
                Client(self.address.path).close()  # wakes the thread
            self._thread.join()
        self._listener.close()

    def leave(self) -> None:
        """Close the copies of a forked process: a worker that asks would wait for them after this one's end."""
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def endpoints(self, name: EndpointsName) -> Endpoints:
        """Return endpoints that workers ask in turn."""
        with lock:
            if name not in self._endpoints:
                self._endpoints[name] = Endpoints(*name)
            return self._endpoints[name]

    def _accept(self) -> None:
        while True:
            connection = self._listener.accept()
            if self.stop.done():
                connection.close()
                return
            name = "llmcall home of a worker"
            threading.Thread(target=self._serve, args=(connection,), name=name, daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        self._connections.add(connection)
        set_stops((self.stop,))
        worker = WorkerConnection(self)
        try:
            with connection, suppress(EOFError, OSError):  # the worker closed it, or was killed
                if not hmac.compare_digest(connection.recv_bytes(TOKEN_BYTES), self.address.token):
                    return
                while not self.stop.done():
                    if connection.poll(TICK):
                        connection.send(worker.answer(*connection.recv()))
        finally:
            worker.release()
            self._connections.discard(connection)


class WorkerConnection:
    """One worker's connection, with what the worker takes and leads on it.

    :param server: answers it.
    :ivar held: what the worker may call methods of, by name: the connection, and the turn of its send. The
        server's cassettes, by file, are others.
    """

    def __init__(self, server: MapServer) -> None:
        self._server = server
        self.held: dict[str, object] = {"connection": self}
        self._flights: dict[tuple[ResponseCache | Cassette, str], Flight] = {}

    def answer(
        self, name: str, method: str, arguments: tuple[object, ...], named: dict[str, object]
    ) -> tuple[object, BaseException | None]:
        """Call a method of what it holds; return its result, or the exception that it raised."""
        held = self.held.get(name) or self._server.cassettes[name]
        try:
            return getattr(held, method)(*arguments, **named), None
        except BaseException as error:  # noqa: BLE001 - the worker that asked raises it
            return None, picklable(error)

    def lead(self, shared_by: str, keys: Collection[str], deadline: Deadline) -> None:
        """Wait until nobody else asks for any of some requests, and lead their flights.

        :param shared_by: the file of the cassette through which the answers are shared, or the cache's path.
        """
        store, stop = self._store(shared_by), self._server.stop
        wanted = {(store, key): Flight(OpenCall()) for key in keys}
        while True:
            with lock:
                other = next((flights[key] for key in wanted if key in flights), None)
                if other is None:
                    self._flights = wanted
                    flights.update(wanted)
                    return
            wait_for_futures([other, stop], deadline.time_for(None, LATE), FIRST_COMPLETED)
            check_stops((stop,))

    def number_for(
        self,
        name: AskersName,
        recorded: RecordedAskers | None,
        asker: str,
        forks: Forks,
        taken: Collection[int],
    ) -> int:
        """Return the next number of an asker in a worker, and note that it took it.

        :param recorded: what the cassette or cache says about the request's askers; ``None``: it was said before.
        :param taken: the numbers that the worker's fork, and those around and inside it, have taken.
        """
        askers = self._askers(name, recorded)
        with lock:
            return askers.number_for(asker, forks, [Numbers(taken)])

    def release_number(self, name: AskersName, asker: str, forks: Forks, number: int) -> None:
        """Note that an asker in a worker released a number. It stays its own, which forks of other workers may have
        taken.
        """
        askers = self._askers(name)
        with lock:
            askers.release(asker, forks, number, is_free=False)

    def draw(
        self, file: str, request: ScopedRequest, forks: Forks, asker: str, recorded: RecordedAskers
    ) -> int:
        """Take the next draw of a program's call outside any scope, and return its number.

        :param file: of the open cassette.
        :param asker: the name of who asks in the worker.
        :param recorded: what the cassette says about the request's askers.
        """
        cassette = self._server.cassettes[file]
        draws = cassette.program_scope.draws
        return draws.take(request, forks, cassette, Asker(asker), lambda: recorded).number

    def undraw(
        self, file: str, request: ScopedRequest, forks: Forks, asker: str, number: int
    ) -> None:
        """Release a draw that an asker in a worker took."""
        draws = self._server.cassettes[file].program_scope.draws
        draws.claim(request, forks, number, asker).retract()

    def _askers(self, name: AskersName, recorded: RecordedAskers | None = None) -> Askers:
        draws, source = self._server.draws.get(name.draws), self._store(name.shared_by)
        if draws is None:
            raise MapIsOverError("the map that this call belongs to is over")
        return draws.askers_in_workers(name.request, source, recorded or RecordedAskers())

    def _store(self, shared_by: str) -> ResponseCache | Cassette:
        return self._server.cassettes.get(shared_by) or shared_cache(shared_by)

    def needs(self) -> Needs:
        """Return what the open budgets have to know of a send."""
        return current_needs()

    def take(self, name: EndpointsName, slot_type: type[Slot], demand: Demand) -> int:
        """Wait for the turn of a send, and return the index of the endpoint to ask."""
        pool = self._server.endpoints(name)
        turn = self.held["turn"] = Turn(new_slot(pool, slot_type))
        try:
            endpoint = run_blocking(turn.take(demand))
        except BaseException:
            self.release()
            raise
        return pool.endpoints.index(endpoint)

    def release(self) -> None:
        """Release what the worker holds: the turn of a send, or the lead of flights."""
        turn = self.held.pop("turn", None)
        if isinstance(turn, Turn):
            turn.release()
        with lock:
            for key in self._flights:
                del flights[key]
        for flight in self._flights.values():
            flight.set_result(None)
        self._flights = {}


_server: MapServer | None = None
_server_lock = ProcessLock()


@contextmanager
def answering_workers() -> Iterator[MapServer]:
    """Answer the workers of this process's maps for a block; overlapping blocks share the server."""
    global _server
    with _server_lock:
        server = _server = _server or MapServer()
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
