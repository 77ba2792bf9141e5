"""Queues: sends that wait for a slot or a budget, in the order of arrival, and the amounts they need."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple, TypeVar

from ..apis.token_usage import TokenUsage
from ..core.effects import Wait
from ..core.options import Deadline

# USD are counted in whole 10^-12 USD: sums of floats would pass a limit that they only reach, or
# not reach it.
PICO = 10**12
NEVER = float("inf")


class Amounts(NamedTuple):
    """The amounts that calls use or reserve.

    :param usd: in 10^-12 USD.
    :param tokens: of prompts and answers together.
    :param calls: calls answered by a model.
    :param unknown: how many of them have an unknown price.
    """

    usd: int = 0
    tokens: int = 0
    calls: int = 0
    unknown: int = 0


NOTHING = Amounts()


def spending_of(tokens: int, cost: float | None) -> Amounts:
    """Return a call's spending.

    :param cost: USD, or ``None`` if it is unknown.
    """
    if cost is None:
        return Amounts(0, tokens, calls=1, unknown=1)
    return Amounts(round(cost * PICO), tokens, calls=1)


def total(tokens: TokenUsage) -> int | None:
    """Return the tokens of a prompt and its answer together, or ``None`` if the server reports no usage."""
    if tokens.input_tokens is None:
        return None
    return tokens.input_tokens + (tokens.output_tokens or 0)


T = TypeVar("T")


class Blocked(NamedTuple):
    """The reason why a send must wait, and when to look again.

    :param wakeup: is done when there is reason to look again.
    :param seconds: the seconds after which to look again without being woken, or ``None``.
    :param at_least: the seconds that the wait takes at least; 0 if time does not decide.
    """

    wakeup: Future[None]
    seconds: float | None = None
    at_least: float = 0.0


class Queue:
    """Waiters in order of arrival, each with the future that wakes it; only the holder of the lock may
    use it.
    """

    def __init__(self) -> None:
        self._wakeups: OrderedDict[object, Future[None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._wakeups)

    def join(self, waiter: object, wakeup: Future[None], *, in_front: bool = False) -> bool:
        """Wait, at the end or in front of all; a caller that waits already keeps its position or moves to the
        front. Return whether it is the first.
        """
        self._wakeups[waiter] = wakeup
        if in_front:
            self._wakeups.move_to_end(waiter, last=False)
        return next(iter(self._wakeups)) is waiter

    def leave(self, waiter: object) -> None:
        """Stop waiting; the next one looks again."""
        if self._wakeups.pop(waiter, None) is not None:
            self.wake_first()

    def wake_first(self) -> None:
        """Wake the waiter that came first, to look again: something has changed."""
        wakeup = next(iter(self._wakeups.values()), None)
        if wakeup is not None and not wakeup.done():
            wakeup.set_result(None)

    def clear(self) -> None:
        """Forget all waiters."""
        self._wakeups.clear()


async def wait_until_free(look: Callable[[], T | Blocked], deadline: Deadline, event: str) -> T:
    """Look until anything but ``Blocked`` is found, again whenever there is reason to.

    :param event: the end of the wait, in words.
    :raises RequestTimeoutError: if the wait would pass the deadline.
    """
    if_late = f"the call's deadline passed before {event}"
    while isinstance(found := look(), Blocked):
        await Wait(found.wakeup, deadline.time_for(found.seconds, if_late))
    return found
