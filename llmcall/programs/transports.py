"""Record the requests that clients of httpx and httpx2 send."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..core import loops, threads
from .answering import response_to
from .interceptors import active_recorder, passing
from .replacing import Replacement

if TYPE_CHECKING:
    import httpx

    from .recorder import Recorder


class PatchedTransport:
    """A transport that answers recorded requests, and sends all others through the transport below.

    :param library: the module ``httpx`` or ``httpx2``.
    :param recorder: answers the requests.
    :param below: the program's own transport.
    """

    def __init__(self, library: ModuleType, recorder: Recorder, below: Any) -> None:
        self.below = below
        self._library = library
        self._recorder = recorder

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response to a request of the program."""
        send = self.below.handle_request
        response = threads.run(response_to(self._recorder, self._library, request, send))
        if response is None:
            with passing():
                response = send(request)
        return response

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response to a request of the program."""
        send = self.below.handle_async_request
        response = await loops.run(response_to(self._recorder, self._library, request, send))
        if response is None:
            with passing():
                response = await send(request)
        return response


def _choose_transport(
    library: str, choose: Callable[..., Any], client: object, url: object
) -> object:
    """Return the transport that a client chooses for a request, with the recorder before it.

    All clients of a library choose it by one method, whatever the transport (LiteLLM and openai's
    DefaultAioHttpClient have their own). They still do the rest themselves: authentication,
    redirects, cookies, event hooks.
    """
    below, recorder = choose(client, url), active_recorder()
    if recorder is None or isinstance(below, PatchedTransport):
        return below
    return PatchedTransport(sys.modules[library], recorder, below)


def _of(library: str) -> list[Replacement]:
    choose = functools.partial(_choose_transport, library)
    return [(client, "_transport_for_url", choose) for client in ("Client", "AsyncClient")]


OF_HTTPX, OF_HTTPX2 = _of("httpx"), _of("httpx2")
