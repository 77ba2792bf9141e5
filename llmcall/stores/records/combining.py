"""The records of one or two recordings, each request once, and the conflicts between them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from .answers import same_answer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ..record import Record

    Conflict = tuple[Record, Record]  # two answers to one request

Name = TypeVar("Name", str, tuple[int, int])

CONFLICTS = ("keep", "replace", "raise")  # what to do about it


def combine(
    first: Collection[Record], second: Collection[Record], on_conflict: str
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
    for record in chain(first, second):
        earlier = records.get(record.cache_key)
        if earlier is None:
            records[record.cache_key] = record
        elif same_answer(earlier, record):
            records[record.cache_key] = earlier.with_arms(record.arms)
        else:
            conflicts.append((earlier, record))
            if on_conflict == "replace":
                records[record.cache_key] = record
    keys, other_keys = ([record.cache_key for record in side] for side in (first, second))
    return [records[key] for key in merged_order(keys, other_keys)], conflicts


def merged_order(names: Iterable[Name], other_names: Iterable[Name]) -> list[Name]:
    """Return names in the order of the first ones. A name that only the others have follows the shared
    one that precedes it there.
    """
    order = {name: (number, 0) for number, name in enumerate(dict.fromkeys(names))}
    last = -1
    for number, name in enumerate(other_names, 1):
        last = order.setdefault(name, (last, number))[0]
    return sorted(order, key=order.__getitem__)
