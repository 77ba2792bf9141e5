"""The recording process's end of the link: it answers the calls of the processes that it records.

Each connection serves one call at a time. The call runs in the context of its ticket, in one event loop for all
connections. When a connection ends, its call is cancelled, which releases what the call holds: its permit, its
reservation, its draw and its lead of identical calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import itertools
import os
import pickle
import socket
import struct
import sys
import threading
import time
from collections.abc import Sequence
from contextvars import Context, copy_context
from typing import Any

from ..core import loops, threads
from ..core.answer import answer_calls
from ..core.calls import Call, InnerCall, Options
from ..core.parents import add_notes, parents
from ..core.prepare import Draft, place_in, place_without_draw
from ..keys.request import Request
from ..scopes.position import CallOrder, Position
from ..stores.cassettes.current import open_current_cassette
from ..stores.record import Record
from ..support.notices import warn_once
from ..support.secrets import note_used
from ..support.system import ProcessLock, is_running, process_state, this_process
from ..traffic import call_listeners as call_listeners  # its listeners join
from ..traffic.gate import ClientGate
from ..traffic.usage import Meter
from . import programs
from .client_facts import facts_in
from .link_messages import ForwardedCalls, Where, error_data, record_data
from .loop import LoopThread, close_in_forks
from .pythons import Pythons
from .remote import Account, FormElsewhere, NotedMeter, RemoteTransport, kind_of
from .tickets import Base, Ticket
from .wire import (
    LENGTH,
    Connection,
    Message,
    frame,
    listening_socket,
    remove_socket,
    unpacked,
)

LONGEST_CLOSE = 5  # seconds that closing waits for what the loop does at the moment
LOOK_AT_PEERS = 0.5  # seconds between two looks for processes that are stopped
LOOK_FOR_PYTHONS = 0.05  # less than a Python needs to begin and ask a model
LONGEST_START = 2  # seconds that a Python takes to say hello
LONGEST_GREETING = 2.0  # seconds that a connection has to send the token
MOST_UNKNOWN = 128  # connections that have not sent it yet
NO_FILE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
LOOK_FOR_FILES = 0.2  # seconds between two looks whether a connection can be accepted again


class Link:
    """The recording process's end of the link.

    :ivar address: goes to these processes.
    :ivar other: the ticket for requests whose own ticket has ended; ``None`` refuses them.
    """

    def __init__(self) -> None:
        self._socket, self.address = listening_socket()
        self._process = this_process()
        self.other: Ticket | None = None
        self.tickets: dict[str, Ticket] = {}
        self.pythons = Pythons()
        self.expect, self.greet = self.pythons.expect, self.pythons.greet
        self._is_looking = False  # for them
        self._numbers = itertools.count()
        self._thread: LoopThread | None = None
        self.connections: set[_Connection] = set()
        self.unknown: set[_Connection] = set()  # those that have not sent the token
        self._accepts = False
        self.is_closing = False
        close_in_forks(self._socket)

    def admit(
        self,
        context: Context | None = None,
        order: CallOrder | None = None,
        meter: Meter | None = None,
    ) -> Base:
        """Make a ticket for what a context starts, and return what goes to that.

        :param context: by default the current one.
        :param order: as of a :class:`.Ticket`.
        :param meter: likewise.
        """
        ticket = Ticket(str(next(self._numbers)), context or copy_context(), order, meter)
        self.tickets[ticket.name] = ticket
        return ticket.base()

    def admit_inside(self, name: str, where: Where, process: int) -> Base:
        """Make a ticket for what a process starts, and return what goes to that.

        :param name: of the process's ticket.
        :param where: the process starts it.
        :param process: its number.
        """
        ticket = self.ticket(name)
        if ticket is None:
            return Base(name)
        context = ticket.context.copy()
        context.run(ticket.enter, where, process, is_inner=False)
        base = self.admit(context, (*ticket.order, *where.order))
        self.tickets[base.ticket].suffix = ticket.suffix_in(process)
        return base

    def join(self, name: str, process: int) -> None:
        """Note that a process begins.

        :param name: of its ticket.
        """
        if process and name in self.tickets:
            self.tickets[name].join(process)

    def retract(self, name: str, number: int) -> None:
        """Retract a draw that the ticket with a name keeps."""
        ticket = self.ticket(name)
        if ticket is not None and number in ticket.draws:
            ticket.draws.pop(number).retract()

    def dismiss(self, name: str) -> None:
        """Forget a ticket: further calls by it are refused."""
        self.tickets.pop(name, None)

    def watch(self, name: str, process: int) -> None:
        """Watch which Pythons a process starts.

        :param name: of its ticket.
        """
        self.pythons.watch(name, process)
        if self._thread is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._thread.loop.call_soon_threadsafe(self._begin_to_look)

    def _begin_to_look(self) -> None:
        if not self._is_looking:
            self._look_for_pythons()

    def _look_for_pythons(self) -> None:
        self._is_looking = self.pythons.look()
        if self._is_looking:
            asyncio.get_running_loop().call_later(LOOK_FOR_PYTHONS, self._look_for_pythons)

    def missed(self) -> list[str]:
        """Return the programs whose processes never said hello; those that have just been started get time for it."""
        ends_at = time.monotonic() + LONGEST_START
        while (missed := self.pythons.missed()) and self._thread is not None:
            self._hear_all()
            if time.monotonic() > ends_at or not any(is_running(process) for process, _ in missed):
                break
            time.sleep(LOOK_FOR_PYTHONS)
        return [program for _, program in self.pythons.missed()]

    def _hear_all(self) -> None:
        """Take what processes have said before they ended."""

        async def flush() -> None:
            connection = Connection(self.address)  # it is accepted after theirs
            await connection.send(("flush",))
            await connection.receive()
            connection.close()

        with contextlib.suppress(OSError):
            threads.run(flush())

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
        self.accept_again()

    def accept_again(self) -> None:
        """Accept connections, if none of too many strangers and no lack of open files forbids it now."""
        if not (self._accepts or self.is_closing) and len(self.unknown) < MOST_UNKNOWN:
            self._accepts = True
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _pause(self) -> None:
        self._accepts = False
        asyncio.get_running_loop().remove_reader(self._socket)

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
        _, user = _credentials(accepted)
        if user is not None and user not in (os.getuid(), os.geteuid()):
            accepted.close()
            return
        connection = _Connection(self, accepted)
        self.connections.add(connection)
        self.unknown.add(connection)
        if len(self.unknown) >= MOST_UNKNOWN:
            self._pause()
        if len(self.connections) == 1:
            asyncio.get_running_loop().call_later(LOOK_AT_PEERS, self._look_at_peers)

    def _await_files(self) -> None:
        """Let further processes wait while this one has as many files open as it may."""
        import resource  # where a process may have too many, this is

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            warn_once(
                f"the calls of recorded processes need more than the {soft:,} files that this process could open "
                f"(ulimit -n); it may open {hard:,} now"
            )
            return
        warn_once(
            f"this process may open only {hard:,} files (ulimit -n), and further calls of recorded processes wait "
            "until some are closed. Raise the limit, or let fewer processes and threads call at once"
        )
        self._pause()
        asyncio.get_running_loop().call_later(LOOK_FOR_FILES, self.accept_again)

    def _look_at_peers(self) -> None:
        """Release the permits of the processes that are stopped, as by SIGSTOP, where that can be known."""
        for connection in self.connections:
            if connection.gate is not None and process_state(connection.process) in ("T", "t"):
                connection.gate.answer_began()
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
        self._pause()
        ends = [connection.end for connection in self.connections]
        for connection in list(self.connections):
            if connection.task is None:
                connection.close()
        loop = asyncio.get_running_loop()
        loop.call_soon(has_begun.set)  # once these are closed
        if ends:
            await asyncio.wait(ends, timeout=seconds or None)
        for connection in list(self.connections):
            connection.close()
        self._close_socket()
        thread, self._thread = self._thread, None
        assert thread is not None
        loop.call_soon(thread.end)


class _Connection(asyncio.Protocol):
    """A connection of a process, which makes one call at a time on it.

    :ivar process: its number; 0 if that is unknown.
    :ivar task: answers a call, or ``None``.
    :ivar gate: of the send that the process makes, or ``None``.
    :ivar end: is done when the connection has ended.
    """

    def __init__(self, link: Link, accepted: socket.socket) -> None:
        self.link = link
        self.process, _ = _credentials(accepted)
        self.gate: ClientGate | None = None
        self.task: asyncio.Task[None] | None = None
        self.inner: list[str] = []  # the names of tickets for what is made inside the call
        self._transport: Any = None
        self._buffer = bytearray()
        self._has_token = False
        self._waiting: asyncio.Future[Message] | None = None  # for the next message
        self._unanswered = 0  # messages whose answers are no longer awaited
        loop = asyncio.get_running_loop()
        self.end: asyncio.Future[None] = loop.create_future()
        accepted.setblocking(False)
        # A forked process's copy would keep the connection open after this end is closed.
        close_in_forks(accepted)
        self._made = loop.create_task(loop.connect_accepted_socket(lambda: self, accepted))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = transport
        asyncio.get_running_loop().call_later(LONGEST_GREETING, self._leave_stranger)
        if self.link.is_closing:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Cancel the call: its process has ended, or does not wait for it."""
        self.end.set_result(None)
        self.link.connections.discard(self)
        self._leave_unknown()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionResetError("the process of a call has ended"))
        if self.task is not None:
            self.task.cancel()

    def _leave_unknown(self) -> None:
        self.link.unknown.discard(self)
        self.link.accept_again()

    def _leave_stranger(self) -> None:
        """End the connection, if it has not sent the token."""
        if not self._has_token:
            self._transport.abort()

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
            self._leave_unknown()
            del buffer[: len(token)]
        while len(buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(buffer)
            end = LENGTH.size + length
            if len(buffer) < end:
                return
            message = bytes(buffer[LENGTH.size : end])
            del buffer[:end]
            try:
                self._take(unpacked(message))
            except (pickle.UnpicklingError, TypeError, ValueError, LookupError, EOFError):
                self._transport.abort()  # no process of ours sends this
                return

    def _take(self, message: Message) -> None:
        verb = message[0]
        if verb == "note":
            _take_note(self, *message[1:])
        elif verb == "flush":
            self.send("flushed")
        elif verb == "admit":
            _, name, where = message
            self.send("admitted", tuple(self.link.admit_inside(name, Where(*where), self.process)))
        elif verb == "calls":
            _, name, where, forwarded = message
            self._begin(name, Where(*where), ForwardedCalls(*forwarded))
        elif self._unanswered:
            self._unanswered -= 1
        elif self._waiting is not None:
            self._waiting.set_result(message)
            self._waiting = None

    def _begin(self, name: str, where: Where, forwarded: ForwardedCalls) -> None:
        ticket = self.link.ticket(name)
        if ticket is None or self.link.is_closing:
            self.send("over")
            return
        call = CallOfProcess(self, ticket, where, forwarded)
        # Not by create_task, which would name it as a task of the program.
        self.task = ticket.context.copy().run(asyncio.Task, self._answer(call))

    async def _answer(self, call: CallOfProcess) -> None:
        try:
            await call.answer()
        except BaseException:  # no waiter, or a fault of llmcall's: the process notices the end
            self._transport.abort()
            raise
        finally:
            self.task = None
            for name in self.inner:
                self.link.dismiss(name)
            self.inner.clear()
            if self.link.is_closing:
                self.close()

    def send(self, *message: Any) -> None:
        """Send a message."""
        if not self.end.done():
            self._transport.write(frame(message))

    async def query(self, *message: Any) -> Message:
        """Return the process's answer to a message."""
        if self.end.done():
            raise ConnectionResetError("the process of a call has ended")
        waiting: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting = waiting
        self.send(*message)
        try:
            return await waiting
        except asyncio.CancelledError:
            if self._waiting is waiting:  # its answer will come
                self._waiting = None
                self._unanswered += 1
            raise


class CallOfProcess:
    """A call, or the calls for the texts of embeddings, that a recorded process makes.

    :ivar connection: the recorded process's.
    """

    def __init__(
        self, connection: _Connection, ticket: Ticket, where: Where, forwarded: ForwardedCalls
    ) -> None:
        self.connection = connection
        self._ticket = ticket
        self._where = where
        self._forwarded = forwarded
        self._meter = NotedMeter(ticket.meter)

    def inside(self, *, runs_function: bool) -> Base:
        """Return a ticket for the calls that the recorded process makes inside this call.

        :param runs_function: whether these calls are those of a recorded function, in the scope that is open here.
        """
        ticket = self._ticket.inside(at_base=not runs_function)
        self.connection.link.tickets[ticket.name] = ticket
        self.connection.inner.append(ticket.name)
        return ticket.base() if runs_function else Base(ticket.name)

    async def answer(self) -> None:
        """Answer the calls, and tell the process."""
        number: int | None = None
        draw = None
        try:
            calls = self._calls()
            records: list[Record] | None
            if self._forwarded.is_streamed:
                records = await self._answer_stream(calls)
            else:
                records = await loops.run(answer_calls(calls))
            if records is None:  # its reader has left
                message: tuple[Any, ...] = ("left",)
            else:
                data = [record_data(record) for record in records]
                paths = [call.position.path for call in calls]
                if self._where.keeps_draw and calls[0].draw is not None:
                    draw = self._ticket.keep_draw(calls[0].draw)
                message = ("answered", data, paths, calls[0].is_taped)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - its process raises it
            caller, number = getattr(error, "raised_there", (None, None))
            if caller is not self:
                number = None
            message = ("failed", error_data(error), number)
        self.connection.send(*message, self._meter.noted, draw)

    async def _answer_stream(self, calls: Sequence[Call]) -> list[Record] | None:
        """Answer a call whose answer is read piece by piece; return ``None`` if its reader leaves."""
        found: list[list[Record]] = []
        pieces = loops.pieces(answer_calls(calls), found.append)
        try:
            async for piece in pieces:
                answer = await self.connection.query(
                    "piece", piece.text, piece.chunk, calls[0].is_taped
                )
                if answer[0] == "left":
                    return None
        finally:
            await pieces.aclose()
        return found[0]

    def _calls(self) -> list[Call]:
        """Return the calls, each in its position."""
        forwarded, where = self._forwarded, self._where
        active = self._ticket.enter(where, self.connection.process, is_inner=forwarded.is_inner)
        order = (*self._ticket.order, *where.order)
        cassette = open_current_cassette()
        facts = facts_in(forwarded.facts)
        at = facts.resolved
        calls = []
        if cassette is not None:
            cassette.opening.tell_overridden(lambda: forwarded.taken)
        for hashed, body in forwarded.contents:
            form = FormElsewhere() if forwarded.has_form else None
            transport = RemoteTransport(self, form)
            account = None
            if facts.in_process is not None:
                account = Account(self._meter, facts.in_process)
                transport.endpoints = at.sites[forwarded.model].endpoints
            call = Call(
                account,
                at,
                cassette,
                Request(forwarded.kind, forwarded.model, hashed, body, {}, None, "", form),
                Options(*forwarded.options),
                kind_of(forwarded, transport),
                Position(),
                fallbacks=forwarded.fallbacks,
                is_streamed=forwarded.is_streamed,
                taken=lambda: forwarded.taken,
            )
            draft = Draft.of(call, forwarded.notes)
            if forwarded.sample is not None:
                position = Position(forwarded.sample.partition("#")[0], order)
                call = draft.at(position, forwarded.sample)
                calls.append(InnerCall._make(call) if forwarded.is_inner else call)
            # If this process is itself recorded, its recording process draws.
            elif (
                forwarded.is_inner
                or forwarded.kind == "embedding"
                or (parents and cassette is None)
            ):
                calls.append(place_without_draw(draft, active, order))
            else:
                calls.append(place_in(draft, active, order))
        return calls


def _credentials(accepted: socket.socket) -> tuple[int, int | None]:
    """Return the process and the user at the other end of a socket; 0 and ``None`` if these are unknown."""
    if sys.platform != "linux":
        return 0, None
    credentials = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    process, user, _ = struct.unpack("3i", credentials)
    return process, user


def _take_note(connection: _Connection, what: str, *details: Any) -> None:
    """Take what a process reports without waiting for an answer."""
    link = connection.link
    if what in ("greet", "join"):
        getattr(link, what)(*details, connection.process)
    elif what in ("dismiss", "expect", "retract", "watch"):
        getattr(link, what)(*details)
    elif what == "notes":
        add_notes(*details)
    elif what == "warning":
        warn_once(*details)
    elif what == "credential":
        note_used(details)
    elif (recording := programs.innermost_recorder()) is not None:
        recording.hear(what, *details)


_lock = ProcessLock()
