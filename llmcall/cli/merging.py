"""Two recordings made one: every record of both, each call at its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..review.comparison import same_answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..types import Record

__all__ = ["CHOICES", "Conflict", "merge"]

CHOICES = ("keep", "replace")


class Conflict(NamedTuple):
    """Be two answers to one request."""

    kept: Record
    other: Record


def merge(one: Iterable[Record], other: Iterable[Record], choice: str = "keep") -> tuple[list[Record], list[Conflict]]:
    """Return the records of two files, and the requests to which they hold different answers.

    :param one: records in the order of the calls; they come first, and the other's stand after what they followed
        there, so that the calls of a scope stay in order.
    :param choice: at a conflict, ``"keep"`` the first answer, or ``"replace"`` it by the other's.
    """
    merged: dict[str, Record] = {record.cache_key: record for record in one}
    followers: dict[str | None, list[Record]] = {}
    conflicts = []
    last = None
    for record in other:
        earlier = merged.get(record.cache_key)
        if earlier is None:
            followers.setdefault(last, []).append(record)
            continue
        last = record.cache_key
        if not same_answer(earlier, record):
            conflicts.append(Conflict(earlier, record))
            if choice == "replace":
                merged[last] = record
    ordered = list(followers.get(None, ()))
    for key, record in merged.items():
        ordered += [record, *followers.get(key, ())]
    return ordered, conflicts
