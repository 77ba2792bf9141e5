"""Where a task of a ``map`` stands among the others."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ..cassettes import cassette as cassettes
from ..replay import scopes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..replay.scopes import Draws

__all__ = ["Stand"]


class Stand(NamedTuple):
    """Hold where a task stands among the others: the names of its scopes, and its place in the order of the calls.

    :param path: the scope in which the map runs; empty outside any.
    :param name: the item's scope in it; empty outside any.
    :param repeat: which draw it is; from 1 on it has a scope of its own.
    :param place: that of the map, the item's index, and the repeat.
    """

    path: str
    name: str
    repeat: int
    place: tuple[int, ...]

    @property
    def number(self) -> int:
        """Return which item it is, counted from 0."""
        return self.place[-2]

    @property
    def mark(self) -> str:
        """Return the mark on the map's board that says that the task has begun in another process."""
        return f"begun-{self.number}-{self.repeat}"

    @contextmanager
    def inside(self, draws: Draws) -> Iterator[None]:
        """Let the task's scopes and place hold for a block.

        :param draws: count the draws of its scopes.
        """
        path = f"{self.path}/{self.name}" if self.path else ""  # empty: none is meant, whatever is open elsewhere
        if self.repeat:
            path = f"{path}/{self.repeat}" if path else str(self.repeat)
        with cassettes.at_position(self.place), scopes.inside(path, draws) as active:
            yield
            active.check_is_inmost()
