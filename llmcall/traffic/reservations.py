"""Reservations of the open budgets: each send reserves the most that it may use from all of them together, and
settles what it used. No send begins that could go past one.
"""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ..errors import BudgetExceededError
from ..support.notices import warn_once
from ..support.system import after_fork_in_child, lock
from ..support.waits import waits
from .queues import NOTHING, Blocked, Queue, spending_of, total, wait_until_free

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..apis.usage import TokenUsage
    from .budgets import Budget
    from .queues import Amounts, Demand

open_budgets: list[Budget] = []  # one that was entered twice is in it twice
_waiting = Queue()


@contextmanager
def all_closed() -> Iterator[None]:
    """Close the open budgets for a block, such as a forked process has of its parent. Budgets that the block opens
    and leaves open stay.
    """
    before = open_budgets.copy()
    open_budgets.clear()
    try:
        yield
    finally:
        open_budgets[:0] = before


class Needs(NamedTuple):
    """The demands of the open budgets: which amounts of a send they have to know before it begins.

    :param is_open: whether any is open.
    :param limits_tokens: whether one limits tokens, or what they cost.
    :param limits_usd: whether one limits USD.
    """

    is_open: bool = False
    limits_tokens: bool = False
    limits_usd: bool = False


def needs() -> Needs:
    """Return what the open budgets have to know of a send."""
    if not open_budgets:
        return Needs()
    budgets = tuple(open_budgets)
    limits_tokens = any(budget.limit.keys() - {"calls"} for budget in budgets)
    return Needs(
        is_open=True,
        limits_tokens=limits_tokens,
        limits_usd=any(budget.usd is not None for budget in budgets),
    )


NARROW = (
    "fewer calls of a map run at once than it has workers: until a call is answered, the budget reserves its "
    "prompt and the longest answer that it may get. A smaller max_tokens lets more calls run at once"
)


class Reservation:
    """The reservation of one send in all open budgets.

    A call inside a stream, which ends only after that call, must not wait for it, nor for the stream of
    another thread that may wait likewise. So it waits only while a call is under way whose answer has not
    begun, which ends or begins without its caller; if streams alone have reserved something, it is refused.
    Finding out which streams wait for one another was rejected: each would have to say of whom its reader
    waits, from other processes, too.

    :param needed: the most that it may use.
    :ivar used: what the attempt used, as far as it is known.
    :ivar answer_has_begun: whether the first piece of the answer is there, or a call inside was made.
    :ivar is_inside: whether an outer call ends only after this one; known once it has to wait. Then it jumps the
        queue, of which the first might wait for that outer call.
    """

    def __init__(self, needed: Amounts) -> None:
        self.needed = needed
        self.used = NOTHING
        self.answer_has_begun = False
        self.is_inside = False
        self._budgets: tuple[Budget, ...] = ()

    async def take(self, demand: Demand) -> None:
        """Wait until what is needed is reserved in all open budgets.

        :raises BudgetExceededError: as :meth:`reserve`.
        :raises RequestTimeoutError: if the wait would pass the deadline.
        """
        if self.reserve() is not None:
            self.is_inside = demand.is_inside()
            event = "calls under way settled what they reserved of a budget"
            await wait_until_free(self.reserve, demand.deadline, event)

    def reserve(self) -> Blocked | None:
        """Reserve what is needed from all open budgets at once, in the order of arrival.

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
                "all that is left is reserved by streams, and this call is made inside one: "
                "read a stream to its end, or close it, before the next call, or raise the budget"
            )
        if waits().stops and needs().limits_tokens:
            warn_once(NARROW)
        return Blocked(wakeup)

    def answer_began(self) -> None:
        """Note that the first piece of the answer is there, or that a call inside was made."""
        if not self.answer_has_begun:
            self.answer_has_begun = True
            wake_waiting()

    def settle(self, tokens: TokenUsage, cost: float | None, calls: int) -> None:
        """Note what the send used: all that was reserved, if the server reports no usage.

        :param cost: USD, or ``None`` if it is unknown.
        :param calls: how many were answered.
        """
        used = total(tokens)
        spent = self.needed if used is None else spending_of(used, cost)
        self.used = spent._replace(calls=calls)

    def close(self) -> None:
        """Settle what was used, and give the rest back; a second time changes nothing."""
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
