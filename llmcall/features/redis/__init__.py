"""A cache on a Redis server, which several machines can share."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(
    storages=dict.fromkeys(("redis", "rediss", "unix"), "features.redis.address:storage_at"),
    remedies={"a cassette on another machine": "with [Cache] PATH on a Redis server"},
)
