"""Budgets: a block of code may spend so much, and no call begins that could go past it.

Each attempt reserves the most that it may use from all open budgets together, and settles what it
used.
"""

from __future__ import annotations

import os
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, NamedTuple

from ..config import resolve as config
from ..core.effects import in_thread
from ..errors import ConfigError
from ..models.prices import DEARER_TIERS
from ..support.display.formatting import money
from ..support.notices import warn_once
from ..support.system import after_fork_in_child, lock
from ..support.waits import waits
from .ledgers import (
    NEVER,
    NOTHING,
    PICO,
    Amounts,
    Ledger,
    ledger_named,
    named_ledgers,
    spending_of,
)
from .queues import Blocked, Queue, wait_until_free

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from ..core.deadline import Deadline

NARROW = (
    "fewer calls of a map run at once than it has workers: until a call is answered, the budget reserves its "
    "prompt and the longest answer that it may get. A smaller max_tokens lets more calls run at once"
)


class Spent(NamedTuple):
    """The amounts that were spent of a budget, or are left of it.

    :param usd: US dollars; of what is spent, ``None`` if the price of a call is unknown.
    :param tokens: of prompts and answers together.
    :param calls: calls answered by a model; of what is left, each is ``None`` if there is no limit.
    """

    usd: float | None
    tokens: int | None
    calls: int | None


class Budget:
    """Limits what the calls of a block may spend; a context manager that goes on counting when it is
    entered again.

    It applies to every thread and task of the process while it is open, and all open ones count.
    With a name, what earlier runs and other processes spent under it counts as well.

    :param usd: US dollars.
    :param tokens: tokens of prompts and answers together.
    :param calls: calls answered by a model.
    :param name: the name under which it is kept, in the cache's database.
    :param location: another directory or database; ``None`` means ``[Cache] PATH``.
    :raises ValueError: if a limit is negative or not a number, or the name is empty.
    """

    def __init__(
        self,
        usd: float | None = None,
        tokens: int | None = None,
        calls: int | None = None,
        name: str | None = None,
        location: str | None = None,
    ) -> None:
        _check_limit("usd", usd, Real)
        _check_limit("tokens", tokens, Integral)
        _check_limit("calls", calls, Integral)
        self.usd = usd if usd is None or isinstance(usd, int) else float(usd)
        self.tokens = None if tokens is None else int(tokens)
        self.calls = None if calls is None else int(calls)
        if name is not None and not (isinstance(name, str) and name.strip()):
            raise ValueError(f"the budget's name is {name!r}; it must be a non-empty string")
        self.name = name
        self.location = ""
        if name is not None:
            self.location = location or os.fspath(config.settings().cache_path)
        usd = self.usd and round(self.usd * PICO)
        limits = {"usd": usd, "tokens": self.tokens, "calls": self.calls}
        self.limit = {name: int(most) for name, most in limits.items() if most is not None}
        self.ledger = Ledger() if name is None else ledger_named(name, self.location)

    @property
    def spent(self) -> Spent:
        """Return what is spent, without running calls; if the budget has a name, by earlier runs
        and other processes too.
        """
        amounts = self.ledger.spent()
        usd = None if amounts.unknown else amounts.usd / PICO
        return Spent(usd, amounts.tokens, amounts.calls)

    @property
    def left(self) -> Spent:
        """Return what is left of each limit, at least 0; ``None`` without a limit, or if it
        cannot be known.
        """
        spent = self.ledger.spent()
        remaining = {name: max(0, most - getattr(spent, name)) for name, most in self.limit.items()}
        usd = None if spent.unknown or "usd" not in remaining else remaining["usd"] / PICO
        return Spent(usd, remaining.get("tokens"), remaining.get("calls"))

    def forget(self) -> None:
        """Start counting from 0 again."""
        self.ledger.forget()
        wake_waiting()

    def __enter__(self) -> Budget:
        open_budgets.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        open_budgets.remove(self)
        wake_waiting()

    def __reduce__(self) -> tuple[object, ...]:
        # to be opened in a worker of another machine
        if self.name is None:
            raise ValueError(
                f"{self!r} has no name, so other processes could not share it. Give it one: budget(…, name='survey')"
            )
        return Budget, (self.usd, self.tokens, self.calls, self.name, self.location)

    def __repr__(self) -> str:
        limits = (f"{name}={getattr(self, name)!r}" for name in ("usd", "tokens", "calls", "name"))
        return f"budget({', '.join(limits)})"

    def __str__(self) -> str:
        spent = self.spent
        usd = "unknown" if spent.usd is None else money(spent.usd)
        parts = []
        if self.usd is not None:
            limit = money(self.usd) if self.usd < 0.01 else f"${self.usd:,.2f}"
            parts.append(f"{usd} of {limit}")
        if self.tokens is not None:
            parts.append(f"{spent.tokens:,} of {self.tokens:,} tokens")
        if self.calls is not None:
            parts.append(f"{spent.calls:,} of {self.calls:,} calls")
        title = "budget" if self.name is None else f"budget {self.name!r}"
        return f"{title}: {', '.join(parts) or usd} spent"


def _check_limit(name: str, value: object, kind: type) -> None:
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 <= value < NEVER):  # type: ignore[operator]
        type_name = "number" if kind is Real else "whole number"
        raise ValueError(f"a budget's {name} is {value!r}; it must be a {type_name} of at least 0")


def budget(
    usd: float | None = None,
    tokens: int | None = None,
    calls: int | None = None,
    name: str | None = None,
) -> Budget:
    """Limit what the calls of a block may spend: ``with llmcall.budget(usd=2) as budget: …``, then
    ``budget.spent``.

    Before a call begins, it reserves the most that it can use. When it is answered, only what it
    used is counted. A failed attempt gives its reservation back, except for the part of a stream
    that had arrived. Hits are free.

    :param usd: US dollars; a model without a price is refused.
    :param tokens: tokens of prompts and answers together.
    :param calls: calls answered by a model.
    :param name: counts what earlier runs spent under it; ``budget(name=…).spent`` shows that
        without opening it, and ``budget(name=…).forget()`` sets it to 0.
    :returns: a context manager; a call that would exceed it raises ``BudgetExceededError``.
    :raises ValueError: if a limit is negative or not a number, or the name is empty.

    >>> with llmcall.budget(usd=2, calls=100) as budget:
    ...     llmcall.client().send_message("Good morning!", max_tokens=16).content
    'Good morning!'
    >>> budget.spent.calls <= 1
    True
    """
    return Budget(usd, tokens, calls, name)


open_budgets: list[Budget] = []  # one that was entered twice is in it twice
_waiting = Queue()


@contextmanager
def only_open(opened: Collection[Budget]) -> Iterator[None]:
    """Open budgets for a block, and close those that are open, such as a forked process has of its parent.
    Budgets that the block opens and leaves open stay.
    """
    before = open_budgets.copy()
    open_budgets[:] = opened
    try:
        yield
    finally:
        left_open = open_budgets[:]
        for budget in opened:
            left_open.remove(budget)
        open_budgets[:] = [*before, *left_open]


class Needs(NamedTuple):
    """What the open budgets have to know of a send before it begins.

    :param is_open: whether any is open.
    :param tokens: whether its tokens are counted.
    :param limits_tokens: whether one limits tokens, or what they cost.
    :param limits_usd: whether one limits USD.
    """

    is_open: bool = False
    tokens: bool = False
    limits_tokens: bool = False
    limits_usd: bool = False

    def joined(self, other: Needs) -> Needs:
        """Return what budgets of either kind have to know."""
        return Needs(*(one or another for one, another in zip(self, other, strict=True)))


def needs() -> Needs:
    """Return what the open budgets have to know of a send."""
    if not open_budgets:
        return Needs()
    budgets = tuple(open_budgets)
    limits_tokens = any(budget.limit.keys() - {"calls"} for budget in budgets)
    return Needs(
        is_open=True,
        tokens=limits_tokens or any(budget.name is not None for budget in budgets),
        limits_tokens=limits_tokens,
        limits_usd=any(budget.usd is not None for budget in budgets),
    )


def unknown_price(model: str, service_tier: str | None) -> ConfigError:
    """Return the error for a model without a price while an open budget limits USD.

    :param service_tier: the tier that is asked for.
    """
    # A model that has a price may lack one at its tier.
    name = f"{model} {service_tier}" if service_tier in DEARER_TIERS else model
    return ConfigError(
        f"the price of {name} is unknown, and a budget limits usd. Write {name} = INPUT, OUTPUT below [Prices] "
        f"(USD per million tokens), or llmcall.configure(prices={{{name!r}: (INPUT, OUTPUT)}})"
    )


class Reservation:
    """The gate of the budgets: the reservation of one send in all open ones.

    A call inside a stream, which ends only after that call, must not wait for it, nor for the stream of
    another thread that may wait likewise. So it waits only while a call is under way whose answer has not
    begun, which ends or begins without its caller; if streams alone have reserved something, it is refused.
    Finding out which streams wait for one another was rejected: each would have to say of whom its reader
    waits, from other processes, too.

    :param needed: the most that it may use.
    :ivar used: what the attempt used, as far as it is known.
    :ivar answer_has_begun: whether the first piece of the answer is there, or a call inside was made.
    :ivar is_in_memory: whether no open budget has a name, so that no thread waits for a file or server.
    """

    def __init__(self, needed: Amounts) -> None:
        self.needed = needed
        self.is_in_memory = all(budget.ledger.is_in_memory for budget in tuple(open_budgets))
        self.used = NOTHING
        self.answer_has_begun = False
        self._ledgers: list[Ledger] = []
        self._is_closed = False

    async def take(self, deadline: Deadline, is_inside: Callable[[], bool]) -> None:
        """Wait until what is needed is reserved in all open budgets.

        :param is_inside: returns whether an outer call ends only after this one; asked if it has to wait.
        :raises BudgetExceededError: as :meth:`reserve`.
        :raises RequestTimeoutError: if the wait would pass the deadline.
        """

        async def look(*, is_inside: bool) -> Blocked | None:
            if self.is_in_memory:
                return self.reserve(is_inside=is_inside)
            return await in_thread(partial(self.reserve, is_inside=is_inside))

        if await look(is_inside=False) is not None:
            look_again = partial(look, is_inside=is_inside())
            event = "calls under way settled what they reserved of a budget"
            await wait_until_free(look_again, deadline, event)

    def reserve(self, *, is_inside: bool = False) -> Blocked | None:
        """Reserve what is needed from all open budgets at once, in the order of arrival.

        :param is_inside: whether an outer call ends only after this one. It jumps the queue, of which the
            first might wait for that outer call.
        :returns: ``None`` if it is reserved.
        :raises BudgetExceededError: if it would pass a limit whatever the others use, or if it would wait for
            streams alone although it is made inside one.
        """
        wakeup: Future[None] = Future()
        with lock:
            if not self._is_closed and not _waiting.join(self, wakeup, in_front=is_inside):
                return Blocked(wakeup)  # another has waited longer
        # By ledger: the tightest limits of its budgets.
        limits: dict[Ledger, dict[str, int]] = {}
        for budget in tuple(open_budgets):
            limit = limits.setdefault(budget.ledger, {})
            for name, most in budget.limit.items():
                limit[name] = min(most, limit.get(name, most))
        reserved: list[Ledger] = []
        try:
            for ledger, limit in limits.items():
                if not ledger.reserve(self, self.needed, limit, is_inside=is_inside):
                    if waits().stops and needs().limits_tokens:
                        warn_once(NARROW)
                    return Blocked(wakeup)
                reserved.append(ledger)
            with lock:
                _waiting.leave(self)
                if not self._is_closed:  # else its task was cancelled meanwhile
                    self._ledgers, reserved = reserved, []
        finally:
            for ledger in reserved:
                ledger.settle(self, NOTHING)
        return None

    def answer_began(self) -> None:
        """Note that the first piece of the answer is there, or that a call inside was made."""
        if not self.answer_has_begun:
            self.answer_has_begun = True
            wake_waiting()

    def settle(self, tokens: int | None, cost: float | None, calls: int) -> None:
        """Hear what the send used: all that was reserved, if the server reports no usage.

        :param tokens: of its prompt and answer, or ``None`` if they are unknown.
        :param cost: USD, or ``None`` if it is unknown.
        :param calls: how many were answered.
        """
        spent = self.needed if tokens is None else spending_of(tokens, cost)
        self.used = spent._replace(calls=calls)

    def close(self) -> None:
        """Settle what was used, give the rest back, and reserve nothing more; a second time changes nothing."""
        with lock:
            self._is_closed = True
            ledgers, self._ledgers = self._ledgers, []
            _waiting.leave(self)
        for ledger in ledgers:
            ledger.settle(self, self.used)
        wake_waiting()


def wake_waiting() -> None:
    """Let the reservation that has waited longest look again."""
    with lock:
        _waiting.wake_first()


@after_fork_in_child
def _leave_to_parent() -> None:
    """Leave calls under way to the parent, in a forked process."""
    _waiting.clear()
    for ledger in (*named_ledgers.values(), *(budget.ledger for budget in open_budgets)):
        ledger.leave_to_parent()
