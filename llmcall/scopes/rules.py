"""The rules of scopes: where a call without one is refused, and what a generator may not leave open.

Context variables belong to threads and tasks, not to generators: while a generator that opened a
scope waits at a ``yield``, the code that runs it is in the scope, too. The generator is remembered with
the scope, so that a draw between two of its steps can raise an error that names it.
"""

from __future__ import annotations

import os
from types import FrameType
from typing import NamedTuple

from ..support.system import current_task
from . import workers

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


def why_refused() -> str:
    """Return why a call of this context, which is outside any scope, needs one; empty if it needs none."""
    if workers.is_open_elsewhere():
        return IN_A_THREAD
    if workers.is_worker() and (
        workers.is_open_in_parent() or os.environ.get(ENVIRONMENT_VARIABLE)
    ):
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
