"""A cache in a database of a Redis server, which several machines can share.

Three keys hold a cache: a hash of the rows, a sorted set of their order, and a counter of all rows
that were ever stored. A row is the time at which it was stored, in eight bytes, and then its value.
Changes to more than one of the three keys are made in one script or transaction.
"""

from __future__ import annotations

import os
import struct
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from redis import ConnectionPool, Redis, exceptions
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from ..config.values import MASK, without_password
from ..errors import CacheError, ConfigError
from ..notices import warn_once
from .storage import PAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from .storage import Change, NewRow, Row

    T = TypeVar("T")

# Of redis.ConnectionPool; the address may say otherwise, as in redis://host/0?socket_timeout=60.
# One connection is for each command under way, and more threads than redis-py's own limit of 100
# would fail. Times are in seconds.
OPTIONS = {"max_connections": 2**16, "socket_connect_timeout": 3.0, "socket_timeout": 20.0}
SECRETS = ("password", "ssl_password")
FORM = "redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss://… (TLS), or unix:///SOCKET[?db=DATABASE]"


ROWS = "llmcall:rows"
ORDER = "llmcall:order"
STORED = "llmcall:stored"
KEYS = (ROWS, ORDER, STORED)
TIME = struct.Struct("<d")  # seconds since the epoch
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
# key, new key, new bytes
MOVE = f"""
local time = string.sub(redis.call('HGET', KEYS[1], ARGV[1]), 1, {TIME.size})
local position = redis.call('ZSCORE', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[2], time .. ARGV[3])
redis.call('ZADD', KEYS[2], position, ARGV[2])
"""


class RedisStorage:
    """Store bytes under keys in a database of a Redis server. The first use connects.

    :param address: ``redis://…``, ``rediss://…`` or ``unix://…``.
    :raises ConfigError: if the address is wrong.
    """

    is_on_server = True

    def __init__(self, address: str) -> None:
        self.location: str = without_password(address)
        self._is_eviction_checked = False
        self._clients: dict[int, Any] = {}  # by process
        # One further attempt is for a connection that was open when the server was started again.
        # By default, redis-py tries ten times for some seconds.
        retry = Retry(NoBackoff(), 1, supported_errors=(exceptions.ConnectionError,))
        fixed_options = {"decode_responses": False, "protocol": 2, "retry": retry}
        try:
            self._options = {**OPTIONS, **parse_url(address), **fixed_options}
            pool = self._redis.connection_pool
            pool.connection_class(**pool.connection_kwargs)  # is connected to nothing yet
        except (ValueError, TypeError, exceptions.RedisError):
            # "from None", since the error's words may repeat the password.
            raise ConfigError(
                f"[Cache] PATH = {self.location} is neither a directory nor the address of a Redis server: {FORM}"
            ) from None

    @property
    def _redis(self) -> Any:
        """Return the ``redis.Redis`` of this process; one that is forked while a thread uses
        another's would hang.
        """
        process = os.getpid()
        if process not in self._clients:
            self._clients[process] = Redis(connection_pool=ConnectionPool(**self._options))
        return self._clients[process]

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        """Yield the ``redis.Redis`` for a block; its answers are bytes.

        :raises CacheError: if the server does not answer or refuses. The message names the server,
            without the password, and the remedy.
        """
        try:
            yield self._redis
        # UnicodeError: no host can have such a name.
        except (exceptions.RedisError, OSError, UnicodeError) as error:
            has_secret = self._without_secrets(str(error)) != str(error)
            raise self._failure(error) from (None if has_secret else error)

    def _failure(self, error: Exception) -> CacheError:
        words = self._without_secrets(str(error))
        if isinstance(error, (exceptions.AuthenticationError, exceptions.NoPermissionError)):
            return CacheError(
                f"the Redis server {self.location} refuses access ({words}): "
                "set user and password below [Cache]: PATH = redis://USER:PASSWORD@HOST:PORT/DATABASE"
            )
        if isinstance(
            error, (exceptions.ConnectionError, exceptions.TimeoutError, OSError, UnicodeError)
        ):
            return CacheError(
                f"the Redis server {self.location} cannot be reached ({words}): start it, "
                "or name another server or a directory in [Cache] PATH"
            )
        # Of a pipeline, redis-py puts the whole command before the server's words: the record's
        # bytes.
        return CacheError(
            f"the Redis server {self.location} refuses a command ({words.rpartition('caused error: ')[2]})"
        )

    def _without_secrets(self, text: str) -> str:
        for secret in filter(None, map(self._options.get, SECRETS)):
            text = text.replace(secret, MASK)
        return text

    def exists(self) -> bool:
        """Return whether anything was ever stored in the database."""
        with self._connection() as redis:
            return bool(redis.exists(STORED))

    def get(self, key: str) -> tuple[bytes | None, float] | None:
        """Return the bytes of a key and when they were stored (seconds since the epoch), or
        ``None``.
        """
        with self._connection() as redis:
            row = redis.hget(ROWS, key)
        return None if row is None else _read(row)

    def put(self, key: str, value: bytes, *, replace: bool) -> bool:
        """Store bytes under a key; return whether they were stored.

        :param replace: whether to replace bytes that the key has already.
        """
        if not self._is_eviction_checked:
            self._warn_of_eviction()
        with self._connection() as redis:
            script = redis.register_script(STORE)
            return bool(script(KEYS, [key, TIME.pack(time.time()) + value, int(replace)]))

    def add_all(self, rows: Iterable[NewRow]) -> int:
        """Store many rows, all or none; return how many were stored."""
        now = time.time()
        with self._connection() as redis, redis.pipeline() as pipeline:
            script = redis.register_script(STORE)
            for key, value, replaces, stored_at in rows:
                row = TIME.pack(now if stored_at is None else stored_at) + value
                script(KEYS, [key, row, int(replaces)], client=pipeline)
            return sum(pipeline.execute())

    def delete(self, keys: Iterable[str]) -> int:
        """Delete keys, all or none; return how many were there."""
        deleted_keys = list(keys)
        with self._connection() as redis, redis.pipeline() as pipeline:
            for begin in range(0, len(deleted_keys), PAGE):
                pipeline.hdel(ROWS, *deleted_keys[begin : begin + PAGE])
                pipeline.zrem(ORDER, *deleted_keys[begin : begin + PAGE])
            counts = pipeline.execute()
            return sum(counts[::2])  # those of HDEL

    def clear(self) -> int:
        """Delete all rows; return how many there were."""
        with self._connection() as redis, redis.pipeline() as pipeline:
            pipeline.hlen(ROWS).unlink(ROWS, ORDER)
            return int(pipeline.execute()[0])

    def rewrite(self, changes: Callable[[], Iterable[Change]]) -> int:
        """Change rows' keys and values, all or none; return the number of changed rows.

        :raises CacheError: if somebody stored a row meanwhile.
        """
        with self._connection() as redis, redis.pipeline() as pipeline:
            move = redis.register_script(MOVE)
            pipeline.watch(ROWS)
            change_list = list(changes())
            pipeline.multi()
            for change in change_list:
                move(KEYS, change, client=pipeline)
            try:
                pipeline.execute()
            except exceptions.WatchError:
                raise CacheError(
                    f"{self.location}: other processes stored records in the meantime, so nothing "
                    "was changed; try again while no other process stores records"
                ) from None
            return len(change_list)

    def change_budget(self, name: str, change: Callable[[str | None], tuple[str | None, T]]) -> T:
        """Replace the text of a budget, like :meth:`SqliteStorage.change_budget`."""
        key = f"llmcall:budget:{name}"

        def read_and_set(pipeline: Any) -> T:
            """Read, and write unless somebody wrote since (WATCH)."""
            stored_text = pipeline.get(key)
            text, result = change(stored_text.decode() if stored_text is not None else None)
            pipeline.multi()
            if text is not None:
                pipeline.set(key, text)
            return result

        with self._connection() as redis:
            result: T = redis.transaction(read_and_set, key, value_from_callable=True)
        return result

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
                    yield key.decode(), *_read(row)
            last = int(page[-1][1])

    readable_rows = rows

    def keys_starting_with(self, prefix: str, limit: int) -> list[str]:
        """Return the keys that begin with a prefix, sorted, at most ``limit`` of them."""
        with self._connection() as redis:
            keys = [key.decode() for key in redis.hkeys(ROWS)]
        return sorted(key for key in keys if key.startswith(prefix))[:limit]

    def __len__(self) -> int:
        with self._connection() as redis:
            return int(redis.hlen(ROWS))

    def size(self) -> int:
        """Return about how many bytes all rows take in the server's memory, judged by a few of
        them.
        """
        with self._connection() as redis:
            return sum(redis.memory_usage(key) or 0 for key in KEYS)

    def risks(self) -> list[str]:
        """Return what may lose answers on this server as it is configured, each with its remedy."""
        with self._connection() as redis:
            info = redis.info()
        risks = _eviction(info)
        if info.get("role") == "slave":
            risks.append(
                "it is a replica, which cannot store answers: give the address of the primary server"
            )
        if not info.get("aof_enabled"):
            risks.append(
                "if it crashes, answers stored since its last snapshot are lost: set appendonly yes"
            )
        return risks

    def _warn_of_eviction(self) -> None:
        """Warn once, before the first answer is stored, if the server may drop it."""
        self._is_eviction_checked = True
        with suppress(CacheError), self._connection() as redis:  # of a user who may not ask for it
            for risk in _eviction(redis.info()):
                warn_once(f"the Redis server {self.location}: {risk}")

    def close(self) -> None:
        """Close the connections that nobody is using; the next command opens them again."""
        self._redis.connection_pool.disconnect(inuse_connections=False)


def _read(row: bytes) -> tuple[bytes, float]:
    """Return the bytes of a row and its time; a row that is too short for a time is none of ours,
    and damaged.
    """
    return (row[TIME.size :], TIME.unpack_from(row)[0]) if len(row) >= TIME.size else (b"", 0.0)


def _eviction(info: Mapping[str, Any]) -> list[str]:
    policy = str(info.get("maxmemory_policy", ""))
    if not info.get("maxmemory") or not policy.startswith("allkeys"):
        return []
    return [
        f"it may discard answers when its memory is full (maxmemory-policy {policy}): set noeviction"
    ]
