"""User objects as transports: the only module that checks which methods they have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ..core.seams import AsyncTransport, Chunk, Sends, Transport
from ..errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping

    from ..keys.request import Data, Request
    from .configured import ConfiguredClient


C = TypeVar("C", bound="ConfiguredClient")
OPTIONAL = ("asend", "stream", "astream", "close", "aclose")  # methods beside ``send``


def as_transport(own: ConfiguredClient | Sends, client: ConfiguredClient) -> Transport:
    """Return a transport that sends through an object, which may be one already.

    :param own: a transport, or an object with a method ``send``: the client itself, or what it was given.
    :raises ConfigError: if it has no ``send``; the message names its class.
    """
    if isinstance(own, Transport):
        return own
    found = _methods_of(own)
    if callable(found.get("send")):
        # A client's own methods to close it close the transport.
        methods = found.keys() - ({"close", "aclose"} if own is client else set())
        is_async = not methods.isdisjoint({"asend", "astream"})
        return (_UserAsyncTransport if is_async else _UserTransport)(own, methods)
    if own is client:
        raise ConfigError(
            f"{type(client).__name__} has no transport: define send(request, timeout), or pass transport="
        )
    raise ConfigError(
        f"the transport of {type(client).__name__} is {own!r:.60}, and {type(own).__name__} has no method "
        "send(request, timeout)"
    )


def unless_own(client: C, make_transport: Callable[[], AsyncTransport]) -> C | Sends:
    """Return a client if its class defines ``send``; otherwise, make its transport. Streams come from the
    class if it defines ``stream``.

    :raises ConfigError: if it has an asynchronous method alone, which blocking calls would bypass.
    """
    methods = _methods_of(client)
    if "send" in methods:
        return client
    name = type(client).__name__
    for method, blocking in (("asend", "send"), ("astream", "stream")):
        if method in methods and blocking not in methods:
            raise ConfigError(f"{name} defines {method} alone: also define {blocking}")
    transport = make_transport()
    stream = methods.get("stream")
    return transport if stream is None else _UserStreams(stream, transport, name)


def _methods_of(own: object) -> dict[str, Any]:
    return {name: getattr(own, name) for name in ("send", *OPTIONAL) if hasattr(own, name)}


class _UserTransport(Transport):
    """A user's object, called in a thread from event loops.

    :param methods: the names of its other methods to call, besides ``send``.
    """

    def __init__(self, own: Any, methods: Collection[str]) -> None:
        self._own = own
        self._methods = methods

    @property
    def class_name(self) -> str:
        """The user's class."""
        return type(self._own).__name__

    def send(self, request: Request, timeout: float | None) -> Mapping[str, Data]:
        """Return the response."""
        return self._own.send(request, timeout)  # type: ignore[no-any-return]

    def stream(self, request: Request, timeout: float | None) -> Iterator[Chunk] | None:
        """Yield the chunks of an answer, if the object streams."""
        return self._own.stream(request, timeout) if "stream" in self._methods else None

    def close(self) -> None:
        """Close the object, if it can be closed."""
        if "close" in self._methods:
            self._own.close()

    async def aclose(self) -> None:
        """Close the object, if it can be closed."""
        if "aclose" in self._methods:
            await self._own.aclose()
        else:
            self.close()


class _UserAsyncTransport(_UserTransport, AsyncTransport):
    """A user's object that answers or streams asynchronously."""

    def asend(
        self, request: Request, timeout: float | None
    ) -> Coroutine[Any, Any, Mapping[str, Data]]:
        """Return the response."""
        if "asend" not in self._methods:
            from ..support.loop_waits import in_thread

            return in_thread(self.send, request, timeout)
        return self._own.asend(request, timeout)  # type: ignore[no-any-return]

    def astream(self, request: Request, timeout: float | None) -> AsyncIterator[Chunk] | None:
        """Yield the chunks of an answer, if the object streams asynchronously."""
        return self._own.astream(request, timeout) if "astream" in self._methods else None


class _UserStreams(_UserAsyncTransport):
    """A transport with a client's own streams.

    :param stream: the client's method.
    :param below: does all else.
    :param class_name: the client's class.
    """

    class_name = ""

    def __init__(
        self, stream: Callable[..., Iterator[Chunk]], below: AsyncTransport, class_name: str
    ) -> None:
        super().__init__(below, ("asend", "close", "aclose"))
        self.class_name = class_name
        self.renewable = below.renewable
        self._stream = stream

    @property
    def source(self) -> str:
        """The address of the transport below."""
        return self._own.source  # type: ignore[no-any-return]

    def stream(self, request: Request, timeout: float | None) -> Iterator[Chunk] | None:
        """Yield the chunks of the client's own stream."""
        return self._stream(request, timeout)

    def list_models(self, timeout: float) -> list[str] | None:
        """Return the names of the models."""
        return self._own.list_models(timeout)  # type: ignore[no-any-return]
