"""Scopes: inside one, a repeated request is a new draw, and each draw has a number that replays.

Draws are counted in the outermost scope object, by scope path and request, so that a changed or added call moves no
other draw. A scope belongs to the context (task, thread) that opened it.
"""

from __future__ import annotations

import functools
import heapq
import os
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import ScopeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Draw", "Draws", "Scope", "bind", "draw", "forget", "path", "scope"]

ENVIRONMENT_VARIABLE = "LLMCALL_SCOPE"


class Draws:
    """Count the draws of one outermost scope, by scope path and request."""

    __slots__ = ("_free", "_lock", "_next")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: dict[tuple[str, bytes], int] = {}
        self._free: dict[tuple[str, bytes], list[int]] = {}

    def take(self, key: tuple[str, bytes]) -> int:
        """Return the lowest number not taken yet."""
        with self._lock:
            free = self._free.get(key)
            if free:
                return heapq.heappop(free)
            number = self._next.get(key, 0)
            self._next[key] = number + 1
            return number

    def give_back(self, key: tuple[str, bytes], number: int) -> None:
        """Make a number free again: its call failed."""
        with self._lock:
            heapq.heappush(self._free.setdefault(key, []), number)


class Active(NamedTuple):
    """Be what a context stands in: a path and the draws counted for it, and what it stood in before."""

    path: str
    draws: Draws
    outer: Active | None


class Draw(NamedTuple):
    """Be one draw: its sample, and the way to give its number back."""

    sample: str
    draws: Draws
    key: tuple[str, bytes]
    number: int

    def give_back(self) -> None:
        """Make the draw's number free again."""
        self.draws.give_back(self.key, self.number)


_none_meant = Active("", Draws(), None)
_current: ContextVar[Active | None] = ContextVar("llmcall scope", default=None)
_lock = threading.Lock()
_open_in: dict[int, int] = {}  # thread identifier → scopes that it has open
_process: list[Active] = []  # the scope opened with process=True, then the root scope of LLMCALL_SCOPE


class Scope:
    """Be a scope: a context manager that can be entered again and goes on counting."""

    def __init__(self, name: str | None, *, process: bool = False) -> None:
        self.name = name
        self.process = process
        self._draws = Draws()

    def __enter__(self) -> Scope:
        outer = _current.get()
        active = self._inside(outer)
        if self.process:
            _enter_process(active)
        _current.set(active)
        if self.name is not None:
            _count(+1)
        return self

    def _inside(self, outer: Active | None) -> Active:
        if self.name is None:
            return Active("", _none_meant.draws, outer)
        around = outer or _shared()
        if around is None or not around.path:
            return Active(self.name, self._draws, outer)
        return Active(f"{around.path}/{self.name}", around.draws, outer)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        active = _current.get()
        assert active is not None
        _current.set(active.outer)
        if self.process:
            _process.clear()
        if self.name is not None:
            _count(-1)

    def __repr__(self) -> str:
        return f"scope({self.name!r})"


def scope(name: str | None, *, process: bool = False) -> Scope:
    """Open a scope: inside it, a repeated request is a new draw.

    :param name: one level of the path, such as an actor's name; ``None`` says that no scope is meant.
    :param process: make it the scope of every thread that has none of its own; one at a time.
    :raises ValueError: for an empty name, or one with ``/`` or ``#`` in it.
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"a scope's name must be a string, not {type(name).__name__}")
    if name is not None and (not name or "/" in name or "#" in name):
        raise ValueError(f"the scope name {name!r} is empty or holds '/' or '#', which divide a sample's parts")
    if name is None and process:
        raise ValueError("scope(None) has no draws to share; give a scope with process=True a name")
    return Scope(name, process=process)


def _enter_process(active: Active) -> None:
    with _lock:
        if _process:
            raise ScopeError(f"the scope {_process[0].path!r} holds for the whole process already; one at a time can")
        _process.append(active)


def _count(change: int) -> None:
    thread = threading.get_ident()
    with _lock:
        left = _open_in.get(thread, 0) + change
        if left:
            _open_in[thread] = left
        else:
            _open_in.pop(thread, None)


@functools.lru_cache(maxsize=1)
def _root() -> Active | None:
    """Return the root scope that LLMCALL_SCOPE names, the same for the whole process."""
    name = os.environ.get(ENVIRONMENT_VARIABLE)
    return Active(scope(name).name or "", Draws(), None) if name else None


def _shared() -> Active | None:
    return _process[0] if _process else _root()


def forget() -> None:
    """Read LLMCALL_SCOPE again at the next call, and start its draws at 0."""
    _root.cache_clear()


def _standing() -> Active | None:
    """Return where the present context stands, or ``None`` outside any scope."""
    active = _current.get() or _shared()
    if active is None:
        if _open_in and threading.get_ident() not in _open_in:
            raise ScopeError(_remedies())
        return None
    return active if active.path else None


def _remedies() -> str:
    return (
        "a call from a thread that has no scope, while a scope is open in another thread: which draw it is would be "
        "left to chance. Carry the scope into the thread with llmcall.bind(function), open one in it with "
        "llmcall.scope(name), make the other thread's scope that of all threads with scope(name, process=True), "
        "or say with llmcall.scope(None) that none is meant"
    )


def path() -> str | None:
    """Return the scope path of the present context, or ``None`` outside any scope."""
    active = _standing()
    return active.path if active else None


def draw(identified: bytes, sample: str | None = None) -> Draw | str | None:
    """Take the next draw of a request in the present scope.

    :param identified: what :func:`llmcall.keys.identity` returned.
    :param sample: given by the caller: it stands for the number, and no count moves.
    :returns: the draw; or the given sample with its path; or ``None`` outside any scope.
    :raises ScopeError: in a thread without a scope while one is open elsewhere.
    """
    active = _standing()
    if sample is not None:
        return f"{active.path if active else ''}#{sample}"
    if active is None:
        return None
    from hashlib import sha256

    key = (active.path, sha256(identified).digest())
    number = active.draws.take(key)
    return Draw(f"{active.path}#{number}", active.draws, key, number)


class Bound:
    """Be a function that runs in the scope in which it was bound, in any thread or process."""

    def __init__(self, function: Callable[..., Any], active: Active | None) -> None:
        self.function = function
        self._active = active
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._active is None:
            return self.function(*args, **kwargs)
        before = _current.get()
        _current.set(self._active._replace(outer=before))
        _count(+1)
        try:
            return self.function(*args, **kwargs)
        finally:
            _count(-1)
            _current.set(before)

    def __reduce__(self) -> tuple[Any, ...]:
        return _bound_again, (self.function, self._active and self._active.path)


def _bound_again(function: Callable[..., Any], path: str | None) -> Bound:
    return Bound(function, None if path is None else Active(path, Draws(), None))


def bind(function: Callable[..., Any]) -> Bound:
    """Carry the present scope into any thread, executor or process that runs the function.

    :param function: picklable where it goes to another process.
    :returns: a callable with the same arguments. In another process its draws are counted from 0 again.
    """
    active = _current.get() or _shared()
    return Bound(function, active)
