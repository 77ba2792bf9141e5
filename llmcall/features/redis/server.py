"""A cache in a database of a Redis server, which several machines can share.

Three keys hold it: a hash of the rows, a sorted set of their order, and a counter of all rows that were
ever stored. A row is the time at which it was stored, in eight bytes, and then its value.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from ...config.values import MASK, without_password
from ...errors import CacheError, ConfigError
from ...stores.cache.storages import Change, Row, Storage, Stored
from ...support.libraries import redis

# The address may say otherwise, as in redis://host/0?socket_timeout=60. Each command under way has a
# connection, and redis-py's own limit is 100. Times are in seconds.
OPTIONS = {"max_connections": 2**16, "socket_connect_timeout": 3.0, "socket_timeout": 20.0}
FORM = "redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss://… (TLS), or unix:///SOCKET[?db=DATABASE]"

PAGE = 500  # rows that are read or written at a time
ROWS = "llmcall:rows"
ORDER = "llmcall:order"
STORED = "llmcall:stored"
KEYS = (ROWS, ORDER, STORED)
TIME = struct.Struct("<d")  # seconds since the epoch
# Arguments: a key, its row (empty to delete it), whether to replace an existing row.
CHANGE = """
if ARGV[2] == '' then
  redis.call('ZREM', KEYS[2], ARGV[1])
  return redis.call('HDEL', KEYS[1], ARGV[1])
elseif ARGV[3] == '1' then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
elseif redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  return 0
end
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  redis.call('ZADD', KEYS[2], redis.call('INCR', KEYS[3]), ARGV[1])
end
return 1
"""


class RedisServer(Storage):
    """Bytes under keys in a database of a Redis server. The first use connects.

    :param address: ``redis://…``, ``rediss://…`` or ``unix://…``.
    :raises ConfigError: if the address is wrong.
    """

    def __init__(self, address: str) -> None:
        self.name = str(without_password(address))
        # One further attempt is for a connection that was open when the server was started again.
        # By default, redis-py tries ten times for some seconds.
        retry = redis.retry.Retry(
            redis.backoff.NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,)
        )
        try:
            self._redis = redis.Redis.from_url(
                address, **OPTIONS, decode_responses=False, protocol=2, retry=retry
            )
            pool = self._redis.connection_pool
            pool.connection_class(**pool.connection_kwargs)  # is connected to nothing yet
        except (ValueError, TypeError, redis.exceptions.RedisError):
            # "from None", since the error's words may repeat the password.
            raise ConfigError(
                f"[Cache] PATH = {self.name} is not the address of a Redis server: {FORM}"
            ) from None
        passwords = (pool.connection_kwargs.get(name) for name in ("password", "ssl_password"))
        self._secrets = [secret for secret in passwords if secret]
        self._change = self._redis.register_script(CHANGE)

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        """Yield the ``redis.Redis`` for a block, whose answers are bytes; its errors become a ``CacheError``."""
        try:
            yield self._redis
        # UnicodeError: no host can have such a name.
        except (redis.exceptions.RedisError, OSError, UnicodeError) as error:
            # For a pipeline, redis-py puts the command, with the record's bytes, before the server's words.
            words = str(error).rpartition("caused error: ")[2]
            for secret in self._secrets:
                words = words.replace(secret, MASK)
            has_secret = any(secret in str(error) for secret in self._secrets)
            raise self._failure(error, words) from (None if has_secret else error)

    def _failure(self, error: Exception, words: str) -> CacheError:
        if isinstance(
            error, (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)
        ):
            what = f"refuses access ({words}): set user and password in [Cache]: PATH = redis://USER:PASSWORD@HOST:PORT/DATABASE"
        elif isinstance(error, redis.exceptions.ResponseError):
            what = f"refuses a command ({words})"
        else:
            what = f"cannot be reached ({words}): start it, or name another server or a directory in [Cache] PATH"
        return CacheError(f"the Redis server {self.name} {what}")

    def exists(self) -> bool:
        """Return whether anything was ever stored in the database."""
        with self._connection() as redis:
            return bool(redis.exists(STORED))

    def get(self, key: str) -> Stored | None:
        """Return the bytes of a key and when they were stored, or ``None``."""
        with self._connection() as redis:
            row = redis.hget(ROWS, key)
        return None if row is None else _unpacked_row(row)

    def rows(self) -> Iterator[Row]:
        """Yield all rows in the order of storing."""
        last = 0
        while True:
            with self._connection() as redis:
                page = redis.zrangebyscore(ORDER, f"({last}", "+inf", 0, PAGE, withscores=True)
                rows = redis.hmget(ROWS, [key for key, _ in page]) if page else []
            if not page:
                return
            for (key, _), row in zip(page, rows, strict=True):
                if row is not None:  # else it was deleted meanwhile
                    yield key.decode(), *_unpacked_row(row)
            last = int(page[-1][1])

    def __len__(self) -> int:
        with self._connection() as redis:
            return int(redis.hlen(ROWS))

    def size(self) -> int:
        """Return about how many bytes all rows take in the server's memory, estimated from a few."""
        with self._connection() as redis:
            return sum(redis.memory_usage(key) or 0 for key in KEYS)

    def put(self, key: str, value: bytes, *, replaces: bool = False) -> bool:
        """Store bytes under a key; return whether it has them now."""
        with self._connection():
            row = TIME.pack(time.time()) + value
            return bool(self._change(KEYS, [key, row, int(replaces)]))

    def write(self, changes: Iterable[Change]) -> int:
        """Store and delete rows, a page at a time; return how many changed."""
        count = 0
        changes = iter(changes)
        while page := list(islice(changes, PAGE)):
            with self._connection() as redis, redis.pipeline() as pipeline:
                for key, value, replaces, stored_at in page:
                    at = time.time() if stored_at is None else stored_at
                    row = b"" if value is None else TIME.pack(at) + value
                    self._change(KEYS, [key, row, int(replaces)], client=pipeline)
                count += sum(pipeline.execute())
        return count

    def change(self, key: str, changed: Callable[[Stored], bytes]) -> None:
        """Change the bytes of a key, and again if somebody wrote to the database meanwhile."""

        def change_row(pipeline: Any) -> None:
            row = pipeline.hget(ROWS, key)
            pipeline.multi()
            if row is not None:
                pipeline.hset(ROWS, key, row[: TIME.size] + changed(_unpacked_row(row)))

        with self._connection() as redis:
            redis.transaction(change_row, ROWS)

    def clear(self) -> int:
        """Delete all rows; return how many there were."""
        with self._connection() as redis, redis.pipeline() as pipeline:
            pipeline.hlen(ROWS).unlink(ROWS, ORDER)
            return int(pipeline.execute()[0])

    def close(self) -> None:
        """Close the unused connections; the next command opens them again."""
        self._redis.connection_pool.disconnect(inuse_connections=False)


def _unpacked_row(row: bytes) -> tuple[bytes, float]:
    """Return the bytes of a row and its time; a row that is too short for a time was not written by llmcall."""
    return (row[TIME.size :], TIME.unpack_from(row)[0]) if len(row) >= TIME.size else (b"", 0.0)
