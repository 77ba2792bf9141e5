"""A cassette in a worker of another process: what it answered and gained goes home, where the cassette is."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cassettes.cassette import Cassette
from ..replay import scopes
from ..replay.scopes import Draws

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..cassettes.cassette import Place
    from ..config.settings import Settings
    from ..types import Record, Request

__all__ = ["CarriedCassette", "Event", "retell"]


class Event(NamedTuple):
    """Hold what was done with a cassette elsewhere.

    :param what: the method that did it: ``add``, ``find_key``, ``count_replay`` or ``agree``.
    :param arguments: the method's.
    :param scope: the scope path in which it was done, which decides the record's place among the others.
    """

    what: str
    arguments: tuple[Any, ...]
    scope: str


class CarriedCassette(Cassette):
    """Be a cassette of another process: it reads the same file, writes nothing, and notes all that is done with it.

    :ivar events: what was done and not told yet.
    """

    def __init__(self, path: str, mode: str) -> None:
        super().__init__(path, mode, write=False)
        self.events: deque[Event] = deque()
        self._settled: set[int | None] = set()

    def _note(self, what: str, *arguments: Any) -> None:
        self.events.append(Event(what, arguments, scopes.standing()))

    def agree(self, base: Settings | None) -> None:
        """Let the callers' settings be the same, and those of the cassette at home; see :meth:`Cassette.agree`."""
        super().agree(base)
        asking = None if base is None else id(base)
        if asking not in self._settled:
            self._settled.add(asking)
            self._note("agree", None if base is None else base.without_keys())

    def find(self, request: Request, place: Place) -> Record | None:
        """Return the recorded answer of a request, or ``None``."""
        return self._noted(super().find(request, place), place)

    def find_key(self, cache_key: str, place: Place) -> Record | None:
        """Return the record of a key, or ``None``."""
        return self._noted(super().find_key(cache_key, place), place)

    def _noted(self, found: Record | None, place: Place) -> Record | None:
        if found is not None:
            self._note("find_key", found.cache_key, place)
        return found

    def count_replay(self) -> None:
        """Count a call that it answered."""
        super().count_replay()
        self._note("count_replay")

    def add(self, record: Record, place: Place) -> Record:
        """Take in an answer, and return the one that counts: whatever was recorded first."""
        kept = super().add(record, place)
        self._note("add", kept, place)
        return kept

    def know(self, records: Iterable[tuple[Record, Place]]) -> None:
        """Take in what the cassette at home gained before."""
        for record, place in records:
            super().add(record, place)


def retell(events: Iterable[Event], cassette: Cassette) -> None:
    """Do with the cassette at home what was done with it elsewhere."""
    for event in events:
        act = getattr(cassette, event.what)
        with scopes.inside(event.scope, Draws()):
            act(*event.arguments)
