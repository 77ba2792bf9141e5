"""A Redis server: how it is reached, and what is said when it is not."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from ..config.values import MASK, without_password
from ..errors import CacheError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    T = TypeVar("T")

__all__ = ["RedisServer"]

SCHEMES = ("redis", "rediss", "unix")
# Of redis.ConnectionPool; the address may say otherwise, as in redis://host/0?socket_timeout=60. One connection is for
# each command under way, and more threads than redis-py's own limit of 100 would fail. Times are in seconds.
OPTIONS = {"max_connections": 2**16, "socket_connect_timeout": 3.0, "socket_timeout": 20.0}
SECRETS = ("password", "ssl_password")
FORM = "redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss://… (TLS), or unix:///SOCKET[?db=DATABASE]"

_servers: weakref.WeakSet[RedisServer] = weakref.WeakSet()
_of_the_parent: list[Any] = []


class RedisServer:
    """Speak to a Redis server, from any thread and after a fork; nothing is sent before the first command.

    :param address: as redis-py reads it: ``redis://…``, ``rediss://…`` or ``unix://…``.
    :raises ConfigError: where it is none of these, or redis-py is not installed.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.name: str = without_password(address)
        self._client: Any = None
        if address.partition("://")[0].casefold() not in SCHEMES:
            raise ConfigError(
                f"[Cache] PATH = {self.name} is neither a directory nor the address of a Redis server: {FORM}"
            )
        self._connected()  # to nothing yet, but an address that is wrong is known before any call is paid for
        _servers.add(self)

    def ask(self, action: Callable[[Any], T]) -> T:
        """Return what an action on the client returns.

        :param action: takes a ``redis.Redis``; its answers are bytes.
        :raises CacheError: where the server does not answer or refuses, naming it and the remedy, without the password.
        """
        import redis

        try:
            return action(self._connected() if self._client is None else self._client)
        except (redis.RedisError, OSError, UnicodeError) as error:  # UnicodeError: a host's name that can be none
            raise self._failure(error) from (None if self._without_secrets(str(error)) != str(error) else error)

    def _connected(self) -> Any:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.connection import parse_url
            from redis.retry import Retry
        except ImportError as error:
            raise ConfigError(
                f"[Cache] PATH = {self.name} needs the Python package redis (5.3.0 or later): install the extra 'redis'"
            ) from error
        scheme, _, rest = self.address.partition("://")
        # One further attempt is for a connection that was open when the server was started again. By default, redis-py
        # tries ten times for some seconds.
        again = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
        try:
            given = parse_url(f"{scheme.casefold()}://{rest}")
            always = {"decode_responses": False, "protocol": 2, "retry": again}
            pool = redis.ConnectionPool(**{**OPTIONS, **given, **always})
            pool.connection_class(**pool.connection_kwargs)
        except (ValueError, TypeError, redis.RedisError):  # whose words may repeat the password
            raise ConfigError(f"[Cache] PATH = {self.name} cannot be read as an address: {FORM}") from None
        self._client = redis.Redis(connection_pool=pool)
        return self._client

    def _failure(self, error: Exception) -> CacheError:
        import redis

        words = self._without_secrets(str(error))
        if isinstance(error, (redis.AuthenticationError, redis.exceptions.NoPermissionError)):
            return CacheError(
                f"the Redis server {self.name} refuses access ({words}): "
                "user and password stand in [Cache] PATH = redis://USER:PASSWORD@HOST:PORT/DATABASE"
            )
        if isinstance(error, (redis.ConnectionError, redis.TimeoutError, OSError, UnicodeError)):
            return CacheError(
                f"the Redis server {self.name} cannot be reached ({words}): start it, "
                "or name another server or a directory in [Cache] PATH"
            )
        return CacheError(f"the Redis server {self.name} refuses a command ({words})")

    def _without_secrets(self, text: str) -> str:
        options = self._client.connection_pool.connection_kwargs if self._client else {}
        for secret in filter(None, map(options.get, SECRETS)):
            text = text.replace(secret, MASK)
        return text

    def close(self) -> None:
        """Close the connections that nobody is using; the next command opens them again."""
        if self._client is not None:
            self._client.connection_pool.disconnect(inuse_connections=False)

    def leave(self) -> None:
        """Leave the connections to the process that this one was forked from."""
        if self._client is not None:
            _of_the_parent.append(self._client)
            self._client = None


def _begin_anew() -> None:
    for server in list(_servers):
        server.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
