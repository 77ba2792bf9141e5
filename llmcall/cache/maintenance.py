"""Work on whole caches: out to a file and in from one, new keys, and what is left of a damaged one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..cassettes import format as lines
from ..config import resolve as config
from ..errors import CacheCorruptError, CacheError
from ..models.catalog import resolve
from ..notices import logger
from ..requests.keys import key_of
from ..text import counted
from . import tinytroupe
from .storage import each_row, pack, unpack

if TYPE_CHECKING:
    from ..config.settings import Settings
    from ..types import Record
    from .redis import Storage
    from .storage import Change, NewRow

__all__ = ["damaged_keys", "export", "load", "records_in_file", "rekey", "salvage"]

CONFLICTS = ("keep", "replace", "raise")
NAMED = 5  # keys that a message lists


def export(path: str | os.PathLike[str], records: Iterable[Record]) -> int:
    """Write records as JSON Lines; return how many. See :meth:`ResponseCache.export`."""
    found = sorted(records, key=lines.sort_key)
    lines.write(path, lines.header_of(), found, allow=config.settings().cassette_allow)
    return len(found)


def records_in_file(path: str, classes: tuple[type[Any], ...]) -> list[Record]:
    """Return the records of an exported file, a cassette, or TinyTroupe's pickle cache."""
    if tinytroupe.recognized(path):
        return tinytroupe.read(path, classes)
    return lines.read(path).records()


def load(storage: Storage, source: str, records: list[Record], on_conflict: str) -> int:
    """Add records; return how many were stored. See :meth:`ResponseCache.load`.

    :param source: what messages call the place that they come from.
    """
    if on_conflict not in CONFLICTS:
        raise ValueError(f"on_conflict is {on_conflict!r}; it must be one of {', '.join(CONFLICTS)}")
    conflicts = [record for record in records if _conflicts(record, storage)]
    if conflicts and on_conflict == "raise":
        differ = f"{source} and {storage.place} answer {_listed(conflicts, 'request')} differently"
        raise CacheError(f"{differ}, and nothing was loaded; on_conflict may also be 'keep' or 'replace'")
    if conflicts:
        listed = _listed(conflicts, "record")
        logger().warning("%s: %s have another answer in %s: %s", source, listed, storage.place, on_conflict)
    replaced = {record.cache_key for record in conflicts} if on_conflict == "replace" else set()
    return storage.add_all((record.cache_key, pack(record), record.cache_key in replaced, None) for record in records)


def _conflicts(record: Record, storage: Storage) -> bool:
    found = storage.get(record.cache_key)
    return found is not None and _answer(unpack(record.cache_key, *found)) != _answer(record)


def _answer(record: Record) -> dict[str, Any]:
    """Return what two records of one key must share; a cassette has no ids and times of the server."""
    return {name: value for name, value in record.response.items() if name not in lines.VOLATILE}


def _listed(records: list[Record], what: str) -> str:
    keys = ", ".join(record.cache_key[:12] for record in records[:NAMED])
    return f"{counted(len(records), what)} ({keys}{', …' if len(records) > NAMED else ''})"


def damaged_keys(storage: Storage) -> list[str]:
    """Return the keys of damaged records. See :meth:`ResponseCache.verify`."""
    return [key for key, packed, _ in each_row(storage) if not _is_sound(key, packed)]


def _is_sound(key: str, packed: bytes | None) -> bool:
    try:
        record = unpack(key, packed)
        return key_of(record.kind, record.request, record.sample) == key or "fallback" in record.response
    except (CacheCorruptError, ValueError, TypeError):
        return False


def salvage(storage: Storage, target: Storage) -> int:
    """Write every record that can still be read to a new cache, if there is any, and say how many could not.

    :returns: how many were read.
    :raises CacheError: where there is no cache, or the new place is the old one.
    :raises CacheCorruptError: where not even the beginning of the database can be read.
    """
    if not storage.exists():
        raise CacheError(f"{storage.place} holds no cache; name the damaged one's place")
    if os.path.realpath(target.place) == os.path.realpath(storage.place):
        raise CacheError(f"{storage.place} cannot be salvaged into itself; name a new directory")
    sound: set[str] = set()
    count = 0

    def sound_rows() -> Iterator[NewRow]:
        """Yield what can be read, and count it."""
        nonlocal count
        for key, packed, stored_at in storage.readable_rows():
            count += 1
            if packed is not None and _is_sound(key, packed):
                sound.add(key)
                yield key, packed, False, stored_at

    rows = sound_rows()
    first = next(rows, None)  # where there is none, no cache is made
    if first is not None:
        target.add_all(chain([first], rows))
        target.close()
    _say_lost(storage, len(sound), count)
    return len(sound)


def _say_lost(storage: Storage, sound: int, rows: int) -> None:
    try:
        count = max(len(storage), rows)
    except CacheError:
        logger().warning("%s: besides the %d records that were read, others may be lost", storage.place, sound)
        return
    if count > sound:
        logger().warning("%s: %d of %d records cannot be read and are lost", storage.place, count - sound, count)


def rekey(storage: Storage) -> int:
    """Recompute every key, all or none; return how many records changed. See :meth:`ResponseCache.rekey`."""
    settings = config.settings()
    return storage.rewrite(lambda: _changes(storage, settings)) if storage.exists() else 0


def _asked_now(asked: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Return a stored request as it would be asked now: the model after aliases, and the namespace."""
    now = {name: value for name, value in asked.items() if name != "namespace"}
    namespace = settings.cache_namespace
    if "model" in asked:
        now["model"] = resolve(str(asked.get("model", "")), settings.aliases)
        namespace = tinytroupe.namespace_of(now["model"], settings)
    if namespace:
        now["namespace"] = namespace
    return now


def _changes(storage: Storage, settings: Settings) -> Iterator[Change]:
    """Yield what changes, while the storage shows its rows as they were."""
    wanted: dict[str, str] = {}
    pointers: dict[str, str] = {}
    unread = 0
    for key, packed, _ in each_row(storage):
        try:
            record = unpack(key, packed)
            wanted[key] = key_of(record.kind, _asked_now(record.request, settings), record.sample)
        except CacheCorruptError:
            unread += 1
            wanted[key] = key
            continue
        if "fallback" in record.response and record.kind == "chat":
            pointers[key] = str(record.response["fallback"])
    moves = _moves(wanted)
    kept = sum(key != new for key, new in wanted.items()) - len(moves)
    if unread:
        logger().warning(
            "%s: %s left as found; 'llmcall cache verify' lists all", storage.place, counted(unread, "damaged row")
        )
    if kept:
        logger().warning(
            "%s: %s left under old keys, since others have the new ones", storage.place, counted(kept, "record")
        )
    for key in sorted(moves.keys() | {key for key, target in pointers.items() if target in moves}):
        found = storage.get(key)
        assert found is not None
        record = unpack(key, *found)
        if pointers.get(key) in moves:
            record = record.replace(response={"fallback": moves[pointers[key]]})
        if key in moves:
            record = record.replace(cache_key=moves[key], request=_asked_now(record.request, settings))
        yield key, record.cache_key, pack(record)


def _moves(wanted: Mapping[str, str]) -> dict[str, str]:
    """Return which keys change to which: of several that come to one, that which has it already, else the first."""
    taken = set(wanted)
    moves = {}
    for key, new in wanted.items():
        if new not in taken:
            taken.add(new)
            moves[key] = new
    return moves
