"""The position of a task: its scopes, and its order among the calls."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from .. import scopes
from ..scopes import reserved_name

if TYPE_CHECKING:
    from collections import deque

    from ..scopes import ActiveScope, Draws, Journal, ScopedRecord

# The name of the item that a task runs outside any scope, if its job wants one; else empty.
current_item: ContextVar[str] = ContextVar("llmcall item", default="")


class TaskPosition(NamedTuple):
    """The scopes of one draw of one item, and its order among the calls.

    :param path: the scope in which the map runs; empty outside any.
    :param name: the name of the item's scope; empty outside any scope.
    :param number: the item's number, from 0.
    :param repeat: the number of the draw, from 0; each further draw has a scope of its own.
    :param order: the map's order, then the item's number and the repeat.
    :param is_in_default: whether the map runs in the default scope.
    :param forks: the arm in which the map runs, and the cell of a table that varies.
    :param item: outside any scope, the item's name if the job wants one; else empty.
    :param cell: the number of the item's cell, if rows vary.
    """

    path: str
    name: str
    number: int
    repeat: int
    order: scopes.CallOrder
    is_in_default: bool = False
    forks: scopes.Forks = ()
    item: str = ""
    cell: int = 0

    def enter(
        self,
        draws: Draws,
        journal: Journal | None = None,
        used_records: deque[ScopedRecord] | None = None,
    ) -> ActiveScope:
        """Return the scope at this position.

        :param draws: counts the draws of the task's scopes.
        :param journal: notes them, or ``None``.
        :param used_records: receives the records that answer its calls, or ``None``.
        """
        # An empty path means no scope, even if one is open elsewhere.
        path = f"{self.path}/{self.name}" if self.path else ""
        if self.repeat:
            path = f"{path}/{reserved_name(self.repeat)}" if path else reserved_name(self.repeat)
        without_default = None
        if self.is_in_default:
            path_without_default = reserved_name(self.repeat) if self.repeat else ""
            without_default = scopes.ActiveScope(path_without_default, scopes.Draws())
        return scopes.ActiveScope(
            path,
            draws,
            without_default=without_default,
            forks=self.forks,
            journal=journal,
            used_records=used_records,
            order=self.order,
        )
