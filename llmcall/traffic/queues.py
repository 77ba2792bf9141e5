"""Queues of calls that wait for a slot or a budget, and the reasons why they wait."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeAlias


class Blocked(NamedTuple):
    """The reason why a call must wait, and when to look again.

    :param wakeup: is done when there is reason to look again.
    :param seconds: the seconds after which to look again without being woken, or ``None``.
    :param at_least: the seconds that the wait takes at least; 0 if time does not decide.
    """

    wakeup: Future[None]
    seconds: float | None
    at_least: float = 0.0


# Waiters in order of arrival, each with the future that wakes it; only the holder of the lock may use it.
Queue: TypeAlias = OrderedDict[Any, Future[None]]


def wake_first(queue: Queue) -> None:
    """Wake the waiter that came first, to look again: something has changed."""
    wakeup = next(iter(queue.values()), None)
    if wakeup is not None and not wakeup.done():
        wakeup.set_result(None)
