"""The places of caches: directories and addresses of Redis servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...config.values import without_password
from ...errors import ConfigError
from .directory import Directory

if TYPE_CHECKING:
    from ...distributed.redis import RedisServer

    Storage = Directory | RedisServer


def is_address(path: str) -> bool:
    """Return whether a path is the address of a server, not a directory."""
    return "://" in path


def storage_at(path: str) -> Storage:
    """Return the storage in a directory, or at the address of a Redis server.

    :raises ConfigError: if the address is invalid, or redis-py is not installed.
    """
    if not is_address(path):
        return Directory(path)
    try:
        from ...distributed.redis import RedisServer
    except ImportError as error:
        message = f"[Cache] PATH = {without_password(path)} needs the Python package redis (5.3.0 or later)"
        raise ConfigError(f"{message}: install the extra 'redis'") from error
    return RedisServer(path)
