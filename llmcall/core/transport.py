"""The transport: it sends requests and returns responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from ..keys.request import Data, Request


class AlreadyRecorded(Exception):
    """Another process has recorded the answer while a transport waited for it."""


class Held(Protocol):
    """A response that its server keeps until it is released.

    :ivar endpoint: the one that made it.
    :ivar tier: the service tier or window in which it was made.
    """

    endpoint: Any
    tier: str

    async def release(self, *, is_stored: bool) -> None:
        """Delete it at the server.

        :param is_stored: whether it was stored; else it was refused.
        """
        ...


class Response(dict[str, Any]):
    """A response as the API gave it. A transport may also return a plain dict.

    :ivar request_id: the server's identifier of the request, or ``None``.
    :ivar held: the server's copy, if it keeps one until the answer is stored or refused.
    """

    __slots__ = ("held", "request_id")

    request_id: str | None
    held: Held | None

    def __init__(
        self,
        data: Mapping[str, Data],
        request_id: str | None = None,
        held: Any = None,
    ) -> None:
        super().__init__(data)
        self.request_id = request_id
        self.held = held


class Transport(Protocol):
    """Sends requests to one endpoint.

    ``request.kind`` is ``"chat"`` or ``"embedding"``, ``request.body`` what the API takes
    (``model``, ``messages`` or ``input``, and parameters), ``request.headers`` extra HTTP headers.
    Failures are raised as subclasses of :class:`llmcall.APIError`; those with ``retryable`` set are tried
    again. ``close()`` is called if it exists.

    >>> class Parrot:
    ...     def send(self, request, timeout):
    ...         return {"choices": [{"message": {"content": request.messages[-1]["content"]}, "finish_reason": "stop"}]}
    >>> parrot = llmcall.LLMClient(transport=Parrot(), model="parrot", cache_mode="off")
    >>> parrot.send_message("Pieces of eight!").content
    'Pieces of eight!'
    """

    def send(self, request: Request, timeout: float | None) -> Mapping[str, Any]:
        """Return the response in the API's form (``{"choices": […], "usage": {…}}``).

        :param timeout: seconds within which the whole response must have been read, or ``None``.
        """
        ...

    def stream(self, request: Request, timeout: float | None) -> Iterator[Mapping[str, Any]]:
        """Yield the chunks of an answer in the API's form. Without this method, a streamed answer
        comes in one piece.

        The first one may be an empty :class:`.Response` that has the request's identifier.
        """
        ...


class AsyncTransport(Protocol):
    """Sends requests asynchronously. A transport without these methods runs in threads.

    >>> class Parrot:
    ...     def send(self, request, timeout):
    ...         return {"choices": [{"message": {"content": request.messages[-1]["content"]}, "finish_reason": "stop"}]}
    ...     async def asend(self, request, timeout):
    ...         return self.send(request, timeout)
    >>> parrot = llmcall.LLMClient(transport=Parrot(), model="parrot", cache_mode="off")
    >>> import asyncio
    >>> asyncio.run(parrot.asend_message("Pieces of eight!")).content
    'Pieces of eight!'
    """

    async def asend(self, request: Request, timeout: float | None) -> Mapping[str, Any]:
        """Return the response, like :meth:`Transport.send`."""
        ...

    def astream(self, request: Request, timeout: float | None) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the chunks of an answer, like :meth:`Transport.stream`."""
        ...
