"""Requests, responses and errors of other HTTP libraries as httpx has them, and recorded answers as bytes."""

from __future__ import annotations

import http.client
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..support import libraries
from ..support.waits import as_async
from . import transports  # noqa: F401 - before the first request
from .http_responses import body_class
from .transport import headers_to_copy

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
Headers = Iterable[tuple[object, object]]  # texts or bytes

TIMEOUTS = ("connect", "read")
UNREAD = b"in pieces"  # stands for a body that is not whole: no JSON, so its request passes


class LibraryErrors(NamedTuple):
    """The errors of a library. While llmcall answers its request, errors of httpx replace them.

    :param own: their classes.
    :param timeouts: the class of those that are, or whose reason is, a timeout.
    :param new_timeout: makes one for an identical call that another library made; ``new_failure`` likewise.
    """

    own: tuple[type[BaseException], ...]
    timeouts: type[BaseException]
    new_timeout: Callable[[str], BaseException]
    new_failure: Callable[[str], BaseException]

    @contextmanager
    def as_httpx(self, *, is_connected: bool) -> Iterator[None]:
        """Raise httpx's errors for the library's in a block.

        :param is_connected: ``True`` if it reads the answer, and does not send the request.
        """
        try:
            yield
        except self.own as error:
            failed, late = (
                (libraries.any_httpx.ReadError, libraries.any_httpx.ReadTimeout)
                if is_connected
                else (libraries.any_httpx.ConnectError, libraries.any_httpx.ConnectTimeout)
            )
            is_timeout = isinstance(getattr(error, "reason", error), self.timeouts)
            raise (late if is_timeout else failed)(str(error)) from error

    def of_library(self, error: httpx.RequestError) -> BaseException:
        """Return the library's error for one of httpx."""
        if isinstance(error.__cause__, self.own):
            return error.__cause__
        is_timeout = isinstance(error, libraries.any_httpx.TimeoutException)
        return (self.new_timeout if is_timeout else self.new_failure)(str(error))

    async def answer(self, procedure: Awaitable[T]) -> T:
        """Return an answer, or raise the library's error for httpx's, with the causes that it has by itself."""
        try:
            return await procedure
        except libraries.any_httpx.RequestError as error:
            broken = self.of_library(error)
        raise broken

    def body(self, response: httpx.Response) -> Iterator[bytes]:
        """Yield the body of an answer as it comes, or raise the library's error for httpx's."""
        try:
            yield from response.iter_bytes()
            return
        except libraries.any_httpx.RequestError as error:
            broken = self.of_library(error)
        raise broken

    def httpx_response(
        self, status: int, headers: Headers, pieces: object, close: Callable[[], object]
    ) -> httpx.Response:
        """Return a response of httpx, whose body the library reads and decodes.

        :param pieces: yields the body.
        :param close: ends the reading.
        """

        async def body() -> AsyncGenerator[bytes, None]:
            with self.as_httpx(is_connected=True):
                async for piece in as_async(pieces):
                    yield piece

        async def aclose() -> None:
            close()

        given = headers_to_copy(libraries.any_httpx.Headers(_headers(headers)))
        return libraries.any_httpx.Response(
            status, headers=given, stream=body_class(libraries.any_httpx)(body(), aclose)
        )


def httpx_request(
    method: str,
    url: str,
    headers: Headers,
    content: bytes,
    timeouts: Iterable[float | None],
) -> httpx.Request:
    """Return a request of httpx, which is not sent itself.

    :param content: the body, or ``UNREAD``.
    :param timeouts: in seconds: until it is connected, and between two pieces of the answer.
    """
    return libraries.any_httpx.Request(
        method,
        url,
        headers=_headers(headers),
        content=content,
        extensions={"timeout": dict(zip(TIMEOUTS, timeouts, strict=True))},
    )


def _headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(_bytes(name), _bytes(value)) for name, value in headers]


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def is_whole(response: httpx.Response) -> bool:
    """Return whether the body of a response is there, and does not come piece by piece."""
    return isinstance(response.stream, libraries.any_httpx.ByteStream)


def response_head(response: httpx.Response, *framing: tuple[bytes, bytes]) -> bytes:
    """Return the bytes of a response before its body.

    :param framing: the header that says where the body ends.
    """
    reason = http.client.responses.get(response.status_code, "")
    lines = [b"HTTP/1.1 %d %b" % (response.status_code, reason.encode())]
    headers = [*headers_to_copy(response.headers), *framing]
    return b"\r\n".join([*lines, *(b"%b: %b" % header for header in headers), b"", b""])


def whole_response(response: httpx.Response) -> bytes:
    """Return all bytes of a response whose body is there."""
    content = response.read()
    return response_head(response, (b"content-length", b"%d" % len(content))) + content
