"""Make HTTP clients for the openai SDK whose calls are recorded and replayed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..clients.sdk_exceptions import http_library
from .actors import Actor
from .answers import derived
from .recorder import ProgramCalls

if TYPE_CHECKING:
    from types import ModuleType


class ProgramTransport:
    """Answers recorded requests, and sends all others by the transport below.

    :param http: the module ``httpx`` or ``httpx2``.
    :param calls: answers the requests.
    :param below: the transport below.
    """

    bases = "BaseTransport", "AsyncBaseTransport"

    def __init__(self, http: ModuleType, calls: ProgramCalls, below: Any) -> None:
        self._http = http
        self._calls = calls
        self._below = below

    def handle_request(self, request: Any) -> Any:
        """Return the response to a request of the program."""
        return self._calls.handle(self._http, self._below.handle_request, request)

    async def handle_async_request(self, request: Any) -> Any:
        """Return the response to a request of the program."""
        return await self._calls.ahandle(self._http, self._below.handle_async_request, request)

    def close(self) -> None:
        """Close the transport below."""
        self._below.close()

    async def aclose(self) -> None:
        """Close the transport below."""
        await self._below.aclose()


def http_client(*, actor: Actor | None = None, transport: Any = None, **overrides: Any) -> Any:
    """Return an HTTP client for ``openai.OpenAI(http_client=…)`` whose calls are recorded and
    replayed.

    If the API still fails after llmcall's retries, the program gets the API's response. A failed
    connection reaches it as the status 503, a timeout as 504, and one of llmcall's own errors as
    409: an ``openai.APIStatusError`` that the SDK does not retry.

    :param actor: says who is asking: a function of a :class:`ProgramRequest` that returns a scope's
        name or ``None``; ``"system"`` (each system message, after the normalizers of the settings,
        is an actor); ``"header:NAME"`` (the header's value is the actor's name); or
        ``"user:REGEX"`` (the first group in the first user message is). A request that names no
        actor is in the surrounding scope.
    :param transport: sends requests that are not recorded. The default is the SDK's, which also uses
        the environment's proxies.
    :param overrides: settings by name, as for a client: ``cache_path=``, ``cache_mode=``, ….
        Sampling parameters among them are added to requests without them; those from files and
        the environment are not.
    :returns: an ``openai.DefaultHttpxClient``: an ``httpx.Client``, or an ``httpx2.Client`` if the
        installed SDK uses that.

    >>> import openai
    >>> client = openai.OpenAI(api_key="none", http_client=llmcall.http_client())
    """
    import openai

    client = openai.DefaultHttpxClient(transport=transport)
    return _with_recorder(client, ProgramCalls(actor, overrides, caller="http_client()"))


def async_http_client(
    *, actor: Actor | None = None, transport: Any = None, **overrides: Any
) -> Any:
    """Return an HTTP client for ``openai.AsyncOpenAI(http_client=…)``. Its arguments are those of
    :func:`http_client`.

    >>> import openai
    >>> client = openai.AsyncOpenAI(api_key="none", http_client=llmcall.async_http_client())
    """
    import openai

    client = openai.DefaultAsyncHttpxClient(transport=transport)
    return _with_recorder(client, ProgramCalls(actor, overrides, caller="async_http_client()"))


def _with_recorder(client: Any, calls: ProgramCalls) -> Any:
    """Return a client of the SDK with the recorder in front of its transport and its proxies."""
    http = http_library()
    kind = derived(http, ProgramTransport)
    client._transport = kind(http, calls, client._transport)
    client._mounts = {
        pattern: None if below is None else kind(http, calls, below)
        for pattern, below in client._mounts.items()
    }
    return client
