"""The server of a recording process, for what is not sent by httpx or requests in it.

Child processes, in any language, and libraries such as aiohttp send their requests to it, over loopback.
It answers them as a recorder answers the requests of this process. An address of it says where the
request goes, and who sends it::

    http://127.0.0.1:PORT/TOKEN/at-TICKET.ASKER/to/https/api.openai.com/v1/chat/completions
    http://127.0.0.1:PORT/TOKEN/openai/v1/chat/completions

The sender stands in the address, not in a header: the SDKs of all languages take a base URL, and few
take headers. The token keeps out other users of the machine and the pages that a browser shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import itertools
import os
import queue
import secrets
import socket
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from typing import TYPE_CHECKING

from .. import scopes
from ..clients.api_errors import http_library
from ..core.waiting import adrive
from ..errors import ArgumentError
from ..support.sender import LLMCALL, sent_by
from ..support.system import (
    after_fork_in_child,
    after_fork_in_parent,
    before_fork,
)
from . import connections
from .answering import response_to
from .asgi import (
    BadRequest,
    Event,
    Receive,
    Send,
    read_content,
    send_error,
    send_response,
)
from .routes import (
    ASKER,
    BASE_URLS,
    CONNECTED,
    LOOPBACK,
    PATH_HEADER,
    SCOPE_HEADER,
    decoded,
)
from .transport import headers_to_copy

if TYPE_CHECKING:
    import httpx
    import uvicorn

    from .recorder import Recorder
    from .shared_server import Sender

TOKEN_BYTES = 16
SCOPE_HEADERS = (PATH_HEADER.encode(), SCOPE_HEADER.encode())
THREADS = 8
# A sender that waits longer than this for a model has given up; its SDK has a shorter timeout of its own.
LONGEST_ANSWER = 3600.0  # seconds
LONGEST_CONNECT = 30.0  # seconds
LONGEST_HOLD = 5.0  # seconds that a fork waits for what the server does at the moment
KEEP_ALIVE = 60  # seconds that an idle connection stays open: longer than its clients keep it


class Server:
    """Answers requests to models over loopback, in a thread, until it is closed.

    :param sender: who sends a request whose address does not name its sender, or ``None`` for nobody.
    :param port: the port; 0 for any that is free.
    :param token: the secret with which its addresses begin; a random one by default.
    :param to: the base URL of the one model that ``openai``, ``anthropic`` and ``gemini`` mean; ``None``
        for those of the environment.
    :raises OSError: if the port is taken.
    :ivar address: its own, ``http://127.0.0.1:PORT/TOKEN``.
    """

    def __init__(
        self,
        sender: Sender | None = None,
        *,
        port: int = 0,
        token: str | None = None,
        to: str | None = None,
    ) -> None:
        # asyncio sends what is small at once (TCP_NODELAY) only where a socket names its protocol.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            if os.name == "posix":  # elsewhere two servers could have one port
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((LOOPBACK, port))
            self._socket.listen()  # who connects before the thread runs waits for it
        except OSError:
            self._socket.close()
            raise
        port = self._socket.getsockname()[1]
        self._token = token or secrets.token_urlsafe(TOKEN_BYTES)
        self.address = f"http://{LOOPBACK}:{port}/{self._token}"
        self._base_urls = {
            name: to or os.environ.get(variable) or address
            for name, (variable, address) in BASE_URLS.items()
        }
        bases = map(urllib.parse.urlsplit, self._base_urls.values())
        self._models = {
            connections.address_of(base.scheme, base.hostname or "", base.port) for base in bases
        }
        self._reading: set[asyncio.Task[object]] = set()  # those whose requests are not whole yet
        self._senders: dict[str, Sender] = {}
        self._sender = sender
        self._tickets = itertools.count()
        self._scopes: dict[str, scopes.Scope] = {}  # the outermost ones that headers name
        self._library = http_library()
        self._client: httpx.AsyncClient
        self._server = self._new_server()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=Context().run, args=(self._serve,), name="llmcall server", daemon=True
        )
        with sent_by(LLMCALL):
            self._loop.set_default_executor(_Threads())
            self._thread.start()
        self.hold().set()  # it has imported all that it needs when it is held: a fork may follow
        _open_servers.append(self)

    def close(self, seconds: int) -> None:
        """Wait for the answers that are under way, and stop.

        :param seconds: how long it waits at most.
        """
        if self in _open_servers:  # a forked process has none
            _open_servers.remove(self)
            self._server.config.timeout_graceful_shutdown = seconds
            self._server.should_exit = True
            self._loop.call_soon_threadsafe(self._leave_half_sent)
            self._thread.join()

    def _leave_half_sent(self) -> None:
        for task in self._reading:
            task.cancel()

    def admit(self, sender: Sender) -> str:
        """Return a ticket, by which an address names a sender."""
        ticket = str(next(self._tickets))
        self._senders[ticket] = sender
        return ticket

    def dismiss(self, ticket: str) -> None:
        """Forget a sender."""
        self._senders.pop(ticket, None)

    def hold(self) -> threading.Event:
        """Let the server do nothing until the returned event is set: it holds no lock then that a forked
        process, which lacks its thread, would wait for.
        """
        is_held, is_released = threading.Event(), threading.Event()

        def wait() -> None:
            is_held.set()
            is_released.wait()

        self._loop.call_soon_threadsafe(wait)
        is_held.wait(LONGEST_HOLD)
        return is_released

    # In the server's thread

    def _new_server(self) -> uvicorn.Server:
        from ..support.libraries import uvicorn

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
        return uvicorn.Server(config)

    def _serve(self) -> None:
        try:
            self._loop.run_until_complete(self._serve_and_close())
        finally:
            self._loop.close()

    async def _serve_and_close(self) -> None:
        library = self._library
        limits = library.Limits(max_connections=None)
        # The environment's proxies hold, as for the program's own clients.
        async with library.AsyncClient(limits=limits) as self._client:
            await self._server.serve(sockets=[self._socket])

    async def _answer(self, scope: Event, receive: Receive, send: Send) -> None:
        """Answer a request; the name, and the arguments, are those of ASGI."""
        try:
            sender, asker, parts = self._find_sender(scope)
            if parts[:1] == [CONNECTED]:
                await _send_connected(send, sender.recorder, parts)
                return
            url = self._url(parts, scope["query_string"].decode("latin-1"))
            if sender is self._sender:
                self._check_is_models(url, sender.recorder)
            names = dict(scope["headers"])
            content = await self._read(receive, names)
        except BadRequest as error:
            await send_error(send, error.status, error)
            return
        headers = [(name, value) for name, value in scope["headers"] if name not in SCOPE_HEADERS]
        timeout = self._library.Timeout(LONGEST_ANSWER, connect=LONGEST_CONNECT).as_dict()
        request = self._library.Request(
            scope["method"],
            url,
            headers=headers_to_copy(self._library.Headers(headers)),
            content=content,
            extensions={"timeout": timeout},
        )
        for variable, value in sender.context.items():  # this task has a context of its own
            variable.set(value)
        if asker:
            scopes.set_asker(scopes.known_asker(asker))
        try:
            with contextlib.ExitStack() as stack:
                if sender.is_process:
                    stack.enter_context(scopes.in_process(sender.recorder.recording.default))
                for header in SCOPE_HEADERS:
                    if header in names:
                        self._enter_scopes(stack, header, names[header])
                response = await adrive(
                    response_to(sender.recorder, self._library, request, self._send)
                )
                if response is None:
                    with sent_by(LLMCALL):
                        response = await self._send(request)
        except ArgumentError as error:
            await send_error(send, 400, error)
        except self._library.RequestError as error:
            status = 504 if isinstance(error, self._library.TimeoutException) else 502
            await send_error(send, status, error)
        else:
            await send_response(send, receive, response)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        return await self._client.send(request, stream=True)

    async def _read(self, receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
        """Return the body of a request; one that is not whole when the server closes is left."""
        task = asyncio.current_task()
        assert task is not None
        self._reading.add(task)
        try:
            return await read_content(receive, headers)
        except asyncio.CancelledError:
            raise BadRequest(503, "the run ended before the request was whole") from None
        finally:
            self._reading.discard(task)

    def _check_is_models(self, url: str, recorder: Recorder) -> None:
        """Refuse an address that is no model's: the server is no proxy to anything else."""
        parts = urllib.parse.urlsplit(url)
        address = connections.address_of(parts.scheme, parts.hostname or "", parts.port)
        if not connections.is_models(address, self._models | recorder.known_models()):
            raise BadRequest(
                403, f"{parts.hostname} is no known model's host. Name it as the base URL in --to"
            )

    def _find_sender(self, scope: Event) -> tuple[Sender, str, list[str]]:
        """Return who sends a request, the sender's name if the address gives one, and the rest of its path."""
        target = scope["raw_path"].decode("latin-1")
        parts = target.lstrip("/").split("/")
        if not hmac.compare_digest(parts.pop(0).encode(), self._token.encode()):
            raise BadRequest(404, "the address lacks the token of the run that it belongs to")
        sender, asker = self._sender, ""
        if parts and parts[0].startswith(ASKER):
            ticket, _, name = parts.pop(0).removeprefix(ASKER).partition(".")
            sender = self._senders.get(ticket)
            with contextlib.suppress(ValueError):
                asker = decoded(name)
        if sender is None:
            raise BadRequest(404, "the run that the address belongs to does not know the sender")
        return sender, asker, parts

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

    def _enter_scopes(self, stack: contextlib.ExitStack, header: bytes, path: bytes) -> None:
        """Enter the scopes that a header names; an ``ArgumentError`` if a program's names none."""
        new = scopes.scope if header == SCOPE_HEADER.encode() else scopes.Scope
        text = urllib.parse.unquote(path.decode("latin-1"))
        if text.startswith("/") and new is scopes.Scope:
            around = scopes.here().parent_of_new_scopes.path
            text = f"{text}/".removeprefix(f"/{around}" if around else "").strip("/")
            if not text:
                return
        outermost, *names = text.split("/")
        if outermost not in self._scopes:
            self._scopes[outermost] = new(outermost)
        for scope in (self._scopes[outermost], *map(new, names)):
            stack.enter_context(scope)


class _Threads(ThreadPoolExecutor):
    """The threads in which a server stores answers and looks up names.

    Those of a pool take no work once the interpreter ends, and none can be started any more in its last
    phase. A child may still ask then.
    """

    def __init__(self) -> None:
        super().__init__()
        self._todo: queue.SimpleQueue[tuple[Future[object], Callable[[], object]] | None] = (
            queue.SimpleQueue()
        )
        for _ in range(THREADS):
            threading.Thread(target=self._work, name="llmcall server", daemon=True).start()

    def submit(  # type: ignore[override]  # the loop alone calls it
        self, function: Callable[..., object], /, *args: object, **kwargs: object
    ) -> Future[object]:
        """Call a function in one of the threads."""
        future: Future[object] = Future()
        self._todo.put((future, functools.partial(function, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads, as the loop does when it is closed."""
        for _ in range(THREADS):
            self._todo.put(None)

    def _work(self) -> None:
        while (work := self._todo.get()) is not None:
            future, function = work
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:  # noqa: BLE001 - who waits for the future gets it
                    future.set_exception(error)


async def _send_connected(send: Send, recorder: Recorder, parts: list[str]) -> None:
    """Note a connection that a process makes; answer whether it may."""
    try:
        recorder.note_connection(urllib.parse.unquote("/".join(parts[1:])))
    except ConnectionRefusedError as error:
        await send_error(send, 409, error)
    else:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


_open_servers: list[Server] = []


class _Forking(threading.local):
    """The events that release the servers, in a thread that forks: others may fork at the same
    moment. A fork may also import this module after it has begun.
    """

    held: Sequence[threading.Event] = ()


_forking = _Forking()


@before_fork
def _hold_servers() -> None:
    _forking.held = [server.hold() for server in tuple(_open_servers)]


@after_fork_in_parent
def _release_servers() -> None:
    for is_released in _forking.held:
        is_released.set()


@after_fork_in_child
def _leave_servers() -> None:
    """Close a forked process's copies: a program that connects would wait for ever if only that was left."""
    for server in _open_servers:
        server._socket.close()
    _open_servers.clear()
