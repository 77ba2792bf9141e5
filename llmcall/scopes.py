"""Scopes: inside one, a repeated request is a new draw, and each draw has a number that replays.

Draws are counted in the outermost scope object, by scope path and request, so that a changed or
added call moves no other draw. A scope belongs to the context (task, thread) that opened it. What a
garbage collector may run here (the end of a scope in a dropped generator, a draw that is given
back) takes no lock.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import threading
import time
from array import array
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import ContextVar
from hashlib import sha256
from heapq import heapify, heappop, heappush
from itertools import chain
from types import CoroutineType, FrameType
from typing import Any, NamedTuple
from zlib import crc32

from .errors import ScopeError
from .notices import warn_once
from .system import after_fork_in_child, at_exit
from .types import Record, Request

ENVIRONMENT_VARIABLE = "LLMCALL_SCOPE"
IN_A_THREAD = (
    "a call from a thread that has no scope, while a scope is open in another thread: its draw would depend on "
    "the timing of the threads. Carry the scope into the thread with llmcall.bind(function), open one in it with "
    "llmcall.scope(name), make the other thread's scope that of all threads with scope(name, process=True), "
    "or say with llmcall.scope(None) that none is meant"
)
IN_A_PROCESS = (
    "a call from a process that has no scope, while a scope is open in the process that started it: its draws would "
    "be counted twice. Carry the scope into it with llmcall.bind(function), run the function with llmcall.map(…, "
    "executor=…), open a scope in it with llmcall.scope(name), or say with llmcall.scope(None) that none is meant"
)
IN_A_GENERATOR = (
    "a generator that opens a scope leaves it open in whoever runs it, between its steps, too, so that samples go "
    "wrong. Open the scope around each step, or run each generator to its end before the next"
)

# Draws

DIGITS = 13  # hexadecimal ones of a digest, that are in a key
GROUP_BITS = 4 * DIGITS  # of a key, below those of its group
LEVELS = 64  # parts of a group, for each of two levels

# of what is counted here; held for microseconds, and never while code of others runs
_lock = threading.RLock()

_MADE_NAME = re.compile(r"(?:^|/)~[0-9a-f]+(?:~\d+)?(?=/|\Z)")  # a part of a path: see made_name()

Counts = Mapping[int, tuple[int, list[int]]]  # by key: the next number, and the free ones below it


def group_of(path: str) -> int:
    """Return in which of 4,096 groups the keys of a scope's draws are: by the second and the third
    level of its path.

    Those of all scopes below one of two levels have the bits of the second level in common, else
    all bits.
    """
    _, second, third = f"{path}//".encode("utf-8", "surrogatepass").split(b"/", 3)[:3]
    return (crc32(second) % LEVELS) * LEVELS + crc32(third) % LEVELS


# of the scopes that are opened again and again, as those of actors are
@functools.lru_cache(maxsize=4_000)
def path_key(path: str) -> int:
    """Return a number of 64 bits for a scope's path, of which the first are its group.

    With 52 bits of a request's digest it makes the key that the request's draws in the scope are
    counted by. Among a million draws of an outermost scope, two share a key with a chance of 1 in
    9,000 at most.
    """
    return group_of(path) << GROUP_BITS | int(
        sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS], 16
    )


class Counter64:
    """Count numbers of 64 random bits, most of which come once: some 15 bytes for each, where a
    dict takes 84.

    A look at a million of them takes some microseconds.
    """

    __slots__ = ("_more", "_once")

    def __init__(self) -> None:
        # all, by their last bits
        self._once: dict[int, array[int]] = defaultdict(functools.partial(array, "Q"))
        self._more: dict[int, int] = {}  # how often a number came, if more than once

    def add(self, number: int) -> int:
        """Count a number once more; return how often it came before."""
        numbers = self._once[number & 0xFFF]
        if number not in numbers:
            numbers.append(number)
            return 0
        count = self._more.get(number, 1)
        self._more[number] = count + 1
        return count

    def __getitem__(self, number: int) -> int:
        return self._more.get(number) or int(number in self._once.get(number & 0xFFF, ()))

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self._once.values())


class Draws:
    """Count the draws of one outermost scope, by scope path and request: see :func:`path_key`.

    :param counts: what was drawn before.
    :param since: when the scope of another process was made, of which these count from 0 again;
        ``None`` means now.
    """

    __slots__ = ("_free", "_next", "_process", "_returned", "_under_way", "since")

    def __init__(self, counts: Counts | None = None, since: float | None = None) -> None:
        self._process = _this_process if since is None else None
        self.since = time.time() if since is None else since
        self._next = Counter64()
        self._free: dict[int, list[int]] = {}
        for key, (number, free) in (counts or {}).items():
            for _ in range(number):
                self._next.add(key)
            self._free[key] = list(free)
        # given back, and not yet among the free ones
        self._returned: deque[tuple[int, int]] = deque()
        self._under_way: dict[
            int, tuple[int, int]
        ] = {}  # the thread and task of the last draw, until its call ends

    def take(self, key: int, path: str) -> int:
        """Return the lowest free number; warn where a call for the same is under way in another
        thread or task.

        :param path: the scope's, for the warning.
        """
        caller = threading.get_ident(), id(_task())
        with _lock:
            other = self._under_way.get(key, caller)
            self._under_way[key] = caller
            if self._returned:
                self._accept_returned()
            free = self._free.get(key)
            number = heappop(free) if free else self._next.add(key)
        if other != caller:
            who = "threads" if other[0] != caller[0] else "tasks"
            warn_once(
                f"the same request is under way from two {who} in the scope {path!r}: "
                "which of them gets which draw is left to chance, and a replay may exchange their answers. "
                f"Give each {who[:-1]} a scope of its own"
            )
        return number

    def _accept_returned(self) -> None:
        while self._returned:
            key, number = self._returned.popleft()
            heappush(self._free.setdefault(key, []), number)

    def claim(self, key: int, number: int) -> None:
        """Count a number that was taken elsewhere, as in a worker process."""
        with _lock:
            self._accept_returned()
            if number >= self._next[key]:
                while (skipped := self._next.add(key)) < number:
                    self._returned.append((key, skipped))
            elif number in (free := self._free.get(key, [])):
                free.remove(number)
                heapify(free)

    def end(self, key: int, path: str, stored_at: float | None) -> None:
        """Note that the call of the last draw has ended.

        Warn where, of a scope of another process, it has an answer that was recorded since the
        scope began.

        :param stored_at: when its answer was recorded, if not by this very call.
        """
        self._under_way.pop(key, None)
        if stored_at is not None and self._process is not _this_process and stored_at >= self.since:
            warn_once(
                f"two processes made the same draw in the scope {path!r}, and share its answer: each counts the "
                "draws from 0 again, or from where it was forked. Run the function with llmcall.map(…, executor=…), "
                "which counts them together, or give each task a scope of its own"
            )

    def give_back(self, key: int, number: int) -> None:
        """Make a number free again, once for each time that it was taken."""
        self._under_way.pop(key, None)
        self._returned.append((key, number))

    def counts(self) -> dict[int, tuple[int, list[int]]]:
        """Return what is counted, for another process to go on from."""
        with _lock:
            self._accept_returned()
            return {key: (self._next[key], list(self._free.get(key, ()))) for key in self._next}


class Draw:
    """One draw: its sample, and the way to give its number back.

    Its methods may be called from any thread and as often as one likes: what came first holds.

    :ivar sample: scope path and number, ``"trial/lisa#0"``.
    """

    __slots__ = ("_draws", "_key", "_number", "_pending", "sample")

    def __init__(self, path: str, draws: Draws, key: int, number: int) -> None:
        self.sample = f"{path}#{number}"
        self._draws, self._key, self._number = draws, key, number
        self._pending = [True]  # emptied by whoever settles it, which is atomic

    def end(self, answer: Record | None = None) -> None:
        """Note that its call has its answer: the number stays taken.

        :param answer: what was recorded.
        """
        if self._settle():
            stored_at = None if answer is None else answer.stored_at
            self._draws.end(self._key, self.sample.partition("#")[0], stored_at)

    def give_back(self) -> None:
        """Make its number free again, unless its call has its answer."""
        if self._settle():
            self._draws.give_back(self._key, self._number)

    def _settle(self) -> bool:
        """Return whether this is the first to settle it."""
        try:
            return self._pending.pop()
        except IndexError:
            return False


# Scopes


class Active:
    """Where a context stands: a path, the draws counted for it, and what it stood in before.

    As a context manager it holds for a block, whatever holds around it.

    :param path: the scope path; empty says that none is meant.
    :param draws: count what is drawn in it.
    :ivar generators: the generators, each with its task, that opened it or a scope around it.
    """

    __slots__ = ("draws", "generators", "outer", "path", "process", "scope")

    def __init__(
        self,
        path: str,
        draws: Draws,
        scope: Scope | None = None,
        generators: tuple[_Generator, ...] = (),
    ) -> None:
        self.path, self.draws, self.scope, self.generators = path, draws, scope, generators
        self.outer: Active | None = None
        self.process = _this_process

    def __enter__(self) -> Active:
        self.outer = _current.get()
        _current.set(self)
        if self.path:
            _opened(self)
        return self

    def __exit__(self, *_: object) -> None:
        _closed(self)
        _current.set(self.outer)

    def draw(self, digest: str) -> Draw:
        """Take the next draw of a request.

        :param digest: hexadecimal digits of a SHA-256 that tell it from others.
        """
        key = path_key(self.path) ^ int(digest[:DIGITS], 16)
        return Draw(self.path, self.draws, key, self.draws.take(key, self.path))

    def check_is_inmost(self) -> None:
        """Refuse to end before a scope that was opened after this one.

        :raises ScopeError: naming it.
        """
        if _current.get() is not self:
            raise ScopeError(
                f"the scope {self.path!r} ends before one that was opened after it: {IN_A_GENERATOR}"
            )

    def check_generators(self) -> None:
        """Refuse what would be drawn between two steps of a generator that opened the scope or one
        around it.

        :raises ScopeError: naming the generator.
        """
        for frame, task in self.generators:
            if frame.f_back is None and task is _task():  # nobody runs it: it stands at a yield
                raise ScopeError(
                    f"the scope {self.path!r} was left open by the generator {frame.f_code.co_name} at its yield "
                    f"(line {frame.f_lineno}): {IN_A_GENERATOR}"
                )


class _Generator(NamedTuple):
    frame: FrameType
    task: object


# a forked process has another: what stood in its parent does not stand in it
_this_process = object()
_none_meant = Draws()
_current: ContextVar[Active | None] = ContextVar("llmcall scope", default=None)
_open: dict[Active, int] = {}  # the scopes that are open, each with the thread that opened it
_process: list[Active] = []  # the scope opened with process=True
_roots: list[Active | None] = []  # what LLMCALL_SCOPE names, once it was read
# hashes of the keys whose answers were given outside any scope, until one was twice
_served: set[int] | None = set()


class Scope:
    """A scope, made by :func:`llmcall.scope`: a context manager that can be entered again and goes
    on counting.

    :ivar name: its level of the path; ``None`` says that no scope is meant.
    :ivar process: whether it is the scope of every thread that has none of its own.
    """

    def __init__(self, name: str | None, *, process: bool = False) -> None:
        self.name = name
        self.process = process
        self._draws: Draws | None = None  # made where it is the outermost one
        self._entered: list[Active] = []

    def __enter__(self) -> Scope:
        generator, around = _generator_above(sys._getframe(1)), current()
        generators = () if around is None or not around.path else around.generators
        if generator is not None and generator not in generators:
            generators = (*generators, generator)
        if self.name is None:
            active = Active("", _none_meant, self)
        elif around is None or not around.path:
            with _lock:  # several threads may enter it at once
                self._draws = self._draws or Draws()
            active = Active(self.name, self._draws, self, generators)
        else:
            active = Active(f"{around.path}/{self.name}", around.draws, self, generators)
        if self.process:
            _enter_process(active)
        self._entered.append(active)
        active.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        found = _current.get()
        while found is not None and found.scope is not self:
            found = found.outer
        # entered by a generator that another context brings to its end
        active = found or self._entered[-1]
        self._entered.remove(active)
        if active in _process:
            _process.remove(active)
        _closed(active)
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
    return Scope(None if name is None else _checked(name, "the scope name"), process=process)


def _checked(name: Any, what: str) -> str:
    if not isinstance(name, str):
        from numbers import Real

        if isinstance(name, bool) or not isinstance(name, Real):
            raise TypeError(f"{what} must be a string or a number, not {type(name).__name__}")
        name = str(name)
    if not name or "/" in name or "#" in name:
        raise ValueError(
            f"{what} {name!r} is empty or holds '/' or '#', which divide a sample's parts"
        )
    if is_made_name(name):
        raise ValueError(
            f"{what} {name!r} is one that llmcall.map gives to items and repeats; leave the '~' out"
        )
    return str.__str__(name)  # of a string enumeration's member, what it is worth


def made_name(name: str | int) -> str:
    """Return a name of a scope that a ``map`` makes, which no user's scope can have.

    :param name: an item's digest, or the number of a repeat.
    """
    return f"~{name}"


def is_made_name(name: str) -> bool:
    """Return whether a name is one that a ``map`` makes: ``~``, hexadecimal digits, and which of
    equal items it is.
    """
    return _MADE_NAME.fullmatch(name) is not None


def given_path(path: str) -> str:
    """Return a scope path as far as a user gave it its names: to the first item or repeat that a
    map named.
    """
    return _MADE_NAME.split(path, 1)[0]


def _enter_process(active: Active) -> None:
    with _lock:
        if _process:
            raise ScopeError(
                f"the scope {_process[0].path!r} holds for the whole process already; one at a time can. Leave it "
                f"first, or open {active.path!r} without process=True and carry it into threads with llmcall.bind"
            )
        _process.append(active)


def _root() -> Active | None:
    """Return the root scope that LLMCALL_SCOPE names, the same for the whole process."""
    if not _roots:
        name = os.environ.get(ENVIRONMENT_VARIABLE)
        is_worker = _parent_flag is not None or _parent_number() is not None
        root = (
            Active(_checked(name, ENVIRONMENT_VARIABLE), Draws())
            if name and not is_worker
            else None
        )
        with _lock:
            _roots.append(root)
    return _roots[0]


def forget() -> None:
    """Read LLMCALL_SCOPE again at the next call, and start its draws at 0; forget what was served
    outside scopes.
    """
    global _served
    _roots.clear()
    _served = set()


def current() -> Active | None:
    """Return what the present context stands in, without a check; ``None`` outside any scope."""
    active = _current.get()
    if active is None or active.process is not _this_process:
        return _process[0] if _process else _roots[0] if _roots else _root()
    return active


def here() -> Active | None:
    """Return where the present context stands, or ``None`` outside any scope.

    :raises ScopeError: in a thread or worker process without a scope while one is open elsewhere,
        and where a generator left it open.
    """
    active = _current.get()
    if active is None or active.process is not _this_process:
        active = _process[0] if _process else _roots[0] if _roots else _root()
    if active is None:
        if _open and threading.get_ident() not in list(
            _open.values()
        ):  # a list is made at once, by any thread
            raise ScopeError(IN_A_THREAD)
        if (
            _parent_flag is not None or "multiprocessing.process" in sys.modules
        ) and _is_open_in_parent():
            raise ScopeError(IN_A_PROCESS)
        return None
    if active.generators:
        active.check_generators()
    return active if active.path else None


def within(around: Active | None) -> AbstractContextManager[Any]:
    """Let a scope hold for a block of a context that has none of its own.

    :param around: what another context stood in: see :func:`current`.
    """
    if around is None or not around.path or current() is not None:
        return nullcontext()
    return Active(around.path, around.draws)


def standing() -> str:
    """Return the scope path of the present context; empty outside any scope, whatever is open
    elsewhere.
    """
    active = current()
    return active.path if active else ""


def note_served(request: Request) -> None:
    """Warn, once in a process, where one answer serves the same request twice outside any scope.

    :param request: of a chat that was answered from a record.
    """
    global _served
    served = _served  # another thread may be the one that warns
    if served is None or request.sample is not None or request.asked.get("temperature") == 0:
        return
    known = hash(request.cache_key)
    if known not in served:
        if len(served) < 100_000:
            served.add(known)
        return
    _served = None
    warn_once(
        "outside any scope, one recorded answer serves every identical request, whoever asks: give each actor a "
        "scope (with llmcall.scope(name): …) or each draw a number (sample=1) where each is to have its own answer",
        about=note_served,
    )


# Threads and processes


class Bound:
    """A function made by :func:`llmcall.bind`: it runs in the scope in which it was bound, in any
    thread or process.

    :ivar function: the one that was bound, or a coroutine function.
    """

    def __init__(self, function: Callable[..., Any], path: str | None, draws: Draws) -> None:
        self.function = function
        self._path = path
        self._draws = draws
        self._process = _this_process
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._standing():
            result = self.function(*args, **kwargs)
        return self._awaited(result) if isinstance(result, CoroutineType) else result

    async def _awaited(self, result: Any) -> Any:
        with self._standing():
            return await result

    def _standing(self) -> AbstractContextManager[Active | None]:
        if self._path is None:
            return nullcontext()
        if self._process is not _this_process:  # forked: it counts as one that was pickled
            self._process, self._draws = _this_process, Draws(since=self._draws.since)
        return Active(self._path, self._draws)

    def __reduce__(self) -> tuple[Any, ...]:
        return _bound_elsewhere, (self.function, self._path, self._draws.since)


def _bound_elsewhere(function: Callable[..., Any], path: str | None, since: float) -> Bound:
    return Bound(function, path, Draws(since=since))


def bind(function: Callable[..., Any]) -> Bound:
    """Carry the present scope into any thread, executor or process that runs the function.

    :param function: picklable where it goes to another process.
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
    if active is None:
        return Bound(function, None, _none_meant)
    active.check_generators()
    return Bound(function, active.path, active.draws)


def _task() -> object:
    """Return the task of asyncio that runs, or ``None``."""
    # A thread that imports asyncio for the first time has made only a part of it yet, and runs no
    # task.
    running_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    loop = None if running_loop is None else running_loop()
    return None if loop is None else sys.modules["asyncio"].current_task(loop)


# of a code's flags: inspect.CO_GENERATOR and CO_ASYNC_GENERATOR, whose import takes long
GENERATORS = 0x20 | 0x200
ENTERING = ("__enter__", "__aenter__", "enter_context", "enter_async_context")
FIXTURES = ("_pytest.", "pytest_", "anyio.")  # modules that run fixtures


def _generator_above(frame: FrameType | None) -> _Generator | None:
    """Return the generator whose ``yield`` leaves a scope open that is entered here, or in what it
    calls, or ``None``.

    One that a context manager runs is not: its scope is open for the block of the context manager,
    so it is asked of the function in which that block stands. Nor is a fixture, whose scope is open
    for a test, nor a generator expression, which nobody steps by hand.
    """
    while frame is not None:
        if frame.f_code.co_flags & GENERATORS and frame.f_code.co_name != "<genexpr>":
            runner = frame.f_back
            while runner is not None and runner.f_code.co_flags & GENERATORS:  # yield from
                runner = runner.f_back
            if runner is None or runner.f_globals.get("__name__", "").startswith(FIXTURES):
                return None
            if runner.f_code.co_name not in ENTERING:
                return _Generator(frame, _task())
            frame = runner
        frame = frame.f_back
    return None


# A worker process sees by a byte in a file of its parent's whether a scope is open there, however
# it was started.

# the file of this process, mapped into memory, once a scope was open while multiprocessing was used
_flag: Any = None
_parent_flag: Any = None  # that of the process that started this one, once it is known


def _opened(active: Active) -> None:
    global _flag
    _open[active] = threading.get_ident()
    if _flag is None and "multiprocessing" in sys.modules:
        _flag = _made_flag()
    if _flag:
        _flag[0] = 1


def _closed(active: Active) -> None:
    if _open.pop(active, None) is not None and _flag and not _open:
        _flag[0] = 0


def _flag_path(process: int) -> str:
    from tempfile import gettempdir

    user = os.getuid() if hasattr(os, "getuid") else 0
    return os.path.join(gettempdir(), f"llmcall-{user}-{process}.scopes")


def _made_flag() -> Any:
    from mmap import mmap

    file, process = _flag_path(os.getpid()), os.getpid()
    try:
        with suppress(FileNotFoundError):
            os.unlink(file)  # left by a process of this number that was killed
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return b""
    os.write(handle, b"\0")
    made = mmap(handle, 1)
    os.close(handle)
    at_exit(functools.partial(_remove_flag, file, process))
    return made


def _remove_flag(file: str, process: int) -> None:
    if os.getpid() == process:
        with suppress(OSError):
            os.unlink(file)


def _parent_number() -> int | None:
    """Return the number of the process that started this one by multiprocessing, or ``None``."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    parent = multiprocessing.parent_process() if multiprocessing is not None else None
    return None if parent is None else int(parent.pid)


def _is_open_in_parent() -> bool:
    """Return whether a scope is open in the process that started this one, or LLMCALL_SCOPE gives
    it one.
    """
    global _parent_flag
    if _parent_flag is None:
        parent = _parent_number()
        if parent is None:
            return False
        _parent_flag = _found_flag(parent)
    return bool(os.environ.get(ENVIRONMENT_VARIABLE) or (_parent_flag and _parent_flag[0]))


def _found_flag(process: int) -> Any:
    from mmap import ACCESS_READ, mmap

    try:
        with open(_flag_path(process), "rb") as file:
            return mmap(file.fileno(), 1, access=ACCESS_READ)
    except (OSError, ValueError):
        return None


def _begin_anew() -> None:
    """Stand outside any scope in a forked process, as a spawned one does."""
    global _lock, _this_process, _flag, _parent_flag
    _lock, _this_process = threading.RLock(), object()
    is_open = _open or _process or os.environ.get(ENVIRONMENT_VARIABLE)
    _flag, _parent_flag = None, _flag or (b"\1" if is_open else None)
    _open.clear()
    _process.clear()
    _roots.clear()


after_fork_in_child(_begin_anew)
