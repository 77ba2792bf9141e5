"""The recording process's end of the link: it answers the calls of the processes that it records.

Calls run in the contexts of their tickets, in one event loop for all connections. When a connection ends, its calls are
cancelled, which releases what they hold: permits, reservations, draws and leads of identical calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import pickle
import socket
import struct
import sys
import threading
import time
from contextvars import Context, copy_context
from typing import Any

from ..core.parents import add_notes
from ..scopes.position import CallOrder
from ..support import clock
from ..support.notices import warn_once
from ..support.secrets import note_used
from ..support.system import (
    NO_FILE_LEFT,
    ProcessLock,
    is_running,
    process_state,
    raise_limit_of_files,
    this_process,
)
from ..traffic.usage import Meter
from . import messages, programs
from .answering import CallOfProcess
from .loop import LoopThread, close_in_forks
from .pythons import Pythons
from .tickets import Ticket
from .wire import Connection, listening_socket, remove_socket

LONGEST_CLOSE = 5  # seconds that closing waits for what the loop does at the moment
LOOK_AT_PEERS = 0.5  # seconds between two looks for processes that are stopped
LOOK_FOR_PYTHONS = 0.05  # less than a Python needs to begin and ask a model
LONGEST_START = 2  # seconds that a Python takes to say hello
LOOK_FOR_FILES = 0.2  # seconds between two looks whether a connection can be accepted again


class Link:
    """The recording process's end of the link.

    :ivar address: goes to these processes.
    :ivar other: the ticket for requests whose own ticket has ended; ``None`` refuses them.
    """

    def __init__(self) -> None:
        raise_limit_of_files()  # its connections must not take those of the program
        self._socket, self.address = listening_socket()
        self._process = this_process()
        self.other: Ticket | None = None
        self.tickets: dict[str, Ticket] = {}
        self.pythons = Pythons()
        self._numbers = itertools.count()
        self._thread: LoopThread | None = None
        self.connections: set[ProcessConnection] = set()
        self.is_closing = False
        close_in_forks(self._socket)

    def admit(
        self,
        context: Context | None = None,
        order: CallOrder | None = None,
        meter: Meter | None = None,
    ) -> messages.Base:
        """Make a ticket for what a context starts, and return what goes to that.

        :param context: by default the current one.
        :param order: as of a :class:`.Ticket`.
        :param meter: likewise.
        """
        ticket = Ticket(str(next(self._numbers)), context or copy_context(), order, meter)
        self.tickets[ticket.name] = ticket
        return ticket.base()

    def admit_inside(self, name: str, where: messages.Where, process: int) -> messages.Base:
        """Make a ticket for what a process starts, and return what goes to that.

        :param name: of the process's ticket.
        :param where: the process starts it.
        :param process: its number.
        """
        ticket = self.ticket(name)
        if ticket is None:
            return messages.Base(name)
        context = ticket.context.copy()
        context.run(ticket.enter, where, process, is_inner=False)
        base = self.admit(context, (*ticket.order, *where.order))
        self.tickets[base.ticket].suffix = ticket.suffix_in(process)
        return base

    def take(self, note: messages.Message, process: int = 0) -> None:
        """Take a note.

        :param process: the number of the process that it comes from; 0 if that is unknown.
        """
        match note:
            case messages.Greet(name):
                self.pythons.greet(name, process)
                if process and name in self.tickets:
                    self.tickets[name].join(process)
            case messages.Started(name, started, None):
                if self.pythons.watch(name, started) and self._thread is not None:
                    with contextlib.suppress(RuntimeError):  # it has ended
                        self._thread.loop.call_soon_threadsafe(self._look_for_pythons)
            case messages.Started(name, started, str(program)):
                self.pythons.expect(name, started, program)
            case messages.Dismiss(name):  # further calls by it are refused
                self.tickets.pop(name, None)
            case messages.Retract(name, number):
                ticket = self.ticket(name)
                if ticket is not None and number in ticket.draws:
                    ticket.draws.pop(number).retract()
            case messages.Noted(key, notes):
                add_notes(key, notes)
            case messages.Credential(secret):
                note_used([secret])
            case messages.Warned(text):
                warn_once(text)
            case messages.Refused() | messages.Saw():
                if (recording := programs.innermost_recorder()) is not None:
                    recording.hear(note)

    def _look_for_pythons(self) -> None:
        if self.pythons.look():
            asyncio.get_running_loop().call_later(LOOK_FOR_PYTHONS, self._look_for_pythons)

    def missed(self) -> list[str]:
        """Return the programs whose processes never said hello; those that have just been started get time for it."""
        ends_at = clock.monotonic() + LONGEST_START
        while (missed := self.pythons.missed()) and self._thread is not None:
            self._hear_all()
            if clock.monotonic() > ends_at or not any(is_running(process) for process, _ in missed):
                break
            time.sleep(LOOK_FOR_PYTHONS)
        return [program for _, program in self.pythons.missed()]

    def _hear_all(self) -> None:
        """Take what processes have said before they ended."""
        with contextlib.suppress(OSError):
            connection = Connection(self.address)  # it is accepted after theirs
            connection.ask(messages.Flush())
            connection.close()

    def ticket(self, name: str) -> Ticket | None:
        """Return the ticket with a name or, if its call has ended, that of the code around it."""
        while name and name not in self.tickets:
            name = name.rpartition("/")[0]
        return self.tickets.get(name, self.other)

    def start(self) -> None:
        """Start answering; earlier connections have waited. Python warns if a process forks while threads run, so
        this comes after the first process was started.
        """
        with _lock:
            if self._thread is not None:
                return
            thread = self._thread = LoopThread("llmcall link")
        thread.loop.call_soon_threadsafe(self._begin_to_accept)

    def _begin_to_accept(self) -> None:
        # Not by create_server, which keeps the sockets that it accepts to itself: a forked process closes its copies.
        self._socket.setblocking(False)
        if not self.is_closing:
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

        :param seconds: how long to wait for that before cancelling what is under way; 0 lets it go on.
        """
        if self._thread is None or not self._thread.is_running:  # as in a forked process
            self._close_socket()
            return
        thread, has_begun = self._thread, threading.Event()
        thread.loop.call_soon_threadsafe(self._begin_to_close, seconds, has_begun)
        has_begun.wait(LONGEST_CLOSE)  # then idle processes know of the end
        if seconds:
            thread.join(seconds + LONGEST_CLOSE)

    def _close_socket(self) -> None:
        self._socket.close()
        if self._process == this_process():  # and not forked
            remove_socket(self.address)

    def _begin_to_close(self, seconds: float, has_begun: threading.Event) -> None:
        self.is_closing = True
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
        self._close_socket()
        thread, self._thread = self._thread, None
        assert thread is not None
        loop.call_soon(thread.end)


class ProcessConnection(asyncio.Protocol):
    """A connection of a process, for its calls.

    :ivar process: its number; 0 if that is unknown.
    :ivar calls: those under way, by their numbers.
    :ivar end: is done when the connection has ended.
    """

    def __init__(self, link: Link, accepted: socket.socket) -> None:
        self.link = link
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
        self.link.connections.discard(self)
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
                self.send(link.admit_inside(name, where, self.process), number)
            case messages.Cancel():
                if number in self.calls:
                    self.calls[number].cancel()
            case _ if number in self.calls:
                self.calls[number].take(message)
            case _:
                link.take(message, self.process)
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


_lock = ProcessLock()
