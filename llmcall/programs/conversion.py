"""Requests and responses of requests, aiohttp and urllib as httpx has them, and recorded answers as bytes."""

from __future__ import annotations

import http.client
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from .http_responses import body_class
from .transport import headers_to_copy

if TYPE_CHECKING:
    import httpx

    Headers = Iterable[tuple[object, object]]  # texts or bytes

TIMEOUTS = ("connect", "read")


def httpx_request(
    method: str,
    url: str,
    headers: Headers,
    content: bytes | Iterable[bytes] | AsyncIterable[bytes],
    timeouts: Iterable[float | None],
) -> httpx.Request:
    """Return a request of httpx, which is not sent itself.

    :param content: the body. One that comes in pieces is only read if the request may be recorded.
    :param timeouts: in seconds: until it is connected, and between two pieces of the answer.
    """
    from ..support.libraries import httpx

    return httpx.Request(
        method,
        url,
        headers=_headers(headers),
        content=content,
        extensions={"timeout": dict(zip(TIMEOUTS, timeouts, strict=True))},
    )


def httpx_response(
    status: int,
    headers: Headers,
    pieces: AsyncGenerator[bytes, None],
    close: Callable[[], Coroutine[Any, Any, None]],
) -> httpx.Response:
    """Return a response of httpx, whose body another library reads and decodes."""
    from ..support.libraries import httpx

    given = headers_to_copy(httpx.Headers(_headers(headers)))
    return httpx.Response(status, headers=given, stream=body_class(httpx)(pieces, close))


def _headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(_bytes(name), _bytes(value)) for name, value in headers]


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def is_whole(response: httpx.Response) -> bool:
    """Return whether the body of a response is there, and does not come piece by piece."""
    from ..support.libraries import httpx

    return isinstance(response.stream, httpx.ByteStream)


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
