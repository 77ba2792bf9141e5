"""The rules of scopes: where a call without one is refused, and what a generator may not leave open.

A worker without a scope must not draw if a scope was open in the process that started it, at that moment. A
forked worker has that process's memory; one that ``multiprocessing`` starts in another way (spawn, forkserver)
gets the state with the authentication key. An environment variable would not serve: a fork server keeps the one
of its own start, all other programs inherit it, and it must not be set while other threads run.

Context variables belong to threads and tasks, not to generators: while a generator that opened a
scope waits at a ``yield``, the code that runs it is in the scope, too. The generator is remembered with
the scope, so that a draw between two of its steps can raise an error that names it.
"""

from __future__ import annotations

import os
import threading
from types import FrameType
from typing import NamedTuple

from ..support.system import (
    after_fork_in_child,
    current_task,
    is_started_by_multiprocessing,
    multiprocessing_config,
)
from ..support.waits import Stops, stops

ENVIRONMENT_VARIABLE = "LLMCALL_SCOPE"
# inspect.CO_GENERATOR and CO_ASYNC_GENERATOR; importing inspect takes long.
GENERATORS = 0x20 | 0x200
ENTERING = ("__enter__", "__aenter__", "enter_context", "enter_async_context")
FIXTURES = ("_pytest.", "pytest_", "anyio.")  # modules that run fixtures

IN_A_THREAD = (
    "call without a scope while another thread has one open: its draw would depend on timing. Use "
    "llmcall.bind(function) inside the open scope, llmcall.scope(name) in this thread, or llmcall.scope(None) if no "
    "scope is meant. For all threads, open the scope with scope(name, process=True)"
)
IN_A_PROCESS = (
    "call without a scope in a process whose parent has one open, or had one: both would count the same draws. Use "
    "llmcall.bind(function), llmcall.map(…, executor=…), llmcall.scope(name) in this process, or llmcall.scope(None) "
    "if no scope is meant. If the scope has ended since, start the workers outside it"
)

IN_AN_ARM = (
    "llmcall.bind takes a function of the arm {name!r} into another process. The arm would not know that process's "
    "draws, and would make them again. Run the function with llmcall.map(function, items, executor=…), which reports "
    "them"
)
BOUND_IN_A_THREAD = (
    "llmcall.bind is called in a thread that has no scope, but another thread has one open: the function would not run "
    "in that scope. Call llmcall.bind in the thread that opened the scope, before you pass the function on: libraries "
    "such as joblib run generators in threads of their own. If the function opens its own scope, leave out llmcall.bind"
)
IN_A_GENERATOR = (
    "a scope that a generator opens stays open between its steps, in the code that runs it, so calls there would get "
    "wrong samples. Open the scope around each step, or run each generator to its end before the next"
)


CONFIG_NAME = "llmcall scopes"  # in what multiprocessing passes to the processes it starts

# The scopes that are open here, each with the thread that opened it and the stops of its maps.
_open: dict[object, tuple[int, Stops]] = {}
# In a process that was forked or that multiprocessing started: whether its parent had a scope open at that moment.
_was_open_in_parent = False
_is_forked = False


def note_opened(active: object) -> None:
    """Note that the current thread opened a scope."""
    # Before any scope opens, a program need not import multiprocessing.
    if not _open:
        _read_parent_state()
        multiprocessing_config()[CONFIG_NAME] = _is_open
    _open[active] = threading.get_ident(), stops()


def note_closed(active: object) -> None:
    """Note that a scope was closed."""
    _open.pop(active, None)


def is_open_elsewhere() -> bool:
    """Return whether other threads of this process, and not the current one, have scopes open.

    Items of a ``map`` do not count in the thread that runs it: they did not start that thread, so
    it should not have their scopes.
    """
    if not _open:
        return False
    current = threading.get_ident()
    # Other threads may change the dict, but not while a list is made of it.
    opened = list(_open.values())
    if any(thread == current for thread, _ in opened):
        return False
    return any(all(stop.thread != current for stop in stops) for _, stops in opened)


def is_worker() -> bool:
    """Return whether this process was forked, or ``multiprocessing`` started it."""
    return _is_forked or is_started_by_multiprocessing()


class _IsOpen:
    """A flag for a new process: whether a scope is open here at the moment of pickling."""

    def __reduce__(self) -> tuple[object, ...]:
        return bool, (bool(_open),)


_is_open = _IsOpen()


def _read_parent_state() -> None:
    """Read the parent process's state before this process overwrites it.

    A worker may import this module before it has that state, so an import would be too early.
    """
    global _was_open_in_parent
    if is_started_by_multiprocessing() and multiprocessing_config().get(CONFIG_NAME) is True:
        _was_open_in_parent = True


@after_fork_in_child
def _leave_scopes() -> None:
    """Leave all scopes in a forked process, as a spawned one does."""
    global _is_forked, _was_open_in_parent
    _is_forked, _was_open_in_parent = True, bool(_open)
    _open.clear()


def why_refused() -> str:
    """Return why a call of this context, which is outside any scope, needs one; empty if it needs none."""
    if is_open_elsewhere():
        return IN_A_THREAD
    if is_worker():
        _read_parent_state()  # a fork server forks workers, but others start them
        if _was_open_in_parent or os.environ.get(ENVIRONMENT_VARIABLE):
            return IN_A_PROCESS
    return ""


class OpeningGenerator(NamedTuple):
    """A generator that opened a scope, and the task that ran it then."""

    frame: FrameType
    task: object

    def is_at_yield(self) -> bool:
        """Return whether it waits at a ``yield``, and the task that ran it runs now."""
        return self.frame.f_back is None and self.task is current_task()


def generators_with(
    generators: tuple[OpeningGenerator, ...], generator: OpeningGenerator | None
) -> tuple[OpeningGenerator, ...]:
    """Return the generators that opened a scope or one around it, with one more if it is new."""
    if generator is None or generator in generators:
        return generators
    return (*generators, generator)


def generator_above(frame: FrameType | None) -> OpeningGenerator | None:
    """Return the generator whose ``yield`` leaves a scope open, or ``None``.

    The generator of a context manager is passed over, since its scope is open for the context
    manager's block: the function with this block is looked at instead. A fixture does not count,
    since its scope is open for a test, nor does a generator expression, which is never stepped by hand.

    :param frame: the frame in which the scope is entered.
    """
    while frame is not None:
        if frame.f_code.co_flags & GENERATORS and frame.f_code.co_name != "<genexpr>":
            runner = frame.f_back
            while runner is not None and runner.f_code.co_flags & GENERATORS:  # yield from
                runner = runner.f_back
            if runner is None or runner.f_globals.get("__name__", "").startswith(FIXTURES):
                return None
            if runner.f_code.co_name not in ENTERING:
                return OpeningGenerator(frame, current_task())
            frame = runner
        frame = frame.f_back
    return None
