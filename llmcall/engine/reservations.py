"""Reservations: what an attempt holds of the budgets that are open, and the queue of those who wait for one."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from .accounts import NOTHING
from .tickets import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .accounts import Account, Amounts, Spending
    from .ledgers import Ledger
    from .redis_ledgers import RedisLedger

    AnyAccount = Account | Ledger | RedisLedger
    Accounts = Callable[[], Sequence[tuple[AnyAccount, Amounts]]]

__all__ = ["Reservation", "call_first", "reserve"]

POLL = 0.1  # seconds between two looks at what other processes have given back
NEVER = float("inf")

_lock = threading.RLock()  # a generator that the garbage collector ends may give back at any moment
_waiting: OrderedDict[Ticket, None] = OrderedDict()


class Held(NamedTuple):
    """Hold what one account reserved, and what it knows it by."""

    account: AnyAccount
    key: str
    need: Spending


class Reservation:
    """Be what one attempt has reserved of all budgets that were open.

    :ivar ticket: its place among those who wait.
    :ivar used: what it used, once that is known.
    """

    def __init__(self) -> None:
        self.ticket = Ticket()
        self.used: Spending | None = None
        self._held: list[Held] = []
        self._closed = False

    def queue(self) -> bool:
        """Join those who wait; return whether it is this one's turn."""
        with _lock:
            self.ticket.call_later()
            if not self._closed:
                _waiting.setdefault(self.ticket)
            return next(iter(_waiting), self.ticket) is self.ticket

    def hold(self, held: list[Held]) -> None:
        """Take in what was reserved, and wait no more; what came too late is given back."""
        with _lock:
            _waiting.pop(self.ticket, None)
            if not self._closed:
                self._held, held = held, []
        _give_back(held)
        call_first()

    def close(self) -> None:
        """Settle what was used, or give everything back where nothing was; a second time changes nothing."""
        with _lock:
            self._closed = True
            held, self._held = self._held, []
            _waiting.pop(self.ticket, None)
        _give_back(held, self.used)
        call_first()


def _give_back(held: list[Held], used: Spending | None = None) -> None:
    for account, key, need in held:
        account.settle(key, need, used or NOTHING)


def reserve(reservation: Reservation, need: Spending, accounts: Accounts) -> float | None:
    """Reserve an amount of all accounts at once, after those who came before.

    :param accounts: gives them, with the limit of each.
    :returns: ``None`` where it is reserved; else the seconds after which to look again without being called: infinite
        where no other process takes part.
    :raises BudgetExceededError: where it would go past a limit whatever the others use.
    """
    if not reservation.queue():
        return NEVER
    held: list[Held] = []
    try:
        for account, limit in accounts():
            key = account.reserve(need, limit)
            if key is None:
                return POLL if account.shared else NEVER
            held.append(Held(account, key, need))
        complete, held = held, []
    finally:
        _give_back(held)
    reservation.hold(complete)
    return None


def call_first() -> None:
    """Let whoever has waited longest look again: something has changed."""
    with _lock:
        first = next(iter(_waiting), None)
        if first is not None:
            first.call()


def _begin_anew() -> None:
    """Leave, in a forked process, those who wait to the threads that stayed behind."""
    global _lock
    _lock = threading.RLock()
    _waiting.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
