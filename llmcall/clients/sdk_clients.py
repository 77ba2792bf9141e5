"""The SDK's clients for one endpoint: synchronous ones, each used by one call at a time, and
an asynchronous one for each event loop.

Threads that share an SDK client wait for one another: before each request, its pool of connections
looks at the socket of every idle connection, and holds a lock meanwhile (httpcore 1.0, httpcore2 2.16).
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..call.admission import note_sent, note_sent_async
from ..config.values import check_credential
from .time_limits import keep_time_limits

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Callable, Iterator

# As many idle connections as the SDK itself keeps (openai 3.54, DEFAULT_CONNECTION_LIMITS).
MOST_IDLE = 100


class SDKClients:
    """A pool of the SDK's clients.

    :param make: imports the SDK and returns an ``openai.OpenAI`` or ``openai.AzureOpenAI``; if its
        argument is true, the asynchronous class.
    :param http_client: the user's HTTP client, which the user closes.
    """

    def __init__(self, make: Callable[[bool], Any], http_client: Any) -> None:
        self._make = make
        self._http_client = http_client
        self._making = threading.Lock()  # the first one that is made reads the certificates for all
        self._idle: deque[Any] = deque()
        self._loop_clients: dict[
            asyncio.AbstractEventLoop, tuple[Any, AsyncGenerator[None, None]]
        ] = {}
        # SDK clients are cycles, and the collector may take their sockets first.
        weakref.finalize(self, _close, self._idle, http_client).atexit = False

    @contextmanager
    def acquire(self) -> Iterator[Any]:
        """Yield a synchronous client that no other call uses: the one that was used last, or a new one."""
        try:
            client = self._idle.pop()
        except IndexError:
            with self._making:
                client = self._new_client(asynchronous=False)
        try:
            yield client
        finally:
            self._idle.append(client)
            _close(self._idle, self._http_client, keep=MOST_IDLE)

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
        if not asynchronous:
            keep_time_limits(client._client)
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
        """Close the connections of the synchronous clients that no call uses."""
        _close(self._idle, self._http_client)

    async def aclose(self) -> None:
        """Close the connections of the running event loop and of the synchronous clients."""
        import asyncio

        self.close()
        entry = self._loop_clients.pop(asyncio.get_running_loop(), None)
        if entry is not None:
            _, closing = entry
            await closing.aclose()


def _close(clients: deque[Any], http_client: Any, *, keep: int = 0) -> None:
    """Close and forget clients, but not the HTTP client of the user.

    :param keep: how many of those used last stay.
    """
    while len(clients) > keep:
        try:
            client = clients.popleft()
        except IndexError:  # another thread has taken the last one
            return
        if client._client is not http_client:
            client.close()
