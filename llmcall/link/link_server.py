"""The recording process's server for the processes that it records.

Calls run in the contexts of their tickets, in one event loop for all connections. When a connection ends, its calls are
cancelled, which releases what they hold: permits, reservations, draws and leads of identical calls.
"""

from __future__ import annotations

import asyncio
import hmac
import pickle
import socket
import struct
import sys
import threading
from typing import TYPE_CHECKING, Any

from ..support.notices import warn_once
from ..support.system import NO_FILE_LEFT, process_state, raise_limit_of_files
from . import messages
from .answering import CallOfProcess
from .loop import LoopThread, close_in_forks
from .wire import listening_socket

if TYPE_CHECKING:
    from .link import Link

LONGEST_CLOSE = 5  # seconds that closing waits for what the loop does at the moment
LOOK_AT_PEERS = 0.5  # seconds between two looks for processes that are stopped
LOOK_FOR_FILES = 0.2  # seconds between two looks whether a connection can be accepted again


class LinkServer:
    """The server of a link.

    :raises OSError: if it cannot listen.
    """

    def __init__(self, link: Link) -> None:
        raise_limit_of_files()  # its connections must not take those of the program
        self.link = link
        self.connections: set[ProcessConnection] = set()
        self._socket = listening_socket(link.address)
        close_in_forks(self._socket)
        self._thread = LoopThread("llmcall link")
        self._thread.loop.call_soon_threadsafe(self._begin_to_accept)

    def _begin_to_accept(self) -> None:
        # Not by create_server, which keeps the sockets that it accepts to itself: a forked process closes its copies.
        self._socket.setblocking(False)
        if not self.link.is_closing:
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        try:
            accepted, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in NO_FILE_LEFT:
                raise
            self._await_files()
            return
        self.connections.add(ProcessConnection(self, accepted))
        if len(self.connections) == 1:
            asyncio.get_running_loop().call_later(LOOK_AT_PEERS, self._look_at_peers)

    def _await_files(self) -> None:
        """Let further processes wait while this one has as many files open as it may."""
        import resource  # where a process may have too many, this is

        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        warn_once(
            f"this process may open only {most:,} files (ulimit -n), and further calls of recorded processes wait "
            "until some are closed. Raise the limit, or let fewer processes call at once"
        )
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        loop.call_later(LOOK_FOR_FILES, self._begin_to_accept)

    def _look_at_peers(self) -> None:
        """Release the permits of the processes that are stopped, as by SIGSTOP, where that can be known."""
        for connection in self.connections:
            gates = [call.gate for call in connection.calls.values() if call.gate is not None]
            if gates and process_state(connection.process) in ("T", "t"):
                for gate in gates:
                    gate.answer_began()
        if self.connections:
            asyncio.get_running_loop().call_later(LOOK_AT_PEERS, self._look_at_peers)

    def close(self, seconds: float) -> None:
        """Accept no more connections, and end once no call is under way.

        :param seconds: as of a :class:`.Link`.
        """
        has_begun = threading.Event()
        self._thread.loop.call_soon_threadsafe(self._begin_to_close, seconds, has_begun)
        has_begun.wait(LONGEST_CLOSE)  # then idle processes know of the end
        if seconds:
            self._thread.join(seconds + LONGEST_CLOSE)

    def _begin_to_close(self, seconds: float, has_begun: threading.Event) -> None:
        # Not by create_task, which would name it as a task of the program.
        self._closing = asyncio.Task(self._close(seconds, has_begun))

    async def _close(self, seconds: float, has_begun: threading.Event) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        ends = [connection.end for connection in self.connections]
        for connection in list(self.connections):
            if not connection.calls:
                connection.close()
        loop.call_soon(has_begun.set)  # once these are closed
        if ends:
            await asyncio.wait(ends, timeout=seconds or None)
        for connection in list(self.connections):
            connection.close()
        self._socket.close()
        loop.call_soon(self._thread.end)


class ProcessConnection(asyncio.Protocol):
    """A connection of a process, for its calls.

    :ivar process: its number; 0 if that is unknown.
    :ivar calls: those under way, by their numbers.
    :ivar end: is done when the connection has ended.
    """

    def __init__(self, server: LinkServer, accepted: socket.socket) -> None:
        self.link = server.link
        self._server = server
        self.process = _process_at(accepted)
        self._has_token = False  # sent
        self.calls: dict[int, CallOfProcess] = {}
        self._transport: Any = None
        self._buffer = bytearray()
        loop = asyncio.get_running_loop()
        self.end: asyncio.Future[None] = loop.create_future()
        accepted.setblocking(False)
        # A forked process's copy would keep the connection open after this end is closed.
        close_in_forks(accepted)
        self._made = loop.create_task(loop.connect_accepted_socket(lambda: self, accepted))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = transport
        if self.link.is_closing:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Cancel the calls: their process has ended."""
        self.end.set_result(None)
        self._server.connections.discard(self)
        for call in list(self.calls.values()):
            call.cancel()

    def close(self) -> None:
        """Close the connection, once it is made."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Take the messages that have arrived complete."""
        buffer = self._buffer
        buffer += data
        if not self._has_token:
            token = self.link.address.token.encode()
            if len(buffer) < len(token):
                return
            if not hmac.compare_digest(bytes(buffer[: len(token)]), token):
                self._transport.abort()
                return
            self._has_token = True
            del buffer[: len(token)]
        try:
            while (found := messages.next_message(buffer)) is not None:
                end, number, message = found
                del buffer[:end]
                self._take(number, message)
        except (pickle.UnpicklingError, TypeError, ValueError, LookupError, EOFError):
            self._transport.abort()  # no process of ours sends this

    def _take(self, number: int, message: messages.Message) -> None:
        link = self.link
        match message:
            case messages.Calls():
                ticket = link.ticket(message.ticket)
                if ticket is None or link.is_closing:
                    self.send(messages.Over([]), number)
                else:
                    self.calls[number] = CallOfProcess(self, number, ticket, message)
            case messages.Admit(name, where):
                self.send(link.admit_inside(name, where), number)
            case messages.Cancel():
                if number in self.calls:
                    self.calls[number].cancel()
            case _ if number in self.calls:
                self.calls[number].take(message)
            case _:
                link.take(message)
                if number:
                    self.send(messages.Done(), number)

    def ended(self, number: int) -> None:
        """Forget a call, which has ended."""
        del self.calls[number]
        if self.link.is_closing and not self.calls:
            self.close()

    def send(self, message: messages.Message, number: int) -> None:
        """Send a message."""
        if not self.end.done():
            self._transport.write(messages.frame(message, number))


def _process_at(accepted: socket.socket) -> int:
    """Return the number of the process at the other end of a socket; 0 if it is unknown."""
    if sys.platform != "linux":
        return 0
    credentials = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    process: int = struct.unpack("3i", credentials)[0]
    return process
