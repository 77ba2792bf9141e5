"""Tickets: what a process that is recorded was started for, as the recording process knows it."""

from __future__ import annotations

import itertools
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, NamedTuple

from .. import scopes
from ..support.sender import LLMCALL, PROGRAM, sender
from . import programs

if TYPE_CHECKING:
    from ..scopes import ActiveScope, Draw
    from ..traffic.usage import Meter
    from .messages import Where

SEPARATOR = "/"  # between the numbers of tickets that are made one inside another


class Base(NamedTuple):
    """The scope in which a process, or a part of it, was started; plain data that goes there.

    :param ticket: its name.
    :param path: of the scope; empty outside any.
    :param branches: in which it was started.
    :param opened_by: as of an :class:`.ActiveScope`.
    """

    ticket: str
    path: str = ""
    branches: tuple[tuple[str, str, str], ...] = ()
    opened_by: str = "default"


class Ticket:
    """The context of the code that started a process, or that a process's calls are made inside of.

    :param name: by which the process names it.
    :param context: of that code.
    :param order: of that code; the orders of the calls go on from it.
    :param meter: counts what the calls use, beside the usual ones, or ``None``.
    """

    def __init__(
        self,
        name: str,
        context: Context,
        order: scopes.CallOrder | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.name = name
        self.context = context
        self.order = context.run(scopes.next_order) if order is None else order
        self.meter = meter
        self._numbers = itertools.count()
        self.scopes: dict[str, scopes.Scope] = {}  # that the process opened outside any
        self.draws: dict[int, Draw] = {}  # that the process may retract

    def base(self) -> Base:
        """Return the scope in which the process was started."""
        active = self.context.run(scopes.here)
        if active.opened_by == "default":
            return Base(self.name)
        branches = tuple(tuple(branch) for branch in active.position.branches)
        return Base(self.name, active.path, branches, active.opened_by)  # type: ignore[arg-type]

    def inside(self, *, at_base: bool) -> Ticket:
        """Return a ticket for what is made inside the call that runs here.

        :param at_base: whether that begins in the scope in which this one was started, and not in the call's.
        """
        context = copy_context()
        if at_base:
            context.run(scopes.take_place, self.context)
        name = f"{self.name}{SEPARATOR}{next(self._numbers)}"
        order = context.run(scopes.next_order)
        inner = Ticket(name, context, order, self.meter)
        inner.scopes = self.scopes
        return inner

    def keep_draw(self, draw: Draw) -> int:
        """Keep a draw that the process may retract, and return its number."""
        number = next(self._numbers)
        self.draws[number] = draw
        return number

    def _outermost(self, identity: str, name: str) -> scopes.Scope:
        """Return a scope that the process opened outside any."""
        recording = programs.innermost()
        if identity == scopes.ACTOR and recording is not None:
            shared = recording.actor_scope(name)
            if shared is not None:
                return shared
        return self.scopes.setdefault(identity, scopes.Scope(name))

    def enter(self, where: Where, *, is_inner: bool) -> ActiveScope:
        """Take the position of a call, for the rest of the current context; return its scope."""
        sender.set(LLMCALL if is_inner else PROGRAM)
        if where.caller is not None:
            scopes.set_caller(scopes.known_caller(where.caller))
        active = scopes.here()
        if active.opened_by == "default" and active.path:
            scopes.hold_scope(
                active.copy()
            )  # a default scope: unlike a thread, a process has a name of its own
        names = list(where.names)
        draws = scopes.known_draws(where.outermost)
        if draws is not None:  # of a function that was bound here
            bound = (
                active if active.draws is draws else scopes.ActiveScope(scopes.Position(), draws)
            )
            position = bound.position._replace(path="/".join(names), branches=())
            scopes.hold_scope(bound.copy(position=position))
            names = []
        elif where.is_apart or where.outermost:
            scopes.hold_scope(scopes.Scope(None).active())
        if where.outermost and draws is None:
            scopes.hold_scope(self._outermost(where.outermost, names.pop(0)).active())
        for name in names:
            scopes.hold_scope(scopes.Scope(name).active())
        if where.is_programs:
            scopes.hold_program_call()
            recording = programs.innermost()
            default = None if recording is None else recording.default_scope()
            if (standing := scopes.default_here(default)) is not None:
                scopes.hold_scope(standing)
        active = scopes.here()
        if where.opened_in is not None:
            active = active.copy(opened_in=where.opened_in)
            scopes.hold_scope(active)
        if where.branches:
            branches = (
                *active.position.branches,
                *(scopes.Branch(*branch) for branch in where.branches),
            )
            active = active.copy(position=active.position._replace(branches=branches))
            scopes.hold_scope(active)
        return active
