"""HTTP clients for the openai SDK whose calls are recorded and replayed."""

from __future__ import annotations

from typing import Any

from ..clients.api_errors import http_library
from .actors import Actor
from .front import FrontTransport
from .recorder import Recorder


def http_client(*, actor: Actor | None = None, transport: Any = None, **overrides: Any) -> Any:
    """Return an HTTP client for ``openai.OpenAI(http_client=…)`` whose calls are recorded and
    replayed.

    If the API still fails after llmcall's retries, the program gets the API's response. A failed
    connection reaches it as the status 503, a timeout as 504, and one of llmcall's own errors as
    409: an ``openai.APIStatusError`` that the SDK does not retry.

    :param actor: says who is asking: a function of a :class:`llmcall.types.ProgramRequest` that returns a scope's
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

    recorder = Recorder(actor, overrides, caller="http_client()")
    return _recorded(openai.DefaultHttpxClient, recorder)(transport=transport)


def async_http_client(
    *, actor: Actor | None = None, transport: Any = None, **overrides: Any
) -> Any:
    """Return an HTTP client for ``openai.AsyncOpenAI(http_client=…)``. Its arguments are those of
    :func:`http_client`.

    >>> import openai
    >>> client = openai.AsyncOpenAI(api_key="none", http_client=llmcall.async_http_client())
    """
    import openai

    recorder = Recorder(actor, overrides, caller="async_http_client()")
    return _recorded(openai.DefaultAsyncHttpxClient, recorder)(transport=transport)


def _recorded(client: Any, recorder: Recorder) -> Any:
    """Return a class of clients of the SDK with a recorder in front of their transports and proxies."""
    library = http_library()

    class RecordedClient(client):  # type: ignore[misc]
        """An HTTP client of the SDK whose calls are recorded and replayed."""

        # Private: front._transport says why each transport is chosen here.
        def _transport_for_url(self, url: Any) -> Any:
            below = super()._transport_for_url(url)
            # A call passes one recorder only.
            return FrontTransport(library, recorder, getattr(below, "below", below))

    return RecordedClient
