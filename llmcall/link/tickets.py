"""Tickets: what a process that is recorded was started for, as the recording process knows it."""

from __future__ import annotations

import itertools
from contextvars import Context, copy_context

from ..scopes.active import ActiveScope, here, next_order, position_here
from ..scopes.callers import current_caller, known_caller
from ..scopes.draws import ACTOR, Draw, known_draws
from ..scopes.position import CallOrder, Position, hold, hold_scope, take_place
from ..scopes.scope import Scope
from ..support.request_origin import LLMCALL, PROGRAM, sender
from ..traffic.usage import Meter
from . import messages, programs
from .pythons import Pythons, Siblings

SEPARATOR = "/"  # between the numbers of tickets that are made one inside another


class Ticket:
    """The context of the code that started a process, or that a process's calls are made inside of.

    :param name: by which the process names it.
    :param pythons: has the processes with it.
    :param context: of that code.
    :param order: of that code; the orders of the calls go on from it.
    :param meter: counts what the calls use, beside the usual ones, or ``None``.
    :ivar suffix: ends the names of its callers, and of those in the process that it was made for; and whether that
        process is numbered by its arrival alone.
    """

    def __init__(
        self,
        name: str,
        pythons: Pythons,
        context: Context,
        order: CallOrder | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.name = name
        self.context = context
        self.order = context.run(next_order) if order is None else order
        self.meter = meter
        self._numbers = itertools.count()
        self.suffix = "", False
        maker = context.run(current_caller)
        self._pythons = pythons
        self._siblings = Siblings(pythons, name, "" if maker is None else maker.name)
        self.scopes: dict[str, Scope] = {}  # that the process opened outside any
        self.draws: dict[int, Draw] = {}  # that the process may retract

    def base(self) -> messages.Base:
        """Return the scope in which the process was started."""
        active = self.context.run(here)
        if active.opened_by == "default":
            return messages.Base(self.name)
        return messages.Base(self.name, active.path, active.position.branches, active.opened_by)

    def inside(self, *, at_base: bool) -> Ticket:
        """Return a ticket for what is made inside the call that runs here.

        :param at_base: ``True`` if that begins in the scope in which this one was started, and not in the call's.
        """
        context = copy_context()
        if at_base:
            context.run(take_place, self.context)
        name = f"{self.name}{SEPARATOR}{next(self._numbers)}"
        order = context.run(next_order)
        inner = Ticket(name, self._pythons, context, order, self.meter)
        inner.scopes, inner.suffix, inner._siblings = self.scopes, self.suffix, self._siblings
        return inner

    def suffix_in(self, where: messages.Where) -> tuple[str, bool]:
        """Return the suffix in the process of a position."""
        if where.process is None:
            return self.suffix
        (outer, is_outer), (own, is_own) = self.suffix, self._siblings.segment(where.process)
        return outer + own, is_outer or is_own

    def keep_draw(self, draw: Draw) -> int:
        """Keep a draw that the process may retract, and return its number."""
        number = next(self._numbers)
        self.draws[number] = draw
        return number

    def _outermost(self, identity: str, name: str) -> Scope:
        """Return a scope that the process opened outside any."""
        recording = programs.innermost_recorder()
        if identity == ACTOR and recording is not None:
            shared = recording.actor_scope(name)
            if shared is not None:
                return shared
        return self.scopes.setdefault(identity, Scope(name))

    def enter(self, where: messages.Where, *, is_inner: bool) -> ActiveScope:
        """Take the position of a call in a process, for the rest of the current context; return its scope."""
        sender.set(LLMCALL if is_inner else PROGRAM)
        if where.caller is not None:
            is_known = where.caller.startswith(messages.TASK_OF_RAY)
            suffix, is_by_arrival = ("", False) if is_known else self.suffix_in(where)
            hold(caller=known_caller(where.caller + suffix, is_by_arrival=is_by_arrival))
        active = here()
        if active.opened_by == "default" and active.path:
            # a default scope: unlike a thread, a process has a name of its own
            hold_scope(active.copy())
        names = list(where.names)
        draws = known_draws(where.outermost)
        if draws is not None:  # of a function that was bound here
            bound = active if active.draws is draws else ActiveScope(Position(), draws)
            position = bound.position._replace(path="/".join(names), branches=())
            hold_scope(bound.copy(position=position))
            names = []
        elif where.is_apart or where.outermost:
            hold_scope(Scope(None).active())
        if where.outermost and draws is None:
            hold_scope(self._outermost(where.outermost, names.pop(0)).active())
        for name in names:
            hold_scope(Scope(name).active())
        if where.is_programs:
            hold(is_programs=True)
            recording = programs.innermost_recorder()
            default = None if recording is None else recording.recording.default
            if place := position_here(default, is_process=True):
                hold_scope(place)
        active = here()
        if where.opened_in is not None or where.branches:
            branches = *active.position.branches, *where.branches
            position = active.position._replace(branches=branches)
            opened_in = where.opened_in or active.opened_in
            active = active.copy(position=position, opened_in=opened_in)
            hold_scope(active)
        return active
