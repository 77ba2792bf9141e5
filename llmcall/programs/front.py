"""Recorders in front of a program's own clients, loops, pools and threads, while they are open."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .. import scopes
from ..core.waiting import adrive
from ..support.blocking import run_blocking
from ..support.sender import PROGRAM, llmcall_sends, sender
from . import connections, makers
from .forwarding import Forwarder
from .recorder import Recorder
from .replacing import Installation, Replacement
from .requests import may_ask_model
from .routes import Route
from .shared_server import close_shared, sender_here, shared_server
from .stack import Front, active_front, fronts, innermost, passing

if TYPE_CHECKING:
    import httpx

_lock = threading.RLock()


@contextlib.contextmanager
def in_front(front: Front) -> Iterator[None]:
    """Put a front before every HTTP client of the process, for a block.

    It gets the requests of the clients of httpx and httpx2 and of the sessions of requests, whether
    their library is imported before the block or in it.
    """
    with _lock:
        _installation.open()  # also in a forked process, which has no front and its parent's patches
        front.stand_in_front()
        fronts.append(front)
        if scopes.current_asker() is None:  # also in a forked process that keeps its parent's front
            scopes.begin_naming()
    try:
        yield
    finally:
        if fronts == [front]:
            close_shared()  # without the lock, for which what is under way there may wait
        with _lock:
            if front in fronts:  # a forked process has none
                fronts.remove(front)
            if not fronts:
                _installation.close()
                scopes.end_naming()


class FrontTransport:
    """Answers the requests that are recorded, and sends all others by the transport below.

    :param library: the module ``httpx`` or ``httpx2``.
    :param front: answers the requests.
    :param below: the program's own transport.
    """

    def __init__(self, library: ModuleType, front: Front, below: Any) -> None:
        self.below = below
        self._library = library
        self.front = front

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response to a request of the program."""
        send = self.below.handle_request
        response = run_blocking(self.front.response_to(self._library, request, send))
        if response is None:
            with passing():
                response = send(request)
        return response

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response to a request of the program."""
        send = self.below.handle_async_request
        response = await adrive(self.front.response_to(self._library, request, send))
        if response is None:
            with passing():
                response = await send(request)
        return response


def _choose_transport(
    library: str, choose: Callable[..., Any], client: object, url: object
) -> object:
    """Return the transport that a client chooses for a request, with the front before it.

    All clients of a library choose it by one method, whatever the transport (LiteLLM and openai's
    DefaultAioHttpClient have their own). They still do the rest themselves: authentication,
    redirects, cookies, event hooks.
    """
    below, front = choose(client, url), active_front()
    if front is None or isinstance(below, FrontTransport):
        return below
    return FrontTransport(sys.modules[library], front, below)


def _send_recorded(
    send: Callable[..., Any],
    adapter: object,
    request: object,
    *args: object,
    **kwargs: Any,
) -> object:
    """Replace ``HTTPAdapter.send``, through which every request of a session goes."""
    front = active_front()
    if front is None:
        return send(adapter, request, *args, **kwargs)
    from .sessions import recorded_send

    below = functools.partial(send, adapter)
    return recorded_send(sys.modules["requests"], front, adapter, below, request, args, kwargs)


# urllib and aiohttp: the addresses of requests to models are rewritten to the run's server, which answers them.
# This happens before a name is looked up or a proxy is chosen.


def open_by_urllib(
    open_url: Callable[..., Any],
    opener: object,
    fullurl: Any,
    data: Any = None,
    *args: Any,
    **kwargs: Any,
) -> object:
    """Replace ``OpenerDirector.open``, through which every request of urllib goes."""
    import urllib.request
    from urllib.error import HTTPError

    request = urllib.request.Request(fullurl) if isinstance(fullurl, str) else fullurl
    data = request.data if data is None else data
    method = getattr(request, "method", None) or ("GET" if data is None else "POST")
    url, headers = request.full_url, {**request.headers, **request.unredirected_hdrs}
    front = _front_of(method, url, headers)
    if front is None:
        return open_url(opener, fullurl, data, *args, **kwargs)
    with _routed(front) as route, passing():
        changed = urllib.request.Request(
            route.to(url),
            data,
            request.headers,
            request.origin_req_host,
            request.unverifiable,
            method,
        )
        for name, value in request.unredirected_hdrs.items():
            changed.add_unredirected_header(name, value)
        try:
            response = open_url(opener, changed, None, *args, **kwargs)
        except HTTPError as error:
            error.filename = error.url = url
            raise
    response.url = url
    return response


async def request_by_aiohttp(
    request: Callable[..., Any], session: Any, method: str, str_or_url: object, **kwargs: Any
) -> object:
    """Replace ``ClientSession._request``, through which every request of aiohttp goes.

    This is a trick: the method is private, but older than any other way, and what vcrpy replaces, too;
    the middlewares of a session are public, and only since 3.12.
    """
    url = str(session._build_url(str_or_url))
    front = _front_of(method, url, {**session.headers, **(kwargs.get("headers") or {})})
    if front is None:
        return await request(session, method, str_or_url, **kwargs)
    import yarl

    with _routed(front) as route, passing():
        address = yarl.URL(route.to(url), encoded=True)
        params = kwargs.pop("params", None)
        if params:
            address = address.extend_query(params)
        return await request(session, method, address, **{**kwargs, "proxy": None})


def _front_of(method: str, url: str, headers: Mapping[str, str]) -> Front | None:
    """Return what answers a request that may be one to a model, or ``None``."""
    front = active_front()
    if front is None:
        return None
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        return None
    names = {name.lower(): value for name, value in headers.items()}
    address = connections.address_of(parts.scheme, parts.hostname, parts.port)
    is_models_host = connections.is_models(address, front.known_models())
    may_ask = may_ask_model(method.upper(), parts.path, names, is_models_host=is_models_host)
    return front if may_ask else None


@contextlib.contextmanager
def _routed(front: Front) -> Iterator[Route]:
    """Give the current context a route for a request that a block sends."""
    if isinstance(front, Forwarder):
        yield front.route_here()
    if not isinstance(front, Recorder):
        return
    server, asker = shared_server(), scopes.current_asker()
    ticket = server.admit(sender_here(front))
    try:
        yield Route(server.address, ticket, "" if asker is None else asker.name)
    finally:
        server.dismiss(ticket)


def _connect_noted(connect: Callable[..., Any], socket: object, address: object) -> object:
    """Connect a socket, and note it for the recorder if no recorded client does so.

    All that connects by Python's sockets comes here, such as libraries for WebSockets, which are not recorded. An
    audit hook would see more (gevent's sockets), but Python never takes one back.
    """
    front, to = innermost(), connections.connected_to(address)
    is_noted = sender.get() == PROGRAM or (llmcall_sends() and front and front.sends_nothing)
    if front is not None and to is not None and is_noted:
        if connections.is_models(to, front.known_models()):
            front.note_connection(to[0])
        else:
            front.note_other_connection(f"{to[0]}:{to[1]}")
    return connect(socket, address)


def _of_httpx(library: str) -> list[Replacement]:
    choose = functools.partial(_choose_transport, library)
    return [(client, "_transport_for_url", choose) for client in ("Client", "AsyncClient")]


_installation = Installation(
    {
        "httpx": _of_httpx("httpx"),
        "httpx2": _of_httpx("httpx2"),
        "requests": [("adapters.HTTPAdapter", "send", _send_recorded)],
        "aiohttp": [("ClientSession", "_request", request_by_aiohttp)],
        "urllib.request": [("OpenerDirector", "open", open_by_urllib)],
        "socket": [
            ("", "getaddrinfo", connections.getaddrinfo),
            ("socket", "connect", _connect_noted),
            ("socket", "connect_ex", _connect_noted),
        ],
        "threading": [("Thread", "start", makers.start_thread)],
        "concurrent.futures.thread": [("ThreadPoolExecutor", "submit", makers.submit_work)],
        "asyncio": [
            ("BaseEventLoop", "create_task", makers.create_task),
            ("", "as_completed", makers.as_completed),
        ],
        "uvloop": [("Loop", "create_task", makers.create_task)],
    }
)
