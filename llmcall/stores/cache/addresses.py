"""The storage at an address: a directory, that of a feature, or a user's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeGuard, TypeVar

from ...additions import additions, load
from ...config.values import without_password
from ...errors import CacheError, ConfigError
from ...support.request_origin import callback_errors
from .directory import Directory
from .storages import Change, Row, Storage, Stored, storages

T = TypeVar("T")


def is_address(path: str) -> bool:
    """Return whether a path is the address of a server or another storage, not a directory."""
    return "://" in path


def storage_at(path: str) -> Storage:
    """Return the storage in a directory, or at an address.

    :raises ConfigError: if the address is invalid, or its storage cannot be made.
    """
    if not is_address(path):
        return Directory(path)
    scheme, _, rest = path.partition("://")
    address = f"[Cache] PATH = {without_password(path)}"
    of_features = additions("storages")
    if scheme in of_features:
        made: Storage = load(of_features[scheme])(path)
        return made
    make = storages.find(scheme, address)
    if make is None:
        raise ConfigError(
            f"{address}: no storage has the scheme {scheme!r}. Known: {', '.join([*of_features, *storages.names()])}; "
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
