"""Askers: names for the tasks and threads of a program, so that equal requests can be told apart.

An asker's name says who made it and its number among its maker's children, as in
``"task main 0/task ask 3"``. Children are numbered by their kind and by the function that they run,
so that a helper thread that a library starts at some moment changes no other number. A name thus
depends on the program and not on timing, if each maker makes its children in an order of its own.
A replay finds the same names.

:mod:`llmcall.programs.makers` tells this module who makes what. Until then nobody has a name.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from hashlib import sha256
from typing import NamedTuple
from weakref import WeakKeyDictionary

from .system import after_fork_in_child, process_lock, running_loop

MAIN = "main"
IN_ARM = "arm"  # the same in every arm, so that equal askers of two arms have one name
SEPARATOR = "/"  # between the segments of a name: an asker's own follows those of its maker
LONGEST_NAME = 120  # characters; in a longer one, a digest stands for the maker's name
DIGEST = "~"  # before a digest
DIGEST_DIGITS = 12

_lock = process_lock(__name__)


class Asker:
    """A task, a thread, a function that an executor runs, or the main program.

    :param name: identifies it in a run.
    :param main: the main program, or ``None`` if this is it.
    """

    __slots__ = ("_counts", "main", "name")

    def __init__(self, name: str, main: Asker | None = None) -> None:
        self.name = name
        self.main = main or self
        self._counts: dict[str, int] = {}

    def child(self, kind: str, function: str) -> Asker:
        """Return the next asker that this one makes.

        :param kind: such as ``"task"``.
        :param function: the name of the function that it runs.
        """
        label = f"{kind} {function}"
        with _lock:
            number = self._counts.get(label, 0)
            self._counts[label] = number + 1
        name = f"{label} {number}"
        if self.name != MAIN:
            name = f"{self.name}{SEPARATOR}{name}"
        if len(name) > LONGEST_NAME:
            digest = sha256(self.name.encode()).hexdigest()[:DIGEST_DIGITS]
            name = f"{DIGEST}{digest}{SEPARATOR}{label} {number}"
        return Asker(name, self.main)

    def with_new_counts(self) -> Asker:
        """Return an asker of the same name whose children are numbered from 0."""
        return Asker(self.name, self.main)

    def __repr__(self) -> str:
        return f"Asker({self.name!r})"


def unnumbered(segment: str) -> str:
    """Return a segment of an asker's name without its number; of a digest, only its mark."""
    return DIGEST if segment.startswith(DIGEST) else segment.rpartition(" ")[0]


class Worker(NamedTuple):
    """A thread, or a function that a thread runs, as an asker.

    :param maker: the asker that started it.
    :param asker: the asker that it is.
    """

    maker: Asker
    asker: Asker


# Threads get their asker before they run, so that no frame of ours is in them.
_started: WeakKeyDictionary[threading.Thread, Worker] = WeakKeyDictionary()


class _Thread(threading.local):
    worker: Worker | None

    def __init__(self) -> None:
        self.worker = _started.get(threading.current_thread())


_thread = _Thread()
_current: ContextVar[Asker | None] = ContextVar("llmcall asker", default=None)
_main: Asker | None = None
_own_calls = 0  # the blocks in which the askers of llmcall's own calls count
_is_programs: ContextVar[bool] = ContextVar("llmcall call of a program", default=False)


def begin_naming() -> None:
    """Name every asker that is made from now on, until :func:`end_naming`."""
    global _main
    _main = Asker(MAIN)


@contextlib.contextmanager
def numbered_anew() -> Iterator[None]:
    """Number the askers that the main program makes in a block from 0, if askers have names."""
    global _main
    previous = _main
    if previous is not None:
        _main = Asker(MAIN)
    try:
        yield
    finally:
        if previous is not None and _main is not None:
            _main = previous


def end_naming() -> None:
    """Stop giving askers names."""
    global _main
    _main = None


def current() -> Asker | None:
    """Return the asker that runs here, or ``None`` if askers have no names now.

    A task or thread that was made before askers had names counts as the main program.
    """
    main = _main
    if main is None:
        return None
    asker = _current.get()
    if asker is not None and asker.main is not main:
        asker = None
    worker = _thread.worker
    if worker is None or worker.asker.main is not main or running_loop() is not None:
        return asker or main
    # A function that runs in a copy of its maker's context finds its maker there. Two such
    # functions would have one name.
    if asker is None or asker is worker.maker:
        return worker.asker
    return asker


@contextlib.contextmanager
def naming_own_calls() -> Iterator[None]:
    """Let askers count in draws of llmcall's own calls for a block, and not only of a program's."""
    global _own_calls
    _own_calls += 1
    try:
        yield
    finally:
        _own_calls -= 1


def of_draw() -> Asker | None:
    """Return the asker of a draw that is taken here, or ``None`` if it does not count."""
    return current() if _own_calls or _is_programs.get() else None


def set_current(asker: Asker | None) -> None:
    """Set the asker for the rest of the current context."""
    _current.set(asker)


def note_started(thread: threading.Thread, asker: Asker, maker: Asker) -> None:
    """Note the asker of a thread that is about to start.

    :param maker: the asker that starts it.
    """
    with _lock:
        _started[thread] = Worker(maker, asker)


@contextlib.contextmanager
def running_as(asker: Asker, maker: Asker | None = None) -> Iterator[None]:
    """Set the asker for a block.

    :param maker: the asker that started this thread, or the block in it; ``None`` if nobody did.
    """
    worker = _thread.worker if maker is None else Worker(maker, asker)
    with _replaced(asker, worker):
        yield


def enter_arm() -> Asker | None:
    """Set the asker for an arm, whose children are numbered from 0, and return the previous one."""
    previous = _current.get()
    asker = current()
    if asker is not None:
        _current.set(Asker(IN_ARM, asker.main))
    return previous


@contextlib.contextmanager
def counted_apart() -> Iterator[None]:
    """Number the children that are made in a call of a program apart from the asker's others.

    A request that is sent resolves addresses in threads and connects in tasks. One that is replayed
    does not, and must leave the same numbers.
    """
    asker = current()
    token = _is_programs.set(True)
    try:
        if asker is None:
            yield
        else:
            with _replaced(asker.with_new_counts(), None):
                yield
    finally:
        _is_programs.reset(token)


@contextlib.contextmanager
def running_item(name: str, repeat: int) -> Iterator[None]:
    """Set the asker for a block to an item of a ``map``, whichever thread runs it.

    :param name: the name of the item's scope.
    :param repeat: the number of its repeat.
    """
    if _main is None:
        yield
        return
    with _replaced(Asker(f"item {name} {repeat}", _main), None):
        yield


@contextlib.contextmanager
def _replaced(asker: Asker, worker: Worker | None) -> Iterator[None]:
    """Replace the asker of the context for a block, and that of the thread too, except in an event
    loop: there the context alone counts, and the blocks of two tasks end in any order.
    """
    is_in_loop = running_loop() is not None
    previous = _thread.worker
    token = _current.set(asker)
    if not is_in_loop:
        _thread.worker = worker
    try:
        yield
    finally:
        if not is_in_loop:
            _thread.worker = previous
        _current.reset(token)


# The calls of a forked process are not recorded.
after_fork_in_child(end_naming)
