"""Storages: the places of a cache's rows, and the base class of custom ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from ...additions import additions
from ...support.plugins import PlugIns

# The bytes of a key (None if llmcall did not write them), and their time of storing: seconds since the epoch.
Stored = tuple["bytes | None", float]
# The same after its key.
Row = tuple[str, "bytes | None", float]

# The factories of users' storages, by the scheme of their addresses.
storages = PlugIns("llmcall.storages")


class Change(NamedTuple):
    """A row to be stored or deleted.

    :param value: the new bytes, or ``None`` to delete the key.
    :param replaces: ``True`` to replace the key's bytes.
    :param stored_at: when they were first stored, in seconds since the epoch; ``None`` means now.
    """

    key: str
    value: bytes | None
    replaces: bool = False
    stored_at: float | None = None


class Storage(ABC):
    """A store of bytes under keys, for a cache: a directory is one.

    A subclass with a ``scheme`` serves the addresses ``SCHEME://REST`` in ``[Cache] PATH``; llmcall creates it with
    REST. If two subclasses have one scheme, the one defined last serves it; the schemes of llmcall's features are
    taken. If its module is not imported, the entry point SCHEME in the group ``llmcall.storages`` names it.
    Once a method that stores has returned, every reader gets the bytes. Several threads use it at once. Raise an
    ``OSError`` or a :class:`llmcall.CacheError` for a failure: llmcall then keeps a paid answer in memory until it
    can be stored.

    :cvar is_on_server: whether its methods may wait for a server or for a slow disk, so that an event loop
        runs them in a thread.
    :ivar name: the address, without a password.

    >>> import time
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
    ...                 self.stored[key] = value, stored_at or time.time()
    ...                 count += 1
    ...         return count
    >>> cache = llmcall.ResponseCache("memory://any")
    >>> cache.load("examples/market_day.jsonl"), len(cache)
    (47, 47)
    """

    is_on_server: bool = True
    name: str = ""

    def __init_subclass__(cls, *, scheme: str | None = None, **options: object) -> None:
        super().__init_subclass__(**options)
        if scheme is not None and scheme in additions("storages"):
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
        """Store and delete rows, all or none if possible; return how many changed. A key keeps its bytes,
        unless the change ``replaces`` them.

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

    def change(self, key: str, changed: Callable[[Stored], bytes]) -> None:
        """Change a key's bytes, if it has some. Nothing else may change them between the read and the write.

        :param changed: returns the new bytes; it may be called again.
        """

        def changes() -> Iterator[Change]:
            if (stored := self.get(key)) is not None:
                yield Change(key, changed(stored), True, stored[1])

        self.write(changes())

    def exists(self) -> bool:
        """Return whether anything was stored."""
        return any(True for _ in self.rows())

    def put(self, key: str, value: bytes, *, replaces: bool = False) -> bool:
        """Store bytes under a key; return whether they were stored.

        :param replaces: ``True`` to replace the key's bytes.
        """
        return self.write([Change(key, value, replaces)]) > 0

    def readable_rows(self) -> Iterable[Row]:
        """Yield the rows that can still be read, some of them perhaps twice."""
        return self.rows()

    def size(self) -> int:
        """Return about how many bytes all rows take."""
        return sum(len(value or b"") for _, value, _ in self.rows())
