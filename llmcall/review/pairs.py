"""The calls of one actor in two runs, in pairs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..records.answers import same_answer
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
    scope: str, run: int, ours: Sequence[Record], theirs: Sequence[Record]
) -> Iterator[Pair]:
    """Yield the calls of one actor in pairs."""
    begin = _first_difference(ours, theirs)
    one, other = (list(map(asked_key, records[begin:])) for records in (ours, theirs))
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    for kind, *ends in (("equal", -begin, 0, -begin, 0), *matcher.get_opcodes()):
        i, i_end, j, j_end = (begin + end for end in ends)
        while i < i_end and j < j_end and (kind == "equal" or _alike(ours[i], theirs[j])):
            is_same = kind == "equal" and same_answer(ours[i], theirs[j])
            yield Pair(scope, i, ours[i], theirs[j], "same" if is_same else "changed", run)
            i, j = i + 1, j + 1
        yield from (
            Pair(scope, place, ours[place], None, "missing", run) for place in range(i, i_end)
        )
        yield from (
            Pair(scope, place, None, theirs[place], "added", run) for place in range(j, j_end)
        )


def _first_difference(ours: Sequence[Record], theirs: Sequence[Record]) -> int:
    """Return the place of the first calls of two runs that ask for something different."""
    for place, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one.kind != other.kind or one.request != other.request:
            return place
    return min(len(ours), len(theirs))


def asked_key(record: Record) -> str:
    """Return a text that is the same for equal requests only, whatever their draws."""
    return key_of(record.kind, record.request, None)


def _alike(one: Record, other: Record) -> bool:
    return one.kind == other.kind and one.request.get("function") == other.request.get("function")
