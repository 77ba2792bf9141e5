"""The storages of caches: directories and Redis servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import server_storages
from .directory import Directory

if TYPE_CHECKING:
    from ...distributed.redis import RedisServer

    Storage = Directory | RedisServer


def is_address(path: str) -> bool:
    """Return whether a path is the address of a server, not a directory."""
    return "://" in path


def storage_at(path: str) -> Storage:
    """Return the storage in a directory, or at the address of a Redis server.

    :raises ConfigError: if the address is invalid, or the client of Redis is not installed.
    """
    if not is_address(path):
        return Directory(path)
    (storage_at_server,) = server_storages
    return storage_at_server(path)  # type: ignore[no-any-return]
