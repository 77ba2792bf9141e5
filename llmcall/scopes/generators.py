"""Generators that leave a scope open at their ``yield``.

Python keeps context variables by thread and task, not by generator: a scope that a generator opens
and leaves open at its ``yield`` would hold in whoever steps it. Such a generator is remembered
with the scope, so that the next draw between two of its steps can name it.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import NamedTuple

# The flags of a code object, inspect.CO_GENERATOR and CO_ASYNC_GENERATOR: importing inspect takes
# long.
GENERATORS = 0x20 | 0x200
ENTERING = ("__enter__", "__aenter__", "enter_context", "enter_async_context")
FIXTURES = ("_pytest.", "pytest_", "anyio.")  # modules that run fixtures

IN_A_GENERATOR = (
    "a generator that opens a scope leaves it open in whoever runs it, between its steps too, so that samples go "
    "wrong. Open the scope around each step, or run each generator to its end before the next"
)


class OpeningGenerator(NamedTuple):
    """A generator that opened a scope, with the task that ran it then."""

    frame: FrameType
    task: object

    def is_at_yield(self) -> bool:
        """Return whether it stands at a ``yield``, seen from the task in which it opened the scope."""
        return self.frame.f_back is None and self.task is current_task()


def generator_above(frame: FrameType | None) -> OpeningGenerator | None:
    """Return the generator whose ``yield`` leaves a scope open, or ``None``.

    A generator run by a context manager is passed over, since its scope is open for the context
    manager's block: the function that holds this block is looked at instead. A fixture, whose
    scope is open for a test, is none, nor is a generator expression, which nobody steps by hand.

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


def current_task() -> object:
    """Return the running asyncio task, or ``None``."""
    # A thread that imports asyncio for the first time has made only a part of it yet, and runs no
    # task.
    running_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    loop = None if running_loop is None else running_loop()
    return None if loop is None else sys.modules["asyncio"].current_task(loop)
