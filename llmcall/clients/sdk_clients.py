"""The SDK's clients for one endpoint: one for all threads, and one for each event loop."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from ..call.permit import note_sent, note_sent_async
from ..config.values import check_credential

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Callable


class SDKClients:
    """The SDK's clients for one endpoint, made when they are first needed.

    :param make: imports the SDK and returns an ``openai.OpenAI`` or ``openai.AzureOpenAI``; if its
        argument is true, the asynchronous class.
    :param http_client: the user's HTTP client, which the user closes.
    """

    def __init__(self, make: Callable[[bool], Any], http_client: Any) -> None:
        self._make = make
        self._http_client = http_client
        self._lock = threading.Lock()
        self._client: Any = None
        self._loop_clients: dict[
            asyncio.AbstractEventLoop, tuple[Any, AsyncGenerator[None, None]]
        ] = {}

    def of_threads(self) -> Any:
        """Return the synchronous client."""
        with self._lock:
            if self._client is None:
                self._client = self._new_client(asynchronous=False)
                if self._client._client is not self._http_client:
                    # An SDK client is a cycle: without this, pytest -W error reports its sockets.
                    weakref.finalize(self, self._client.close).atexit = False
            return self._client

    async def of_running_loop(self) -> Any:
        """Return the asynchronous client of the running event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        entry = self._loop_clients.get(loop)
        if entry is None:
            for other_loop in list(self._loop_clients):
                # A loop that asyncio.run did not shut down left its generator open.
                if other_loop.is_closed():
                    self._loop_clients.pop(other_loop, None)
            client = self._new_client(asynchronous=True)
            closing = self._close_at_end(loop, client)
            await anext(closing)
            entry = self._loop_clients.setdefault(loop, (client, closing))
        client, _ = entry
        return client

    def _new_client(self, *, asynchronous: bool) -> Any:
        client = self._make(asynchronous)
        # the SDK takes it from the environment and sends it in a header
        project = getattr(client, "project", None)
        if isinstance(project, str):
            check_credential(
                project, "environment variable OPENAI_PROJECT_ID", "a project: one word of text"
            )
        # The user's own HTTP client stays as it is.
        if client._client is not self._http_client:
            client._client.event_hooks["request"].append(
                note_sent_async if asynchronous else note_sent
            )
        return client

    async def _close_at_end(self, loop: Any, client: Any) -> AsyncGenerator[None, None]:
        """Close a client when its event loop ends, since ``asyncio.run`` closes open generators."""
        try:
            yield
        finally:
            self._loop_clients.pop(loop, None)
            if client._client is not self._http_client:
                await client.close()

    def close(self) -> None:
        """Close the connections of the synchronous client; the next call makes another one."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None and client._client is not self._http_client:
            client.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop and of the synchronous client."""
        import asyncio

        self.close()
        entry = self._loop_clients.pop(asyncio.get_running_loop(), None)
        if entry is not None:
            _, closing = entry
            await closing.aclose()
