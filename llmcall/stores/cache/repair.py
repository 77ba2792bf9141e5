"""The copy of a damaged cache's readable records."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from ...errors import CacheCorruptError, CacheError
from ...support.notices import notice
from ..records.packed import unpack
from .storages import Change

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .storages import Storage


def salvage(source: Storage, target: Storage) -> int:
    """Write every readable record to another storage; return how many. See :meth:`ResponseCache.salvage`."""
    if not source.exists():
        raise CacheError(f"{source.location} contains no cache; give the path of the damaged cache")
    if os.path.realpath(target.location) == os.path.realpath(source.location):
        raise CacheError(f"{source.location} cannot be salvaged into itself; name a new directory")
    saved_keys: set[str] = set()
    if any(_sound_rows(source, set())):
        target.write(_sound_rows(source, saved_keys))
        target.close()
    count = len(saved_keys)
    try:
        lost_count = len(source) - count
    except CacheError:
        notice(
            "%s: besides the %d records that were read, others may be lost", source.location, count
        )
    else:
        if lost_count > 0:
            notice(
                "%s: %d of %d records cannot be read and are lost",
                source.location,
                lost_count,
                count + lost_count,
            )
    return count


def _sound_rows(source: Storage, saved_keys: set[str]) -> Iterator[Change]:
    """Yield each readable record once."""
    for key, packed, stored_at in source.readable_rows():
        if key in saved_keys:
            continue
        with suppress(CacheCorruptError):
            _ = unpack(key, packed).request  # read at first use
            saved_keys.add(key)
            yield Change(key, packed, stored_at=stored_at)
