"""Requests to models by aiohttp and urllib: their addresses are rewritten to the run's server, which answers
them. This happens before a name is looked up or a proxy is chosen.
"""

from __future__ import annotations

import contextlib
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from .. import scopes
from . import connections
from .recorder import Recorder
from .requests import may_ask_model
from .routes import Forwarder, Route
from .stack import Front, active_recorder, passing


def open_by_urllib(
    open_url: Callable[..., Any],
    opener: Any,
    fullurl: Any,
    data: Any = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Replace ``OpenerDirector.open``, through which every request of urllib goes."""
    import urllib.request
    from urllib.error import HTTPError

    request = urllib.request.Request(fullurl) if isinstance(fullurl, str) else fullurl
    data = request.data if data is None else data
    method = getattr(request, "method", None) or ("GET" if data is None else "POST")
    url, headers = request.full_url, {**request.headers, **request.unredirected_hdrs}
    recorder = _recorder_of(method, url, headers)
    if recorder is None:
        return open_url(opener, fullurl, data, *args, **kwargs)
    with _route(recorder) as route, passing():
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
    request: Callable[..., Any], session: Any, method: str, str_or_url: Any, **kwargs: Any
) -> Any:
    """Replace ``ClientSession._request``, through which every request of aiohttp goes.

    This is a trick: the method is private, but older than any other way, and what vcrpy replaces, too;
    the middlewares of a session are public, and only since 3.12.
    """
    url = str(session._build_url(str_or_url))
    recorder = _recorder_of(method, url, {**session.headers, **(kwargs.get("headers") or {})})
    if recorder is None:
        return await request(session, method, str_or_url, **kwargs)
    import yarl

    with _route(recorder) as route, passing():
        address = yarl.URL(route.to(url), encoded=True)
        params = kwargs.pop("params", None)
        if params:
            address = address.extend_query(params)
        return await request(session, method, address, **{**kwargs, "proxy": None})


def _recorder_of(method: str, url: str, headers: Mapping[str, str]) -> Front | None:
    """Return what answers a request that may be one to a model, or ``None``."""
    recorder = active_recorder()
    if recorder is None:
        return None
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        return None
    view = SimpleNamespace(
        scheme=parts.scheme, host=parts.hostname, port=parts.port, path=parts.path
    )
    http = SimpleNamespace(
        method=method.upper(),
        url=view,
        headers={name.lower(): value for name, value in headers.items()},
    )
    address = connections.address_of(view)
    is_models_host = connections.is_models(address, recorder.known_models())
    return recorder if may_ask_model(http, is_models_host=is_models_host) else None


@contextlib.contextmanager
def _route(recorder: Front) -> Iterator[Route]:
    """Give the current context a route for a request that a block sends."""
    if isinstance(recorder, Forwarder):
        yield recorder.route_here()
    if not isinstance(recorder, Recorder):
        return
    from .server import sender_here, shared_server

    server, asker = shared_server(), scopes.current_asker()
    ticket = server.admit(sender_here(recorder))
    try:
        yield Route(server.address, ticket, "" if asker is None else asker.name)
    finally:
        server.dismiss(ticket)
