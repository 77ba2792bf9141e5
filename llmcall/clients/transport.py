"""The room that speaks to a model: what a client gives and the road uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from ..types import Request

__all__ = ["AsyncTransport", "Transport"]


class Transport(Protocol):
    """Send requests to one endpoint.

    ``request.kind`` is ``"chat"`` or ``"embedding"``, ``request.body`` what the API takes (``model``, ``messages`` or
    ``input``, and parameters), ``request.headers`` extra HTTP headers. Failures are raised as the errors of
    :mod:`llmcall.errors`; those with ``retryable`` set are tried again. ``close()`` is called where there is one.
    """

    def send(self, request: Request, timeout: float | None) -> Mapping[str, Any]:
        """Return the response in the API's form (``{"choices": […], "usage": {…}}``).

        :param timeout: seconds within which the whole response must have been read, or ``None``.
        """
        ...

    def stream(self, request: Request, timeout: float | None) -> Iterator[Mapping[str, Any]]:
        """Yield the chunks of an answer in the API's form. Without it, a streamed answer comes in one piece.

        An empty :class:`llmcall.types.Response` before the first of them may tell the request's identifier and headers.
        """
        ...


class AsyncTransport(Protocol):
    """Be the asynchronous twins; a transport without them is run in threads."""

    async def asend(self, request: Request, timeout: float | None) -> Mapping[str, Any]:
        """Return the response, as :meth:`Transport.send`."""
        ...

    def astream(self, request: Request, timeout: float | None) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the chunks of an answer, as :meth:`Transport.stream`."""
        ...
