"""Runs: the records of a cassette, an export, or a scope of a cache, in the order of the calls."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from ..cache.cache import ResponseCache, shared_cache
from ..cassettes.cassette import Cassette
from ..cassettes.format import VOLATILE
from ..cassettes.format import read as read_records
from ..types import Record

__all__ = ["Run", "first_level", "load", "same_answer"]


class Run(NamedTuple):
    """Hold the records of one run.

    :param name: what messages call it.
    :param records: in the order of the calls of each scope.
    :param settings: those of the file's header.
    """

    name: str
    records: list[Record]
    settings: dict[str, Any]

    def by_actor(self) -> dict[str, list[Record]]:
        """Return the records by scope path; ``""`` stands for those outside any scope."""
        found: dict[str, list[Record]] = {}
        for record in self.records:
            found.setdefault(record.scope, []).append(record)
        return found


def load(run: Any) -> Run:
    """Return the run that is meant.

    :param run: a :class:`Run`; the path of a cassette, of an exported file or of a cache's directory; a
        :class:`Cassette`; a :class:`ResponseCache`; or a cache (or its directory) and a scope path in a tuple.
    :raises TypeError: where it is none of these.
    :raises CacheError: where the file is damaged or nothing is recorded in the scope.
    """
    if isinstance(run, Run):
        return run
    if isinstance(run, tuple) and len(run) == 2:
        cache, scope = run
        cache = cache if isinstance(cache, ResponseCache) else shared_cache(cache)
        records = list(cache.records(where=lambda record: _is_below(record.scope, scope)))
        return Run(f"the scope {scope!r} of {cache.path}", records, {})
    if isinstance(run, Cassette):
        return Run(str(run.path), run.all_records(), dict(run.stored.settings) if run.stored else {})
    if isinstance(run, ResponseCache):
        return Run(str(run.path), list(run.records()), {})
    if not isinstance(run, (str, os.PathLike)):
        raise TypeError(f"{run!r} is no run: give a path, a Cassette, a cache, or (cache, scope)")
    if Path(run).is_dir():
        return load(ResponseCache(run))
    found = read_records(run)
    return Run(os.fspath(run), found.records(), dict(found.settings))


def _is_below(scope: str, above: str) -> bool:
    return scope == above or scope.startswith(f"{above}/")


def first_level(scopes: Collection[str]) -> str | None:
    """Return the name with which all scope paths begin, or ``None`` where they begin with several."""
    names = {scope.partition("/")[0] for scope in scopes}
    return names.pop() if len(names) == 1 and "" not in names else None


def same_answer(one: Record, other: Record) -> bool:
    """Tell whether two records hold the same answer, apart from what is new in each response."""
    if one.response == other.response:
        return True
    if one.kind == "function":
        return False
    lasting = [
        {name: value for name, value in record.response.items() if name not in VOLATILE} for record in (one, other)
    ]
    return lasting[0] == lasting[1]
