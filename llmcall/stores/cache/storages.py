"""Storages: the places of a cache's rows, their addresses, and the class from which one's own are made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple, TypeGuard, TypeVar

from ...config.values import without_password
from ...errors import CacheError, ConfigError
from ...support.plugins import PlugIns
from ...support.sender import callback_errors
from .directory import Directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

# The bytes of a key (None if llmcall did not write them), and their time of storing: seconds since the epoch.
Stored = tuple["bytes | None", float]
# The same after its key.
Row = tuple[str, "bytes | None", float]


SERVERS = ("redis", "rediss", "unix")  # schemes of addresses
# What makes a storage of a user's own, by the scheme of its addresses.
storages = PlugIns("llmcall.storages")


class Change(NamedTuple):
    """A row to be stored or deleted.

    :param value: the new bytes, or ``None`` to delete the key.
    :param replaces: whether they replace the key's bytes.
    :param stored_at: when they were first stored, in seconds since the epoch; ``None`` means now.
    """

    key: str
    value: bytes | None
    replaces: bool = False
    stored_at: float | None = None


class Storage(ABC):
    """Keeps bytes under keys, for a cache: a directory and a Redis server are two.

    A subclass with a ``scheme`` serves the addresses ``SCHEME://REST`` of ``[Cache] PATH``; it is made with the
    REST. Of two with one scheme, the one that was defined last does; ``redis``, ``rediss`` and ``unix`` are
    llmcall's own. Where its module is not imported, the entry point SCHEME in the group ``llmcall.storages`` names it.
    When a method that stores returns, every reader gets the bytes. Threads use it at the same time. A failure
    is raised as an ``OSError`` or a :class:`llmcall.CacheError`; an answer that was paid for then stays in memory
    until it can be stored. :func:`llmcall.testing.check_storage` tests one.

    :cvar is_on_server: whether its methods may wait for a server or for a slow disk, so that an event loop
        runs them in a thread.
    :ivar name: the address, without a password.

    >>> class Memory(llmcall.types.Storage, scheme="memory"):
    ...     def __init__(self, rest):
    ...         self.stored = {}
    ...     def get(self, key):
    ...         return self.stored.get(key)
    ...     def rows(self):
    ...         return [(key, *row) for key, row in self.stored.items()]
    ...     def write(self, changes):
    ...         count = 0
    ...         for key, value, replaces, stored_at in changes:
    ...             if value is None:
    ...                 count += self.stored.pop(key, None) is not None
    ...             elif replaces or key not in self.stored:
    ...                 self.stored[key] = value, stored_at or 0.0
    ...                 count += 1
    ...         return count
    >>> cache = llmcall.ResponseCache("memory://any")
    >>> cache.load("examples/market_day.jsonl"), len(cache)
    (62, 62)
    """

    is_on_server: bool = True
    name: str = ""

    def __init_subclass__(cls, *, scheme: str | None = None, **options: object) -> None:
        super().__init_subclass__(**options)
        if scheme in SERVERS:
            raise ValueError(
                f"{cls.__name__}: the scheme {scheme!r} is llmcall's own; choose another one"
            )
        if scheme is not None:
            storages[scheme] = cls

    @abstractmethod
    def get(self, key: str) -> Stored | None:
        """Return the bytes of a key and their time of storing, in seconds since the epoch, or ``None``
        without the key.
        """

    @abstractmethod
    def rows(self) -> Iterable[Row]:
        """Yield all keys, each with its bytes and their time of storing, in the order of storing."""

    @abstractmethod
    def write(self, changes: Iterable[Change]) -> int:
        """Store and delete rows, all or none if it can; return how many changed. A key that has bytes keeps
        them, and does not change, unless the change ``replaces`` them.

        :param changes: may call :meth:`get` while they are written.
        """

    def __len__(self) -> int:
        return sum(1 for _ in self.rows())

    def __bool__(self) -> bool:
        return True

    def clear(self) -> int:
        """Delete all rows; return how many there were."""
        return self.write([Change(key, None) for key, *_ in self.rows()])

    def close(self) -> None:
        """Close what is open; the next use opens it again."""
        return

    # What llmcall's own storages do better

    @property
    def location(self) -> Path | str:
        """Return the place, as messages name it."""
        return self.name

    @property
    def folder(self) -> str | None:
        """Return the directory in which llmcall also notes the answers that it waits for, or ``None``."""
        return None

    def exists(self) -> bool:
        """Return whether anything was stored."""
        return len(self) > 0

    def put(self, key: str, value: bytes, *, replaces: bool = False) -> bool:
        """Store bytes under a key; return whether they were stored.

        :param replaces: whether they replace the key's bytes.
        """
        return self.write([Change(key, value, replaces)]) > 0

    def all_keys(self) -> Iterator[str]:
        """Yield all keys."""
        return (key for key, *_ in self.rows())

    def readable_rows(self) -> Iterable[Row]:
        """Yield the rows that can still be read, some of them perhaps twice."""
        return self.rows()

    def size(self) -> int:
        """Return about how many bytes all rows take."""
        return sum(len(value or b"") for _, value, _ in self.rows())

    def disconnect(self) -> None:
        """Close this thread's connection until its next use."""
        return


T = TypeVar("T")


def is_address(path: str) -> bool:
    """Return whether a path is the address of a server, or of another storage, and not a directory."""
    return "://" in path


def storage_at(path: str) -> Storage:
    """Return the storage in a directory, or at an address.

    :raises ConfigError: if the address is invalid, its storage cannot be made, or the client of Redis is not
        installed.
    """
    if not is_address(path):
        return Directory(path)
    scheme, _, rest = path.partition("://")
    address = f"[Cache] PATH = {without_password(path)}"
    if scheme in SERVERS:
        try:
            from .redis import RedisServer
        except ImportError as error:
            message = f"{address} needs the Python package redis (5.3.0 or later)"
            raise ConfigError(f"{message}: install the extra 'redis'") from error
        return RedisServer(path)
    make = storages.find(scheme, address)
    if make is None:
        raise ConfigError(
            f"{address}: no storage has the scheme {scheme!r}. Known: {', '.join([*SERVERS, *storages.names()])}; "
            f"a subclass of llmcall.types.Storage with scheme={scheme!r} adds it once its module is imported, or the "
            f"entry point {scheme} in the group {storages.group} names one. A directory has no '://'"
        )
    name = getattr(make, "__name__", make)
    with callback_errors(f"{address}: {name} raised", ConfigError):
        own = make(rest)  # type: ignore[operator]  # what cannot be called raises
    if not isinstance(own, Storage):
        raise ConfigError(f"{address}: {name} made {own!r:.60}, not a llmcall.types.Storage")
    return OwnStorage(own, str(without_password(path)))


class OwnStorage(Storage):
    """A user's storage. What it returns is checked, what it raises names its class and method, and what it
    sends is unrecorded.
    """

    def __init__(self, own: Storage, name: str) -> None:
        self._own = own
        self.name = name
        self.is_on_server = own.is_on_server

    def get(self, key: str) -> Stored | None:
        """Return the bytes of a key and their time of storing, or ``None``."""
        return self._called("get", lambda: _stored(self._own.get(key)))

    def rows(self) -> Iterator[Row]:
        """Yield all rows."""
        rows = self._called("rows", lambda: iter(self._own.rows()))
        while (row := self._called("rows", lambda: _row(next(rows, None)))) is not None:
            yield row

    def write(self, changes: Iterable[Change]) -> int:
        """Store and delete rows; return how many changed."""
        return self._called("write", lambda: _count(self._own.write(changes)))

    def __len__(self) -> int:
        return self._called("__len__", lambda: _count(len(self._own)))

    def clear(self) -> int:
        """Delete all rows; return how many there were."""
        return self._called("clear", lambda: _count(self._own.clear()))

    def close(self) -> None:
        """Close what is open."""
        self._called("close", self._own.close)

    def _called(self, method: str, call: Callable[[], T]) -> T:
        """Return what a method of the user's returns."""
        failure = f"{type(self._own).__name__}.{method} of the cache {self.name} failed:"
        with callback_errors(failure, CacheError, (OSError, CacheError)):
            return call()


def _stored(row: object) -> Stored | None:
    if row is None or _is_stored(row):
        return row
    raise TypeError(f"it returned {row!r:.60}, not None or a pair (bytes, seconds)")


def _is_stored(row: object) -> TypeGuard[Stored]:
    return (
        isinstance(row, tuple)
        and len(row) == 2
        and (row[0] is None or isinstance(row[0], bytes))
        and isinstance(row[1], (int, float))
    )


def _row(row: object) -> Row | None:
    if row is None or (
        isinstance(row, tuple) and row and isinstance(row[0], str) and _is_stored(row[1:])
    ):
        return row
    raise TypeError(f"it yielded {row!r:.60}, not (key, bytes, seconds)")


def _count(count: object) -> int:
    if isinstance(count, int):
        return count
    raise TypeError(f"it returned {count!r:.60}, not the number of changes")
