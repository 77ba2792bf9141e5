"""New keys for a cache's records, after a change of aliases, namespace, normalizers or key version."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..config import resolve as config
from ..display.formatting import counted
from ..errors import CacheCorruptError
from ..notices import notice
from ..records.packed import pack, unpack
from ..records.pointers import pointing_to, target_key
from ..requests.keys import key_of
from ..requests.rekeying import under_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..config.settings import Settings
    from ..types import Record
    from .locations import Storage
    from .storage import Change


class _Keys(NamedTuple):
    """The keys of a storage's rows.

    :param current_keys: by the stored key, the key under the current settings; a damaged row keeps
        its own.
    :param pointers: by the stored key of a record that points to another one, that one's key.
    :param damaged_count: the number of damaged rows.
    """

    current_keys: dict[str, str]
    pointers: Mapping[str, str]
    damaged_count: int


def changes_in(storage: Storage) -> Iterator[Change]:
    """Yield the rows whose keys change, while the storage shows its rows as they were.

    The current aliases apply to the model, and the current namespace replaces the stored one. If
    several records would get the same key, the first one gets it, and the others stay as they are.
    """
    settings = config.settings()
    keys = _keys_of(storage, settings)
    new_keys = _new_keys_of(keys.current_keys)
    _log_unchanged(storage, keys, new_keys)
    for key, packed, _ in storage.rows():
        target = new_keys.get(keys.pointers.get(key, ""))
        if key in new_keys or target is not None:
            record = unpack(key, packed)
            if target is not None:
                record = record.replace(response=pointing_to(target))
            if key in new_keys:
                request = under_settings(record.request, settings)
                record = record.replace(cache_key=new_keys[key], request=request)
            yield key, record.cache_key, pack(record)


def _keys_of(storage: Storage, settings: Settings) -> _Keys:
    """Return the keys that a storage's rows have, and those that they would get now."""
    current_keys: dict[str, str] = {}
    pointers: dict[str, str] = {}
    damaged_count = 0
    for key, packed, _ in storage.rows():
        try:
            record = unpack(key, packed)
            current_keys[key] = _current_key(record, settings)
        except CacheCorruptError:
            damaged_count += 1
            current_keys[key] = key
            continue
        target = target_key(record)
        if target is not None:
            pointers[key] = target
    return _Keys(current_keys, pointers, damaged_count)


def _current_key(record: Record, settings: Settings) -> str:
    return key_of(record.kind, under_settings(record.request, settings), record.sample)


def _new_keys_of(current_keys: dict[str, str]) -> dict[str, str]:
    """Return the new keys of the rows that get one.

    A key that several rows come to stays with the row that has it already; else the first gets it.
    """
    first_keys = {new_key: key for key, new_key in reversed(current_keys.items())}
    return {key: new_key for new_key, key in first_keys.items() if new_key not in current_keys}


def _log_unchanged(storage: Storage, keys: _Keys, new_keys: Mapping[str, str]) -> None:
    """Log how many rows keep their keys although they are damaged or should change."""
    if keys.damaged_count:
        notice(
            "%s: %s left unchanged; 'llmcall cache verify' lists all damaged rows",
            storage.location,
            counted(keys.damaged_count, "damaged row"),
        )
    outdated_count = sum(key != current_key for key, current_key in keys.current_keys.items())
    unchanged_count = outdated_count - len(new_keys)
    if unchanged_count:
        notice(
            "%s: %s not updated, because other records have the new keys",
            storage.location,
            counted(unchanged_count, "record"),
        )
