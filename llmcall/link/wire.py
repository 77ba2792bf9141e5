"""The wire of the link: a local socket, a token, and frames.

A client sends the token first; it is checked before anything is unpickled. Then messages follow, see
``messages.py``.

``multiprocessing.connection`` was rejected: it needs a thread for each connection, and one event loop serves a
thousand.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import select
import socket
import threading
from collections import deque
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from ..support.loop_waits import in_thread
from ..support.request_origin import PASSED, sent_by
from ..support.system import this_process
from . import messages

if TYPE_CHECKING:
    import asyncio

TOKEN_BYTES = 16
BACKLOG = 1024  # processes and threads that connect at once
LOOPBACK = "127.0.0.1"
MOST_READ = 1 << 16  # bytes that are read at once
HAS_ENDED = "the recording process has ended"
LONGEST_SLEEP = 1.0  # seconds until a thread that waits looks whether anybody reads


class Address(NamedTuple):
    """The address of a recording process.

    :param place: of its socket: the path of a file, ``@NAME`` without one (Linux), or a port of the loopback.
    :param token: the secret that a client sends first.
    """

    place: str
    token: str


def listening_socket() -> tuple[socket.socket, Address]:
    """Return a socket at which this process listens, and its address.

    The socket is a file in a folder that only this user may enter, where the system has such sockets. Else its address
    is open to all users of the machine, who lack the token.
    """
    token = os.urandom(TOKEN_BYTES).hex()
    name = f"llmcall-{os.urandom(TOKEN_BYTES).hex()}"
    if not hasattr(socket, "AF_UNIX"):
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.bind((LOOPBACK, 0))
        place = str(listening.getsockname()[1])
    else:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        place = _bind_in_folder(listening, name)
        if not place:
            place = f"@{name}"
            listening.bind(_socket_name(place))
    listening.listen(BACKLOG)  # an early connection waits until it is accepted
    return listening, Address(place, token)


def _bind_in_folder(listening: socket.socket, name: str) -> str:
    """Bind a socket to a file in a folder of its own, and return its path; empty if no folder can be had."""
    parents = os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), "/tmp"
    for parent in filter(None, parents):
        path = os.path.join(os.path.abspath(parent), name, "link")
        # OSError: it cannot be written, or the path is too long for a socket
        with contextlib.suppress(OSError):
            os.mkdir(os.path.dirname(path), 0o700)
            try:
                listening.bind(path)
            except OSError:
                os.rmdir(os.path.dirname(path))
                raise
            return path
    return ""


def remove_socket(address: Address) -> None:
    """Remove the file and the folder of a socket, if it has these."""
    if os.path.isabs(address.place):
        with contextlib.suppress(OSError):
            os.unlink(address.place)
            os.rmdir(os.path.dirname(address.place))


def _socket_name(place: str) -> str:
    """Return the name of a Unix socket."""
    return f"\0{place[1:]}" if place.startswith("@") else place


def connected(address: Address) -> socket.socket:
    """Return a socket that is connected to the recording process.

    :raises OSError: if that process has ended, or is on another machine.
    """
    place = address.place
    is_port = place.isdigit()
    family = socket.AF_INET if is_port else socket.AF_UNIX
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        with sent_by(PASSED):
            connection.connect((LOOPBACK, int(place)) if is_port else _socket_name(place))
            if is_port:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(address.token.encode())
    except BaseException:
        connection.close()
        raise
    return connection


class Connection:
    """The connection of all threads of a process to the recording process.

    Of the threads that wait for a message, one reads those of all. A thread of its own was rejected: Python warns of
    threads where a process forks, and handing a message over takes longer than reading it.

    :raises OSError: as of :func:`connected`.
    """

    def __init__(self, address: Address) -> None:
        self._socket = connected(address)
        self._process = this_process()
        self.numbers = itertools.count(1)  # of calls
        # Re-entrant: the garbage collector may end a stream, whose call is cancelled, at any moment.
        self._sending = threading.RLock()
        # The thread that reads, which dict.setdefault makes one of them in one step: Ctrl-C comes between two.
        self._reader: dict[None, int] = {}
        self._buffer = bytearray()
        self._told: dict[int, messages.Message] = {}  # by call
        # By call, wakes its thread, or its task
        self._waiting: dict[int, SimpleQueue[None] | asyncio.Queue[None]] = {}

    @property
    def is_open(self) -> bool:
        """Return whether it is open, and this process's own: a forked one has a copy of its parent's. It is left if the
        program closed it, as a daemon closes all descriptors: another file may have its number then.
        """
        try:
            self._socket.getpeername()
        except OSError as error:
            if error.errno in (errno.EBADF, errno.ENOTSOCK):
                self._socket.detach()
        return self._process == this_process() and self._socket.fileno() >= 0

    def is_alive(self) -> bool:
        """Return whether the recording process has not ended."""
        try:
            if not hasattr(socket, "MSG_DONTWAIT"):  # on Windows
                return not select.select([self._socket], [], [], 0)[0]
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    @property
    def is_read_here(self) -> bool:
        """Return whether this thread reads it already: the garbage collector may make a call meanwhile."""
        return self._reader.get(None) == threading.get_ident()

    def send(self, message: messages.Message, call: int = 0) -> None:
        """Send a message.

        :raises OSError: if the recording process has ended.
        """
        data = messages.frame(message, call)
        if not self.is_open:
            raise ConnectionResetError("the connection is closed")
        view, sent = memoryview(data), [0]
        with self._sending:
            try:
                while sum(sent) < len(data):
                    # In one step: Ctrl-C comes between two steps of Python, and it is known what was sent.
                    deque(map(sent.append, map(self._socket.send, (view[sum(sent) :],))), 0)
            except BaseException:
                if 0 < sum(sent) < len(data):
                    self.close()
                raise

    def ask(self, message: messages.Message, call: int | None = None) -> messages.Message:
        """Send a message, and return the answer.

        :raises OSError: if the recording process has ended.
        """
        number = next(self.numbers) if call is None else call
        self._waiting[number] = woken = SimpleQueue[None]()
        own = threading.get_ident()
        try:
            self.send(message, number)
            while number not in self._told:
                if self._reader.setdefault(None, own) == own:
                    self._read()
                else:
                    with contextlib.suppress(Empty):  # Ctrl-C may keep who reads from waking us
                        woken.get(timeout=LONGEST_SLEEP)
            return self._told[number]
        finally:
            if self._reader.get(None) == own:
                del self._reader[None]
            del self._waiting[number]
            self._told.pop(number, None)
            if not self._reader:  # another thread goes on reading
                for other, its in list(self._waiting.items()):
                    its.put_nowait(None)
                    if other not in self._told:
                        break

    def _read(self) -> None:
        """Read what has come, and give each call its message."""
        length = len(self._buffer)
        # In one step, too: no byte is lost.
        deque(map(self._buffer.extend, map(self._socket.recv, (MOST_READ,))), 0)
        if len(self._buffer) == length:
            raise ConnectionResetError(HAS_ENDED)
        while (found := messages.next_message(self._buffer)) is not None:
            end, call, message = found
            woken = self._waiting.get(call)  # None: its thread was interrupted
            if woken is not None:
                self._told[call] = message
            del self._buffer[:end]
            if woken is not None:
                woken.put_nowait(None)

    def cancel(self, call: int) -> None:
        """Let the recording process forget a call."""
        with contextlib.suppress(OSError):
            self.send(messages.Cancel(), call)

    def close(self) -> None:
        """Close it: the recording process forgets what is under way on it."""
        if self.is_open:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # for a thread that reads
        self._socket.close()

    async def answer(
        self, message: messages.Message, call: int, *, blocks: bool
    ) -> messages.Message:
        """Send a call's message, and return the answer.

        :param blocks: ``True`` if it blocks the thread; else an event loop waits for another one.
        :raises OSError: if the recording process has ended.
        """
        ask = partial(self.ask, message, call)
        return ask() if blocks else await in_thread(ask)


class LoopConnection(Connection):
    """The connection of all calls in an asyncio event loop, which reads it. Sending blocks the loop, but only
    briefly.

    :raises NotImplementedError: if the loop reads no sockets.
    :ivar calls: the number of those under way on it.
    """

    def __init__(self, address: Address, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(address)
        self.loop = loop
        self.calls = 0
        loop.add_reader(self._socket, self._take)

    def _take(self) -> None:
        try:
            self._read()
        except OSError:
            self.close()
            for woken in self._waiting.values():
                woken.put_nowait(None)

    def close(self) -> None:
        """Close it, and let the loop read it no longer."""
        if self._socket.fileno() >= 0:
            self.loop.remove_reader(self._socket)
        super().close()

    async def answer(
        self, message: messages.Message, call: int, *, blocks: bool
    ) -> messages.Message:
        """Send a call's message, and return the answer.

        :raises RuntimeError: in another loop, as asyncio does: this one would not wake it.
        """
        import asyncio

        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError("this call was begun in a different event loop")
        self._waiting[call] = woken = asyncio.Queue[None]()
        try:
            self.send(message, call)
            await woken.get()
            if call not in self._told:
                raise ConnectionResetError(HAS_ENDED)
            return self._told[call]
        finally:
            del self._waiting[call]
            self._told.pop(call, None)
