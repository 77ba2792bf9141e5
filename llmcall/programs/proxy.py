"""The proxy of children that may send nothing: it refuses the hosts of models, and forwards to all others."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import re
import secrets
import socket
import urllib.parse
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

from ..link.loop import LoopThread, close_in_forks
from ..link.wire import LOOPBACK
from . import connections
from .interceptors import Sight

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

    from .recorder import Recorder

USER = "llmcall"
CREDENTIALS = re.compile(rb"(?im)^proxy-authorization:[ \t]*basic[ \t]+([^\s]+)[ \t]*\r\n")
PIECE = 65536  # bytes that are read at once
# Whoever sends no request, or ends a connection, is left; all are when the proxy ends. Before Python 3.12, asyncio
# would print the cancellation of each.
BROKEN = (
    OSError,
    ValueError,
    asyncio.IncompleteReadError,
    asyncio.LimitOverrunError,
    asyncio.CancelledError,
)


class Proxy:
    """A proxy on the loopback, from :meth:`start` until :meth:`close`.

    :param recorder: knows the hosts of models, and notes which of them are called.
    :ivar address: its own, with a user and a password, which clients send by themselves: nobody else gets through.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._socket = socket.create_server((LOOPBACK, 0))  # a connection waits for the start
        close_in_forks(self._socket)
        password = secrets.token_hex(16)
        self.address = f"http://{USER}:{password}@{LOOPBACK}:{self._socket.getsockname()[1]}"
        self._credentials = _basic(USER, password)
        self._thread: LoopThread | None = None

    def start(self) -> None:
        """Start answering."""
        if self._thread is None:
            self._thread = LoopThread("llmcall proxy")
            self._thread.loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        # A task, since its loop reports an unretrieved error.
        serving = asyncio.start_server(self._answer, sock=self._socket)
        self._serving = asyncio.get_running_loop().create_task(serving)

    def close(self, _: float) -> None:
        """Stop answering, without waiting for what is under way."""
        if self._thread is not None and self._thread.is_running:
            self._thread.loop.call_soon_threadsafe(self._thread.end)
            self._thread.join()
        self._socket.close()

    async def _answer(self, reader: StreamReader, writer: StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(*BROKEN):
            first, _, fields = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
            method, target, version = first.decode("ascii").split(" ")
            given = CREDENTIALS.search(fields)
            if given is None or not hmac.compare_digest(given[1], self._credentials):
                asks = "proxy-authenticate: Basic realm=llmcall\r\n"
                _respond(
                    writer, "407 Proxy Authentication Required", "this proxy is another's", asks
                )
                return
            fields = CREDENTIALS.sub(b"", fields)  # the user's own proxy has others
            url = urllib.parse.urlsplit(f"https://{target}" if method == "CONNECT" else target)
            host, port = connections.address_of(url.scheme, url.hostname or "", url.port)
            if connections.is_models((host, port), self._recorder.known_models()):
                self._refuse(host, writer)
                return
            if method != "CONNECT":  # one request, since the next one may be to another host
                fields = re.sub(rb"(?im)^(proxy-)?connection:.*\r\n", b"", fields)
                fields = b"connection: close\r\n" + fields
            upstream = getproxies().get(url.scheme)
            if upstream and not proxy_bypass(host):
                proxy = urllib.parse.urlsplit(upstream)
                host, port = proxy.hostname or "", proxy.port or connections.PORTS["http"]
                head = first + b"\r\n" + _authorization(proxy) + fields
            elif method == "CONNECT":
                head = b""
            else:
                path = urllib.parse.urlunsplit(("", "", url.path or "/", url.query, ""))
                head = f"{method} {path} {version}\r\n".encode() + fields
            try:
                far_reader, far_writer = await asyncio.open_connection(host, port)
            except OSError as error:
                _respond(writer, "502 Bad Gateway", f"llmcall cannot reach {host}:{port}: {error}")
                return
            with contextlib.closing(far_writer):
                far_writer.write(head)
                if not head:
                    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))

    def _refuse(self, host: str, writer: StreamWriter) -> None:
        with contextlib.suppress(ConnectionRefusedError):
            self._recorder.note(Sight.MODEL_CONNECTION, host)
        _respond(writer, "403 Forbidden", str(connections.refused_connection(host).strerror))


def _respond(writer: StreamWriter, status: str, sentence: str, fields: str = "") -> None:
    text = f"{sentence}\n".encode()
    fields += f"content-type: text/plain\r\ncontent-length: {len(text)}\r\nconnection: close"
    writer.write(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + text)


def _basic(user: str, password: str) -> bytes:
    """Return the credentials of a user in the scheme Basic (RFC 7617)."""
    return base64.b64encode(f"{user}:{password}".encode())


def _authorization(proxy: urllib.parse.SplitResult) -> bytes:
    """Return the header that names a proxy's user, who may have none."""
    if proxy.username is None:
        return b""
    user, password = map(urllib.parse.unquote, (proxy.username, proxy.password or ""))
    return b"proxy-authorization: Basic " + _basic(user, password) + b"\r\n"


async def _copy(reader: StreamReader, writer: StreamWriter) -> None:
    """Write all that comes."""
    while piece := await reader.read(PIECE):
        writer.write(piece)
        await writer.drain()
    writer.write_eof()
