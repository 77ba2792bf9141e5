"""Checks of a contract's rules; a broken rule is the error."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, TypeVar

from ..core import loops
from ..support.loop_waits import awaited

T = TypeVar("T")
THREADS = 4
LONGEST = 20.0  # seconds that a method may take
TICK = 0.1  # seconds after which a check looks whether one takes longer


def holds(subject: object, is_so: bool, rule: str) -> None:
    """Check a rule of a contract.

    :raises AssertionError: with the class of what breaks it.
    """
    if not is_so:
        raise AssertionError(f"{type(subject).__name__}: {rule}")


@contextmanager
def keeping(rule: str) -> Iterator[None]:
    """Check that a block keeps a rule: it raises nothing.

    :param rule: with the class that has to keep it.
    :raises AssertionError: with the rule and the error.
    """
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{rule} ({type(error).__name__}: {error})") from error


class Watch:
    """The methods that a check has called and that have not returned."""

    def __init__(self) -> None:
        self._called: dict[object, tuple[str, float]] = {}  # with the monotonic time to return

    @contextmanager
    def over(self, method: str) -> Iterator[None]:
        """Watch over a block that calls a method, named with its class."""
        key = object()
        self._called[key] = method, time.monotonic() + LONGEST
        try:
            yield
        finally:
            del self._called[key]

    def run(self, check: Callable[[], None]) -> None:
        """Run a check.

        :raises AssertionError: also for a method that does not return in time.
        """
        ended = in_thread(check)
        while not wait([ended], TICK).done:
            for method, ends_at in tuple(self._called.values()):
                if time.monotonic() > ends_at:
                    raise AssertionError(f"{method} did not return within {LONGEST:g} s")
        ended.result()


def in_thread(function: Callable[[], T]) -> Future[T]:
    """Run a function in a thread that Python's end does not wait for; return its result to come."""
    returned: Future[T] = Future()

    def run() -> None:
        try:
            returned.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised by result()
            returned.set_exception(error)

    threading.Thread(target=copy_context().run, args=(run,), daemon=True).start()
    return returned


def made(make: Callable[[], T]) -> T:
    """Return the object to check.

    :raises TypeError: for an object instead of its factory.
    """
    if not callable(make):
        raise TypeError(
            f"{make!r:.60} must be made anew for each check: give its class, or a function that returns one"
        )
    return make()


def run_in_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a procedure in an event loop."""
    return asyncio.run(awaited(loops.run(coroutine)))
