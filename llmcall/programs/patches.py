"""Patches of a program's own clients, loops, pools and threads, while an interceptor is attached."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ..additions import additions
from ..link.programs import interceptors
from ..scopes.callers import begin_naming, current_caller, end_naming
from ..support.request_origin import PROGRAM, llmcall_sends, sender
from . import connections, makers
from .interceptors import Interceptor, Sight, innermost_interceptor
from .replacing import Installation

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


_installation = Installation(
    {
        # With a library, all that its first request needs is imported: a process that another thread forks meanwhile
        # would wait for ever for a module that was being imported.
        "httpx": "programs.transports:OF_HTTPX",
        "httpx2": "programs.transports:OF_HTTPX2",
        "requests": "programs.sessions:OF_REQUESTS",
        **additions("patches"),
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
