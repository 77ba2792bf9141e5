"""The recording of requests that sessions of the library ``requests`` send."""

from __future__ import annotations

import http.client
import io
from collections.abc import Callable, Generator, Iterator
from types import ModuleType
from typing import Any, cast

from ..blocking import run
from ..clients.sdk_exceptions import http_library
from .answers import derived
from .calls import MESSAGE_HEADERS
from .recorder import Recorder

PIECE = 1024  # bytes of a body that are read at once
TIMEOUTS = ("connect", "read")


def recorded_send(
    requests: ModuleType,
    recorder: Recorder,
    adapter: Any,
    send: Callable[..., Any],
    request: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Return the response to what a session sends.

    :param adapter: the session's adapter.
    :param send: its own method.
    :param request: the program's request.
    :param args: with ``kwargs``, the further arguments of ``send``.
    """
    in_http = _Adapter(requests, send, request, args, kwargs)
    response = run(
        recorder.handle(in_http.http, in_http.send, in_http.request, in_http.send_unrecorded)
    )
    if isinstance(response, requests.Response):
        return response
    return adapter.build_response(request, _urllib3_response(response))


class _Adapter:
    """Turns a request of ``requests`` into one of the HTTP library, and responses back.

    :param send: the adapter's own method.
    :param prepared: the program's request.
    :param args: with ``kwargs``, the further arguments of ``send``.
    :ivar request: the program's request as one of the HTTP library.
    """

    def __init__(
        self,
        requests: ModuleType,
        send: Callable[..., Any],
        prepared: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._requests = requests
        self._send = send
        self._prepared = prepared
        names = ("stream", "timeout", "verify", "cert", "proxies")
        self._options = {**dict(zip(names, args, strict=False)), **kwargs}
        self.http = http_library()
        body = prepared.body
        content = body.encode() if isinstance(body, str) else body
        self.request = self.http.Request(
            prepared.method,
            prepared.url,
            headers=list(prepared.headers.items()),
            # what is read piece by piece, such as a file, cannot be recorded as JSON
            content=content if isinstance(content, bytes) else b"",
            extensions={"timeout": self._timeouts()},
        )

    def _timeouts(self) -> dict[str, Any]:
        timeout: Any = self._options.get("timeout")
        if hasattr(timeout, "read_timeout"):  # urllib3's own
            return {"connect": timeout.connect_timeout, "read": timeout.read_timeout}
        pair = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        return dict(zip(TIMEOUTS, pair, strict=True))

    def send_unrecorded(self, request: Any) -> Any:
        """Send the program's request as it is, and return the response of ``requests``."""
        return self._send(self._prepared, **self._options)

    def send(self, attempt: Any) -> Any:
        """Send an attempt, and return the response as the HTTP library's."""
        prepared, options = self._prepared, {**self._options, "stream": True}
        if attempt is not self.request:
            prepared = prepared.copy()
            prepared.body = attempt.content
            prepared.headers["Content-Length"] = str(len(attempt.content))
            timeouts = attempt.extensions["timeout"]
            options["timeout"] = tuple(timeouts[name] for name in TIMEOUTS)
        try:
            response = self._send(prepared, **options)
        except self._requests.Timeout as error:
            raise self.http.ReadTimeout(str(error)) from error
        except self._requests.RequestException as error:
            raise self.http.ConnectError(str(error)) from error
        headers = [
            each for each in response.headers.items() if each[0].lower() not in MESSAGE_HEADERS
        ]
        body = derived(self.http, _Body)(self.http, self._requests, response)
        return self.http.Response(response.status_code, headers=headers, stream=body)


class _Body:
    """The body of a response of ``requests``, decoded, as its pieces come."""

    bases = ("SyncByteStream",)

    def __init__(self, http: ModuleType, requests: ModuleType, response: Any) -> None:
        self._http = http
        self._requests = requests
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_content(PIECE)
        except self._requests.RequestException as error:
            raise self._http.ReadError(str(error)) from error

    def close(self) -> None:
        """Give the connection back."""
        self._response.close()


def _urllib3_response(response: Any) -> Any:
    """Return a response as the adapter would get it from urllib3."""
    import urllib3

    class Raw(urllib3.HTTPResponse):
        """A response whose body comes in pieces as they arrive: urllib3 itself waits for full ones."""

        def stream(
            self, amt: int | None = PIECE, decode_content: bool | None = None
        ) -> Generator[bytes, None, None]:
            """Yield the pieces, none longer than ``amt``."""
            size = amt or PIECE
            for piece in cast(_Pieces, self._fp).pieces:
                for begin in range(0, len(piece), size):
                    yield piece[begin : begin + size]

    return Raw(
        body=_Pieces(response),
        headers=dict(response.headers.items()),
        status=response.status_code,
        reason=http.client.responses.get(response.status_code),
        preload_content=False,
        decode_content=False,
    )


class _Pieces(io.RawIOBase):
    """A file of the pieces of a response's body.

    :ivar pieces: the pieces that were not read yet.
    """

    def __init__(self, response: Any) -> None:
        self._response = response
        self._rest = b""
        self.pieces = response.iter_bytes()

    def readable(self) -> bool:
        """Return ``True``: it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what has come."""
        data = self._rest or next(self.pieces, b"")
        size = min(len(data), len(buffer))
        buffer[:size] = data[:size]
        self._rest = data[size:]
        return size

    def close(self) -> None:
        """Close the response, and leave the rest unread."""
        self._response.close()
        super().close()
