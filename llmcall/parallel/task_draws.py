"""Count the draws of a map's tasks: in each task's scope, or in a cell of a table that varies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..scopes import Draws

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..scopes import (
        Counts,
        DrawCounter,
        DrawNumber,
        EqualRequests,
        NamedAsker,
        RecordedAskers,
        ScopedRequest,
    )


class TaskDraws:
    """Pass a task's draws on to its scope, which counts them.

    The object remembers their numbers, so that a map that ends early can give them back.

    :param scope_draws: the draws of the scope.
    :ivar numbers: the numbers that were drawn and not given back.
    """

    __slots__ = ("__weakref__", "_is_over", "_scope_draws", "numbers", "since")

    def __init__(self, scope_draws: DrawCounter) -> None:
        self.since = scope_draws.since
        self._scope_draws = scope_draws
        self._is_over = False
        self.numbers: list[DrawNumber] = []

    def equal_requests(
        self, request: ScopedRequest, source: object, read_askers: Callable[[], RecordedAskers]
    ) -> EqualRequests:
        """Return the equal requests of a scope; see :meth:`Draws.equal_requests`."""
        return self._scope_draws.equal_requests(request, source, read_askers)

    def take(self, request: ScopedRequest, asker: NamedAsker | None) -> DrawNumber:
        """Return the number of a draw; see :meth:`Draws.take`.

        :raises KeyboardInterrupt: if the draws were given back, since the task's map is over.
        """
        taken = self._scope_draws.take(request, asker)
        self.numbers.append(taken)
        if self._is_over:
            self.give_back(taken)
            raise KeyboardInterrupt("the map that this call belongs to is over")
        return taken

    def claim(self, taken: DrawNumber) -> None:
        """Take a number that another process took; see :meth:`Draws.claim`."""
        self._scope_draws.claim(taken)
        self.numbers.append(taken)

    def end(self, request: ScopedRequest, stored_at: float | None) -> None:
        """Note that a call has its answer; see :meth:`Draws.end`."""
        self._scope_draws.end(request, stored_at)

    def counts(self) -> Counts:
        """Return the counts, from which another process can go on."""
        return self._scope_draws.counts()

    def give_back(self, taken: DrawNumber) -> None:
        """Free a number, unless it is free already."""
        try:
            self.numbers.remove(taken)
        except ValueError:
            return
        self._scope_draws.give_back(taken)

    def give_all_back(self) -> None:
        """Free all numbers."""
        self._is_over = True
        for taken in self.numbers.copy():
            self.give_back(taken)


class CellDraws(Draws):
    """Count the draws of one cell of a table that varies, as if the cell ran alone.

    Each draw is taken in the scope as well, so a later call in the scope is another draw.

    :param scope_draws: counts the draws of the scope.
    :param counts_before: the scope's counts before the map began.
    :param holders: for each number that was taken in the scope, the cells that took it.
    """

    __slots__ = ("_holders", "_scope_draws")

    def __init__(
        self, scope_draws: DrawCounter, counts_before: Counts, holders: dict[DrawNumber, set[int]]
    ) -> None:
        super().__init__(counts_before)
        self._scope_draws = scope_draws
        self._holders = holders

    def take(self, request: ScopedRequest, asker: NamedAsker | None) -> DrawNumber:
        """Return the number of a draw; see :meth:`Draws.take`."""
        taken = super().take(request, asker)
        self._take_in_scope(taken)
        return taken

    def claim(self, taken: DrawNumber) -> None:
        """Take a number that another process took; see :meth:`Draws.claim`."""
        super().claim(taken)
        self._take_in_scope(taken)

    def give_back(self, taken: DrawNumber) -> None:
        """Free a number; in the scope only once no other cell has taken it."""
        super().give_back(taken)
        holders = self._holders.get(taken, set())
        holders.discard(id(self))
        if not holders:
            self._scope_draws.give_back(taken)

    def _take_in_scope(self, taken: DrawNumber) -> None:
        self._holders.setdefault(taken, set()).add(id(self))
        self._scope_draws.claim(taken)
