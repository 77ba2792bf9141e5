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


def salvage(damaged: Storage, target: Storage) -> int:
    """Write every record that can still be read to another storage; return how many there were.

    If none can be read, the other storage is not made. See :meth:`ResponseCache.salvage`.
    """
    if not damaged.exists():
        raise CacheError(
            f"{damaged.location} contains no cache; give the path of the damaged cache"
        )
    if os.path.realpath(target.location) == os.path.realpath(damaged.location):
        raise CacheError(f"{damaged.location} cannot be salvaged into itself; name a new directory")
    sound: set[str] = set()
    if any(_sound_rows(damaged, set())):
        target.add_all(_sound_rows(damaged, sound))
        target.close()
    _log_lost(damaged, len(sound))
    return len(sound)


def _sound_rows(damaged: Storage, sound: set[str]) -> Iterator[NewRow]:
    """Yield what can be read, each record once.

    :param sound: gathers the keys.
    """
    for key, packed, stored_at in damaged.readable_rows():
        if packed is not None and key not in sound and _is_sound(key, packed):
            sound.add(key)
            yield key, packed, False, stored_at


def _log_lost(damaged: Storage, saved: int) -> None:
    """Log how many records are lost, as far as that is known."""
    try:
        lost = len(damaged) - saved
    except CacheError:
        notice(
            "%s: besides the %d records that were read, others may be lost", damaged.location, saved
        )
        return
    if lost > 0:
        notice(
            "%s: %d of %d records cannot be read and are lost",
            damaged.location,
            lost,
            saved + lost,
        )
