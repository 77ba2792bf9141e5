"""Callers: names for the tasks and threads of a program, so that identical requests can be distinguished.

A caller's name consists of its maker's name and its number among its maker's children, as in
``"task main 0/task ask 3"``. Children are numbered by their kind and by the function that they run,
so that a helper thread that a library starts at some moment changes no other number. A name thus
depends on the program and not on timing, if each maker makes its children in an order of its own.
A replay finds the same names.

:mod:`llmcall.programs.makers` sets the caller where one is made. Until then no caller has a name.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from hashlib import sha256

from ..support.system import after_fork_in_child, running_loop
from .position import held, held_by_process, hold, hold_in_process, holding

MAIN = "main"
IN_ARM = "arm"  # the same in every arm, so that a caller has one name in two arms
SEPARATOR = "/"  # between the segments of a name: a caller's own follows its maker's
LONGEST_NAME = 120  # characters; in a longer one, a digest replaces the maker's name
CHILD = "child "  # begins the segment of a process that a program in between started
PROCESS = "process "  # begins the segment of any other process
DIGEST = "~"  # before a digest
DIGEST_DIGITS = 12
MOST_MAKERS = 100  # that a caller remembers: a chain of tasks may have no end


class Caller:
    """A task, a thread, a function that an executor runs, or the main program.

    :param name: identifies it in a run.
    :param main: the main program, or ``None`` if this is it.
    :param origin: in a child process: what says in its parent where it, or its work, was started.
    :param is_concurrent: ``True`` if it makes calls at the same time, so that their order means nothing.
    :param is_by_arrival: ``True`` if only the arrival of its process tells it from others that run at the same time.
    :param makers: the names of its maker, of the maker's maker and so on, the last one first, as far as they count.
    """

    __slots__ = ("_counts", "is_by_arrival", "is_concurrent", "main", "makers", "name", "origin")

    def __init__(
        self,
        name: str,
        main: Caller | None = None,
        origin: str = "",
        *,
        is_concurrent: bool = False,
        is_by_arrival: bool = False,
        makers: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.main = main or self
        self.origin = origin
        self.is_concurrent = is_concurrent
        self.is_by_arrival = is_by_arrival
        self.makers = makers
        self._counts: dict[str, Iterator[int]] = {}

    def child(self, kind: str, function: str) -> Caller:
        """Return the next caller that this one makes.

        :param kind: such as ``"task"``.
        :param function: the name of the function that it runs.
        """
        label = f"{kind} {function}"
        # Without llmcall's lock: a pool starts its threads under its own, and a fork takes both.
        number = next(self._counts.setdefault(label, itertools.count()))
        return self.named(f"{label} {number}")

    def named(self, segment: str) -> Caller:
        """Return a caller that this one makes.

        :param segment: its own part of its name.
        """
        name = segment if self.name == MAIN else f"{self.name}{SEPARATOR}{segment}"
        if len(name) > LONGEST_NAME:
            digest = sha256(self.name.encode()).hexdigest()[:DIGEST_DIGITS]
            name = f"{DIGEST}{digest}{SEPARATOR}{segment}"
        makers = (self.name, *self.makers[: MOST_MAKERS - 1])
        return Caller(name, self.main, self.origin, makers=makers)

    def copy(self, *, is_concurrent: bool = False) -> Caller:
        """Return the same caller, which numbers its children from 0."""
        return Caller(
            self.name, self.main, self.origin, is_concurrent=is_concurrent, makers=self.makers
        )

    def made(self, other: Caller) -> bool:
        """Return whether this caller made another one, or its maker, and so on, judging by names."""
        return self.name in (MAIN, *other.makers) or other.name.startswith(self.name + SEPARATOR)

    @property
    def is_thread(self) -> bool:
        """Return whether it is a thread or a process (or the main program), not a task or a pool's work."""
        name = self.name
        return name == MAIN or name.rpartition(SEPARATOR)[2].startswith((MAIN, "thread ", PROCESS))

    def __repr__(self) -> str:
        return f"Caller({self.name!r})"


class _Thread(threading.local):
    work: Caller | None = None  # of the function that a pool runs in this thread


_thread = _Thread()
_own_calls = 0  # the blocks in which the callers of llmcall's own calls count


def begin_naming(name: str = MAIN, origin: str = "") -> None:
    """Name every caller that is made from now on, until :func:`end_naming`.

    :param name: the main program's.
    :param origin: as of a :class:`Caller`.
    """
    hold_in_process(caller=Caller(name, origin=origin))


def end_naming() -> None:
    """Stop giving callers names."""
    hold_in_process(caller=None)


@contextlib.contextmanager
def numbered_anew() -> Iterator[None]:
    """Number the callers that the main program makes in a block from 0, if callers have names."""
    previous = held_by_process().caller
    if previous is not None:
        begin_naming()
    try:
        yield
    finally:
        if previous is not None and held_by_process().caller is not None:
            hold_in_process(caller=previous)


def current_caller() -> Caller | None:
    """Return the caller that runs here, or ``None`` if callers have no names now.

    A task or thread that was made before callers had names counts as the main program.

    A pool's work may enter a context that was copied before it was made, as LangChain's ``batch``
    does: ``pool.map(lambda item: contexts.pop().run(ask, item), items)``. The caller in there is one
    that made the work, and must not hide it: its twins have copies of the same context. So where the
    context names a maker, the thread decides. It does not decide always: a context may also come from
    the side, with the caller of a task that sends a function to a thread of its own (anyio), and in a
    running event loop each callback has the context of the code that scheduled it. Setting the caller in the
    contexts that a function is called with was rejected: a closure hides them.
    """
    main, caller = held_by_process().caller, held().caller
    if caller is None or caller.main is not main:
        caller = main
    work = _thread.work
    if work is None or caller is None or work.main is not main or running_loop() is not None:
        return caller
    return work if caller.made(work) else caller


@contextlib.contextmanager
def naming_own_calls() -> Iterator[None]:
    """Let callers count in draws of llmcall's own calls for a block, and not only of a program's."""
    global _own_calls
    _own_calls += 1
    try:
        yield
    finally:
        _own_calls -= 1


def current_for_draw() -> Caller | None:
    """Return the caller of a draw that is taken here, or ``None`` if it does not count."""
    return current_caller() if _own_calls or held().is_programs else None


def known_caller(name: str, origin: str = "", *, is_by_arrival: bool = False) -> Caller | None:
    """Return the caller with a name, or ``None`` if callers have no names now."""
    main = held_by_process().caller
    return None if main is None else Caller(name, main, origin, is_by_arrival=is_by_arrival)


def hold_concurrent() -> None:
    """Mark the current caller as concurrent, for the rest of the context."""
    caller = current_caller()
    if caller is not None:
        hold(caller=caller.copy(is_concurrent=True))


def is_recorded() -> bool:
    """Return whether another process records this one."""
    main = held_by_process().caller
    return bool(held().ticket) or (main is not None and bool(main.origin))


@contextlib.contextmanager
def running_work(caller: Caller) -> Iterator[None]:
    """Set the caller for a function that a pool runs, whatever context it enters."""
    previous = _thread.work  # a pool may run work in the thread that submits it
    _thread.work = caller
    try:
        with holding(caller=caller):
            yield
    finally:
        _thread.work = previous


def child_segment(command: str, number: int) -> str:
    """Return what ends the names of the callers in a process that another program started, such as a shell.

    :param command: identifies its command line.
    :param number: counts such processes in the order of their starts.
    """
    return f"{SEPARATOR}{CHILD}{command} {number}"


def process_in(caller: str) -> str:
    """Return the process part of a caller's name: its name without what made the process, and without the
    process's number. Empty in the recorded program's own.
    """
    segments = caller.split(SEPARATOR)
    processes = [
        index for index, segment in enumerate(segments) if segment.startswith((CHILD, PROCESS))
    ]
    if not processes:
        return ""
    kept = [segments[index].rpartition(" ")[0] for index in processes]
    return SEPARATOR.join([*kept, *segments[processes[-1] + 1 :]])


def enter_arm() -> None:
    """Set the caller for an arm, whose children are numbered from 0."""
    main = held_by_process().caller
    if main is not None:
        hold(caller=Caller(IN_ARM, main))


def enter_item(name: str, repeat: int, maker: str | None) -> None:
    """Set the caller to an item of a ``map``, whichever thread or process runs it, for the rest of the context.

    :param name: the name of the item's scope.
    :param repeat: the number of its repeat.
    :param maker: the name of the map's caller, or ``None`` if callers had no names there.
    """
    current = current_caller()
    if current is not None:
        caller = Caller(maker or current.name, current.main, current.origin)
        hold(caller=caller.named(f"item {name} {repeat}"))


def counted_apart() -> AbstractContextManager[None]:
    """Number the children that are made in a call of a program apart from the caller's others; draws in it count
    callers.

    A request that is sent resolves addresses in threads and connects in tasks. One that is replayed
    does not, and must leave the same numbers.
    """
    caller = current_caller()
    if caller is not None:
        caller = caller.copy()
    # The tasks that the transport of such a call makes have callers of their own.
    return holding(caller=caller, is_programs=True)


# The calls of a forked process are not recorded.
after_fork_in_child(end_naming)
