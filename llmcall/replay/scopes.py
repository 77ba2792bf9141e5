"""Scopes: inside one, a repeated request is a new draw, and each draw has a number that replays.

Draws are counted in the outermost scope object, by scope path and request, so that a changed or added call moves no
other draw. A scope belongs to the context (task, thread) that opened it.
"""

from __future__ import annotations

import functools
import os
import threading
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ScopeError
from ..forks import after_fork_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

    Counts = Mapping[bytes, tuple[int, list[int]]]  # by key: the next number, and the free ones below it

__all__ = [
    "Active", "Bound", "Draw", "Draws", "Scope", "bind", "draw", "forget", "here", "inside", "is_outside", "path",
    "path_of", "scope", "standing",
]  # fmt: skip

DIGEST_BYTES = 8  # of a request's SHA-256; among a million requests in one scope, two share them once in 40 million

# One for all that is counted here: it is never held for long. A generator that the garbage collector closes meanwhile
# may give a draw back.
_draws_lock = threading.RLock()


def draw_key(path: str, identified: bytes) -> bytes:
    """Return what a request's draws in a scope are counted by, as small as can be: it stays as long as the scope.

    :param path: the scope's.
    :param identified: what :func:`llmcall.requests.keys.identity` returned.
    """
    from hashlib import sha256

    return path.encode("utf-8", "surrogatepass") + sha256(identified).digest()[:DIGEST_BYTES]


def path_of(key: bytes) -> str:
    """Return the scope path of a key."""
    return key[:-DIGEST_BYTES].decode("utf-8", "surrogatepass")


class Draws:
    """Count the draws of one outermost scope, by scope path and request: see :func:`draw_key`."""

    __slots__ = ("_free", "_next", "_under_way")

    def __init__(self, counts: Counts | None = None) -> None:
        self._next: dict[bytes, int] = {}
        self._free: dict[bytes, list[int]] = {}
        self._under_way: dict[bytes, int] = {}  # the thread that took the last draw, until its call ends
        if counts:
            self.put(counts)

    def take(self, key: bytes) -> int:
        """Return the lowest number not taken yet; warn where another thread's call for the same is under way."""
        thread = threading.get_ident()
        with _draws_lock:
            other = self._under_way.get(key, thread)
            self._under_way[key] = thread
            number = self._take(key)
        if other != thread:
            from ..notices import warn_once

            warn_once(
                f"the same request is under way from two threads in the scope {path_of(key)!r}: "
                "which of them gets which draw is left to chance, and a replay may exchange their answers. "
                "Give each thread a scope of its own"
            )
        return number

    def _take(self, key: bytes) -> int:
        free = self._free.get(key)
        if free:
            from heapq import heappop

            return heappop(free)
        number = self._next.get(key, 0)
        self._next[key] = number + 1
        return number

    def end(self, key: bytes) -> None:
        """Note that the call of the last draw has ended."""
        with _draws_lock:
            self._under_way.pop(key, None)

    def give_back(self, key: bytes, number: int) -> None:
        """Make a number free again: its call failed."""
        from heapq import heappush

        with _draws_lock:
            self._under_way.pop(key, None)
            heappush(self._free.setdefault(key, []), number)

    def counts(self) -> dict[bytes, tuple[int, list[int]]]:
        """Return what is counted, for another process to go on from."""
        with _draws_lock:
            return {key: (number, list(self._free.get(key, ()))) for key, number in self._next.items()}

    def put(self, counts: Counts) -> None:
        """Let counts stand in place of those of the same paths and requests."""
        with _draws_lock:
            for key, (number, free) in counts.items():
                self._next[key] = number
                self._free.pop(key, None)
                if free:
                    self._free[key] = list(free)


class Draw(NamedTuple):
    """Be one draw: its sample, and the way to give its number back."""

    sample: str
    draws: Draws
    key: bytes
    number: int

    def give_back(self) -> None:
        """Make the draw's number free again."""
        self.draws.give_back(self.key, self.number)

    def end(self) -> None:
        """Note that its call has ended."""
        self.draws.end(self.key)


ENVIRONMENT_VARIABLE = "LLMCALL_SCOPE"
REMEDIES = (
    "a call from a thread that has no scope, while a scope is open in another thread: which draw it is would be "
    "left to chance. Carry the scope into the thread with llmcall.bind(function), open one in it with "
    "llmcall.scope(name), make the other thread's scope that of all threads with scope(name, process=True), "
    "or say with llmcall.scope(None) that none is meant"
)
INTERLEAVED = (
    "a generator that opens a scope leaves it open in whoever runs it, between its steps, too, so that samples go "
    "wrong. Open the scope around each step, or run each generator to its end before the next"
)


_lock = threading.Lock()  # of what is counted here: it is never held for long


class Active(NamedTuple):
    """Be what a context stands in: a path and the draws counted for it, and what it stood in before."""

    path: str
    draws: Draws
    outer: Active | None
    scope: Scope | None = None
    thread: int = 0

    def check_is_inmost(self) -> None:
        """Refuse to end before a scope that was opened after this one.

        :raises ScopeError: naming it.
        """
        if _current.get() is not self:
            raise ScopeError(f"the scope {self.path!r} ends before one that was opened after it: {INTERLEAVED}")


_none_meant = Active("", Draws(), None)
_current: ContextVar[Active | None] = ContextVar("llmcall scope", default=None)
_open_in: dict[int, int] = {}  # thread identifier → scopes that it has open
_process: list[Active] = []  # the scope opened with process=True
_roots: list[Active | None] = []  # what LLMCALL_SCOPE names, once it was read


class Scope:
    """Be a scope: a context manager that can be entered again and goes on counting."""

    def __init__(self, name: str | None, *, process: bool = False) -> None:
        self.name = name
        self.process = process
        self._draws = Draws()
        self._entered: list[Active] = []

    def __enter__(self) -> Scope:
        active = self._inside(_current.get())
        if self.process:
            _enter_process(active)
        _current.set(active)
        self._entered.append(active)
        if self.name is not None:
            _count(active.thread, +1)
        return self

    def _inside(self, outer: Active | None) -> Active:
        thread = threading.get_ident()
        if self.name is None:
            return Active("", _none_meant.draws, outer, self, thread)
        around = outer or _shared()
        if around is None or not around.path:
            return Active(self.name, self._draws, outer, self, thread)
        return Active(f"{around.path}/{self.name}", around.draws, outer, self, thread)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        found = next((each for each in _outwards(_current.get()) if each.scope is self), None)
        active = found or self._entered[-1]  # entered by a generator that another context brings to its end
        self._entered.remove(active)
        if self.process:
            _process.clear()
        if self.name is not None:
            _count(active.thread, -1)
        if found is not None:
            try:
                if kind is None:
                    found.check_is_inmost()
            finally:
                _current.set(found.outer)

    def __repr__(self) -> str:
        return f"scope({self.name!r})"


def scope(name: str | None, *, process: bool = False) -> Scope:
    """Open a scope: inside it, a repeated request is a new draw.

    :param name: one level of the path, such as an actor's name; ``None`` says that no scope is meant.
    :param process: make it the scope of every thread that has none of its own; one at a time.
    :raises ValueError: for an empty name, or one with ``/`` or ``#`` in it.
    """
    if name is None and process:
        raise ValueError("scope(None) has no draws to share; give a scope with process=True a name")
    return Scope(None if name is None else _checked(name, "the scope name"), process=process)


def _checked(name: Any, what: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a string, not {type(name).__name__}")
    if not name or "/" in name or "#" in name:
        raise ValueError(f"{what} {name!r} is empty or holds '/' or '#', which divide a sample's parts")
    return str.__str__(name)  # of a string enumeration's member, what it is worth


def _outwards(active: Active | None) -> Iterator[Active]:
    while active is not None:
        yield active
        active = active.outer


def _enter_process(active: Active) -> None:
    with _lock:
        if _process:
            raise ScopeError(f"the scope {_process[0].path!r} holds for the whole process already; one at a time can")
        _process.append(active)


def _count(thread: int, change: int) -> None:
    with _lock:
        left = _open_in.get(thread, 0) + change
        if left:
            _open_in[thread] = left
        else:
            _open_in.pop(thread, None)


def _begin_anew() -> None:
    """Forget, in a forked process, the threads that stayed behind."""
    global _lock, _draws_lock
    _lock, _draws_lock = threading.Lock(), threading.RLock()
    for thread in _open_in.keys() - {threading.get_ident()}:
        del _open_in[thread]


after_fork_in_child(_begin_anew)


def _root() -> Active | None:
    """Return the root scope that LLMCALL_SCOPE names, the same for the whole process."""
    if not _roots:
        name = os.environ.get(ENVIRONMENT_VARIABLE)
        root = Active(_checked(name, ENVIRONMENT_VARIABLE), Draws(), None) if name else None
        with _lock:
            _roots.append(root)
    return _roots[0]


def _shared() -> Active | None:
    return _process[0] if _process else _root()


def forget() -> None:
    """Read LLMCALL_SCOPE again at the next call, and start its draws at 0."""
    _roots.clear()


def here() -> Active | None:
    """Return where the present context stands, or ``None`` outside any scope.

    :raises ScopeError: in a thread without a scope while one is open elsewhere.
    """
    active = _current.get() or _shared()
    if active is None:
        if _open_in and threading.get_ident() not in _open_in:
            raise ScopeError(REMEDIES)
        return None
    return active if active.path else None


def is_outside() -> bool:
    """Return whether the present context is known to stand outside any scope."""
    active = _current.get() or _shared()
    return not active.path if active else not _open_in or threading.get_ident() in _open_in


def path() -> str | None:
    """Return the scope path of the present context, or ``None`` outside any scope."""
    active = here()
    return active.path if active else None


def standing() -> str:
    """Return the scope path of the present context; empty outside any scope, whatever is open elsewhere."""
    active = _current.get() or _shared()
    return active.path if active else ""


def draw(identified: bytes, sample: str | None = None) -> Draw | str | None:
    """Take the next draw of a request in the present scope.

    :param identified: what :func:`llmcall.requests.keys.identity` returned.
    :param sample: given by the caller: it stands for the number, and no count moves.
    :returns: the draw; or the given sample with its path; or ``None`` outside any scope.
    :raises ScopeError: in a thread without a scope while one is open elsewhere.
    """
    active = here()
    if sample is not None:
        return f"{active.path if active else ''}#{sample}"
    if active is None:
        return None
    key = draw_key(active.path, identified)
    number = active.draws.take(key)
    return Draw(f"{active.path}#{number}", active.draws, key, number)


@contextmanager
def inside(path: str, draws: Draws) -> Iterator[Active]:
    """Let a scope hold for a block, whatever holds around it.

    :param path: the scope's; empty says that none is meant.
    :param draws: count what is drawn in it.
    """
    before, thread = _current.get(), threading.get_ident()
    active = Active(path, draws, before)
    _current.set(active)
    if path:
        _count(thread, +1)
    try:
        yield active
    finally:
        if path:
            _count(thread, -1)
        _current.set(before)


class Bound:
    """Be a function (or coroutine function) that runs in the scope in which it was bound, in any thread or process."""

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
        return nullcontext() if self._active is None else inside(self._active.path, self._active.draws)

    def __reduce__(self) -> tuple[Any, ...]:
        return _bound_again, (self.function, self._active and self._active.path)


def _bound_again(function: Callable[..., Any], path: str | None) -> Bound:
    return Bound(function, None if path is None else Active(path, Draws(), None))


def bind(function: Callable[..., Any]) -> Bound:
    """Carry the present scope into any thread, executor or process that runs the function.

    :param function: picklable where it goes to another process.
    :returns: a callable with the same arguments. In another process its draws are counted from 0 again.
    """
    return Bound(function, _current.get() or _shared())
