"""The wire of the link: a local socket, a token, and frames that hold plain data.

A client sends the token first; it is checked before anything is unpickled. Then messages follow, each as
8 bytes that say how long it is, and a pickle of plain data: what is unpickled calls no code.

``multiprocessing.connection`` was rejected: it needs a thread for each connection, and one event loop serves a
thousand.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import socket
import struct
from typing import Any, NamedTuple

from ..support.request_origin import PASSED, sent_by

TOKEN_BYTES = 16
LENGTH = struct.Struct(">Q")
BACKLOG = 1024  # processes and threads that connect at once
LOOPBACK = "127.0.0.1"
# What an object of a subclass becomes, such as a member of an enum or a named tuple.
PLAIN = (str, int, float, bytes, tuple, list, dict)

Message = tuple[Any, ...]  # its name, and plain data


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
    for parent in (os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), "/tmp"):
        folder = os.path.join(os.path.abspath(parent or "/"), name)
        path = os.path.join(folder, "link")
        # OSError: it cannot be written, or the path is too long for a socket
        with contextlib.suppress(OSError):
            if not parent:
                continue
            os.mkdir(folder, 0o700)
            try:
                listening.bind(path)
            except OSError:
                os.rmdir(folder)
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


class _Pickler(pickle.Pickler):
    """A pickler of plain data; a subclass of a plain type becomes that type."""

    def reducer_override(self, value: Any) -> Any:
        """Return how an object that is not plain data is pickled."""
        if isinstance(value, type) and value in PLAIN:
            return NotImplemented
        for kind in PLAIN:
            if isinstance(value, kind):
                convert: Any = str.__str__ if kind is str else kind
                return kind, (convert(value),)
        raise TypeError(
            f"{type(value).__name__} is not plain data, so it cannot go to the process that records this one: "
            f"{value!r:.60}"
        )


class _Unpickler(pickle.Unpickler):
    """An unpickler of plain data, which refuses anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a plain type.

        :raises UnpicklingError: for anything else.
        """
        if module == "builtins":
            for kind in PLAIN:
                if kind.__name__ == name:
                    return kind
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")


def packed(value: object) -> bytes:
    """Return plain data as a pickle.

    :raises TypeError: if it is not plain data.
    """
    buffer = io.BytesIO()
    _Pickler(buffer, 5).dump(value)
    return buffer.getvalue()


def unpacked(data: bytes) -> Any:
    """Return the plain data in a pickle.

    :raises UnpicklingError: if it is not plain data.
    """
    return _Unpickler(io.BytesIO(data)).load()


def frame(message: Message) -> bytes:
    """Return a message as it is sent."""
    data = packed(message)
    return LENGTH.pack(len(data)) + data


class Connection:
    """A connection to the recording process: of a thread, which blocks, or of one call in an event loop.

    :param blocks: whether it blocks the thread.
    :raises OSError: if that process has ended, or is on another machine.
    :ivar told: the credentials that were told on it.
    """

    def __init__(self, address: Address, *, blocks: bool = True) -> None:
        place = address.place
        is_port = place.isdigit()
        family = socket.AF_INET if is_port else socket.AF_UNIX
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            with sent_by(PASSED):
                self._socket.connect((LOOPBACK, int(place)) if is_port else _socket_name(place))
                if is_port:
                    self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._socket.sendall(address.token.encode())
        except BaseException:
            self._socket.close()
            raise
        self._blocks = blocks
        self._socket.setblocking(self._blocks)
        self.told: set[str] = set()

    async def send(self, message: Message) -> None:
        """Send a message.

        :raises OSError: if the recording process has ended.
        """
        data = frame(message)
        if self._blocks:
            self._socket.sendall(data)
            return
        import asyncio

        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def receive(self) -> Message:
        """Return the next message.

        :raises OSError: if the recording process has ended.
        """
        (length,) = LENGTH.unpack(await self._read(LENGTH.size))
        message: Message = unpacked(await self._read(length))
        return message

    async def _read(self, length: int) -> bytes:
        data = bytearray(length)
        view, done = memoryview(data), 0
        while done < length:
            if self._blocks:
                count = self._socket.recv_into(view[done:])
            else:
                import asyncio

                count = await asyncio.get_running_loop().sock_recv_into(self._socket, view[done:])
            if not count:
                raise ConnectionResetError("the recording process has ended")
            done += count
        return bytes(data)

    def is_open(self) -> bool:
        """Return whether the other end is open, if nothing is under way."""
        try:
            self._socket.setblocking(False)  # MSG_DONTWAIT does not exist on Windows
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Close it: the recording process forgets what is under way on it."""
        self._socket.close()
