"""The process that records this one, and answers its calls: a child of a program, or a worker of a map, has one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..stores.cassettes.current import open_cassettes
from ..stores.notes import Notes, checked_notes
from ..support.notices import tellers
from ..support.system import last_in

if TYPE_CHECKING:
    from ..link.child import Parent


parents: list[Parent] = []  # the innermost last


@contextmanager
def linked(parent: Parent) -> Iterator[None]:
    """Have another process answer this one's calls for a block."""
    with last_in(parents, parent), last_in(tellers, parent.log):
        yield


def add_notes(key: str, notes: Notes) -> None:
    """Add notes about an answer to its record, which a cassette holds."""
    checked_notes(notes)
    # Not the current cassette, which settings may open or close: a link notes it outside the contexts of the run.
    innermost = open_cassettes[-1:]
    for cassette in innermost:
        cassette.tape.log.add_notes(key, notes)
    for parent in () if innermost else parents[-1:]:
        parent.add_notes(key, notes)
