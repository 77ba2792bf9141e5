"""The seams of the pipeline: the store of records, the transport that sends, the gate that lets a send in. Further
ones are the listener (``support/listeners.py``) and the storage of a cache's rows (``stores/cache/storages.py``).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..apis.token_usage import TokenUsage
from ..config.endpoints import Endpoint
from ..keys.keys import Identity
from ..keys.request import Data, Request
from ..stores.record import Record

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..scopes.draw_numbers import RecordedCallers


# A piece of a streamed answer, in the API's form; the bytes of an answer that is recorded as it is.
Chunk = Mapping[str, Data] | bytes


class Store(Protocol):
    """The store of a call's record: the disk cache, or a cassette over it."""

    def get(self, request: Request) -> Record | None:
        """Return the recorded answer of a request, or ``None``.

        :raises CacheCorruptError: if it is damaged, and no call may be made.
        """
        ...

    def has_used(self, key: str) -> bool:
        """Return whether a call of this process got or made the record of a key."""
        ...

    def add(self, record: Record) -> Record:
        """Add an answer; return the answer that counts: a stream's own, which was read, else the first stored."""
        ...

    def callers(self, path: str, identity: Identity) -> RecordedCallers:
        """Return the callers that took a request's draws in the recording.

        :param path: the scope path.
        :param identity: of the request.
        """
        ...


OK = 200  # the HTTP status of an answer


class Response(dict[str, Data]):
    """A response as the API gave it. A transport may also return a plain dict.

    :ivar request_id: the server's identifier of the request, or ``None``.
    :ivar status_code: the HTTP status, or ``None`` if no server gave one.
    :ivar source: the method that returned it, for messages.
    """

    __slots__ = ("request_id", "source", "status_code")

    def __init__(
        self,
        data: Mapping[str, Data],
        request_id: str | None = None,
        status_code: int | None = None,
    ) -> None:
        super().__init__(data)
        self.request_id = request_id
        self.status_code = status_code
        self.source = ""


class Sends(Protocol):
    """An object of any class that sends; llmcall makes it a :class:`Transport` when it is first used."""

    def send(self, request: Request, timeout: float | None) -> Mapping[str, Data]:
        """Return the response, as :meth:`Transport.send`."""
        ...


class Transport(ABC):
    """A transport that sends requests to one endpoint.

    ``request.kind`` is ``"chat"`` or ``"embedding"``, ``request.body`` what the API takes
    (``model``, ``messages`` or ``input``, and parameters), ``request.headers`` extra HTTP headers.
    Raise a subclass of :class:`llmcall.APIError` for a failure; llmcall retries those with ``retryable`` set. Any
    other object with a method ``send`` is a transport, too; llmcall also uses its other methods with the names
    of these.

    :ivar renewable: ``True`` if a refused key may be replaced, because a function returns it for each attempt.

    >>> class Parrot(llmcall.types.Transport):
    ...     def send(self, request, timeout):
    ...         return {"choices": [{"message": {"content": request.messages[-1]["content"]}, "finish_reason": "stop"}]}
    >>> parrot = llmcall.LLMClient(transport=Parrot(), model="parrot", cache_mode="off")
    >>> parrot.send_message("Pieces of eight!").content
    'Pieces of eight!'
    """

    renewable: bool = False

    @property
    def class_name(self) -> str:
        """The class that messages name."""
        return type(self).__name__

    @property
    def source(self) -> str:
        """The address that messages name; empty: they name the class."""
        return ""

    @abstractmethod
    def send(self, request: Request, timeout: float | None) -> Mapping[str, Data]:
        """Return the response in the API's form (``{"choices": […], "usage": {…}}``).

        :param timeout: seconds within which the whole response must have been read, or ``None``.
        """

    def stream(self, request: Request, timeout: float | None) -> Iterator[Chunk] | None:
        """Yield the chunks of an answer in the API's form. Without this method, a streamed answer
        comes in one piece.

        The first one may be an empty :class:`.Response` that has the request's identifier.

        :returns: ``None``, with nothing sent, if it does not stream.
        """
        return None

    def list_models(self, timeout: float) -> list[str] | None:
        """Return the names of the models that the endpoint lists; ``None`` if it lists none.

        :param timeout: seconds.
        """
        return None

    def close(self) -> None:
        """Close the connections that no call uses. A later send opens connections again."""
        return

    async def aclose(self) -> None:
        """Close the connections of the running event loop, and all that :meth:`close` closes."""
        self.close()


class AsyncTransport(Transport):
    """A transport that also sends requests asynchronously. In an event loop, the ``send`` of others runs in threads.

    >>> class Parrot(llmcall.types.AsyncTransport):
    ...     def send(self, request, timeout):
    ...         return {"choices": [{"message": {"content": request.messages[-1]["content"]}, "finish_reason": "stop"}]}
    ...     async def asend(self, request, timeout):
    ...         return self.send(request, timeout)
    >>> parrot = llmcall.LLMClient(transport=Parrot(), model="parrot", cache_mode="off")
    >>> import asyncio
    >>> asyncio.run(parrot.asend_message("Pieces of eight!")).content
    'Pieces of eight!'
    """

    @abstractmethod
    async def asend(self, request: Request, timeout: float | None) -> Mapping[str, Data]:
        """Return the response, like :meth:`Transport.send`."""

    def astream(self, request: Request, timeout: float | None) -> AsyncIterator[Chunk] | None:
        """Yield the chunks of an answer, like :meth:`Transport.stream`, which runs in a thread if this
        returns ``None``.
        """
        return None


class Used(NamedTuple):
    """The known usage of an answer.

    :param cost: USD.
    :param priced_by: the source of the price.
    :param served: the model that answered, by the server's name for it, and the provider behind a gateway.
    """

    tokens: TokenUsage = TokenUsage()
    cost: float | None = None
    priced_by: str | None = None
    served: str | None = None


# The endpoint of calls that choose none: functions, and a program's requests without a body.
NO_ENDPOINT = Endpoint(name="", models=())


class Gate:
    """An asynchronous context around one send, which waits for limits and counts the use. Leaving it releases all
    that it holds.

    This one admits everything: a recorded function, and a program's request without a body.
    """

    async def acquire(self) -> Endpoint:
        """Wait until the send may begin, and return its endpoint.

        :raises BudgetExceededError: if it could go past a budget.
        :raises RateLimitError, RequestTimeoutError: if the wait would pass the deadline.
        """
        return NO_ENDPOINT

    def usage_of(self, answer: Mapping[str, Data], endpoint: Endpoint, *, is_part: bool) -> Used:
        """Return an answer's usage; raise nothing but faults of llmcall or of its libraries.

        :param answer: as its API gives it unstreamed; it names its tier and its model.
        :param endpoint: the endpoint that gave it.
        :param is_part: ``True`` if it is only the part of a stream that arrived.
        """
        return Used()

    def answer_began(self) -> None:
        """Release the endpoint: the first piece of its answer is there; a second time changes nothing."""

    def settle(self, tokens: TokenUsage, cost: float | None, calls: int) -> None:
        """Replace the reservation by the send's use, and release all that it holds. Threads that store
        answers may all wait for this.

        :param cost: USD, or ``None`` if it is unknown.
        :param calls: how many were answered.
        """

    def rest(self, endpoint: Endpoint, seconds: float, *, named_by_server: bool) -> float:
        """Let an endpoint rest after a 429, for all calls.

        :param named_by_server: ``True`` if the server named this wait.
        :returns: the seconds until another endpoint has rested; infinite without another one.
        """
        return math.inf

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, error_type: type[BaseException] | None, *error: object) -> None:
        pass
