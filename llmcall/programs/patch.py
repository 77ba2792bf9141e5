"""All HTTP clients of the process, recorded for a block."""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from ..clients.sdk_transport import is_own_request
from .actors import Actor
from .calls import in_hand
from .recorder import ProgramCalls

if TYPE_CHECKING:
    from types import ModuleType

_patch_lock = threading.Lock()


@contextlib.contextmanager
def patched(
    actor: Actor | None = None, hosts: Collection[str] = (), **overrides: Any
) -> Iterator[None]:
    """Record and replay the requests of every HTTP client of the process, for a block.

    It holds for httpx and httpx2, for clients made before and inside the block, in any library. An
    error of llmcall's own reaches the program as an error of the SDK; the first one is raised again
    at the end of the block.

    :param actor: as of :func:`http_client`.
    :param hosts: whose JSON requests are recorded too, besides those of the openai and anthropic
        SDKs.
    :param overrides: settings by name, as of a client.
    :raises RuntimeError: inside another such block, in whatever thread.
    :raises ConfigError, TypeError: as of a client, for settings that are wrong.

    >>> def main():
    ...     "Stand for a program that calls models by the OpenAI SDK."
    >>> with llmcall.patched(actor="system"), llmcall.cassette("program.jsonl"):
    ...     main()
    """
    if not _patch_lock.acquire(blocking=False):
        raise RuntimeError(
            "llmcall.patched() holds already; leave the other block first: one at a time can"
        )
    with contextlib.ExitStack() as undo:
        undo.callback(_patch_lock.release)
        calls = ProgramCalls(actor, overrides, hosts, caller="patched()")
        for name in ("httpx", "httpx2"):
            with contextlib.suppress(ModuleNotFoundError):
                _patch(importlib.import_module(name), calls, undo)
        undo.callback(calls.warn_of_actors)
        yield
    if calls.first_error is not None:
        raise calls.first_error


def _patch(http: ModuleType, calls: ProgramCalls, undo: contextlib.ExitStack) -> None:
    """Replace the method of both transports by one that hands on what it returns: a response, or a
    coroutine.
    """
    for kind, name, handle in (
        (http.HTTPTransport, "handle_request", calls.handle),
        (http.AsyncHTTPTransport, "handle_async_request", calls.ahandle),
    ):
        send = getattr(kind, name)
        setattr(
            kind, name, functools.partialmethod(_handled, functools.partial(handle, http), send)
        )
        undo.callback(setattr, kind, name, send)


def _handled(
    transport: Any, handle: Callable[..., Any], send: Callable[..., Any], request: Any
) -> Any:
    if in_hand.get(None) is not None or is_own_request.get():
        return send(transport, request)
    return handle(functools.partial(send, transport), request)
