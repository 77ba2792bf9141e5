"""Find the damaged rows of a cache, and save the others."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import CacheCorruptError, CacheError
from ..notices import notice
from ..records.packed import unpack
from ..requests.keys import key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .locations import Storage
    from .storage import NewRow


def damaged_keys(storage: Storage) -> list[str]:
    """Return the keys of the damaged records, those whose stored request does not fit their key
    included.
    """
    return [key for key, packed, _ in storage.rows() if not _is_sound(key, packed)]


def _is_sound(key: str, packed: bytes | None) -> bool:
    try:
        record = unpack(key, packed)
        return key_of(record.kind, record.request, record.sample) == key
    except (CacheCorruptError, ValueError, TypeError):
        return False


def salvage(source: Storage, target: Storage) -> int:
    """Write every record that can still be read to another storage; return how many there were.

    If none can be read, the other storage is not made. See :meth:`ResponseCache.salvage`.
    """
    if not source.exists():
        raise CacheError(f"{source.location} contains no cache; give the path of the damaged cache")
    if os.path.realpath(target.location) == os.path.realpath(source.location):
        raise CacheError(f"{source.location} cannot be salvaged into itself; name a new directory")
    saved_keys: set[str] = set()
    if any(_sound_rows(source, set())):
        target.add_all(_sound_rows(source, saved_keys))
        target.close()
    _log_lost(source, len(saved_keys))
    return len(saved_keys)


def _sound_rows(source: Storage, saved_keys: set[str]) -> Iterator[NewRow]:
    """Yield what can be read, each record once.

    :param saved_keys: gathers the keys.
    """
    for key, packed, stored_at in source.readable_rows():
        if packed is not None and key not in saved_keys and _is_sound(key, packed):
            saved_keys.add(key)
            yield key, packed, False, stored_at


def _log_lost(storage: Storage, saved_count: int) -> None:
    """Log how many records are lost, as far as that is known."""
    try:
        lost_count = len(storage) - saved_count
    except CacheError:
        notice(
            "%s: besides the %d records that were read, others may be lost",
            storage.location,
            saved_count,
        )
        return
    if lost_count > 0:
        notice(
            "%s: %d of %d records cannot be read and are lost",
            storage.location,
            lost_count,
            saved_count + lost_count,
        )
