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
    from ..link.errand import Errand
    from ..scopes.active import ActiveScope
    from ..scopes.position import CallOrder


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


def way_from(active: ActiveScope, order: CallOrder) -> Errand | None:
    """Return the way of a call that is made here, or ``None`` if this process answers its calls itself."""
    innermost = parents[-1:]  # a copy, since other threads may leave it
    return innermost[0].way(active, order) if innermost else None
