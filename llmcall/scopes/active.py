"""Scopes as contexts hold them, and the search for the one in which the code runs.

A scope belongs to the context (thread, task) that opened it. :func:`here` returns the one in which the
code runs, and :func:`scope_of_call` does so for a call that draws: it raises ``ScopeError`` if timing
would decide, or if a generator left the scope open.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..errors import ScopeError
from ..support.system import after_fork_in_child, last_in, this_process
from . import rules
from .callers import Caller
from .draw_numbers import RecordedCallers
from .draws import NO_ITEM, Draw, Draws, Item
from .position import NOTHING, CallOrder, Position, checked_name, held, held_by_process, hold_scope
from .repeated import forget_given_answers
from .rules import ENVIRONMENT_VARIABLE, IN_A_GENERATOR, OpeningGenerator, why_refused

if TYPE_CHECKING:
    from ..stores.record import Record
    from .scope import Scope

PROGRAM_SCOPE = "run"  # the default scope of a program's calls


class ScopedRecord(NamedTuple):
    """A record that answered a call.

    :param path: the scope path in which the call was made. An embedding's record has no scope, but
        its calls may have one.
    """

    path: str
    record: Record


OpenedBy = Literal["program", "map", "default"]


class ActiveScope:
    """A scope as a context holds it. As a context manager, it is current for a block.

    :param position: of the calls that are made in it; its path is empty for ``scope(None)``, its order is
        that of the item or arm.
    :param draws: counts its draws.
    :param scope: the user's scope, or ``None`` for one that a ``map`` or a bound function opens.
    :param generators: the generators that opened it or a scope around it.
    :param without_default: in a default scope, and for an item of a ``map`` in one: the scope that
        would be current without a default scope. Scopes that are opened here go below that one.
    :param item: the item of a ``map`` in which it stands.
    :param used_records: gathers the records that its calls get, or ``None``.
    :param opened_by: ``"default"`` for that of code for which no scope was opened; it is never entered itself.
        ``"map"`` for an item of a ``map`` outside any scope of the program's. In both, a program's call takes the
        default scope, if there is one.
    :ivar named: scopes that are opened by their names again and again as long as this one is open: the actors' of a
        default scope; outside any, the process's.
    :ivar opened_in: the name of the thread or task that opened the user's scope, if it has one.
    :ivar arm_of: the scope of which it is an arm, or ``None``.
    :ivar entered_in: the number of the process.
    :ivar previous: what the context held before it was entered.
    """

    # No dataclass: that module takes 10 ms to import, and a replay needs nothing else of it.
    def __init__(
        self,
        position: Position,
        draws: Draws,
        scope: Scope | None = None,
        generators: tuple[OpeningGenerator, ...] = (),
        without_default: ActiveScope | None = None,
        item: Item = NO_ITEM,
        used_records: deque[ScopedRecord] | None = None,
        opened_by: OpenedBy = "program",
    ) -> None:
        self.position = position
        self.draws = draws
        self.scope = scope
        self.generators = generators
        self.without_default = without_default
        self.item = item
        self.used_records = used_records
        self.opened_by = opened_by
        self.named: dict[tuple[str, bool], Scope] = {}
        self.opened_in: str | None = None
        self.arm_of: ActiveScope | None = None
        self.previous = NOTHING
        self.entered_in = this_process()

    def copy(self, **changes: object) -> ActiveScope:
        """Return a copy, for this process to enter; a user's scope, and an arm, only if that is among
        the changes.
        """
        other = object.__new__(ActiveScope)
        opened_by = "program" if self.opened_by == "default" else self.opened_by
        reset = {"scope": None, "arm_of": None, "entered_in": this_process()}
        other.__dict__ = {**vars(self), **reset, "opened_by": opened_by, **changes}
        return other

    def __reduce__(self) -> tuple[object, ...]:
        draws = self.draws.since, self.draws.identity
        return _unpickled, (self.position, *draws, self.without_default)

    def __enter__(self) -> ActiveScope:
        self.previous = held()
        hold_scope(self)
        # Threads that started before an actor's request need no scope while it is under way.
        is_of_request = self.scope is not None and self.scope.is_of_request
        if self.parent_of_new_scopes.path and not is_of_request:
            rules.note_opened(self)
        return self

    def __exit__(self, *_: object) -> None:
        rules.note_closed(self)
        hold_scope(self.previous.active)

    @property
    def path(self) -> str:
        """Return the scope path; empty for ``scope(None)``."""
        return self.position.path

    @property
    def parent_of_new_scopes(self) -> ActiveScope:
        """Return the scope below which further scopes are opened."""
        return self if self.without_default is None else self.without_default

    def draw(
        self,
        digest: str,
        source: object,
        caller: Caller | None,
        read_callers: Callable[[], RecordedCallers],
    ) -> Draw:
        """Take the next draw of a request.

        :param digest: of the request, without a sample.
        :param source: the cassette or cache that holds records of the draws.
        :param caller: the caller, if it counts.
        :param read_callers: reads the callers of the recorded draws, if they count.
        """
        path, _, branches, *_ = self.position
        may_follow = caller is not None and caller.name == self.opened_in and caller.is_thread
        draw = self.draws.take(
            (path, digest), branches, source, caller, read_callers, may_follow=may_follow
        )
        if self.item.draws is not None:
            self.item.draws.add(draw)
        return draw

    def check_is_inmost(self) -> None:
        """Check that no scope that was opened after this one is still open.

        :raises ScopeError: if one is.
        """
        if held().active is not self:
            raise ScopeError(
                f"the scope {self.path!r} ends before one that was opened after it: {IN_A_GENERATOR}"
            )

    def check_generators(self) -> None:
        """Check that no generator that opened this scope, or one around it, waits at a ``yield``.

        :raises ScopeError: if one does, naming it.
        """
        for generator in self.generators:
            if generator.is_at_yield():
                frame = generator.frame
                raise ScopeError(
                    f"the scope {self.path!r} was left open by the generator {frame.f_code.co_name} at its yield "
                    f"(line {frame.f_lineno}): {IN_A_GENERATOR}"
                )


def _unpickled(
    position: Position, since: float, identity: str, without_default: ActiveScope | None
) -> ActiveScope:
    """Return a scope of another process, whose draws are counted from 0 here, unless that process records this one."""
    draws = Draws(since=since, identity=identity)
    return ActiveScope(position, draws, without_default=without_default)


_no_scope_draws = Draws()
NO_SCOPE = ActiveScope(Position(), _no_scope_draws, opened_by="default")  # outside any scope
# The number of all default scopes: each starts again, but a user's scope with its name warns.
DEFAULT_NUMBER = -1
_order_numbers = itertools.count()
_defaults: list[ActiveScope | None] = []  # the arguments of default_scope(), the innermost last


def new_program_scope() -> ActiveScope:
    """Return a default scope for a program's calls, whose draws are counted from 0."""
    no_scope = ActiveScope(Position(), _no_scope_draws)
    draws = Draws(outermost_scope=DEFAULT_NUMBER)
    return ActiveScope(
        Position(PROGRAM_SCOPE), draws, without_default=no_scope, opened_by="default"
    )


@contextmanager
def default_scope(active: ActiveScope | None) -> Iterator[None]:
    """Give every call of the process that has no scope this one, for a block.

    A ``map`` without a scope is in it, too, and gives each item a scope below it. Scopes that the
    program opens keep their paths and are not below it; a call inside ``scope(None)`` still has no
    scope. ``LLMCALL_SCOPE`` and a scope with ``process=True`` take precedence. A call that raises a
    :class:`ScopeError` without it still does. A forked process has no default scope.

    :param active: of :func:`new_program_scope`; ``None`` for no default scope.
    """
    with last_in(_defaults, active):
        yield


def process_default() -> ActiveScope | None:
    """Return the default scope that counts in this process, or ``None``."""
    innermost = _defaults[-1:]  # a copy, since other threads may leave it
    return if_of_this_process(innermost[0]) if innermost else None


def _root_scope() -> ActiveScope | None:
    """Return the scope that LLMCALL_SCOPE names, the same one for the whole process."""
    if not _roots:
        name, root = os.environ.get(ENVIRONMENT_VARIABLE), None
        if name and not rules.is_worker():
            root = ActiveScope(Position(checked_name(name, ENVIRONMENT_VARIABLE)), Draws())
        _roots.setdefault(ENVIRONMENT_VARIABLE, root)  # several threads may come first at once
    return _roots.get(ENVIRONMENT_VARIABLE)


_roots: dict[str, ActiveScope | None] = {}
after_fork_in_child(_roots.clear)


def forget_scopes() -> None:
    """Read LLMCALL_SCOPE again at the next call. Restart its draws and those outside any scope, and forget
    the answers given outside.
    """
    _roots.clear()
    NO_SCOPE.named.clear()
    forget_given_answers()


def here() -> ActiveScope:
    """Return the scope in which the code runs, unchecked: the first of these.

    ================================================================  ====================
    this thread or task opened a scope, or runs in a copy of one      that scope
    ``scope(…, process=True)`` is open, or an arm in it               that scope or arm
    ``LLMCALL_SCOPE`` is set, and this is no worker process           the scope it names
    :func:`default_scope` is open                                     the default scope
    otherwise                                                         an empty path
    ================================================================  ====================
    """
    active = held().active
    if active is None or active.entered_in != this_process():
        active = if_of_this_process(held_by_process().active) or _root_scope() or process_default()
    return active or NO_SCOPE


def position_here(
    default: ActiveScope | None, made_in: ActiveScope | None = None, *, is_process: bool = False
) -> ActiveScope | None:
    """Return the scope that a program's call enters, as the first row decides; ``None``: it stays :func:`here`.

    ================================================================  ====================
    a scope is open here, for the process, or by ``LLMCALL_SCOPE``    ``None``
    the recorder was made in a scope                                  that scope
    another thread has a scope open, so the call is refused           ``None``
    there is a default scope, the process's or else the recorder's    the default scope
    otherwise                                                         ``None``
    ================================================================  ====================

    The default scope of a call in a recorded function has a level of that function. An item of a ``map`` outside any
    scope counts as none.

    :param default: the recorder's default scope; ``None`` for none.
    :param made_in: the scope in which the recorder was made.
    :param is_process: ``True`` if another process makes the call: unlike a thread, it is not refused.
    """
    active, taken = here(), None
    if active.opened_by == "default":
        if made_in is not None and made_in.path and made_in.opened_by != "default":
            active = taken = made_in.copy(generators=())
        elif not is_process and why_refused():
            return None
    default = process_default() or if_of_this_process(default)
    if default is None or active.opened_by == "program":
        return taken
    position = Position(default.path + held().levels, active.position.order)
    return default.copy(position=position, item=Item(draws=active.item.draws))


def if_of_this_process(active: ActiveScope | None) -> ActiveScope | None:
    """Return a scope if it was entered in this process: a forked one leaves its parent's."""
    return active if active is not None and active.entered_in == this_process() else None


def scope_of_call() -> ActiveScope:
    """Return the scope in which the code makes a call, checked; its path is empty outside any.

    :raises ScopeError: in a thread or worker process that has no scope while another has one open,
        and if a generator left the scope open.
    """
    active = here()
    if active.opened_by == "default":
        if reason := why_refused():
            raise ScopeError(reason)
    elif active.generators:
        active.check_generators()
    return active


def next_order(active: ActiveScope | None = None) -> CallOrder:
    """Return the order of what the current context does next.

    :param active: the scope in which the code runs, if it is known.
    """
    return (*(active or here()).position.order, next(_order_numbers))
