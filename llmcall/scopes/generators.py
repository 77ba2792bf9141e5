"""Generators that leave a scope open at their ``yield``.

Context variables belong to threads and tasks, not to generators: while a generator that opened a
scope waits at a ``yield``, its caller is in the scope, too. The generator is remembered with the
scope, so that a draw between two of its steps can raise an error that names it.
"""

from __future__ import annotations

from types import FrameType
from typing import NamedTuple

from ..support.system import current_task

# inspect.CO_GENERATOR and CO_ASYNC_GENERATOR; importing inspect takes long.
GENERATORS = 0x20 | 0x200
ENTERING = ("__enter__", "__aenter__", "enter_context", "enter_async_context")
FIXTURES = ("_pytest.", "pytest_", "anyio.")  # modules that run fixtures

IN_A_GENERATOR = (
    "a scope that a generator opens stays open in its caller between its steps, so calls there would get wrong "
    "samples. Open the scope around each step, or run each generator to its end before the next"
)


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
    since its scope is open for a test, nor does a generator expression, which nobody steps by hand.

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
