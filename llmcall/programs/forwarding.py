"""The way of a process's requests to the run that started it, and the ways of what a process starts."""

from __future__ import annotations

import contextlib
import functools
import urllib.parse
from typing import TYPE_CHECKING, Protocol

from .. import scopes
from ..stores.cassettes.current import is_in_task
from ..support.sender import llmcall_sends
from ..support.system import this_process
from ..support.waits import may_block
from . import connections
from .requests import is_of_model_sdk, may_ask_model
from .routes import CONNECTED, PATH_HEADER, Route
from .stack import Front, fronts, passing

if TYPE_CHECKING:
    import ssl
    from types import ModuleType

    import httpx

    from .stack import SendRequest


class Forwarder(Front):
    """Sends a process's requests to models to the server of the run that started it, as a recorder answers
    those of the process of the run.

    :param route: the process's.
    """

    def __init__(self, route: Route) -> None:
        self.route = route
        self._models = connections.configured_models()

    @property
    def takes_own_requests(self) -> bool:
        """Return whether llmcall's own requests go to the run; a map's task brings its calls back itself."""
        return not is_in_task()

    def known_models(self) -> set[tuple[str, int]]:
        """Return the addresses of models that this process knows."""
        return self._models

    def note_connection(self, host: str) -> None:
        """Tell the run of a connection to a model that no recorded client makes.

        :raises ConnectionRefusedError: if nothing may be sent.
        """
        import http.client

        route = self.route_here()
        server = urllib.parse.urlsplit(route.address)
        with passing(), contextlib.closing(http.client.HTTPConnection(server.netloc)) as connection:
            connection.request("GET", f"{server.path}/{route.asker_part}/{CONNECTED}/{host}")
            status = connection.getresponse().status
        if status != http.HTTPStatus.NO_CONTENT:
            raise connections.refused_connection(host)

    def route_here(self) -> Route:
        """Return the route of what the current context sends."""
        asker = scopes.current_asker()
        return self.route if asker is None else self.new(asker)

    def new(self, asker: scopes.Asker) -> Route:
        """Return the route of an asker of this process, or of one that it starts."""
        return Route(self.route.address, asker.origin or self.route.ticket, asker.name)

    def release(self, route: Route) -> None:
        """Forget a route, of which this process keeps nothing."""

    async def response_to(
        self, library: ModuleType, http: httpx.Request, send: SendRequest
    ) -> httpx.Response | None:
        """Return the server's response to a request, or ``None`` for one that asks no model.

        :param library: the request's module, ``httpx`` or ``httpx2``.
        """
        asked, headers = http.url, http.headers
        address = connections.address_of(asked.scheme, asked.host, asked.port)
        if is_of_model_sdk(headers):
            self._models.add(address)
        is_models_host = connections.is_models(address, self._models)
        if not may_ask_model(http.method, asked.path, headers, is_models_host=is_models_host):
            return None
        url = library.URL(self.route_here().to(str(asked)))
        others = [(name, value) for name, value in headers.raw if name.lower() != b"host"]
        forwarded = [(b"host", url.netloc), *others]
        active = scopes.here()
        if active.path and active.opened_by == "program":
            # A map's task and a bound function bring their scope along: its path is whole, and not below the
            # scope in which this process was started.
            is_whole = is_in_task() or active.draws.process is None
            path = f"/{active.path}" if is_whole else active.path
            forwarded.append((PATH_HEADER.encode(), urllib.parse.quote(path).encode()))
        request = library.Request(
            http.method,
            url,
            headers=forwarded,
            stream=http.stream,
            extensions=http.extensions,
        )
        with passing():
            if may_block():
                return _connections(library, this_process()).handle_request(request)
            # None outlives an event loop: each request has a connection of its own, which is closed after it.
            limits = library.Limits(max_keepalive_connections=0)
            transport: httpx.AsyncHTTPTransport = library.AsyncHTTPTransport(
                verify=_no_tls(), limits=limits
            )
            return await transport.handle_async_request(request)


@functools.cache
def _connections(library: ModuleType, process: int) -> httpx.HTTPTransport:
    """Return the connections of a process to the server of its run; a forked process makes its own."""
    limits = library.Limits(max_connections=None)
    transport: httpx.HTTPTransport = library.HTTPTransport(verify=_no_tls(), limits=limits)
    return transport


@functools.cache
def _no_tls() -> ssl.SSLContext:
    """Return what a transport takes in place of certificates, which take it milliseconds to read."""
    import ssl

    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def forwarder() -> Forwarder | None:
    """Return what sends this process's requests to a run, or ``None``; a cassette that the process opened may
    stand in front of it.
    """
    return next((front for front in tuple(fronts) if isinstance(front, Forwarder)), None)


# The routes of what this process starts


class Routes(Protocol):
    """Makes the routes of what this process starts: its run, or the way to the run that started it."""

    def new(self, asker: scopes.Asker) -> Route:
        """Return the route of a process, or of a pool's work, that the current context starts."""

    def release(self, route: Route) -> None:
        """Forget a route that is not used any more."""


_routes: Routes | None = None  # while the calls of this process are recorded


def give_routes(routes: Routes | None) -> None:
    """Give what this process starts routes from now on, or no more."""
    global _routes
    _routes = routes


def gives_routes() -> bool:
    """Return whether what this process starts gets routes."""
    return _routes is not None


def new_route(kind: str, label: str) -> Route | None:
    """Return a route for a process or work that the current context starts, or ``None`` if its calls are
    not recorded.
    """
    maker = scopes.current_asker()
    if _routes is None or maker is None or llmcall_sends():
        return None
    return _routes.new(maker.child(kind, label))


def release(route: Route) -> None:
    """Forget a route that is not used any more."""
    if _routes is not None:
        _routes.release(route)
