"""Record the requests that sessions of the library ``requests`` send."""

from __future__ import annotations

import functools
import http.client
from collections.abc import AsyncGenerator, Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..support.waits import run_blocking
from .conversion import TIMEOUTS, httpx_request, httpx_response
from .interceptors import Interceptor, passing

if TYPE_CHECKING:
    import httpx

IN_PIECES = b"..."  # replaces a body that is read piece by piece, such as a file: it is not JSON
PIECE = 1024  # bytes of a body that are read at once
OPTIONS = ("stream", "timeout", "verify", "cert", "proxies")  # of an adapter's method, in order


def recorded_send(
    requests: ModuleType,
    interceptor: Interceptor,
    adapter: Any,
    send: Callable[..., Any],
    prepared: Any,
    args: tuple[object, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Return the response to what a session sends.

    :param adapter: the session's adapter.
    :param send: its own method.
    :param prepared: the program's request.
    :param args: with ``kwargs``, the further arguments of ``send``.
    """
    from ..support.libraries import httpx

    options = {**dict(zip(OPTIONS, args, strict=False)), **kwargs}
    content = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body or b""
    if not isinstance(content, bytes):
        content = IN_PIECES
    timeouts = _timeouts(options.get("timeout"))
    request = httpx_request(
        prepared.method, prepared.url, prepared.headers.items(), content, timeouts
    )

    def send_attempt(attempt: httpx.Request) -> httpx.Response:
        """Send an attempt, and return the response as the HTTP library's."""
        changed, attempt_options = prepared, {**options, "stream": True}
        if attempt is not request:
            changed = prepared.copy()
            changed.body = attempt.content
            changed.headers["Content-Length"] = str(len(attempt.content))
            timeouts = attempt.extensions["timeout"]
            attempt_options["timeout"] = tuple(timeouts[name] for name in TIMEOUTS)
        try:
            response = send(changed, **attempt_options)
        except requests.Timeout as error:
            raise httpx.ReadTimeout(str(error)) from error
        except requests.RequestException as error:
            raise httpx.ConnectError(str(error)) from error

        async def pieces() -> AsyncGenerator[bytes, None]:
            try:
                for piece in response.iter_content(PIECE):
                    yield piece
            except requests.RequestException as error:
                raise httpx.ReadError(str(error)) from error

        async def close() -> None:
            response.close()

        return httpx_response(response.status_code, response.headers.items(), pieces(), close)

    broken = None
    try:
        response = run_blocking(interceptor.response_to(httpx, request, send_attempt))
    except httpx.RequestError as error:
        broken = error
    if broken is not None:
        raise _requests_error(requests, broken)
    if response is None:
        with passing():
            return send(prepared, *args, **kwargs)
    own_error = functools.partial(_requests_error, requests)
    return adapter.build_response(prepared, _Raw(response, httpx.RequestError, own_error))


def _requests_error(requests: ModuleType, error: Exception) -> Any:
    """Return the equivalent error of ``requests``."""
    from ..support.libraries import httpx

    if isinstance(error.__cause__, requests.RequestException):
        return error.__cause__
    # an identical call that failed was another library's
    is_timeout = isinstance(error, httpx.TimeoutException)
    return (requests.Timeout if is_timeout else requests.ConnectionError)(str(error))


def _timeouts(timeout: Any) -> tuple[float | None, float | None]:
    """Return in seconds how long a session connects, and waits for a piece."""
    if hasattr(timeout, "read_timeout"):  # urllib3's own
        return timeout.connect_timeout, timeout.read_timeout
    return timeout if isinstance(timeout, tuple) else (timeout, timeout)


class _Raw:
    """A response as ``requests`` reads it from urllib3. Its body comes in pieces as they arrive:
    urllib3 itself waits for full ones.

    :param error_class: of the HTTP library's errors.
    :param own_error: returns the error of ``requests`` for one of them.
    """

    _original_response = None  # would hold cookies

    def __init__(
        self,
        response: httpx.Response,
        error_class: type[Exception],
        own_error: Callable[[Exception], Exception],
    ) -> None:
        self.status = response.status_code
        self.reason = http.client.responses.get(response.status_code)
        self.headers = dict(response.headers.items())
        self.close = self.release_conn = response.close
        self._pieces = response.iter_bytes()
        self._error_class = error_class
        self._requests_error = own_error

    def stream(self, size: int | None, decode_content: bool) -> Iterator[bytes]:
        """Yield the pieces, none longer than ``size``; ``None`` leaves them as they are."""
        broken = None
        try:
            for piece in self._pieces:
                longest = size or len(piece)
                for begin in range(0, len(piece), longest or 1):
                    yield piece[begin : begin + longest]
        except self._error_class as error:
            broken = error
        if broken is not None:
            raise self._requests_error(broken)
