"""The storage at an address of a Redis server."""

from __future__ import annotations

from ...config.values import without_password
from ...errors import ConfigError
from ...stores.cache.storages import Storage


def storage_at(address: str) -> Storage:
    """Return the storage on a server.

    :raises ConfigError: if the address is invalid, or the client of Redis is not installed.
    """
    try:
        from .server import RedisServer
    except ImportError as error:
        message = f"[Cache] PATH = {without_password(address)} needs the Python package redis (5.3.0 or later)"
        raise ConfigError(f"{message}: install the extra 'redis'") from error
    return RedisServer(address)
