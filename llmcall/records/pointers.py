"""Pointers: if a fallback answered a call, the call's record only names the key of the fallback's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..values import Record

FIELD = "fallback"  # the only one of a pointer's response
MOST_POINTERS = 100  # in a row; lists of fallbacks are shorter


def pointing_to(key: str) -> dict[str, str]:
    """Return the response of a pointer.

    :param key: that of the record to which it leads.
    """
    return {FIELD: key}


def target_key(record: Record) -> str | None:
    """Return the key of the record to which a pointer leads; ``None`` if a record is no pointer."""
    if FIELD not in record.response or record.kind != "chat":
        return None
    return str(record.response[FIELD])


def target_of(record: Record | None, find: Callable[[str], Record | None]) -> Record | None:
    """Return the record to which a pointer leads, or the record itself if it is no pointer.

    :param find: returns the record of a key, or ``None``.
    :returns: ``None`` if the pointer leads nowhere.
    """
    for _ in range(MOST_POINTERS):
        if record is None or FIELD not in record.response or record.kind != "chat":
            return record
        record = find(str(record.response[FIELD]))
    return None
