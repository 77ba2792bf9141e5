"""Scopes: opening one, the present one, and carrying one to other threads and processes.

A scope belongs to the context (thread, task) that opened it. A generator that the garbage
collector ends leaves its scopes: what it runs here takes no lock.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from types import CoroutineType
from typing import Any

from ..errors import ScopeError
from ..system import after_fork_in_child, process_lock, this_process
from . import workers
from .draws import Draw, Draws
from .equal_requests import Recorded
from .generators import IN_A_GENERATOR, OpeningGenerator, generator_above
from .names import checked_name
from .served import forget_served

ENVIRONMENT_VARIABLE = "LLMCALL_SCOPE"
IN_A_THREAD = (
    "this thread has no scope, but another thread has one open: which draw this call gets would depend on the "
    "timing of the threads. Carry the scope into the thread with llmcall.bind(function), open one in it with "
    "llmcall.scope(name), open the other thread's scope for all threads with scope(name, process=True), "
    "or use llmcall.scope(None) if this call needs no scope"
)
IN_A_PROCESS = (
    "this process has no scope, but the process that started it has one open: both would count the same draws. "
    "Carry the scope into it with llmcall.bind(function), run the function with llmcall.map(…, executor=…), open a "
    "scope in it with llmcall.scope(name), or use llmcall.scope(None) if this call needs no scope"
)
IN_A_TOLD_PROCESS = (
    "this process has no scope, but a scope was open when its parent process started it: both would count the same "
    "draws. Carry the scope into it with llmcall.bind(function), run the function with llmcall.map(…, executor=…), "
    "open a scope in it with llmcall.scope(name), or use llmcall.scope(None) if this call needs no scope. If the "
    "scope has ended since, start the workers outside it"
)

_lock = process_lock(__name__)


class Active:
    """What a context stands in: a path, the draws counted for it, and what it stood in before.

    As a context manager it holds for a block, whatever holds around it.

    :param path: the scope path; empty says that no scope is meant.
    :param draws: count what is drawn in it.
    :param scope: the scope that was opened, unless a ``map`` or a bound function stands here.
    :param generators: the generators that opened it or a scope around it.
    :param without_default: what would hold here without a default scope, if this is one or an
        item's of a ``map`` in one; scopes that are opened here stand in that.
    """

    __slots__ = (
        "draws",
        "generators",
        "outer",
        "path",
        "process",
        "scope",
        "without_default",
    )

    def __init__(
        self,
        path: str,
        draws: Draws,
        scope: Scope | None = None,
        generators: tuple[OpeningGenerator, ...] = (),
        without_default: Active | None = None,
    ) -> None:
        self.path = path
        self.draws = draws
        self.scope = scope
        self.generators = generators
        self.without_default = without_default
        self.outer: Active | None = None
        self.process = this_process()

    def __enter__(self) -> Active:
        self.outer = _current.get()
        _current.set(self)
        if self.around_scopes.path:
            workers.note_opened(self)
        return self

    def __exit__(self, *_: object) -> None:
        workers.note_closed(self)
        _current.set(self.outer)

    @property
    def around_scopes(self) -> Active:
        """Return what scopes stand in that are opened here."""
        return self if self.without_default is None else self.without_default

    def draw(
        self,
        digest: str,
        source: object = None,
        recorded: Callable[[], Recorded] = Recorded,
    ) -> Draw:
        """Take the next draw of a request.

        :param digest: the whole digest of the request, without a sample.
        :param source: what holds the record of the draws, and
        :param recorded: reads who asked for them, if askers have names.
        """
        return Draw(self.draws, self.path, digest, source, recorded)

    def again(self, draws: Draws | None = None) -> Active:
        """Return the same for another context.

        :param draws: count what is drawn there; ``None`` means together with what is drawn here.
        """
        return Active(self.path, draws or self.draws, without_default=self.without_default)

    def inside(self, name: str) -> Active:
        """Return a scope of ours directly in this one, of a name that no user's scope can have."""
        path = f"{self.path}/{name}"
        return Active(path, self.draws, None, self.generators, self.without_default)

    def check_is_inmost(self) -> None:
        """Refuse to end before a scope that was opened after this one.

        :raises ScopeError: naming it.
        """
        if _current.get() is not self:
            raise ScopeError(
                f"the scope {self.path!r} ends before one that was opened after it: {IN_A_GENERATOR}"
            )

    def check_generators(self) -> None:
        """Refuse to draw between two steps of a generator that opened the scope or one around it.

        :raises ScopeError: naming the generator.
        """
        for generator in self.generators:
            if generator.is_at_yield():
                frame = generator.frame
                raise ScopeError(
                    f"the scope {self.path!r} was left open by the generator {frame.f_code.co_name} at its yield "
                    f"(line {frame.f_lineno}): {IN_A_GENERATOR}"
                )


_no_scope_meant = Draws()
_current: ContextVar[Active | None] = ContextVar("llmcall scope", default=None)
# The scope opened with process=True.
_process_scope: Active | None = None
# What LLMCALL_SCOPE names, once it was read.
_roots: list[Active | None] = []
# See default_scope().
_default: Active | None = None


class Scope:
    """A scope, made by :func:`llmcall.scope`: a context manager that can be entered again and goes
    on counting.

    :ivar name: its level of the path; ``None`` says that no scope is meant.
    :ivar process: whether it is the scope of every thread that has none of its own.
    """

    def __init__(self, name: str | None, *, process: bool = False) -> None:
        self.name = name
        self.process = process
        self._draws: Draws | None = None  # made if it is the outermost one
        self._entered: list[Active] = []

    def __enter__(self) -> Scope:
        active = self._active(generator_above(sys._getframe(1)))
        if self.process:
            _enter_process(active)
        self._entered.append(active)
        active.__enter__()
        return self

    def _active(self, generator: OpeningGenerator | None) -> Active:
        if self.name is None:
            return Active("", _no_scope_meant, self)
        around = current()
        if around is not None:
            around = around.around_scopes
        generators = () if around is None or not around.path else around.generators
        if generator is not None and generator not in generators:
            generators = (*generators, generator)
        if around is None or not around.path:
            with _lock:  # several threads may enter it at once
                self._draws = self._draws or Draws()
            return Active(self.name, self._draws, self, generators)
        return Active(f"{around.path}/{self.name}", around.draws, self, generators)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        global _process_scope
        found = _current.get()
        while found is not None and found.scope is not self:
            found = found.outer
        # A generator entered it, and another context brings the generator to its end.
        active = found or self._entered[-1]
        self._entered.remove(active)
        if active is _process_scope:
            _process_scope = None
        workers.note_closed(active)
        if found is not None:
            try:
                if kind is None:
                    found.check_is_inmost()
            finally:
                _current.set(found.outer)

    def __repr__(self) -> str:
        return f"scope({self.name!r})"


def scope(name: str | float | None, *, process: bool = False) -> Scope:
    """Open a scope: inside it, a repeated request is a new draw.

    :param name: one level of the path, such as an actor's name or a number; ``None`` says that no
        scope is meant.
    :param process: make it the scope of every thread that has none of its own; one at a time.
    :raises ValueError: for an empty name, or one with ``/`` or ``#`` in it.

    >>> client = llmcall.client()
    >>> with llmcall.scope("trial-1"), llmcall.scope("lisa"):
    ...     [client.send_message("Good morning!", temperature=1, max_tokens=16).sample for _ in range(2)]
    ['trial-1/lisa#0', 'trial-1/lisa#1']
    """
    if name is None and process:
        raise ValueError("scope(None) has no draws to share; give a scope with process=True a name")
    return Scope(None if name is None else checked_name(name, "the scope name"), process=process)


@contextmanager
def default_scope(name: str) -> Iterator[None]:
    """Let every call of the process that would stand in no scope stand in this one.

    A ``map`` that would stand in no scope stands in it, too, and gives each item a scope below it.
    Scopes that the program opens keep their paths: they are not put below it. So does
    ``scope(None)``: a call inside it still has no scope. ``LLMCALL_SCOPE`` and a scope with
    ``process=True`` come before it. A call that raises a :class:`ScopeError` without it still does.
    A forked process has none.

    :param name: as of :func:`scope`.
    :raises ValueError: for a name that no scope can have.
    """
    global _default
    nothing = Active("", _no_scope_meant)
    before = _default
    _default = Active(checked_name(name, "the scope name"), Draws(), without_default=nothing)
    try:
        yield
    finally:
        _default = before


def _enter_process(active: Active) -> None:
    global _process_scope
    with _lock:
        if _process_scope is not None:
            raise ScopeError(
                f"the scope {_process_scope.path!r} holds for the whole process already; one at a time can. Leave it "
                f"first, or open {active.path!r} without process=True and carry it into threads with llmcall.bind"
            )
        _process_scope = active


def _root() -> Active | None:
    """Return the scope that LLMCALL_SCOPE names, the same one for the whole process."""
    if not _roots:
        name = os.environ.get(ENVIRONMENT_VARIABLE)
        root = None
        if name and not workers.is_worker():
            root = Active(checked_name(name, ENVIRONMENT_VARIABLE), Draws())
        with _lock:
            _roots.append(root)
    return _roots[0]


def forget() -> None:
    """Read LLMCALL_SCOPE again at the next call, and start its draws at 0; forget what was served
    outside scopes.
    """
    _roots.clear()
    forget_served()


def current() -> Active | None:
    """Return the scope that the present context stands in, without a check.

    :returns: ``None`` outside any scope, where the default one may hold.
    """
    active = _current.get()
    if active is not None and active.process is this_process():
        return active
    return _process_scope or _root()


def here() -> Active | None:
    """Return the scope that a call of the present context stands in.

    :returns: ``None`` outside any scope, or if none is meant.
    :raises ScopeError: in a thread or worker process without a scope while one is open elsewhere,
        and if a generator left it open.
    """
    active = current()
    if active is None:
        if workers.is_open_elsewhere():
            raise ScopeError(IN_A_THREAD)
        if workers.is_open_in_parent() or _has_rooted_parent():
            raise ScopeError(IN_A_PROCESS)
        if workers.was_open_in_parent():
            raise ScopeError(IN_A_TOLD_PROCESS)
        return _default
    active.check_generators()
    return active if active.path else None


def _has_rooted_parent() -> bool:
    """Return whether LLMCALL_SCOPE gives the process that started this one a scope."""
    return bool(os.environ.get(ENVIRONMENT_VARIABLE)) and workers.is_worker()


def within(around: Active | None) -> AbstractContextManager[Any]:
    """Let a scope hold for a block of a context that has none of its own.

    :param around: what another context stood in: see :func:`current`.
    """
    if around is None or not around.path or current() is not None:
        return nullcontext()
    return around.again()


def standing() -> str:
    """Return the scope path of the present context, without a check; empty outside any scope."""
    active = current() or _default
    return active.path if active else ""


# Threads and processes


class Bound:
    """A function made by :func:`llmcall.bind`: it runs in the scope in which it was bound, in any
    thread or process.

    :ivar function: the function that was bound; it may be a coroutine function.
    """

    def __init__(self, function: Callable[..., Any], active: Active | None) -> None:
        self.function = function
        self._active = active
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._standing():
            result = self.function(*args, **kwargs)
        return self._awaited(result) if isinstance(result, CoroutineType) else result

    async def _awaited(self, result: Any) -> Any:
        with self._standing():
            return await result

    def _standing(self) -> AbstractContextManager[Active | None]:
        if self._active is None:
            return nullcontext()
        if self._active.process is not this_process():
            # Forked: it counts as one that was pickled.
            self._active = self._active.again(Draws(since=self._active.draws.since))
        return self._active.again()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._active is None:
            return Bound, (self.function, None)
        without = self._active.without_default
        path_without = None if without is None else without.path
        return _arrived, (
            self.function,
            self._active.path,
            self._active.draws.since,
            path_without,
        )


def _arrived(
    function: Callable[..., Any], path: str, since: float, path_without: str | None
) -> Bound:
    """Return a function that was bound in another process."""
    without = None if path_without is None else Active(path_without, Draws(since=since))
    return Bound(function, Active(path, Draws(since=since), without_default=without))


def bind(function: Callable[..., Any]) -> Bound:
    """Carry the present scope into any thread, executor or process that runs the function.

    :param function: picklable if it goes to another process.
    :returns: a callable with the same arguments. In another process its draws are counted from 0
        again, task by task: tasks that ask the same share an answer there, of which a warning
        tells.
    :raises ScopeError: between two steps of a generator that left the scope open.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> def draw(_):
    ...     return llmcall.client().build_request("Name a fruit.", temperature=1).sample
    >>> with ThreadPoolExecutor() as pool, llmcall.scope("trial-1"):
    ...     list(pool.map(llmcall.bind(draw), range(1)))
    ['trial-1#0']
    """
    active = current()
    if active is not None:
        active.check_generators()
    return Bound(function, active)


def _begin_anew() -> None:
    """Stand outside any scope in a forked process, as in one that was spawned."""
    global _process_scope, _default
    _process_scope = None
    _default = None
    _roots.clear()


after_fork_in_child(_begin_anew)
