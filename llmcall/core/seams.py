"""The seams of the road: the store of records, the transport that sends, the gate that lets a send in; and
the client as a call knows it. The fourth seam is the listener, in ``support/listeners.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..apis.usage import TokenUsage
from ..config.endpoints import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from ..config.settings import Settings
    from ..keys.request import Data, Request
    from ..scopes import RecordedAskers
    from ..stores.cache.cache import ResponseCache
    from ..stores.record import Record
    from ..traffic.limits import Pool
    from ..traffic.usage import Meter
    from .calls import Options


class Store(Protocol):
    """The store of a call's record: the disk cache, or a cassette over it.

    :ivar is_on_server: whether a look-up waits for a server, so that an event loop runs it in a thread.
    """

    @property
    def is_on_server(self) -> bool: ...

    def get(self, request: Request) -> Record | None:
        """Return the recorded answer of a request, or ``None``.

        :raises CacheCorruptError: if it is damaged, and nothing may be asked.
        """
        ...

    def has_used(self, key: str) -> bool:
        """Return whether a call of this process got or made the record of a key."""
        ...

    def add(self, record: Record) -> Record:
        """Add an answer; return the one that counts, which is the first one stored."""
        ...

    def askers(self, path: str, identity: Any, key: str) -> RecordedAskers:
        """Return who took the draws of a request when they were recorded.

        :param path: the scope path.
        :param identity: what :func:`llmcall.keys.keys.identity` returns for the request.
        :param key: the request's key outside any scope.
        """
        ...


class AlreadyRecorded(Exception):
    """Another process has recorded the answer while a transport waited for it."""


class Held(Protocol):
    """A response that its server keeps until it is released.

    :ivar endpoint: the endpoint that made it.
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


class Used(NamedTuple):
    """The usage of an answer, as far as it is known.

    :param cost: USD.
    :param priced_by: the source of the price.
    :param served: the model that answered, by the server's name for it.
    """

    tokens: TokenUsage = TokenUsage()
    cost: float | None = None
    priced_by: str | None = None
    served: Any = None


# The endpoint of calls that choose none: functions, and a program's requests without a body.
NOWHERE = Endpoint(name="", models=())


class Gate(Protocol):
    """An asynchronous context around one send: the limits and budgets of a client are one.

    ``release_slot()`` frees the endpoint early; leaving the block frees the rest.
    """

    async def acquire(self) -> Endpoint:
        """Wait until the send may begin, and return the endpoint to ask.

        :raises BudgetExceededError: if it could go past a budget.
        :raises RateLimitError, RequestTimeoutError: if the wait would pass the deadline.
        """
        ...

    def reckon(self, answer: Mapping[str, Any], endpoint: Endpoint, *, is_part: bool) -> Used:
        """Return what an answer used; raise nothing but faults of llmcall or of its libraries.

        :param answer: as its API gives it unstreamed; it names its tier and its model.
        :param endpoint: the endpoint that gave it.
        :param is_part: whether it is only the part of a stream that arrived.
        """
        ...

    def settle(self, tokens: TokenUsage, cost: float | None, calls: int) -> None:
        """Count what the send used, in place of what was reserved for it.

        :param cost: USD, or ``None`` if it is unknown.
        :param calls: how many were answered.
        """
        ...

    def rest(self, endpoint: Endpoint, seconds: float, *, is_asked: bool) -> float:
        """Let an endpoint rest after a 429, for all calls.

        :param is_asked: whether the server asked for so many seconds.
        :returns: the seconds until another endpoint has rested; infinite without another one.
        """
        ...

    def release_slot(self) -> None:
        """Release the endpoint, and what is held in memory, before the block ends; a second time changes
        nothing."""
        ...

    async def __aenter__(self) -> Gate: ...

    async def __aexit__(self, error_type: type[BaseException] | None, *error: object) -> None: ...


class ResolvedSettings(NamedTuple):
    """The current settings, resolved for a client.

    :param current: the current settings: when they change, a client resolves them again.
    :param settings: the settings.
    :param cache: the disk cache that they name.
    :param pools: by model, the pool of its endpoints, made at the model's first call.
    :param checked_hosts: the models and hosts whose records were checked for their origin.
    :param defaults: the parameters that the settings give a default to.
    :param options: the options of a call that names none.
    """

    current: Settings
    settings: Settings
    cache: ResponseCache
    pools: dict[str, Pool]
    checked_hosts: set[tuple[str, str]]
    defaults: dict[str, Any]
    options: Options


class Client(Protocol):
    """A client as the road of a call knows it; :class:`llmcall.LLMClient` is one."""

    @property
    def meter(self) -> Meter | None:
        """Return what counts what its calls use; ``None``: they are not counted."""
        ...

    @property
    def api_type(self) -> str:
        """The kind of client, as records name it."""
        ...

    @property
    def resolved(self) -> ResolvedSettings:
        """The current settings, resolved for it."""
        ...

    def model_named(self, model: str | None) -> str:
        """Return the name of a call's model, with aliases resolved."""
        ...

    def with_effort(self, model: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a chat call, with the effort that a model is asked for by default."""
        ...

    def hosts(self, model: str) -> set[str]:
        """Return the hosts that serve a model, as records name them."""
        ...

    def host(self, endpoint: Endpoint) -> str:
        """Return an endpoint's host, as records name it."""
        ...

    def pool(self, model: str) -> Pool:
        """Return the endpoints that serve a model, with their limits and prices."""
        ...

    def shared_transport(self, endpoint: Endpoint) -> Any:
        """Return the :class:`llmcall.types.Transport` that speaks to an endpoint."""
        ...

    def gate(self, call: Any, request: Request) -> Gate:
        """Return the gate that a send of a call passes.

        :param request: the request, with the body that is sent.
        """
        ...

    def transport_for(self, call: Any, endpoint: Endpoint) -> Any:
        """Return the transport that sends a call to an endpoint."""
        ...

    def request_to_send(self, call: Any, stream: bool) -> Request:
        """Return a call's request with the body to send, and the API (wire) that it goes to.

        :param stream: whether the answer is streamed.
        :raises ValueError: if that API does not support something that matters.
        """
        ...
