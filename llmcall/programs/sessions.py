"""Record the requests that sessions of the library ``requests`` send."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import requests

from ..core import threads
from ..support import libraries
from .answering import passes, response_to
from .conversion import TIMEOUTS, UNREAD, LibraryErrors, httpx_request
from .interceptors import active_recorder, passing

if TYPE_CHECKING:
    import httpx

ERRORS = LibraryErrors(
    (requests.RequestException,), requests.Timeout, requests.Timeout, requests.ConnectionError
)
PIECE = 1024  # bytes of a body that are read at once
OPTIONS = ("stream", "timeout", "verify", "cert", "proxies")  # of an adapter's method, in order


def _send_recorded(
    send: Callable[..., Any], adapter: Any, request: Any, *args: object, **kwargs: Any
) -> object:
    """Replace ``HTTPAdapter.send``, through which every request of a session goes."""
    recorder = active_recorder()
    if recorder is None:
        return send(adapter, request, *args, **kwargs)
    if passes(recorder, request.method, request.url, request.headers):
        with passing():
            return send(adapter, request, *args, **kwargs)
    options = {**dict(zip(OPTIONS, args, strict=False)), **kwargs}
    content = request.body.encode() if isinstance(request.body, str) else request.body or b""
    if not isinstance(content, bytes):
        content = UNREAD
    timeouts = _timeouts(options.get("timeout"))
    original = httpx_request(
        request.method, request.url, request.headers.items(), content, timeouts
    )

    def send_attempt(attempt: httpx.Request) -> httpx.Response:
        """Send an attempt, and return the response as httpx's."""
        changed, attempt_options = request, {**options, "stream": True}
        if attempt is not original:
            changed = request.copy()
            changed.body = attempt.content
            changed.headers["Content-Length"] = str(len(attempt.content))
            timeouts = attempt.extensions["timeout"]
            attempt_options["timeout"] = tuple(timeouts[name] for name in TIMEOUTS)
        with ERRORS.as_httpx(is_connected=False):
            response = send(adapter, changed, **attempt_options)
        pieces = response.iter_content(PIECE)
        return ERRORS.httpx_response(
            response.status_code, response.headers.items(), pieces, response.close
        )

    response = threads.run(
        ERRORS.answer(response_to(recorder, libraries.any_httpx, original, send_attempt))
    )
    if response is None:
        with passing():
            return send(adapter, request, *args, **kwargs)
    return adapter.build_response(request, _Raw(response))


def _timeouts(timeout: Any) -> tuple[float | None, float | None]:
    """Return in seconds how long a session connects, and waits for a piece."""
    if hasattr(timeout, "read_timeout"):  # urllib3's own
        return timeout.connect_timeout, timeout.read_timeout
    return timeout if isinstance(timeout, tuple) else (timeout, timeout)


class _Raw:
    """A response as ``requests`` reads it from urllib3. Its body comes in pieces as they arrive:
    urllib3 itself waits for full ones.
    """

    _original_response = None  # would hold cookies

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.reason = http.client.responses.get(response.status_code)
        self.headers = dict(response.headers.items())
        self.close = self.release_conn = response.close
        self._pieces = ERRORS.body(response)

    def stream(self, size: int | None, decode_content: bool) -> Iterator[bytes]:
        """Yield the pieces, none longer than ``size``; ``None`` leaves them as they are."""
        for piece in self._pieces:
            longest = size or len(piece)
            for begin in range(0, len(piece), longest or 1):
                yield piece[begin : begin + longest]


OF_REQUESTS = [("adapters.HTTPAdapter", "send", _send_recorded)]
