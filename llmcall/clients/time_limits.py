"""Network connections that end with the time of the attempt that uses them.

The timeouts of httpx bound each connect, read and write. A server that drips its headers, or the
body of an error, keeps to each of them for ever. Here, each step gets the time that is left of the
attempt. Event loops need none of this: they cancel the whole attempt.
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, Any

from ..call.time_limits import time_left

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable


def keep_time_limits(http_client: Any) -> None:
    """End the connections that an HTTP client makes from now on with their attempts.

    :param http_client: a synchronous one, of httpx or httpx2.
    """
    for transport in (http_client._transport, *http_client._mounts.values()):
        keep_time_limits_of(transport)


def keep_time_limits_of(transport: Any) -> None:
    """End the connections of one transport so, if it is an HTTP library's own synchronous one."""
    if not hasattr(transport, "handle_request"):
        return
    pool: Any = getattr(transport, "_pool", None)
    backend = getattr(pool, "_network_backend", None)
    if hasattr(backend, "connect_tcp") and not isinstance(backend, TimedBackend):
        library = sys.modules[type(pool).__module__.partition(".")[0]]
        pool._network_backend = TimedBackend(backend, library)


class TimedBackend:
    """Makes connections, as a network backend of httpcore does.

    :param backend: makes them without regard to the attempt.
    :param library: the module ``httpcore`` or ``httpcore2``.
    """

    def __init__(self, backend: Any, library: Any) -> None:
        self._backend = backend
        self._library = library

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> TimedStream:
        """Connect to the first of a host's addresses that answers."""
        if time_left() is None:
            stream = self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
            return TimedStream(stream, self._library)
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise self._library.ConnectError(str(error)) from error
        failure: Exception = self._library.ConnectError(f"{host} has no address")
        # one by one: together, each would get the whole time
        for *_, (address, *_) in addresses:
            seconds = _shorter(timeout, self._library.ConnectTimeout)
            try:
                stream = self._backend.connect_tcp(
                    address, port, seconds, local_address, socket_options
                )
                return TimedStream(stream, self._library)
            except (self._library.ConnectError, self._library.ConnectTimeout) as error:
                failure = error
        raise failure

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> TimedStream:
        """Connect to a socket of this machine."""
        seconds = _shorter(timeout, self._library.ConnectTimeout)
        stream = self._backend.connect_unix_socket(path, seconds, socket_options)
        return TimedStream(stream, self._library)

    def sleep(self, seconds: float) -> None:
        """Wait before the next attempt to connect."""
        self._backend.sleep(_shorter(seconds, self._library.ConnectTimeout))


class TimedStream:
    """Reads and writes, as a network stream of httpcore does; arguments as of :class:`TimedBackend`."""

    def __init__(self, stream: Any, library: Any) -> None:
        self._stream = stream
        self._library = library

    def read(self, max_bytes: int, timeout: float | None = None) -> Any:
        """Return what comes next."""
        return self._stream.read(max_bytes, _shorter(timeout, self._library.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send some bytes."""
        self._stream.write(buffer, _shorter(timeout, self._library.WriteTimeout))

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> TimedStream:
        """Return the same connection, encrypted."""
        seconds = _shorter(timeout, self._library.ConnectTimeout)
        encrypted = self._stream.start_tls(ssl_context, server_hostname, seconds)
        return TimedStream(encrypted, self._library)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        """Return what is known of the connection."""
        return self._stream.get_extra_info(info)


def _shorter(timeout: float | None, error_class: type[Exception]) -> float | None:
    """Return the seconds that one step may take.

    :param timeout: those that it may take in any attempt.
    :param error_class: what is raised if the attempt has none left.
    """
    seconds_left = time_left()
    if seconds_left is None:
        return timeout
    if seconds_left <= 0:
        raise error_class("the time of the attempt is over")
    return seconds_left if timeout is None else min(timeout, seconds_left)
