"""The process of a map answers its workers on the same machine: what is one thing for all of them is here.

It listens at a socket (on Windows, a pipe), of which nobody else knows the token. A worker knows both from
the tasks of the map. It looks up and adds the records of the open cassette here. For each send, it asks
for its turn, on a connection that it keeps until the send is over: so if the worker is killed, the
connection ends, and what the send held is released.

An HTTP server, such as the one that answers child processes, was rejected: it takes some milliseconds for
each question, and a call has about ten.
"""

from __future__ import annotations

import copy
import hmac
import os
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED
from concurrent.futures import wait as wait_for_futures
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Client, Listener, wait
from typing import TYPE_CHECKING, Any

from ..core.deadline import Deadline
from ..core.nesting import Owner
from ..core.share import Flight, flights
from ..stores.cache.cache import shared_cache
from ..stores.cassettes.cassette import Cassette
from ..support.blocking import run_blocking
from ..support.system import ProcessLock, after_fork_in_child, lock
from ..support.waits import Stop, check_stops, set_stops
from ..traffic.limits import Endpoints, Limits, Slot
from ..traffic.turns import Turn, current_needs, new_turn
from .messages import Address, SharedBy, picklable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from multiprocessing.connection import Connection

    from ..config.endpoints import Endpoint
    from ..errors import APIError
    from ..stores.cache.cache import ResponseCache
    from ..stores.record import Record
    from ..traffic.budgets import Needs
    from ..traffic.ledgers import Amounts

TOKEN_BYTES = 16
BACKLOG = 256  # workers' threads that connect at once


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
        pool = self._server.endpoints_of(endpoints, limits)
        slot = Slot(pool)
        if is_adaptive:
            from ..traffic.adaptive import AdaptiveSlot

            slot = AdaptiveSlot(pool)
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
