"""Checks of a contract's rules: the one that is broken is the error."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from ..support.waits import set_may_block

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")
THREADS = 4
LONGEST = 20.0  # seconds that anything may take


def holds(subject: object, is_so: bool, rule: str) -> None:
    """Check a rule of a contract.

    :raises AssertionError: with the class of what breaks it.
    """
    if not is_so:
        raise AssertionError(f"{type(subject).__name__}: {rule}")


def made(make: Callable[[], T]) -> T:
    """Return what is to be checked.

    :raises TypeError: for an object in place of what makes one.
    """
    if not callable(make):
        raise TypeError(
            f"{make!r:.60} is to be made anew: give its class, or a function that returns one"
        )
    return make()


def run_in_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in an event loop, for some time at most."""

    async def bounded() -> T:
        set_may_block(False)
        return await asyncio.wait_for(coroutine, LONGEST)

    return asyncio.run(bounded())
