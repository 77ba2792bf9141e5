"""Moving records: out to a file, and in from a file or another cache."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..cassettes import format as lines
from ..cassettes.cassette import header_of
from ..config import resolve as config
from ..config.values import without_password
from ..errors import CacheCorruptError, CacheError
from ..requests.keys import key_of
from . import tinytroupe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..types import Record
    from .cache import ResponseCache

__all__ = ["export", "load"]

CONFLICTS = ("keep", "replace", "raise")
NAMED = 5  # keys that a message lists


def export(cache: ResponseCache, path: str | os.PathLike[str], where: Callable[[Record], bool] | None) -> int:
    """Write a cache's records as JSON Lines; return how many. See :meth:`ResponseCache.export`."""
    records = sorted(cache.records(where=where), key=lines.sort_key)
    lines.write(path, header_of(), records, allow=config.settings().cassette_allow)
    return len(records)


def load(cache: ResponseCache, source: str | os.PathLike[str] | ResponseCache, on_conflict: str) -> int:
    """Add the records of a file or of another cache; return how many were stored. See :meth:`ResponseCache.load`."""
    if on_conflict not in CONFLICTS:
        raise ValueError(f"on_conflict is {on_conflict!r}; it must be one of {', '.join(CONFLICTS)}")
    name, records = _read(cache, source)
    conflicts = [record for record in records if _conflicts(record, cache)]
    if conflicts and on_conflict == "raise":
        raise CacheCorruptError(f"{name}: {_listed(conflicts)} have another answer in {cache.path}")
    if conflicts:
        _log().warning("%s: %s have another answer in %s: %s", name, _listed(conflicts), cache.path, on_conflict)
    replaced = {record.cache_key for record in conflicts} if on_conflict == "replace" else set()
    return cache.add_all(records, replaced)


def _read(cache: ResponseCache, source: str | os.PathLike[str] | ResponseCache) -> tuple[str, list[Record]]:
    """Return what messages call a source, and its records."""
    if isinstance(source, (str, os.PathLike)):
        return without_password(os.fspath(source)), list(_records_at(cache, source))
    if not isinstance(source, type(cache)):
        raise TypeError(f"load takes a path or a ResponseCache, not {source!r}")
    return str(source.path), _records_in(source)


def _records_at(cache: ResponseCache, path: str | os.PathLike[str]) -> Iterable[Record]:
    if "://" not in os.fspath(path) and not os.path.isdir(path):
        return tinytroupe.readable(path) if tinytroupe.recognized(path) else lines.read(path, key_of).records()
    with type(cache)(path) as other:
        return _records_in(other)


def _records_in(cache: ResponseCache) -> list[Record]:
    if not cache.exists():
        raise CacheError(f"{cache.path} holds no cache; name a cache's directory or server, or an exported file")
    return list(cache.records())


def _conflicts(record: Record, cache: ResponseCache) -> bool:
    here = cache.lookup(record.cache_key)
    return here is not None and _answer(here) != _answer(record)


def _answer(record: Record) -> dict[str, Any]:
    """Return what two records of one key must share; a cassette has no ids and times of the server."""
    return {name: value for name, value in record.response.items() if name not in lines.VOLATILE}


def _listed(records: list[Record]) -> str:
    keys = ", ".join(record.cache_key[:12] for record in records[:NAMED])
    return f"{len(records)} records ({keys}{', …' if len(records) > NAMED else ''})"


def _log() -> Any:
    import logging

    return logging.getLogger("llmcall")
