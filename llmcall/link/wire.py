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
import time
from collections import deque
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from ..support.loop_waits import in_thread
from ..support.request_origin import PASSED, sent_by
from ..support.system import (
    after_fork_in_child,
    after_fork_in_parent,
    before_fork,
    is_running,
    this_process,
    unwatched,
)
from . import messages

if TYPE_CHECKING:
    import asyncio

TOKEN_BYTES = 16
BACKLOG = 1024  # processes and threads that connect at once
LOOPBACK = "127.0.0.1"
LONGEST_FOLDER = 90  # bytes of its path: that of a socket in it may have little more than 100
BELL = "bell"  # the file that a process makes to call one that has not begun to listen
BETWEEN_LOOKS = 0.005  # seconds between two looks whether it does
MOST_READ = 1 << 16  # bytes that are read at once
HAS_ENDED = "the recording process has ended"
LONGEST_SLEEP = 1.0  # seconds until a thread that waits looks whether anybody reads

# Held while this process looks for what it started, or begins to listen, and by a fork: so the forked process finds the
# locks of imports free.
beginning = threading.RLock()
before_fork(beginning.acquire)
after_fork_in_parent(beginning.release)
after_fork_in_child(beginning.release)


class Address(NamedTuple):
    """The address of a recording process.

    :param folder: of its recording, which only this user may enter.
    :param token: the secret that a client sends first.
    :param process: its number.
    """

    folder: str
    token: str
    process: int

    @property
    def place(self) -> str:
        """Return the path of its socket; where the system has none with paths, of a file with a port of the
        loopback.
        """
        return os.path.join(self.folder, "link")

    @property
    def bell(self) -> str:
        """Return the path of its bell."""
        return os.path.join(self.folder, BELL)


def new_address() -> Address:
    """Return an address of this process, in a new folder.

    :raises OSError: if no folder can be made.
    """
    name, token = (os.urandom(TOKEN_BYTES).hex() for _ in range(2))
    given = os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), os.environ.get("TEMP")
    for parent in filter(None, (*given, "/tmp")):
        folder = os.path.join(os.path.abspath(parent), f"llmcall-{name}")
        if len(os.fsencode(folder)) <= LONGEST_FOLDER:
            with contextlib.suppress(OSError):
                os.mkdir(folder, 0o700)
                return Address(folder, token, os.getpid())
    raise FileNotFoundError(errno.ENOENT, "no folder for temporary files can be written", given)


def listening_socket(address: Address) -> socket.socket:
    """Return a socket at which this process listens. A port is open to all users of the machine, who lack the token."""
    made = f"{address.place}~"  # takes the place of the address once it listens
    if hasattr(socket, "AF_UNIX"):
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(made)
    else:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.bind((LOOPBACK, 0))
        with open(made, "w", encoding="ascii") as file:
            file.write(str(listening.getsockname()[1]))
    listening.listen(BACKLOG)  # an early connection waits until it is accepted
    os.replace(made, address.place)
    return listening


def remove(address: Address) -> None:
    """Remove the folder of an address."""
    with contextlib.suppress(OSError):
        for name in os.listdir(address.folder):
            os.unlink(os.path.join(address.folder, name))
        os.rmdir(address.folder)


@unwatched()
def connected(address: Address) -> socket.socket:
    """Return a socket that is connected to the recording process.

    :raises OSError: if that process has ended, or is on another machine.
    """
    place: tuple[str, int] | str = address.place
    if not os.path.exists(address.place):
        _ring(address)
    family = getattr(socket, "AF_UNIX", socket.AF_INET)
    if family == socket.AF_INET:
        with open(address.place, encoding="ascii") as file:
            place = LOOPBACK, int(file.read())
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        with sent_by(PASSED):
            connection.connect(place)
            if family == socket.AF_INET:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(address.token.encode())
    except BaseException:
        connection.close()
        raise
    return connection


def _ring(address: Address) -> None:
    """Have the recording process listen, and wait until it does."""
    open(address.bell, "ab").close()
    while not os.path.exists(address.place):
        has_ended = os.path.exists("/proc/self/stat") and not is_running(address.process)
        # The bell goes once the address is there, which may be just now.
        if has_ended or not any(map(os.path.exists, (address.bell, address.place))):
            raise ConnectionRefusedError(HAS_ENDED)
        time.sleep(BETWEEN_LOOKS)


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

    @unwatched()  # it does not wait
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

    @unwatched()
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

    @unwatched()
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
    briefly. Threads of the loop's pool were rejected: followers may hold all of them, and the answer of their leader
    would wait for one.

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
