"""New keys for stored records, after a change of aliases, namespace or key version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config import resolve as config
from ..errors import CacheCorruptError
from ..models.capabilities import resolve
from ..requests.keys import key_of
from .long_work import with_bar
from .record import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..config.settings import Settings
    from ..types import Record
    from .cache import ResponseCache
    from .storage import Change, Storage

__all__ = ["asked_now", "rekey"]


def rekey(cache: ResponseCache) -> int:
    """Recompute every key, all or none; return how many records changed. See :meth:`ResponseCache.rekey`."""
    store, settings = cache.storage, config.settings()
    return store.rewrite(lambda: _changes(store, settings)) if store.exists() else 0


def asked_now(kind: str, asked: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Return a stored request as it would be asked now: the model after aliases, and the namespace.

    :param kind: ``"chat"``, ``"embedding"`` or ``"function"``.
    """
    now = {name: value for name, value in asked.items() if name != "namespace"}
    namespace = settings.cache_namespace
    if "model" in asked:
        now["model"] = resolve(str(asked.get("model", "")), settings.aliases)
        own = {endpoint.namespace for endpoint in settings.endpoints if now["model"] in endpoint.models}
        namespace = next((name for name in own if name), namespace)
    if namespace:
        now["namespace"] = namespace
    return now


def _changes(store: Storage, settings: Settings) -> Iterator[Change]:
    """Yield what changes, while the store shows its rows as they were."""
    wanted: dict[str, str] = {}
    pointers: dict[str, str] = {}
    unread = 0
    for key, packed, _ in with_bar(store.rows(), len(store), "reading records"):
        try:
            record = unpack(key, packed or b"")
        except CacheCorruptError:
            unread += 1
            wanted[key] = key
            continue
        wanted[key] = key_of(record.kind, asked_now(record.kind, record.request, settings), record.sample)
        if "fallback" in record.response and record.kind == "chat":
            pointers[key] = str(record.response["fallback"])
    moves = _moves(wanted)
    _warn(store, unread, sum(key != new for key, new in wanted.items()) - len(moves))
    changed = moves.keys() | {key for key, target in pointers.items() if target in moves}
    for key in with_bar(sorted(changed), len(changed), "writing records"):
        yield _change(store, key, moves, settings)


def _moves(wanted: Mapping[str, str]) -> dict[str, str]:
    """Return which keys change to which: of several that come to one, that which has it already, else the first.

    One that cannot move keeps its key, which may be what another wanted; so it is asked again until none gives way.
    """
    moving = {key: new for key, new in wanted.items() if key != new}
    while True:
        taken = {key for key in wanted if key not in moving}
        left = {}
        for key, new in moving.items():
            if new not in taken:
                taken.add(new)
                left[key] = new
        if len(left) == len(moving):
            return moving
        moving = left


def _change(store: Storage, key: str, moves: Mapping[str, str], settings: Settings) -> Change:
    found = store.get(key)
    assert found is not None
    record = _pointing(unpack(key, *found), moves)
    if key in moves:
        record = record._replace(request=asked_now(record.kind, record.request, settings))
    record = record._replace(cache_key=moves.get(key, key))
    return key, record.cache_key, pack(record)


def _pointing(record: Record, moves: Mapping[str, str]) -> Record:
    """Return a record that points to where its target moved."""
    new = moves.get(str(record.response.get("fallback"))) if record.kind == "chat" else None
    return record._replace(response={"fallback": new}) if new else record


def _warn(store: Storage, unread: int, kept: int) -> None:
    import logging

    log = logging.getLogger("llmcall")
    if unread:
        log.warning("%s: %d damaged rows stay as they are; 'llmcall cache verify' lists them", store.place, unread)
    if kept:
        log.warning("%s: %d records keep their keys, since others have the new ones already", store.place, kept)
