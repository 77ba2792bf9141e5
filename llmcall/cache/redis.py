"""A key → bytes store in a Redis database, for caches that several machines share.

Three keys hold all of it: a hash of the rows, a sorted set of their order, and a counter of those that were ever
stored. A row is the time of storing, eight bytes, and then the bytes. Whatever changes more than one of the three does
so in one script or transaction.
"""

from __future__ import annotations

import re
import struct
import time
from typing import TYPE_CHECKING, Any

from ..errors import CacheError
from ..notices import warn_once
from .redis_servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from .storage import Change, Row

__all__ = ["RedisStorage"]

ROWS, ORDER, STORED = KEYS = ("llmcall:rows", "llmcall:order", "llmcall:stored")
ASIDE = "llmcall:aside"  # there within a transaction only
TIME = struct.Struct("<d")  # seconds since the epoch
PAGE = 500  # keys deleted at a time
SCANNED = 1000  # keys that one step of a search looks at
REWRITES = 3
# key, row, whether it replaces what is there
STORE = """
if ARGV[3] == '1' then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
elseif redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  return 0
end
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  redis.call('ZADD', KEYS[2], redis.call('INCR', KEYS[3]), ARGV[1])
end
return 1
"""
# the place after which to read, how many rows; in one script, so that no row is deleted between its key and its bytes
READ = """
local found = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local rows = {}
for each = 1, #found, 2 do
  rows[#rows + 1] = {found[each], found[each + 1], redis.call('HGET', KEYS[1], found[each])}
end
return rows
"""
# key, new key, new bytes: aside at first, since another row may have the new key until it moves too
TAKE = f"""
local time = string.sub(redis.call('HGET', KEYS[1], ARGV[1]), 1, {TIME.size})
redis.call('HSET', KEYS[4], 'row ' .. ARGV[2], time .. ARGV[3])
redis.call('HSET', KEYS[4], 'place ' .. ARGV[2], redis.call('ZSCORE', KEYS[2], ARGV[1]))
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
"""
# new key
PUT = """
redis.call('HSET', KEYS[1], ARGV[1], redis.call('HGET', KEYS[4], 'row ' .. ARGV[1]))
redis.call('ZADD', KEYS[2], redis.call('HGET', KEYS[4], 'place ' .. ARGV[1]), ARGV[1])
redis.call('HDEL', KEYS[4], 'row ' .. ARGV[1], 'place ' .. ARGV[1])
"""


class RedisStorage:
    """Keep bytes under keys in a database of a Redis server. Opens nothing until used.

    :param address: ``redis://…``, ``rediss://…`` or ``unix://…``.
    :raises ConfigError: where it cannot be read, or redis-py is not installed.
    """

    takes_one_at_a_time = is_near = False

    def __init__(self, address: str) -> None:
        self._server = RedisServer(address)
        self._checked = False

    @property
    def place(self) -> str:
        """Return the server's address without its password."""
        return self._server.name

    def exists(self) -> bool:
        """Return whether anything was ever stored in the database."""
        return bool(self._server.ask(lambda redis: redis.exists(STORED)))

    def get(self, key: str) -> tuple[bytes, float] | None:
        """Return the bytes of a key and when they were stored (seconds since the epoch), or ``None``."""
        row = self._server.ask(lambda redis: redis.hget(ROWS, key))
        return None if row is None else _read(row)

    def add(self, key: str, value: bytes) -> bool:
        """Store bytes under a key that has none; return whether they were stored."""
        return self._store(key, value, replace=False)

    def set(self, key: str, value: bytes) -> None:
        """Store bytes under a key, in place of what is there."""
        self._store(key, value, replace=True)

    def _store(self, key: str, value: bytes, *, replace: bool) -> bool:
        if not self._checked:
            self._warn_of_eviction()
        given = [key, TIME.pack(time.time()) + value, int(replace)]
        return bool(self._server.ask(lambda redis: redis.register_script(STORE)(KEYS, given)))

    def add_all(self, rows: Iterable[tuple[str, bytes, bool]], stored_at: Mapping[str, float] | None = None) -> int:
        """Store many rows (key, value, whether it replaces what is there), all or none; return how many were stored."""
        times, now = stored_at or {}, time.time()
        given = [[key, TIME.pack(times.get(key, now)) + value, int(replace)] for key, value, replace in rows]

        def store(redis: Any) -> int:
            """Store all in one go."""
            script = redis.register_script(STORE)
            with redis.pipeline() as pipeline:
                for each in given:
                    script(KEYS, each, client=pipeline)
                return sum(pipeline.execute())

        return self._server.ask(store)

    def delete(self, keys: Iterable[str]) -> int:
        """Delete keys, all or none; return how many were there."""
        deleted = list(keys)

        def delete(redis: Any) -> int:
            """Delete all in one go."""
            with redis.pipeline() as pipeline:
                for begin in range(0, len(deleted), PAGE):
                    pipeline.hdel(ROWS, *deleted[begin : begin + PAGE])
                    pipeline.zrem(ORDER, *deleted[begin : begin + PAGE])
                return sum(pipeline.execute()[::2])

        return self._server.ask(delete)

    def clear(self) -> int:
        """Delete all rows; return how many there were."""

        def clear(redis: Any) -> int:
            """Delete all in one go."""
            with redis.pipeline() as pipeline:
                pipeline.hlen(ROWS).unlink(ROWS, ORDER)
                return int(pipeline.execute()[0])

        return self._server.ask(clear)

    def rewrite(self, changes: Callable[[], Iterable[Change]]) -> int:
        """Give rows (key, new key, new value) other keys and bytes, all or none; return how many there were.

        :param changes: is called again where somebody stored a row meanwhile.
        :raises CacheError: where that happened each time.
        """
        for _ in range(REWRITES):
            count = self._server.ask(lambda redis: _rewritten(redis, changes))
            if count is not None:
                return count
        raise CacheError(f"{self.place}: others go on storing records, so nothing was changed; do it while nobody does")

    def page(self, after: int, size: int) -> list[Row]:
        """Return the next rows after a place in the order, at most ``size``."""
        found = self._server.ask(lambda redis: redis.register_script(READ)(KEYS, [after, size]))
        return [(int(place), _text(key), *(_read(row) if row else (None, 0.0))) for key, place, row in found]

    def rows(self) -> Iterator[tuple[str, bytes | None, float]]:
        """Yield key, bytes and time of every row, in the order of storing; the bytes are ``None`` where unreadable."""
        from .storage import each_row

        return each_row(self)

    def last(self) -> int:
        """Return the last place that is taken, or 0."""
        found = self._server.ask(lambda redis: redis.zrange(ORDER, -1, -1, withscores=True))
        return int(found[0][1]) if found else 0

    def starting(self, prefix: str, limit: int) -> list[str]:
        """Return the keys that begin with a prefix, sorted, at most ``limit`` of them; searched for by the server."""
        pattern = re.sub(r"([][*?\\^-])", r"\\\1", prefix) + "*"
        found = self._server.ask(lambda redis: {key for key, _ in redis.hscan_iter(ROWS, pattern, SCANNED)})
        return sorted(map(_text, found))[:limit]

    def __len__(self) -> int:
        return int(self._server.ask(lambda redis: redis.hlen(ROWS)))

    def size(self) -> int:
        """Return about how many bytes all rows take in the server's memory, judged by a few of them."""
        return sum(self._server.ask(lambda redis: [redis.memory_usage(key) or 0 for key in KEYS]))

    def risks(self) -> list[str]:
        """Return what may lose answers on this server as it is configured, each with its remedy."""
        info = self._server.ask(lambda redis: redis.info())
        found = _eviction(info)
        if info.get("role") == "slave":
            found.append("it is a replica, which takes no answers: name the primary server")
        if not info.get("aof_enabled"):
            found.append("what it stored since its last snapshot is lost when it crashes: set appendonly yes")
        return found

    def _warn_of_eviction(self) -> None:
        """Say once, before the first answer is stored, that the server may drop it."""
        try:
            info = self._server.ask(lambda redis: redis.info())
        except CacheError:  # a user who may not ask for it; whatever else it is, storing says so
            return
        self._checked = True
        for risk in _eviction(info):
            warn_once(f"the Redis server {self.place}: {risk}")

    def close(self) -> None:
        """Close the connections; the next use opens them again."""
        self._server.close()


def _read(row: bytes) -> tuple[bytes, float]:
    """Return the bytes of a row and its time; a row that is too short for a time is none of ours, and damaged."""
    return (row[TIME.size :], TIME.unpack_from(row)[0]) if len(row) >= TIME.size else (b"", 0.0)


def _eviction(info: Mapping[str, Any]) -> list[str]:
    policy = str(info.get("maxmemory_policy", ""))
    if not info.get("maxmemory") or not policy.startswith("allkeys"):
        return []
    return [f"it may drop answers when its memory is full (maxmemory-policy {policy}): set noeviction"]


def _text(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")


def _rewritten(redis: Any, changes: Callable[[], Iterable[Change]]) -> int | None:
    """Make changes and return how many; ``None`` where somebody else made one meanwhile, so that none was made."""
    from redis import WatchError

    take, put = redis.register_script(TAKE), redis.register_script(PUT)
    with redis.pipeline() as pipeline:
        pipeline.watch(ROWS)
        changed = list(changes())
        pipeline.multi()
        for key, new, value in changed:
            take((*KEYS, ASIDE), [key, new, value], client=pipeline)
        for _, new, _ in changed:
            put((*KEYS, ASIDE), [new], client=pipeline)
        try:
            pipeline.execute()
        except WatchError:
            return None
    return len(changed)
