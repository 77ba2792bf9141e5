"""Runs: the records of a cassette, an export, or a scope of a cache, in the order of the calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from ..errors import CacheError
from ..stores.cache.cache import ResponseCache, shared_cache
from ..stores.cassettes.cassette import Cassette
from ..stores.notes import header_notes_of, known_header_notes
from ..stores.record import Record
from ..stores.records.header import Header, served_by, served_words
from ..stores.records.reader import read as read_records
from ..support.display import counted

SCOPES_SHOWN_BY = "'llmcall show' with the whole run shows the scopes"
RUNS = "give a path, a Cassette or a cache, or a tuple of one of them and a scope"


class RecordedRun(NamedTuple):
    """The records of one run.

    :param name: its name in messages.
    :param records: the records, each scope's in the order of its calls.
    :param settings: the settings in the file's header.
    :param is_complete: ``False`` if a file says that the recording is incomplete.
    :param scope: the scope to which it was narrowed; empty for a whole run or a pattern of scopes.
    :param headers: those of its files.
    :param pruned: in words, what a package leaves out of each recording.
    """

    name: str
    records: Sequence[Record]
    settings: dict[str, object]
    is_complete: bool = True
    scope: str = ""
    headers: tuple[Header, ...] = ()
    pruned: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """Say where answers come from that llmcall did not record; empty if it recorded all."""
        notes = header_notes_of([record.header_notes for record in self.records])
        kinds = known_header_notes()
        return "; ".join(kinds[name].words(value) for name, value in notes.items())

    @property
    def served(self) -> list[str]:
        """Say which models answered, and on which days."""
        return served_words(served_by(self.records))

    @property
    def unanswered(self) -> str:
        """Say how many calls failed in the run that wrote the file; empty if none."""
        number = max((header.unanswered for header in self.headers), default=0)
        return f"{counted(number, 'call')} got no answer: failed or filtered" if number else ""

    def by_actor(self) -> dict[str, list[Record]]:
        """Return the records by scope path, in the order of the file; outside any scope, the path is
        empty.
        """
        actors: dict[str, list[Record]] = {}
        for record in self.records:
            actors.setdefault(record.scope, []).append(record)
        return actors


def short_names(runs: Sequence[RecordedRun]) -> list[str]:
    """Return the names of runs in messages: without their files' folders, unless two would be the same."""
    names = []
    for run in runs:
        prefix, separator, path = run.name.rpartition(" of ")
        names.append(f"{prefix}{separator}{os.path.basename(path.rstrip('/'))}")
    places = {os.path.realpath(run.name) for run in runs}
    return names if len({*names}) == len(places) else [run.name for run in runs]


def load(run: object, *, may_be_empty: bool = False) -> RecordedRun:
    """Load a run.

    :param run: a :class:`RecordedRun`; the path of a cassette, of an exported file or of a cache's
        directory; a :class:`Cassette`; a :class:`ResponseCache`; or one of these and a scope in a
        tuple: its path, or a pattern of paths such as ``"rep-1/l*"``.
    :raises TypeError: for anything else.
    :raises CacheError: if the file is damaged, or no record is found, unless it may be empty.
    """
    if isinstance(run, RecordedRun):
        return run
    if isinstance(run, tuple) and len(run) == 2 and isinstance(run[1], str):
        source, scope = run
        loaded = _load_records(source, lambda path: is_in_scope(path, scope))
        loaded = loaded._replace(name=f"the scope {scope!r} of {loaded.name}")
        if all(_is_below(record.scope, scope) for record in loaded.records):
            loaded = loaded._replace(scope=scope)
    else:
        loaded = _load_records(run, lambda path: True)
    if not loaded.records and not may_be_empty:
        hint = f"; {SCOPES_SHOWN_BY}" if loaded.scope else ""
        raise CacheError(f"nothing is recorded in {loaded.name}{hint}")
    return loaded


def _load_records(run: object, in_scope: Callable[[str], bool]) -> RecordedRun:
    def where(record: Record) -> bool:
        return in_scope(record.scope)

    if isinstance(run, Cassette):
        header = run.tape.stored.header
        records = [*filter(where, run.all_records())]
        return RecordedRun(str(run.path), records, dict(header.settings), headers=(header,))
    if isinstance(run, (str, os.PathLike)):
        path = os.path.expanduser(run)
        if "://" not in path and not os.path.isdir(path):
            file = read_records(path)
            header, settings = file.header, dict(file.header.settings)
            found = [*filter(where, file)]
            return RecordedRun(path, found, settings, header.is_complete, headers=(header,))
        run = shared_cache(path)
    if not isinstance(run, ResponseCache):
        raise TypeError(f"{run!r} is not a run; {RUNS}")
    return RecordedRun(str(run.path), list(run.records(where=where)), {})


def is_in_scope(scope: str, pattern: str) -> bool:
    """Return whether a scope, or one above it, matches a path or a pattern."""
    return (
        _is_below(scope, pattern)
        or fnmatchcase(scope, pattern)
        or fnmatchcase(scope, f"{pattern}/*")
    )


def _is_below(scope: str, ancestor: str) -> bool:
    """Return whether a scope is ``ancestor`` or lies below it."""
    return f"{scope}/".startswith(f"{ancestor}/")


def relative_scope(scope: str, ancestor: str) -> str:
    """Return a scope path relative to an ancestor; the whole path if it is not below that.

    :param ancestor: the path of a scope; may be empty.
    """
    if not ancestor or not _is_below(scope, ancestor):
        return scope
    return scope[len(ancestor) + 1 :]


def first_level(scopes: Collection[str]) -> str:
    """Return the first level that all scope paths share; empty if they differ. Empty paths do not count:
    embeddings have no scope.
    """
    names = {scope.partition("/")[0] for scope in scopes if scope}
    return names.pop() if len(names) == 1 else ""
