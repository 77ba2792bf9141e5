"""Record the requests that openers of urllib send: their own handlers send them, and recorded answers are read as a
server's are.
"""

from __future__ import annotations

import http.client
import io
import itertools
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ...core import threads
from ...programs.answering import passes, response_to
from ...programs.conversion import (
    UNREAD,
    LibraryErrors,
    httpx_request,
    is_whole,
    response_head,
    whole_response,
)
from ...programs.interceptors import active_recorder, passing
from ...support import libraries

if TYPE_CHECKING:
    import httpx

PIECE = 1024  # bytes of an answer that are read at once
LENGTH = "Content-length"  # as urllib writes it
ERRORS = LibraryErrors(
    (OSError, http.client.HTTPException),
    TimeoutError,
    lambda words: urllib.error.URLError(TimeoutError(words)),
    lambda words: urllib.error.URLError(ConnectionError(words)),
)


def _open_recorded(
    open_below: Callable[..., Any],
    opener: object,
    request: urllib.request.Request,
    data: object = None,
) -> Any:
    """Replace ``OpenerDirector._open``, between the opener's processors of requests and of responses.

    This is a trick: the method is private, but older than any alternative, and the one place that every request
    passes as it is sent: also redirects, answers to a 401 and those of a program's own handlers.

    :param request: the program's, as the opener's processors of requests have left it.
    """
    recorder = active_recorder()
    if recorder is None or request.type not in ("http", "https"):
        return open_below(opener, request, data)
    headers = {**request.headers, **request.unredirected_hdrs}
    if passes(recorder, request.get_method(), request.full_url, headers):
        with passing():
            return open_below(opener, request)
    timeout: Any = request.timeout
    if not isinstance(timeout, (int, float)):  # urllib's sign for the default
        timeout = socket.getdefaulttimeout()
    original = httpx_request(
        request.get_method(), request.full_url, headers.items(), _body(request), (timeout, timeout)
    )
    before: dict[str, Any] = {}

    def send_attempt(attempt: httpx.Request) -> httpx.Response:
        """Send an attempt, and return the response as httpx's."""
        before.update({} if before else vars(request))
        for name in ("headers", "unredirected_hdrs"):  # a handler adds to them, and sets a proxy
            vars(request).update(before, **{name: dict(before[name])})
        if attempt is not original:
            request.timeout = attempt.extensions["timeout"]["read"]
            if attempt.content != original.content:
                _set_body(request, attempt.content)
        with ERRORS.as_httpx(is_connected=False):
            try:
                response = open_below(opener, request)
            except urllib.error.HTTPError as error:  # of a handler of the program's
                response = error
        headers = response.info().items()
        return ERRORS.httpx_response(response.code, headers, _pieces(response), response.close)

    response = threads.run(
        ERRORS.answer(response_to(recorder, libraries.any_httpx, original, send_attempt))
    )
    if response is None:
        with passing():
            return open_below(opener, request)
    source: Any = _Source(response)
    answer: Any = http.client.HTTPResponse(source, method=request.get_method())
    answer.begin()
    answer.url, answer.msg = request.full_url, answer.reason  # as a handler of urllib sets them
    return answer


def _body(request: urllib.request.Request) -> bytes:
    data: Any = request.data or b""
    return bytes(data) if isinstance(data, (bytes, bytearray, memoryview)) else UNREAD


def _set_body(request: urllib.request.Request, body: bytes) -> None:
    """Give a request another body, and the headers that it has its length."""
    given = dict(request.headers), dict(request.unredirected_hdrs)
    request.data = body
    request.headers, request.unredirected_hdrs = given
    for headers in given:
        if LENGTH in headers:
            headers[LENGTH] = str(len(body))


def _pieces(response: Any) -> Iterator[bytes]:
    """Yield the body of a server's response as it comes."""
    read = getattr(response, "read1", response.read)
    while piece := read(PIECE):
        yield piece
    if missing := getattr(response, "length", None):
        raise http.client.IncompleteRead(b"", missing)


class _Source(io.RawIOBase):
    """The bytes of a response, which come as they are read; it replaces a socket."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        if is_whole(response):
            self._pieces = iter([whole_response(response)])
        else:
            self._pieces = itertools.chain([response_head(response)], ERRORS.body(response))
        self._rest = b""

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return the file that is read."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Return whether it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what has come."""
        while not self._rest and (piece := next(self._pieces, None)) is not None:
            self._rest = piece
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def close(self) -> None:
        """End the reading in its own context: the garbage collector may do it."""
        if not self.closed:
            super().close()
            copy_context().run(self._response.close)


OF_URLLIB = [("OpenerDirector", "_open", _open_recorded)]
