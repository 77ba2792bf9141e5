"""What is searched for the nearest record: a cache, or a cassette."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..types import Record

__all__ = ["Source", "holding"]


class Source(Protocol):
    """Be a collection of records, each in its place, a whole number."""

    def name(self) -> str:
        """Return what messages call it."""

    def count(self) -> int:
        """Return how many records it has."""

    def last(self) -> int:
        """Return the last place."""

    def holding(self, probes: list[bytes], after: int, size: int) -> list[tuple[int, int]]:
        """Return the next places after one, at most ``size``, and which probes each holds, as the bits of a number."""

    def record(self, place: int) -> Record | None:
        """Return the record in a place, or ``None`` where it cannot be read."""


def holding(data: list[bytes], probes: list[bytes]) -> list[int]:
    """Search many pieces of data at once: a search costs a call, and skips the faster the more there is to skip."""
    joined, ends = b"".join(data), list(accumulate(map(len, data)))
    masks = [0] * len(data)
    for bit, probe in enumerate(probes):
        at = joined.find(probe)
        while at >= 0:
            index = bisect_right(ends, at)
            if at + len(probe) <= ends[index]:
                masks[index] |= 1 << bit
                at = joined.find(probe, ends[index])
            else:
                at = joined.find(probe, at + 1)
    return masks
