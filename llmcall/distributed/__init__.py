"""Other processes and machines: executors, and the cache on a Redis server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config.values import without_password
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..stores.cache.redis import RedisServer


def storage_at_server(address: str) -> RedisServer:
    """Return the storage at the address of a Redis server.

    :raises ConfigError: if the address is invalid, or redis-py is not installed.
    """
    try:
        from ..stores.cache.redis import RedisServer
    except ImportError as error:
        message = f"[Cache] PATH = {without_password(address)} needs the Python package redis (5.3.0 or later)"
        raise ConfigError(f"{message}: install the extra 'redis'") from error
    return RedisServer(address)
