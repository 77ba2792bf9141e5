"""The wire of the link: a local socket, a token, and frames that hold plain data.

A client sends the token first; it is checked before anything is unpickled. Then messages follow, each as
8 bytes that say how long it is, and a pickle of plain data: what is unpickled calls no code.

``multiprocessing.connection`` was rejected: it needs a thread for each connection, and one event loop serves a
thousand.
"""

from __future__ import annotations

import io
import os
import pickle
import socket
import struct
import sys
from typing import Any, NamedTuple

from ..support.request_origin import PASSED, sent_by
from ..support.waits import may_block

TOKEN_BYTES = 16
LENGTH = struct.Struct(">Q")
BACKLOG = 1024  # processes and threads that connect at once
LOOPBACK = "127.0.0.1"
# What an object of a subclass becomes, such as a member of an enum or a named tuple.
PLAIN = (str, int, float, bytes, tuple, list, dict)

Message = tuple[Any, ...]  # its name, and plain data


class Address(NamedTuple):
    """The address of a recording process.

    :param place: of its socket: ``@NAME`` without a file (Linux), or a port of the loopback.
    :param token: the secret that a client sends first.
    """

    place: str
    token: str


def listening_socket() -> tuple[socket.socket, Address]:
    """Return a socket at which this process listens, and its address."""
    token = os.urandom(TOKEN_BYTES).hex()
    if sys.platform == "linux":
        # Not a file: a folder for temporary files may have too long a name for one.
        name = f"llmcall-{os.urandom(TOKEN_BYTES).hex()}"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(f"\0{name}")
        place = f"@{name}"
    else:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.bind((LOOPBACK, 0))
        place = str(listening.getsockname()[1])
    listening.listen(BACKLOG)  # an early connection waits until it is accepted
    return listening, Address(place, token)


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

    :raises OSError: if that process has ended, or is on another machine.
    """

    def __init__(self, address: Address) -> None:
        place = address.place
        is_name = place.startswith("@")
        family = socket.AF_UNIX if is_name else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            with sent_by(PASSED):
                self._socket.connect(f"\0{place[1:]}" if is_name else (LOOPBACK, int(place)))
                if not is_name:
                    self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._socket.sendall(address.token.encode())
        except BaseException:
            self._socket.close()
            raise
        self._blocks = may_block()
        self._socket.setblocking(self._blocks)

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
