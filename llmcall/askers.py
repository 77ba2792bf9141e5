"""Askers: names for the tasks and threads of a program, so that equal requests can be told apart.

The name of an asker says who made it and its number among its maker's children, as in
``"task main 0/task ask 3"``. Makers count each kind of child, and each function that children run,
apart: a helper thread that a library starts at some moment moves no other number. So a name comes
from the program alone, as long as each maker makes its children in an order of its own, and a
replay finds the same names again, whatever the timing.

Somebody has to say who makes what: see :mod:`llmcall.programs.makers`. Until then nobody has a name.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from hashlib import sha256
from typing import NamedTuple
from weakref import WeakKeyDictionary

from .system import after_fork_in_child, process_lock

MAIN = "main"
LONGEST_NAME = 120  # characters, above which the maker's name becomes a digest
DIGITS = 12

_lock = process_lock(__name__)


class Asker:
    """Who asks: a task, a thread, a function that an executor runs, or the main program.

    :param name: tells it from all others of a run.
    :param main: the main program, ``None`` for that itself.
    """

    __slots__ = ("_counts", "main", "name")

    def __init__(self, name: str, main: Asker | None = None) -> None:
        self.name = name
        self.main = main or self
        self._counts: dict[str, int] = {}

    def child(self, kind: str, function: str) -> Asker:
        """Return the asker that this one makes next.

        :param kind: such as ``"task"``.
        :param function: the name of the function that it runs.
        """
        label = f"{kind} {function}"
        with _lock:
            number = self._counts.get(label, 0)
            self._counts[label] = number + 1
        name = f"{label} {number}"
        if self.name != MAIN:
            name = f"{self.name}/{name}"
        if len(name) > LONGEST_NAME:
            name = f"~{sha256(self.name.encode()).hexdigest()[:DIGITS]}/{label} {number}"
        return Asker(name, self.main)

    def twin(self) -> Asker:
        """Return an asker with the same name whose children count from 0."""
        twin = Asker(self.name)
        twin.main = self.main
        return twin

    def __repr__(self) -> str:
        return f"Asker({self.name!r})"


class Worker(NamedTuple):
    """A thread, or a function in one, that runs for an asker.

    :param maker: who started it.
    :param asker: who it is.
    """

    maker: Asker
    asker: Asker


# What threads are that somebody started: known before they run, without a frame of ours in them.
_started: WeakKeyDictionary[threading.Thread, Worker] = WeakKeyDictionary()


class _Thread(threading.local):
    worker: Worker | None

    def __init__(self) -> None:
        self.worker = _started.get(threading.current_thread())


_thread = _Thread()
_current: ContextVar[Asker | None] = ContextVar("llmcall asker", default=None)
_main: Asker | None = None


def begin() -> None:
    """Give askers names from now on, until :func:`end`."""
    global _main
    _main = Asker(MAIN)


def end() -> None:
    """Give askers no names any more."""
    global _main
    _main = None


def current() -> Asker | None:
    """Return who runs here, ``None`` if askers have no names now.

    What began before they had is the main program.
    """
    main = _main
    if main is None:
        return None
    asker, worker = _current.get(), _thread.worker
    if asker is not None and asker.main is not main:
        asker = None
    # A function that runs in a copy of its maker's context still sees its maker there. Two of them
    # would have one name.
    if worker is None or worker.asker.main is not main or _runs_loop():
        return asker or main
    return worker.asker if asker in (None, worker.maker) else asker


def _runs_loop() -> bool:
    # A thread that imports asyncio at the moment has a part of it, and runs no loop.
    running_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    return running_loop is not None and running_loop() is not None


def set_current(asker: Asker | None) -> None:
    """Let an asker hold for the rest of the present context."""
    _current.set(asker)


def note_started(thread: threading.Thread, asker: Asker, maker: Asker) -> None:
    """Let a thread that starts next stand for an asker.

    :param maker: who starts it.
    """
    with _lock:
        _started[thread] = Worker(maker, asker)


@contextlib.contextmanager
def standing_for(asker: Asker, maker: Asker | None = None) -> Iterator[None]:
    """Let an asker hold for a block.

    :param maker: who started this thread, or the block in it; ``None`` if it is none that somebody
        started.
    """
    token, worker = _current.set(asker), _thread.worker
    if maker is not None:
        _thread.worker = Worker(maker, asker)
    try:
        yield
    finally:
        _thread.worker = worker
        _current.reset(token)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Count what is made inside a block apart: it depends on whether an answer is recorded.

    A request that is sent resolves addresses in threads and connects in tasks; one that is replayed
    does not.
    """
    asker = current()
    if asker is None:
        yield
        return
    with _alone(asker.twin()):
        yield


@contextlib.contextmanager
def item(name: str, repeat: int) -> Iterator[None]:
    """Let an item of a ``map`` ask in a block, whichever thread runs it.

    :param name: the name of the item's scope.
    :param repeat: which of its repeats this is.
    """
    if _main is None:
        yield
        return
    with _alone(Asker(f"item {name} {repeat}", _main)):
        yield


@contextlib.contextmanager
def _alone(asker: Asker) -> Iterator[None]:
    token, worker = _current.set(asker), _thread.worker
    _thread.worker = None
    try:
        yield
    finally:
        _thread.worker = worker
        _current.reset(token)


# Nobody records what a forked process asks.
after_fork_in_child(end)
