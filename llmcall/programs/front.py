"""Recorders in front of a program's own clients, loops, pools and threads, while they are open."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from .. import scopes
from ..core.effects import adrive
from ..support.blocking import run_blocking
from ..support.sender import PROGRAM, is_llmcalls, sender
from . import connections, makers
from .other_libraries import open_by_urllib, request_by_aiohttp
from .replacing import replace, when_imported
from .stack import Front, active_recorder, innermost, passing, recorders

_undo = contextlib.ExitStack()
_lock = threading.RLock()


@contextlib.contextmanager
def in_front(recorder: Front) -> Iterator[None]:
    """Put a recorder in front of every HTTP client of the process, for a block.

    It gets the requests of the clients of httpx and httpx2 and of the sessions of requests, whether
    their library is imported before the block or in it.
    """
    with _lock:
        recorder.stand_in_front()
        recorders.append(recorder)
        if len(recorders) == 1:
            _install()
    try:
        yield
    finally:
        if recorders == [recorder] and "llmcall.programs.server" in sys.modules:
            from .server import close_shared

            close_shared()  # without the lock, for which what is under way there may wait
        with _lock:
            if recorder in recorders:  # a forked process has none
                recorders.remove(recorder)
            if not recorders:
                _undo.close()


def _install() -> None:
    scopes.begin_naming()
    _undo.callback(scopes.end_naming)
    when_imported(_undo, dict.fromkeys(FRONTS, _put_in_front))


def _put_in_front(module: ModuleType) -> None:
    with _lock:
        if recorders:  # the block may have ended while another thread imported the module
            for owner, name, replacement in FRONTS[module.__name__](module):
                replace(_undo, owner, name, replacement)


class FrontTransport:
    """Answers the requests that are recorded, and sends all others by the transport below.

    :param library: ``httpx`` or ``httpx2``.
    :param recorder: answers the requests.
    :param below: the program's own transport.
    """

    def __init__(self, library: ModuleType, recorder: Front, below: Any) -> None:
        self.below = below
        self._library = library
        self.recorder = recorder

    def handle_request(self, request: Any) -> Any:
        """Return the response to a request of the program."""
        send = self.below.handle_request
        response = run_blocking(self.recorder.response_to(self._library, request, send))
        if response is not None:
            return response
        with passing():
            return send(request)

    async def handle_async_request(self, request: Any) -> Any:
        """Return the response to a request of the program."""
        send = self.below.handle_async_request
        response = await adrive(self.recorder.response_to(self._library, request, send))
        if response is not None:
            return response
        with passing():
            return await send(request)


def _choose_transport(
    library: ModuleType, choose: Callable[..., Any], client: Any, url: Any
) -> Any:
    """Return the transport that a client chooses for a request, with the recorder in front of it.

    All clients of a library choose it by one method, whatever the transport (LiteLLM and openai's
    DefaultAioHttpClient have their own). They still do the rest themselves: authentication,
    redirects, cookies, event hooks.
    """
    below, recorder = choose(client, url), active_recorder()
    if recorder is None or isinstance(below, FrontTransport):
        return below
    return FrontTransport(library, recorder, below)


def _send_recorded(
    requests: ModuleType,
    send: Callable[..., Any],
    adapter: Any,
    request: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Replace ``HTTPAdapter.send``, through which every request of a session goes."""
    recorder = active_recorder()
    if recorder is None:
        return send(adapter, request, *args, **kwargs)
    from .sessions import recorded_send

    below = functools.partial(send, adapter)
    return recorded_send(requests, recorder, adapter, below, request, args, kwargs)


def _connect_noted(connect: Callable[..., Any], socket: Any, address: Any) -> Any:
    """Connect a socket, and note it for the recorder if no recorded client does so.

    Libraries that are not recorded, such as urllib and aiohttp, come here. An audit hook would see
    more (gevent's sockets), but Python never takes one back.
    """
    recorder = innermost()
    if recorder is not None and (
        sender.get() == PROGRAM or (is_llmcalls() and recorder.sends_nothing)
    ):
        host = connections.model_host_at(address, recorder.known_models())
        if host is not None:
            recorder.note_connection(host)
        else:
            recorder.note_other_connection(connections.shown_address(address))
    return connect(socket, address)


def _httpx_replacements(http: ModuleType) -> list[Replacement]:
    transport = functools.partial(_choose_transport, http)
    return [(client, "_transport_for_url", transport) for client in (http.Client, http.AsyncClient)]


Replacement = tuple[Any, str, Callable[..., Any]]  # what is replaced: its owner and its name

# By the module that has them.
FRONTS: dict[str, Callable[[ModuleType], list[Replacement]]] = {
    "httpx": _httpx_replacements,
    "httpx2": _httpx_replacements,
    "requests": lambda requests: [
        (requests.adapters.HTTPAdapter, "send", functools.partial(_send_recorded, requests))
    ],
    "aiohttp": lambda aiohttp: [(aiohttp.ClientSession, "_request", request_by_aiohttp)],
    "urllib.request": lambda request: [(request.OpenerDirector, "open", open_by_urllib)],
    "socket": lambda socket: [
        (socket, "getaddrinfo", connections.getaddrinfo),
        (socket.socket, "connect", _connect_noted),
        (socket.socket, "connect_ex", _connect_noted),
    ],
    "threading": lambda threading: [(threading.Thread, "start", makers.start_thread)],
    "concurrent.futures.thread": lambda thread: [
        (thread.ThreadPoolExecutor, "submit", makers.submit_work)
    ],
    "asyncio": lambda asyncio: [
        (asyncio.BaseEventLoop, "create_task", makers.create_task),
        (asyncio, "as_completed", makers.as_completed),
    ],
    "uvloop": lambda uvloop: [(uvloop.Loop, "create_task", makers.create_task)],
}
