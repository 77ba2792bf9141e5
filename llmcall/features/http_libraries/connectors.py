"""Record the requests that sessions of aiohttp send: their own connectors send them, and a recorded answer comes on a
connection in memory.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection

from ...core import loops
from ...programs.answering import passes, response_to
from ...programs.conversion import (
    UNREAD,
    LibraryErrors,
    httpx_request,
    is_whole,
    response_head,
    whole_response,
)
from ...programs.interceptors import active_recorder, passing
from ...support import libraries
from ...support.loop_waits import next_step

if TYPE_CHECKING:
    import httpx

Connect = Callable[..., Awaitable[Connection]]

ERRORS = LibraryErrors(
    (aiohttp.ClientError, OSError, asyncio.TimeoutError),
    asyncio.TimeoutError,
    aiohttp.ServerTimeoutError,
    aiohttp.ClientConnectionError,
)
LENGTH = "Content-Length"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
FIRST_FINAL = 200  # status of an answer; those below announce one


async def _connect_recorded(
    connect: Connect,
    connector: aiohttp.BaseConnector,
    req: ClientRequest,
    traces: Any,
    timeout: aiohttp.ClientTimeout,
) -> Connection:
    """Replace ``BaseConnector.connect``, by which a session of aiohttp gets the connection of each request."""
    recorder, request = active_recorder(), req
    if recorder is None or "Upgrade" in request.headers:  # a WebSocket
        return await connect(connector, request, traces, timeout)
    if passes(recorder, request.method, str(request.url), request.headers):
        with passing():
            return await connect(connector, request, traces, timeout)
    original = httpx_request(
        request.method,
        str(request.url),
        request.headers.items(),
        await _body(request),
        (timeout.sock_connect, timeout.sock_read),
    )

    async def send_attempt(attempt: httpx.Request) -> httpx.Response:
        """Send an attempt, and return the response as httpx's."""
        sent, limits = copy.copy(request), timeout
        sent.headers = request.headers.copy()
        if attempt is not original:
            before_connected, before_read = attempt.extensions["timeout"].values()
            limits = aiohttp.ClientTimeout(
                timeout.total,
                timeout.connect,
                before_read,
                before_connected,
                timeout.ceil_threshold,
            )
            if attempt.content != original.content:
                await _set_body(sent, attempt.content)
                if LENGTH in sent.headers:
                    sent.headers[LENGTH] = str(len(attempt.content))
        with ERRORS.as_httpx(is_connected=False):
            connection = await connect(connector, sent, traces, limits)
        response = None
        with ERRORS.as_httpx(is_connected=True):
            try:
                protocol: Any = connection.protocol
                protocol.set_response_params(
                    skip_payload=sent.method == "HEAD",
                    read_until_eof=True,
                    read_timeout=limits.sock_read,
                )
                response = await sent.send(connection)
                await response.start(connection)
            except BaseException:
                (response or connection).close()
                raise
        pieces = response.content.iter_any()
        return ERRORS.httpx_response(response.status, response.raw_headers, pieces, response.close)

    broken = None
    try:
        answer = await loops.run(response_to(recorder, libraries.any_httpx, original, send_attempt))
    except libraries.any_httpx.RequestError as error:
        broken = error
    if isinstance(broken, (libraries.any_httpx.ConnectError, libraries.any_httpx.ConnectTimeout)):
        raise ERRORS.of_library(broken)
    came = broken or answer
    if came is None:
        with passing():
            return await connect(connector, request, traces, timeout)
    handler = _Recorded(asyncio.get_running_loop(), came)
    return await connect(_InMemory(handler), request, [], timeout)  # not the replaced one


# What is sent


class _Written(bytearray):
    """What a payload writes."""

    async def write(self, piece: bytes) -> None:
        """Add a piece."""
        self.extend(piece)


async def _body(request: ClientRequest) -> bytes:
    """Return the body of a request; ``UNREAD`` for a generator's, a file's or a form's."""
    body: Any = request.body or b""
    if not isinstance(body, aiohttp.BytesPayload):
        return body if isinstance(body, bytes) else UNREAD
    written = _Written()
    await body.write(written)  # type: ignore[arg-type]  # a payload only writes
    return bytes(written)


async def _set_body(request: ClientRequest, content: bytes) -> None:
    """Give a request another body, under the headers that it has."""
    headers, chunked = request.headers.copy(), request.chunked
    payload = aiohttp.BytesPayload(content)
    if hasattr(request, "update_body"):  # from 3.12 on
        await request.update_body(payload)
    else:
        request.body = payload
    request.headers, request.chunked = headers, chunked


# What comes back


class _InMemory(aiohttp.BaseConnector):
    """A connector whose connection brings a recorded answer."""

    def __init__(self, handler: _Recorded) -> None:
        super().__init__()
        self._handler = handler

    async def _create_connection(self, *_: object) -> ResponseHandler:
        return self._handler


class _Nowhere(asyncio.Transport):
    """A writer that drops everything: the request has been answered already."""

    def write(self, data: object) -> None:
        """Drop the data."""

    def is_closing(self) -> bool:
        """Return ``False``: aiohttp writes no request to a closing one."""
        return False

    def close(self) -> None:
        """Do nothing, as the three below."""

    abort = pause_reading = resume_reading = close


class _Recorded(ResponseHandler):
    """A recorded answer, read like a server's.

    :param answer: the answer, or the error that comes in its place.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, answer: httpx.Response | httpx.RequestError
    ) -> None:
        super().__init__(loop)
        self._answer: Any = answer
        self._error = ERRORS.of_library(answer) if isinstance(answer, Exception) else None
        self._feeding: asyncio.Task[None] | None = None
        self.connection_made(_Nowhere())
        self.force_close()  # no later request is to use the connection
        if isinstance(answer, Exception):  # comes as it is read
            return
        self.data_received(CONTINUE)
        if is_whole(answer):
            self.data_received(whole_response(answer))
        else:
            self.data_received(response_head(answer, (b"transfer-encoding", b"chunked")))

    async def read(self) -> Any:
        """Return the head of the answer, and the stream of its body."""
        if self._error is not None:
            raise self._error
        await next_step()  # the request is written first: aiohttp 3.10 cancels what writes it
        message, stream = await super().read()
        if message.code >= FIRST_FINAL and not is_whole(self._answer):
            # not by the loop, where it would become a caller of its own
            self._feeding = asyncio.Task(self._feed(stream))
        return message, stream

    async def _feed(self, stream: aiohttp.StreamReader) -> None:
        """Feed the pieces of the body as they come."""
        try:
            async for piece in self._answer.aiter_bytes():
                if piece:
                    self.data_received(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.data_received(b"0\r\n\r\n")
        except libraries.any_httpx.RequestError as error:
            stream.set_exception(ERRORS.of_library(error))
        finally:
            await self._answer.aclose()

    def close(self) -> None:
        """End the reading."""
        super().close()
        if self._feeding is not None:
            self._feeding.cancel()


OF_AIOHTTP = [("BaseConnector", "connect", _connect_recorded)]
