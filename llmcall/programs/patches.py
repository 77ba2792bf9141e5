"""Patches of a program's own clients, loops, pools and threads, while an interceptor is attached."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..additions import additions, load
from ..core import loops, threads
from ..link.programs import interceptors
from ..scopes.callers import begin_naming, current_caller, end_naming
from ..support.request_origin import PROGRAM, llmcall_sends, sender
from . import connections, makers
from .interceptors import Interceptor, Sight, active_interceptor, innermost_interceptor, passing
from .replacing import Installation, Replacement

if TYPE_CHECKING:
    import httpx

_lock = threading.RLock()


@contextlib.contextmanager
def patched_by(interceptor: Interceptor) -> Iterator[None]:
    """Patch every HTTP client of the process for a block, so that an interceptor gets its requests.

    It gets the requests of httpx, httpx2, requests and the libraries of features, whether their library is
    imported before the block or in it.
    """
    with _lock:
        _installation.open()  # also in a forked process, which has no interceptor and its parent's patches
        interceptor.attach()
        interceptors.append(interceptor)
        if current_caller() is None:  # also in a forked process that keeps an interceptor
            begin_naming()
    try:
        yield
    finally:
        with _lock:
            if interceptor in interceptors:  # a forked process has none
                interceptors.remove(interceptor)
            if not interceptors:
                _installation.close()
                end_naming()


class PatchedTransport:
    """A transport that answers recorded requests, and sends all others through the transport below.

    :param library: the module ``httpx`` or ``httpx2``.
    :param interceptor: answers the requests.
    :param below: the program's own transport.
    """

    def __init__(self, library: ModuleType, interceptor: Interceptor, below: Any) -> None:
        self.below = below
        self._library = library
        self.interceptor = interceptor

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response to a request of the program."""
        send = self.below.handle_request
        response = threads.run(self.interceptor.response_to(self._library, request, send))
        if response is None:
            with passing():
                response = send(request)
        return response

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response to a request of the program."""
        send = self.below.handle_async_request
        response = await loops.run(self.interceptor.response_to(self._library, request, send))
        if response is None:
            with passing():
                response = await send(request)
        return response


def _choose_transport(
    library: str, choose: Callable[..., Any], client: object, url: object
) -> object:
    """Return the transport that a client chooses for a request, with the interceptor before it.

    All clients of a library choose it by one method, whatever the transport (LiteLLM and openai's
    DefaultAioHttpClient have their own). They still do the rest themselves: authentication,
    redirects, cookies, event hooks.
    """
    below, interceptor = choose(client, url), active_interceptor()
    if interceptor is None or isinstance(below, PatchedTransport):
        return below
    return PatchedTransport(sys.modules[library], interceptor, below)


def _send_recorded(send: Callable[..., Any], adapter: object, *args: Any, **kwargs: Any) -> object:
    """Replace ``HTTPAdapter.send``, through which every request of a session goes."""
    interceptor = active_interceptor()
    if interceptor is None:
        return send(adapter, *args, **kwargs)
    from .sessions import recorded_send

    return recorded_send(interceptor, send, adapter, *args, **kwargs)


def _connect_noted(connect: Callable[..., Any], socket: object, address: object) -> object:
    """Connect a socket, and note it for the recorder if no recorded client does so.

    Everything that connects through Python's sockets comes here, such as WebSocket libraries, which are not
    recorded. An audit hook would see more (gevent's sockets), but cannot be removed.
    """
    interceptor, to = innermost_interceptor(), connections.connected_to(address)
    is_noted = sender.get() == PROGRAM or (
        llmcall_sends() and interceptor and interceptor.sends_nothing
    )
    if interceptor is not None and to is not None and is_noted:
        if connections.is_models(to, interceptor.known_models()):
            interceptor.note(Sight.MODEL_CONNECTION, to[0])
        else:
            interceptor.note(Sight.OTHER_CONNECTION, f"{to[0]}:{to[1]}")
    return connect(socket, address)


def recorded_libraries() -> list[str]:
    """Return the names of the HTTP libraries whose requests are recorded."""
    of_features = [name.partition(".")[0] for name in additions("patches")]
    return ["httpx", "httpx2", "requests", *of_features]


def _of_httpx(library: str) -> list[Replacement]:
    choose = functools.partial(_choose_transport, library)
    return [(client, "_transport_for_url", choose) for client in ("Client", "AsyncClient")]


_installation = Installation(
    {
        "httpx": _of_httpx("httpx"),
        "httpx2": _of_httpx("httpx2"),
        "requests": [("adapters.HTTPAdapter", "send", _send_recorded)],
        **{library: load(place) for library, place in additions("patches").items()},
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
