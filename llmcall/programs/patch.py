"""Record all HTTP clients of the process for a block."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from ..clients.sdk_transport import is_own_request
from .actors import Actor, warn_of_askers
from .answers import derived
from .calls import current_call
from .http_clients import ProgramTransport
from .makers import name_askers
from .recorder import ProgramCalls
from .requests_library import recording_send

if TYPE_CHECKING:
    from types import ModuleType

_patch_lock = threading.Lock()


@contextlib.contextmanager
def patched(
    actor: Actor | None = None, hosts: Collection[str] = (), **overrides: Any
) -> Iterator[None]:
    """Record and replay the requests of every HTTP client of the process, for a block.

    The block records the clients of httpx, httpx2 and requests in any library, including those made
    before it, whatever their transports. One of llmcall's own errors reaches the program as an error
    of the SDK (in requests: as a response with the status 409); the first one is raised again at the
    end of the block.

    :param actor: names who is asking; see :func:`http_client`.
    :param hosts: further hosts whose JSON requests are recorded, besides those of the openai and
        anthropic SDKs.
    :param overrides: settings by name, as for a client.
    :raises RuntimeError: inside another such block, in any thread.
    :raises ConfigError, TypeError: if a setting is wrong, as for a client.

    >>> def main():
    ...     "Stands in for a program that uses the OpenAI SDK."
    >>> with llmcall.patched(actor="system"), llmcall.cassette("program.jsonl"):
    ...     main()
    """
    calls = ProgramCalls(actor, overrides, hosts, caller="patched()")
    with record_clients(calls):
        try:
            yield
        finally:
            warn_of_askers()
    if calls.first_error is not None:
        raise calls.first_error


def record_clients(calls: ProgramCalls) -> contextlib.ExitStack:
    """Answer the requests of every HTTP client of the process with ``calls``.

    :returns: a stack that restores the clients when it is closed.
    :raises RuntimeError: if the clients of the process are recorded already.
    """
    if not _patch_lock.acquire(blocking=False):
        raise RuntimeError(
            "llmcall.patched() is already active, and only one block can be; leave that block first"
        )
    with contextlib.ExitStack() as undo:
        undo.callback(_patch_lock.release)
        name_askers(undo)
        for name in ("httpx", "httpx2"):
            with contextlib.suppress(ModuleNotFoundError):
                _patch(importlib.import_module(name), calls, undo)
        with contextlib.suppress(ModuleNotFoundError):
            _patch_requests(importlib.import_module("requests"), calls, undo)
        return undo.pop_all()


def _patch(http: ModuleType, calls: ProgramCalls, undo: contextlib.ExitStack) -> None:
    """Put the recorder in front of the transport that a client chooses for a request.

    All clients of a library choose it by one method, whatever the transport. They still do the rest
    themselves: authentication, redirects, cookies, event hooks.
    """
    for client in (http.Client, http.AsyncClient):
        choose = client._transport_for_url

        def recording(self: Any, url: Any, choose: Callable[..., Any] = choose) -> Any:
            """Return the client's transport with the recorder in front of it."""
            below = choose(self, url)
            if isinstance(below, ProgramTransport):  # of http_client(), which records itself
                return below
            return derived(http, PatchedTransport)(http, calls, below)

        client._transport_for_url = recording
        undo.callback(setattr, client, "_transport_for_url", choose)


def _patch_requests(requests: ModuleType, calls: ProgramCalls, undo: contextlib.ExitStack) -> None:
    """Replace the method by which every adapter of a session sends in the end."""
    adapter = requests.adapters.HTTPAdapter
    undo.callback(setattr, adapter, "send", adapter.send)
    adapter.send = recording_send(requests, calls, _is_within_call)


class PatchedTransport(ProgramTransport):
    """Records a program's requests, but not those that llmcall itself sends."""

    def handle_request(self, request: Any) -> Any:
        """Return the response to a request of the program."""
        if _is_within_call():
            return self._below.handle_request(request)
        return super().handle_request(request)

    async def handle_async_request(self, request: Any) -> Any:
        """Return the response to a request of the program."""
        if _is_within_call():
            return await self._below.handle_async_request(request)
        return await super().handle_async_request(request)


def _is_within_call() -> bool:
    return current_call.get(None) is not None or is_own_request.get()
