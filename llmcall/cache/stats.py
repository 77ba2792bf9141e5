"""What is known of a cache without reading it through."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CacheStats"]


class CacheStats(NamedTuple):
    """Hold what is known of a cache without reading it through.

    :param path: the directory, or the server's address without its password.
    :param records: how many answers it holds.
    :param size: bytes on the disk, or in the server's memory.
    """

    path: str
    records: int
    size: int
