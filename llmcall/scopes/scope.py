"""Opening a scope: by name; by ``bind`` for a function; or unnamed, for a program's call, a recorded function or
another context's code."""

from __future__ import annotations

import functools
import itertools
import pickle
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import CoroutineType
from typing import Generic, ParamSpec, TypeVar, cast

from ..errors import ScopeError
from ..support.system import lock, this_process
from ..support.waits import Stops, in_maps, stops
from . import rules
from .active import NO_SCOPE, ActiveScope, here, if_of_this_process, scope_of_call
from .callers import current_caller, enter_arm, is_recorded
from .draws import ACTOR, Draws, Item
from .position import (
    Position,
    checked_name,
    held,
    held_by_process,
    hold,
    hold_in_process,
    hold_scope,
    holding,
)
from .rules import BOUND_IN_A_THREAD, IN_AN_ARM, OpeningGenerator, generator_above, generators_with

_scope_numbers = itertools.count()  # of the outermost ones


class Scope:
    """A scope, made by :func:`llmcall.scope`. You can enter it again; it continues counting draws.

    :ivar name: its level of the path; ``None`` for no scope.
    :ivar process: ``True`` if every thread without a scope of its own is in it.
    :ivar is_shared: ``True`` if all processes that are recorded together count in it, as those of an actor.
    :ivar is_of_request: ``True`` if it is an actor's scope, open only during one request.
    """

    def __init__(self, name: str | None, *, process: bool = False) -> None:
        self.name = name
        self.process = process
        self.is_shared = False
        self.is_of_request = False
        self._draws: Draws | None = None  # made if it is the outermost one
        self._entries: list[ActiveScope] = []

    def __enter__(self) -> Scope:
        active = self.active(generator_above(sys._getframe(1)))
        opener = current_caller()
        active.opened_in = None if opener is None else opener.name
        self._set_process_scope(active)
        self._entries.append(active)
        active.__enter__()
        if active.arm_of is not None:
            enter_arm()
        return self

    def active(self, generator: OpeningGenerator | None = None) -> ActiveScope:
        """Return the scope as the current context would enter it.

        :param generator: the generator that enters it, or ``None``.
        """
        active = here()
        order = active.position.order
        if self.name is None:
            item = Item(active.item.name)
            return ActiveScope(Position(order=order), NO_SCOPE.draws, self, item=item)
        parent = active.parent_of_new_scopes
        if not parent.path:
            with lock:  # several threads may enter it at once
                self._draws = self._draws or Draws(
                    outermost_scope=next(_scope_numbers), identity=ACTOR if self.is_shared else ""
                )
            generators = generators_with((), generator)
            return ActiveScope(Position(self.name, order), self._draws, self, generators)
        path, _, branches, caller, draw, *_ = parent.position
        path = sys.intern(f"{path}/{self.name}")  # each of its draws keeps the path
        position = Position(path, order, branches, caller, draw)
        generators = generators_with(parent.generators, generator)
        return parent.copy(
            position=position, scope=self, generators=generators, opened_by="program"
        )

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        entered = held().active
        while entered is not None and entered.scope is not self:
            entered = entered.previous.active
        # Another context may end the generator that entered it; the scope is not open there.
        active = entered or self._entries[-1]
        self._entries.remove(active)
        if active is held_by_process().active:
            hold_in_process(active=active.arm_of)
        rules.note_closed(active)
        if entered is not None:
            try:
                if kind is None:
                    entered.check_is_inmost()
            finally:
                hold_scope(entered.previous.active)
                if entered.arm_of is not None:
                    hold(caller=entered.previous.caller)

    def _set_process_scope(self, active: ActiveScope) -> None:
        """Put threads without a scope into this one if it, or its arm's scope, was opened for the process."""
        with lock:
            open_scope = if_of_this_process(held_by_process().active)
            if self.process and open_scope is not None:
                raise ScopeError(
                    f"the scope {open_scope.path!r} is already open for the whole process, and only one can be. Leave "
                    f"it first, or open {active.path!r} without process=True and pass it to threads with llmcall.bind"
                )
            if self.process or (open_scope is not None and open_scope is active.arm_of):
                hold_in_process(active=active)

    def __repr__(self) -> str:
        return f"scope({self.name!r})"


def scope(name: str | float | None, *, process: bool = False) -> Scope:
    """Open a scope: inside it, a repeated request is a new draw.

    :param name: one level of the path, such as an actor's name or a number; in ``scope(None)``, calls
        have no scope.
    :param process: ``True`` puts every thread without its own scope into it; only one such scope
        can be open at a time.
    :raises ValueError: for an empty name, or one that contains ``/`` or ``#``.

    >>> client = llmcall.client()
    >>> with llmcall.scope("trial-1"), llmcall.scope("lisa"):
    ...     [client.send_message("Good morning!", temperature=1, max_tokens=16).sample for _ in range(2)]
    ['trial-1/lisa#0', 'trial-1/lisa#1']
    """
    return Scope(None if name is None else checked_name(name, "the scope name"), process=process)


def scope_of_actor(name: str, default: ActiveScope | None, *, is_shared: bool) -> Scope:
    """Return the scope with an actor's name. It counts draws while the default scope's owner is open: a cassette, a
    run or a block.

    :param default: of :func:`new_program_scope`; ``None``: as long as the process runs.
    :param is_shared: as of a :class:`Scope`.
    :raises ValueError: as of :func:`scope`.
    """
    named = (default or NO_SCOPE).named
    if (name, is_shared) not in named:
        new = scope(name)
        new.is_shared, new.is_of_request = is_shared, True
        named.setdefault((name, is_shared), new)
    return named[name, is_shared]


@contextmanager
def in_function(name: str, *, draws: bool) -> Iterator[None]:
    """Enter a scope for one call of a recorded function, for a block: a replay skips the call, which must not move
    draws outside.

    :param name: the scope's level of the path.
    :param draws: ``True`` if the call itself is in a scope.
    """
    active = scope_of_call() if draws else NO_SCOPE
    inner: AbstractContextManager[object] = nullcontext()
    if active.path:
        position = active.position._replace(path=f"{active.path}/{name}")
        inner = active.copy(position=position)
    with holding(levels=f"{held().levels}/{name}"), inner:
        yield


P = ParamSpec("P")
T = TypeVar("T")


class Bound(Generic[P, T]):
    """A function made by :func:`llmcall.bind`, which runs in the scope in which it was bound.

    :ivar function: the function that was bound; it may be a coroutine function.
    """

    def __init__(
        self, function: Callable[P, T], active: ActiveScope | None, stops: Stops = ()
    ) -> None:
        self.function = function
        self._active = active
        self._stops = stops  # of the maps in which it was bound: after Ctrl-C it begins no call
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._scope(), in_maps(self._stops):
            result = self.function(*args, **kwargs)
        if isinstance(result, CoroutineType):
            return cast("T", self._await_result(result))
        return result

    async def _await_result(self, result: Awaitable[object]) -> object:
        with self._scope(), in_maps(self._stops):
            return await result

    def _scope(self) -> AbstractContextManager[ActiveScope | None]:
        active = self._active
        if active is None:
            return nullcontext()
        if active.entered_in != this_process():  # forked: like one that was pickled
            self._stops = ()
            self._active = active = pickle.loads(pickle.dumps(active))
        if active.position.arm and active.draws.process is None and not is_recorded():
            raise ScopeError(IN_AN_ARM.format(name=active.position.arm))
        return active.copy(generators=())

    def __reduce__(self) -> tuple[object, ...]:
        return Bound, (self.function, self._active)


def bind(function: Callable[P, T]) -> Bound[P, T]:
    """Return a function that runs in the current scope, in any thread, executor or process.

    In a cassette, its records stand where they would if it ran in the current context. So if arms run in threads, the
    file does not depend on which thread was faster.

    :param function: a function, picklable if it goes to another process; it may be asynchronous.
    :returns: a callable with the same arguments. A recorded child process continues this process's draws. Any other
        process counts them from 0 for each task, so tasks that make the same request share an answer there, and a
        warning says so. In an arm, running it there raises ``ScopeError``: use ``llmcall.map(…, executor=…)``.
    :raises ScopeError: in a thread that has no scope while another has one open, and between two
        steps of a generator that left the scope open.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> def draw(_):
    ...     return llmcall.client().build_request("Name a fruit.", temperature=1).sample
    >>> with ThreadPoolExecutor() as pool, llmcall.scope("trial-1"):
    ...     list(pool.map(llmcall.bind(draw), range(1)))
    ['trial-1#0']
    """
    active = here()
    if active.opened_by == "default" and rules.is_open_elsewhere():
        raise ScopeError(BOUND_IN_A_THREAD)
    active.check_generators()
    _ = active.draws.identity  # a forked process is to know it, too
    return Bound(function, None if active.opened_by == "default" else active, stops())
