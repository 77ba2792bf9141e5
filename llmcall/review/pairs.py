"""The calls of one actor in two runs, in pairs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..records.answers import says_the_same
from ..requests.keys import key_of
from ..types import Record


class Pair(NamedTuple):
    """A call of the first run, and the call of the other one that belongs to it; either may be
    missing.

    :param status: as of a :class:`.Row`, as are scope, place, run and round;
        empty if nothing is compared.
    """

    scope: str
    place: int
    one: Record | None
    other: Record | None = None
    status: str = ""
    run: int = 1
    round: str = ""

    @property
    def is_same_request(self) -> bool:
        """Return whether both runs asked the same."""
        one, other = self.one, self.other
        return bool(one and other and one.kind == other.kind and one.request == other.request)


def paired(
    scope: str, run_number: int, records: Sequence[Record], other_records: Sequence[Record]
) -> Iterator[Pair]:
    """Yield the calls of one actor in pairs.

    :param run_number: the number of the other run, from 1.
    :param records: those of the first run.
    :param other_records: those of the other one.
    """
    begin = _first_difference(records, other_records)
    keys = list(map(request_key, records[begin:]))
    other_keys = list(map(request_key, other_records[begin:]))
    matcher = difflib.SequenceMatcher(None, keys, other_keys, autojunk=False)
    opcodes = [("equal", 0, begin, 0, begin)]
    opcodes += [
        (kind, begin + index, begin + end, begin + other_index, begin + other_end)
        for kind, index, end, other_index, other_end in matcher.get_opcodes()
    ]
    for kind, index, end, other_index, other_end in opcodes:
        while (
            index < end
            and other_index < other_end
            and (kind == "equal" or _alike(records[index], other_records[other_index]))
        ):
            is_same = kind == "equal" and says_the_same(records[index], other_records[other_index])
            status = "same" if is_same else "changed"
            yield Pair(scope, index, records[index], other_records[other_index], status, run_number)
            index, other_index = index + 1, other_index + 1
        yield from (
            Pair(scope, place, records[place], None, "missing", run_number)
            for place in range(index, end)
        )
        yield from (
            Pair(scope, place, None, other_records[place], "added", run_number)
            for place in range(other_index, other_end)
        )


def _first_difference(records: Sequence[Record], other_records: Sequence[Record]) -> int:
    """Return the index of the first calls of two runs that ask for something different."""
    for index, (record, other) in enumerate(zip(records, other_records, strict=False)):
        if record.kind != other.kind or record.request != other.request:
            return index
    return min(len(records), len(other_records))


def request_key(record: Record) -> str:
    """Return a text that is the same for equal requests only, whatever their draws."""
    return key_of(record.kind, record.request, None)


def _alike(record: Record, other: Record) -> bool:
    is_same_kind = record.kind == other.kind
    return is_same_kind and record.request.get("function") == other.request.get("function")
