"""Budgets that a program opens for a block of code, and what each send reserves of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from numbers import Integral, Real
from typing import NamedTuple

from ..apis.token_usage import TokenUsage
from ..core.effects import Blocks
from ..core.options import Deadline
from ..errors import BudgetExceededError
from ..support.display import counted
from ..support.system import after_fork_in_child, lock
from .queues import (
    NEVER,
    NOTHING,
    PICO,
    Amounts,
    Blocked,
    Queue,
    spending_of,
    total,
    wait_until_free,
)

open_budgets: list[Budget] = []  # a budget entered twice is in it twice
_waiting = Queue()


@contextmanager
def all_closed() -> Iterator[None]:
    """Close the open budgets for a block, such as those a forked process has from its parent. Budgets opened
    in the block stay.
    """
    before = open_budgets.copy()
    open_budgets.clear()
    try:
        yield
    finally:
        open_budgets[:0] = before


class Needs(NamedTuple):
    """The demands of the open budgets: which amounts of a send they have to know before it begins.

    :param is_open: ``True`` if any is open.
    :param limits_tokens: ``True`` if one limits tokens, or what they cost.
    :param limits_usd: ``True`` if one limits USD.
    """

    is_open: bool = False
    limits_tokens: bool = False
    limits_usd: bool = False


def needs() -> Needs:
    """Return what open budgets need to know of a send."""
    limits: set[str] = set().union(*(budget.limit for budget in tuple(open_budgets)))
    return Needs(bool(open_budgets), bool(limits - {"calls"}), "usd" in limits)


class Reservation:
    """The reservation of one send in all open budgets.

    A call inside a stream, which ends only after that call, must not wait for it, nor for the stream of
    another thread that may wait, too. So it waits only while a call is under way whose answer has not
    begun, which ends or begins without its caller; if streams alone have reserved something, it is refused.
    Finding out which streams wait for one another was rejected: each would have to say of whom its reader
    waits, from other processes, too.

    :param needed: the most that it may use.
    :ivar used: the attempt's known use.
    :ivar answer_has_begun: ``True`` if the first piece of the answer is there, or a call inside was made.
    :ivar is_inside: ``True`` if an outer call ends only after this one; known once it has to wait. Then it jumps the
        queue, of which the first might wait for that outer call.
    """

    def __init__(self, needed: Amounts) -> None:
        self.needed = needed
        self.used = NOTHING
        self.answer_has_begun = False
        self.is_inside = False
        self._budgets: tuple[Budget, ...] = ()

    async def take(self, deadline: Deadline, is_inside: Callable[[bool], bool]) -> None:
        """Wait until all open budgets have the reservation.

        :param is_inside: returns whether an outer call ends only after this one, by whether this one blocks its thread.
        :raises BudgetExceededError: as :meth:`reserve`.
        :raises RequestTimeoutError: if the wait would pass the deadline.
        """
        if self.reserve() is not None:
            self.is_inside = is_inside(await Blocks())
            event = "calls under way settled what they reserved of a budget"
            await wait_until_free(self.reserve, deadline, event)

    def reserve(self) -> Blocked | None:
        """Reserve from all open budgets at once, in the order of arrival.

        :returns: ``None`` if it is reserved.
        :raises BudgetExceededError: if it would pass a limit whatever the others use, or if it would wait for
            streams alone although it is made inside one.
        """
        wakeup: Future[None] = Future()
        with lock:
            if not _waiting.join(self, wakeup, in_front=self.is_inside):
                return Blocked(wakeup)  # another has waited longer
            budgets = tuple(dict.fromkeys(open_budgets))
            have_room = [budget.has_room(self.needed) for budget in budgets]  # each may refuse
            if all(have_room):
                self._budgets = budgets
                for budget in budgets:
                    budget.reserved.add(self)
                _waiting.leave(self)
                return None
            others = {other for budget in budgets for other in tuple(budget.reserved)}
        if self.is_inside and all(other.answer_has_begun for other in others):
            raise BudgetExceededError(
                "open streams reserve all that is left of the budget, and this call is made inside one: "
                "read a stream to its end, or close it, before the next call, or raise the budget"
            )
        return Blocked(wakeup)

    def answer_began(self) -> None:
        """Note that the first piece of the answer is there, or that a call inside was made."""
        if not self.answer_has_begun:
            self.answer_has_begun = True
            wake_waiting()

    def settle(self, tokens: TokenUsage, cost: float | None, calls: int) -> None:
        """Note the send's use: the whole reservation, if the server reports no usage.

        :param cost: USD, or ``None`` if it is unknown.
        :param calls: how many were answered.
        """
        used = total(tokens)
        spent = self.needed if used is None else spending_of(used, cost)
        self.used = spent._replace(calls=calls)

    def close(self) -> None:
        """Settle the use, and return the rest; a second time changes nothing."""
        with lock:
            for budget in self._budgets:
                budget.settle(self)
            _waiting.leave(self)
            _waiting.wake_first()


def wake_waiting() -> None:
    """Let the reservation that has waited longest look again."""
    with lock:
        _waiting.wake_first()


@after_fork_in_child
def _leave_to_parent() -> None:
    """Leave calls under way to the parent, in a forked process."""
    _waiting.clear()
    for budget in open_budgets:
        budget.reserved.clear()


class Spent(NamedTuple):
    """The amounts that were spent of a budget.

    :param usd: US dollars, or ``None`` if the price of a call is unknown.
    :param tokens: of prompts and answers together.
    :param calls: calls answered by a model.
    """

    usd: float | None
    tokens: int
    calls: int


class Budget:
    """A limit on what the calls of a block may spend; a context manager that continues its count when it is
    entered again.

    It applies to every thread and task of the process while it is open, and all open ones count.

    :param usd: US dollars.
    :param tokens: tokens of prompts and answers together.
    :param calls: calls answered by a model.
    :raises ValueError: if a limit is negative or not a number.
    """

    def __init__(
        self, usd: float | None = None, tokens: int | None = None, calls: int | None = None
    ) -> None:
        _check_limit("usd", usd, Real)
        _check_limit("tokens", tokens, Integral)
        _check_limit("calls", calls, Integral)
        self.usd = usd if usd is None or isinstance(usd, int) else float(usd)
        self.tokens = None if tokens is None else int(tokens)
        self.calls = None if calls is None else int(calls)
        usd = self.usd and round(self.usd * PICO)
        limits = {"usd": usd, "tokens": self.tokens, "calls": self.calls}
        self.limit = {name: int(most) for name, most in limits.items() if most is not None}
        self.reserved: set[Reservation] = set()  # of calls under way
        self._spent = dict.fromkeys(Amounts._fields, 0)

    @property
    def spent(self) -> Spent:
        """Return the spending so far, without running calls."""
        with lock:
            spent = Amounts(**self._spent)
        return Spent(None if spent.unknown else spent.usd / PICO, spent.tokens, spent.calls)

    def has_room(self, needed: Amounts) -> bool:
        """Return whether a call may use an amount beside what calls under way have reserved; the caller has the lock.

        :raises BudgetExceededError: if it may not, even if these use nothing.
        """
        if unknown := "usd" in self.limit and self._spent["unknown"]:
            raise BudgetExceededError(
                f"the budget limits usd, but the price of {counted(unknown, 'call')} in it is unknown. Set their "
                "models' prices in [Prices]"
            )
        has_room = True
        for name, most in self.limit.items():
            left, amount = most - self._spent[name], getattr(needed, name)
            if amount > left:
                raise BudgetExceededError(_exceeded_message(name, most, max(0, left), amount))
            # A copy: the garbage collector may settle another call at any moment.
            reserved = sum(getattr(other.needed, name) for other in tuple(self.reserved))
            has_room = has_room and reserved + amount <= left
        return has_room

    def settle(self, reservation: Reservation) -> None:
        """Count a call's use instead of its reservation; the caller has the lock. A second time changes
        nothing.
        """
        if reservation in self.reserved:
            self.reserved.remove(reservation)
            # Number by number, since the garbage collector may settle another call while two Amounts are added.
            for name, amount in reservation.used._asdict().items():
                self._spent[name] += amount

    def __enter__(self) -> Budget:
        open_budgets.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        open_budgets.remove(self)
        wake_waiting()

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(
            f"{self!r} cannot be sent to other processes: open it around the map, and it limits the workers"
        )

    def __repr__(self) -> str:
        limits = (f"{name}={getattr(self, name)!r}" for name in ("usd", "tokens", "calls"))
        return f"budget({', '.join(limits)})"


def _check_limit(name: str, value: object, kind: type) -> None:
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 <= value < NEVER):  # type: ignore[operator]
        type_name = "number" if kind is Real else "whole number"
        raise ValueError(f"a budget's {name} is {value!r}; it must be a {type_name} of at least 0")


def _exceeded_message(name: str, most: int, remaining: int, amount: int) -> str:
    """Return the text of a :class:`BudgetExceededError`."""
    if name == "calls":
        return f"the limit of {counted(most, 'call')} is reached: raise the budget"
    if name == "tokens":
        return (
            f"{remaining:,} tokens left; the next call may use up to {amount:,}: "
            "set or lower max_tokens (in the Responses API max_output_tokens), or raise the budget"
        )
    for digits in (4, 6, 9, 12):  # as few as show that the two amounts differ
        dollars_left = f"${remaining / PICO:,.{digits}f}"
        dollars_wanted = f"${amount / PICO:,.{digits}f}"
        if dollars_left != dollars_wanted:
            break
    return (
        f"{dollars_left} left; the next call may cost up to {dollars_wanted}: "
        "set or lower max_tokens (in the Responses API max_output_tokens), or raise the budget"
    )


def budget(usd: float | None = None, tokens: int | None = None, calls: int | None = None) -> Budget:
    """Limit what the calls of a block may spend: ``with llmcall.budget(usd=2) as budget: …``, then
    ``budget.spent``.

    Each call first reserves the most it could use. Once it is answered, only what it used
    counts. A failed attempt returns its reservation, except for the part of a stream
    that had arrived. Hits are free.

    :param usd: US dollars; a model without a price is refused.
    :param tokens: tokens of prompts and answers together.
    :param calls: calls answered by a model.
    :returns: a context manager; a call that would exceed it raises ``BudgetExceededError``.
    :raises ValueError: if a limit is negative or not a number.

    >>> with llmcall.budget(usd=2, calls=100) as budget:
    ...     llmcall.client().send_message("Good morning!", max_tokens=16).content
    'Good morning!'
    >>> budget.spent.calls <= 1
    True
    """
    return Budget(usd, tokens, calls)
