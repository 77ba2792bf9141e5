"""The methods of aiohttp and urllib that are replaced while a program is recorded. The libraries are imported with
their first request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...programs.interceptors import active_interceptor


async def _connect_recorded(
    connect: Callable[..., Any], connector: Any, req: Any, traces: object, timeout: Any
) -> object:
    """Replace ``BaseConnector.connect``, by which a session of aiohttp gets the connection of each request."""
    interceptor = active_interceptor()
    if interceptor is None or "Upgrade" in req.headers:  # a WebSocket
        return await connect(connector, req, traces, timeout)
    from .connectors import recorded_connect

    return await recorded_connect(interceptor, connect, connector, req, traces, timeout)


def _open_recorded(
    open_below: Callable[..., Any], opener: object, request: Any, data: object = None
) -> object:
    """Replace ``OpenerDirector._open``, between the opener's processors of requests and of responses.

    This is a trick: the method is private, but older than any alternative, and the one place that every request
    passes as it is sent: also redirects, answers to a 401 and those of a program's own handlers.
    """
    interceptor = active_interceptor()
    if interceptor is None or request.type not in ("http", "https"):
        return open_below(opener, request, data)
    from .openers import recorded_open

    return recorded_open(interceptor, open_below, opener, request)


OF_AIOHTTP = [("BaseConnector", "connect", _connect_recorded)]
OF_URLLIB = [("OpenerDirector", "_open", _open_recorded)]
