"""The server of a recording process, for programs in any language.

Children in other languages, and libraries with sockets of their own, send their requests to it over the loopback.
It answers them as a recorder answers the requests of this process. An address of it says where the
request goes, and who sends it::

    http://127.0.0.1:PORT/TOKEN/at-TICKET/to/https/api.openai.com/v1/chat/completions
    http://127.0.0.1:PORT/TOKEN/openai/v1/chat/completions

The address names the sender, not a header: the SDKs of all languages take a base URL, and few
take headers. The token keeps out other users of the machine and the pages that a browser shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import secrets
import socket
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ..clients.api_errors import http_library
from ..core import loops
from ..errors import ArgumentError, ConfigError
from ..link.loop import LoopThread, close_in_forks
from ..link.wire import LOOPBACK
from ..scopes.active import position_here
from ..scopes.callers import hold_concurrent
from ..scopes.scope import Scope
from ..scopes.scope import scope as open_scope
from ..support.request_origin import LLMCALL, PROGRAM, sender, sent_by
from . import connections
from .answering import response_to
from .http_responses import error_body
from .interceptors import note_refusal
from .routes import BASE_URLS, CALLER, SCOPE_HEADER
from .transport import MESSAGE_HEADERS, headers_to_copy

if TYPE_CHECKING:
    from contextvars import Context
    from types import ModuleType

    import httpx
    import uvicorn

    from .recorder import Recorder

TOKEN_BYTES = 16
NEEDS_SERVE = (
    "a program in another language, or in a Python without llmcall, called a model. To record it, llmcall needs "
    "uvicorn: pip install 'llmcall-sim[serve]'"
)
SCOPE_NAME = SCOPE_HEADER.encode()
# A sender that waits longer than this for a model has given up; its SDK has a shorter timeout of its own.
LONGEST_ANSWER = 3600.0  # seconds
LONGEST_CONNECT = 30.0  # seconds
KEEP_ALIVE = 60  # seconds that an idle connection stays open: longer than its clients keep it
# The bytes of a body pass unchanged, and the SDK must know whether to retry.
KEPT_HEADERS = {b"content-encoding", b"content-length", b"x-should-retry"}
# A browser neither shows an answer in a page, nor gives it to one, nor takes it for a script.
GUARDS = {
    b"content-security-policy": b"sandbox; default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}
DROPPED_HEADERS = MESSAGE_HEADERS - KEPT_HEADERS | GUARDS.keys()
SHARING = b"access-control-"  # begins the headers by which a server opens its answers to pages

# Of ASGI, the interface through which uvicorn hands over requests and takes responses.
Event = MutableMapping[str, Any]  # the types of its values depend on its type
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


class BadRequest(Exception):
    """A request that the server refuses.

    :param status: the status of the response.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Server:
    """A server that answers requests to models over loopback, in a thread, from :meth:`start` until it is closed.

    :param recorder: answers the requests.
    :param context_of: returns the context of what a ticket was made for, or ``None``.
    :param context: of the sender of a request whose address has no ticket, or ``None`` to refuse it.
    :param port: the port; 0 for any that is free.
    :param token: the secret with which its addresses begin; a random one by default.
    :param to: the base URL of the one model that ``openai``, ``anthropic`` and ``gemini`` mean; ``None``
        for those of the environment.
    :raises OSError: if the port is taken.
    :ivar address: its own, ``http://127.0.0.1:PORT/TOKEN``.
    """

    def __init__(
        self,
        recorder: Recorder,
        context_of: Callable[[str], Context | None],
        context: Context | None = None,
        *,
        port: int = 0,
        token: str | None = None,
        to: str | None = None,
    ) -> None:
        self._recorder = recorder
        self._context_of = context_of
        self._context = context
        listening = socket.create_server((LOOPBACK, port))  # a connection waits for the start
        # asyncio sends what is small at once (TCP_NODELAY) only where a socket names its protocol.
        self._socket = socket.socket(
            listening.family, listening.type, socket.IPPROTO_TCP, listening.detach()
        )
        port = self._socket.getsockname()[1]
        self._token = token or secrets.token_urlsafe(TOKEN_BYTES)
        self.address = f"http://{LOOPBACK}:{port}/{self._token}"
        self._base_urls = {
            name: to or os.environ.get(variable) or address
            for name, (variable, address) in BASE_URLS.items()
        }
        self._models = set(map(connections.address_in, self._base_urls.values()))
        self._scopes: dict[str, Scope] = {}  # the outermost ones that headers name
        self._library: ModuleType
        self._client: httpx.AsyncClient
        self._server: uvicorn.Server | None = None  # from the first connection on
        self._thread: LoopThread | None = None
        close_in_forks(self._socket)

    def start(self) -> None:
        """Start answering; earlier connections have waited."""
        if self._thread is None:
            self._thread = LoopThread("llmcall server")
            loop = self._thread.loop
            loop.call_soon_threadsafe(loop.add_reader, self._socket, self._begin)

    def close(self, seconds: int) -> None:
        """Wait for the answers that are under way, and stop.

        :param seconds: how long it waits at most.
        """
        thread = self._thread
        if thread is not None and thread.is_running:
            thread.loop.call_soon_threadsafe(self._end, thread, seconds)
            thread.join()
        self._socket.close()

    # In the server's thread

    def _begin(self) -> None:
        """Serve from the first connection on: until then, nothing has to be imported for it."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        try:
            from ..support.libraries import uvicorn

            self._library = http_library()
            config = uvicorn.Config(
                self._answer,
                log_config=None,
                log_level="critical",
                access_log=False,
                lifespan="off",
                ws="none",
                http="h11",
                interface="asgi3",
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE,
            )
            self._server = uvicorn.Server(config)
        except ImportError:
            self._socket.close()  # whoever connects is refused
            note_refusal(ConfigError(NEEDS_SERVE))
            return
        self._serving = loop.create_task(self._serve())

    def _end(self, thread: LoopThread, seconds: int) -> None:
        if self._server is None:
            thread.end()
            return
        self._server.config.timeout_graceful_shutdown = seconds
        self._server.should_exit = True
        self._serving.add_done_callback(lambda _: thread.end())

    async def _serve(self) -> None:
        library, server = self._library, self._server
        assert server is not None
        limits = library.Limits(max_connections=None)
        # The environment's proxies hold, as for the program's own clients.
        async with library.AsyncClient(limits=limits) as self._client:
            await server.serve(sockets=[self._socket])

    async def _answer(self, scope: Event, receive: Receive, send: Send) -> None:
        """Answer a request; the name, and the arguments, are those of ASGI."""
        try:
            context, parts = self._find_context(scope)
            url = self._url(parts, scope["query_string"].decode("latin-1"))
            if context is self._context:
                self._check_is_models(url)
            names = dict(scope["headers"])
            content = await self._read(receive, names)
        except BadRequest as error:
            await _send_error(send, error.status, error)
            return
        headers = [(name, value) for name, value in scope["headers"] if name != SCOPE_NAME]
        timeout = self._library.Timeout(LONGEST_ANSWER, connect=LONGEST_CONNECT).as_dict()
        request = self._library.Request(
            scope["method"],
            url,
            headers=headers_to_copy(self._library.Headers(headers)),
            content=content,
            extensions={"timeout": timeout},
        )
        sender.set(PROGRAM)
        for variable, value in context.items():  # this task has a context of its own
            variable.set(value)
        hold_concurrent()
        recorder = self._recorder
        try:
            with contextlib.ExitStack() as stack:
                if place := position_here(recorder.recording.default, is_process=True):
                    stack.enter_context(place)
                if SCOPE_NAME in names:
                    self._enter_scopes(stack, names[SCOPE_NAME])
                response = await loops.run(
                    response_to(recorder, self._library, request, self._send)
                )
                if response is None:
                    with sent_by(LLMCALL):
                        response = await self._send(request)
        except ArgumentError as error:
            await _send_error(send, 400, error)
        except self._library.RequestError as error:
            status = 504 if isinstance(error, self._library.TimeoutException) else 502
            await _send_error(send, status, error)
        else:
            await _send_response(send, receive, response)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        return await self._client.send(request, stream=True)

    async def _read(self, receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
        """Return a request's body.

        :raises BadRequest: if it is compressed, or does not come whole.
        """
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise BadRequest(415, "llmcall reads bodies without a content-encoding")
        pieces, has_more = [], True
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise BadRequest(400, "the client disconnected before its request was complete")
            pieces.append(message.get("body", b""))
            has_more = message.get("more_body", False)
        return b"".join(pieces)

    def _check_is_models(self, url: str) -> None:
        """Refuse an address that is not a model's: the server is not a proxy to anything else."""
        models = self._models | self._recorder.known_models()
        if not connections.is_models(connections.address_in(url), models):
            host = urllib.parse.urlsplit(url).hostname
            error = ConfigError(
                f"{host} is not a known model host. Name it as the base URL in --to"
            )
            note_refusal(error)
            raise BadRequest(403, str(error))

    def _find_context(self, scope: Event) -> tuple[Context, list[str]]:
        """Return the context of a request's sender, and the rest of its path."""
        target = scope["raw_path"].decode("latin-1")
        parts = target.lstrip("/").split("/")
        if not hmac.compare_digest(parts.pop(0).encode(), self._token.encode()):
            raise BadRequest(404, "the address lacks the token of the run that it belongs to")
        context = self._context
        if parts and parts[0].startswith(CALLER):
            context = self._context_of(parts.pop(0).removeprefix(CALLER))
        if context is None:
            raise BadRequest(404, "the run that the address belongs to does not know the sender")
        return context, parts

    def _url(self, parts: list[str], query: str) -> str:
        """Return the address that the rest of a path names."""
        name, *rest = parts or [""]
        query = f"?{query}" if query else ""
        if name == "to" and len(rest) >= 2 and rest[0] in ("http", "https"):
            return f"{rest[0]}://{urllib.parse.unquote(rest[1])}/{'/'.join(rest[2:])}{query}"
        base = self._base_urls.get(name)
        if base is None:
            names = ", ".join(f"/{name}" for name in self._base_urls)
            raise BadRequest(404, f"the path begins with none of {names}, /to/https/HOST")
        base = base.rstrip("/")
        if rest[:1] == ["v1"] and (name == "openai" or base.endswith("/v1")):
            rest = rest[1:]  # the base URL has it
        return "/".join([base, *rest]) + query

    def _enter_scopes(self, stack: contextlib.ExitStack, path: bytes) -> None:
        """Enter the scopes that a header names; an ``ArgumentError`` if it names none."""
        outermost, *names = urllib.parse.unquote(path.decode("latin-1")).split("/")
        if outermost not in self._scopes:
            self._scopes[outermost] = open_scope(outermost)
        for scope in (self._scopes[outermost], *map(open_scope, names)):
            stack.enter_context(scope)


# Requests and responses of ASGI


async def _send_error(send: Send, status: int, error: Exception) -> None:
    """Send an error as JSON."""
    content = json.dumps(error_body(error)).encode()
    headers = [
        *GUARDS.items(),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _send_response(send: Send, receive: Receive, response: httpx.Response) -> None:
    """Send a response piece by piece, and close it, also where the client leaves before its end."""
    headers = [
        (name.lower(), value)
        for name, value in response.headers.raw
        if name.lower() not in DROPPED_HEADERS and not name.lower().startswith(SHARING)
    ]
    headers.extend(GUARDS.items())
    start = {"type": "http.response.start", "status": response.status_code, "headers": headers}
    if response.is_stream_consumed:  # what is recorded, and a failure, are there as a whole
        await send(start)
        await send({"type": "http.response.body", "body": response.content})
        return
    task = asyncio.current_task()
    has_left = False

    async def cancel_if_left() -> None:
        nonlocal has_left
        while (await receive())["type"] != "http.disconnect":
            pass
        has_left = True
        if task is not None:
            task.cancel()

    with sent_by(LLMCALL):  # what the task sends is unrecorded
        watch = asyncio.create_task(cancel_if_left())
    try:
        await send(start)
        async for piece in response.aiter_raw():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        watch.cancel()
        await send({"type": "http.response.body", "body": b""})
    except asyncio.CancelledError:
        if not has_left:
            raise
    finally:
        watch.cancel()
        await response.aclose()
