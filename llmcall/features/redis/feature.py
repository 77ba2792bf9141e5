"""What caches on a Redis server add."""

from __future__ import annotations

from .. import Feature

FEATURE = Feature(
    storages=dict.fromkeys(("redis", "rediss", "unix"), "features.redis.address:storage_at"),
    remedies={"a cassette on another machine": "with [Cache] PATH on a Redis server"},
)
