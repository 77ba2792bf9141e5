"""The records of one or two recordings, each request once, and the conflicts between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .answers import same_answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..record import Record

    Conflict = tuple[Record, Record]  # two answers to one request


def combine(
    first: Iterable[Record], second: Iterable[Record] = (), on_conflict: str = "keep"
) -> tuple[list[Record], list[Conflict]]:
    """Return the records of one or two recordings, each with the arms of all that are equal to it, and
    the conflicts: requests with different answers.

    :param first: the records that keep their order.
    :param second: records that follow the shared record that they follow here, so that the calls of a
        scope stay in order.
    :param on_conflict: ``"keep"`` the first answer, or ``"replace"`` it by the later one.
    """
    records: dict[str, Record] = {}
    conflicts = []

    def add(record: Record) -> None:
        earlier = records.get(record.cache_key)
        if earlier is None:
            records[record.cache_key] = record
        elif same_answer(earlier, record):
            records[record.cache_key] = earlier.with_arms(record.arms)
        else:
            conflicts.append((earlier, record))
            if on_conflict == "replace":
                records[record.cache_key] = record

    for record in first:
        add(record)
    # By each key of the first recording, and by None: itself, and the keys that follow it in the second.
    groups: dict[str | None, list[str]] = {None: [], **{key: [key] for key in records}}
    last_shared = None
    for record in second:
        if record.cache_key in groups:
            last_shared = record.cache_key
        elif record.cache_key not in records:
            groups[last_shared].append(record.cache_key)
        add(record)
    return [records[key] for keys in groups.values() for key in keys], conflicts
