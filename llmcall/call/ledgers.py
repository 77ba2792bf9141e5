"""Ledgers: what is spent and reserved of a budget, in this process or in the cache's database.

A budget without a name has a ledger in memory. One with a name has its ledger in the cache's
database, on the disk or in Redis, where processes share it.
"""

from __future__ import annotations

import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..cache.shared import shared_cache
from ..display.formatting import counted
from ..errors import BudgetExceededError, CacheError
from ..notices import notice
from ..system import process_lock

if TYPE_CHECKING:
    from ..models.prices import Price
    from ..types import TokenUsage

T = TypeVar("T")

# USD are counted in whole 10^-12 USD: sums of floats would pass a limit that they only reach, or
# not reach it.
PICO = 10**12
NEVER = float("inf")
# Seconds for which a call without a deadline keeps its reservation in a named budget.
HOUR = 3600.0


class Amounts(NamedTuple):
    """What calls use or reserve.

    :param usd: in 10^-12 USD.
    :param tokens: of prompts and answers together.
    :param calls: calls answered by a model.
    :param unknown: how many of them have an unknown price.
    """

    usd: int = 0
    tokens: int = 0
    calls: int = 0
    unknown: int = 0

    def plus(self, other: Amounts) -> Amounts:
        """Return the sum."""
        return Amounts(*map(add, self, other))


NOTHING = Amounts()


def spending_of(tokens: TokenUsage, price: Price | None) -> Amounts:
    """Return what a call spends; an unknown number of tokens counts as 0."""
    total = (tokens.input_tokens or 0) + (tokens.output_tokens or 0)
    if price is None:
        return Amounts(0, total, calls=1, unknown=1)
    usd_per_million = price.of_tokens(tokens)
    return Amounts(round(usd_per_million * (PICO // 10**6)), total, calls=1)


class Holding(NamedTuple):
    """One reservation.

    :param amounts: what is reserved.
    :param until: the time at which it counts as spent, in seconds since the epoch: its process
        seems to be gone, and the server may have billed the call.
    """

    amounts: Amounts
    until: float


class Account:
    """What is spent of a budget, and what is reserved, by the keys of the reservations."""

    def __init__(
        self, spent: Amounts = NOTHING, reserved: Mapping[str, Holding] | None = None
    ) -> None:
        self.spent = spent
        self.reserved = dict(reserved or {})

    @classmethod
    def from_text(cls, text: str | None) -> Account:
        """Return the account that a text describes; ``None`` means nothing was spent."""
        if text is None:
            return cls()
        fields: dict[str, Any] = json.loads(text)
        reserved = {
            key: Holding(Amounts(*amounts), until)
            for key, (amounts, until) in fields["reserved"].items()
        }
        return cls(Amounts(*fields["spent"]), reserved)

    def text(self) -> str:
        """Return the account as a text."""
        return json.dumps({"spent": self.spent, "reserved": self.reserved})

    def total_reserved(self) -> Amounts:
        """Return the sum of the reservations."""
        total = NOTHING
        for holding in tuple(self.reserved.values()):
            total = total.plus(holding.amounts)
        return total

    def settle(self, key: str, used: Amounts) -> None:
        """Replace a reservation by what was used; nothing happens if it is settled already."""
        if self.reserved.pop(key, None) is not None:
            self.spent = self.spent.plus(used)

    def settle_expired(self) -> None:
        """Count the reservations as spent whose calls should have ended."""
        for key, holding in tuple(self.reserved.items()):
            if holding.until <= time.time():
                self.settle(key, holding.amounts)


class Ledger(ABC):
    """Keeps the account of one budget.

    :ivar name: the budget's name; empty if it has none.
    """

    name = ""

    @property
    def title(self) -> str:
        """Return how messages name the budget, or ``""``."""
        return f"the budget {self.name!r}" if self.name else ""

    @abstractmethod
    def _update(self, action: Callable[[Account], T]) -> T:
        """Run an action on the account while nobody else does, and keep what it changes."""

    def reserve(
        self, needed: Amounts, limits: Sequence[Mapping[str, int]], seconds: float | None
    ) -> str | None:
        """Reserve an amount, and return its key; ``None`` if it has to wait for others to settle.

        :param limits: each the most of what :class:`Amounts` counts, by name.
        :param seconds: those until the call's deadline, or ``None``.
        :raises BudgetExceededError: if it would pass a limit whatever the others use.
        :raises CacheError: if the ledger cannot be kept.
        """
        key = os.urandom(8).hex()
        until = time.time() + (HOUR if seconds is None else seconds) if self.name else NEVER

        def reserve(account: Account) -> str | None:
            if key in account.reserved:  # it was, and Redis's answer was lost
                return key
            reserved = account.total_reserved()
            fits = [
                check_fits(self.title, limit, account.spent, reserved, needed) for limit in limits
            ]
            if not all(fits):
                return None
            account.reserved[key] = Holding(needed, until)
            return key

        return self._update(reserve)

    def settle(self, key: str, used: Amounts) -> None:
        """Replace a reservation by what was used."""
        self._update(lambda account: account.settle(key, used))

    def spent(self) -> Amounts:
        """Return what is spent; of a named budget, by earlier runs and other processes too."""
        return self._update(lambda account: account.spent)

    def forget(self) -> None:
        """Count from nothing again; what running calls have reserved stays reserved."""

        def forget(account: Account) -> None:
            account.spent = NOTHING

        self._update(forget)

    @abstractmethod
    def leave_to_parent(self) -> None:
        """Leave the reservations of running calls to the parent, in a forked process."""


_lock = process_lock(__name__)


class MemoryLedger(Ledger):
    """Keeps the account of a budget without a name."""

    def __init__(self) -> None:
        self._account = Account()

    def _update(self, action: Callable[[Account], T]) -> T:
        with _lock:
            return action(self._account)

    def leave_to_parent(self) -> None:
        """Leave the reservations of running calls to the parent, in a forked process."""
        self._account.reserved.clear()


class StoredLedger(Ledger):
    """Keeps the account of a named budget, for all processes that know its location.

    :param location: the cache's directory, or the address of a Redis database.
    :raises ConfigError: if the address cannot be read, or redis-py is not installed.
    """

    def __init__(self, name: str, location: str) -> None:
        self.name = name
        self.location = location
        self._storage = shared_cache(location).storage

    def _update(self, action: Callable[[Account], T]) -> T:
        def change(text: str | None) -> tuple[str | None, T]:
            """Return the new text of the account, or ``None`` if nothing changed, and the result."""
            account = Account.from_text(text)
            before = account.spent, dict(account.reserved)
            account.settle_expired()
            result = action(account)
            has_changed = (account.spent, account.reserved) != before
            return (account.text() if has_changed else None), result

        try:
            return self._storage.change_budget(self.name, change)
        except (CacheError, OSError) as error:
            raise CacheError(f"{self.title} cannot be stored: {error}") from error

    def settle(self, key: str, used: Amounts) -> None:
        """Replace a reservation by what was used.

        The call is over and paid for: if the ledger cannot be kept, a warning says that the
        reservation stays.
        """
        try:
            super().settle(key, used)
        except CacheError as error:
            notice("%s; what the call had reserved counts as spent", error)

    def leave_to_parent(self) -> None:
        """Change nothing: the parent, which made the reservations, settles them."""


def check_fits(
    title: str, limit: Mapping[str, int], spent: Amounts, reserved: Amounts, needed: Amounts
) -> bool:
    """Return whether a reservation fits now; ``False`` if it would once others are settled.

    :param title: how messages name the budget, or ``""``.
    :param limit: the most of what :class:`Amounts` counts, by name.
    :raises BudgetExceededError: if it never will.
    """
    prefix = f"{title}: " if title else ""
    if "usd" in limit and spent.unknown:
        raise BudgetExceededError(
            f"{prefix}it limits usd, but {spent.unknown} calls that count in it have an unknown "
            "price; set their models' prices in [Prices], and start again at 0 with "
            "llmcall.budget(name=…).forget()"
        )
    fits = True
    for name, most in limit.items():
        used = getattr(spent, name)
        amount = getattr(needed, name)
        if used + amount > most:
            raise BudgetExceededError(
                prefix + _exceeded_message(name, most, max(0, most - used), amount)
            )
        if used + getattr(reserved, name) + amount > most:
            fits = False
    return fits


def _exceeded_message(name: str, most: int, remaining: int, amount: int) -> str:
    """Return what a :class:`BudgetExceededError` says."""
    if name == "calls":
        return f"the limit of {counted(most, 'call')} is reached: raise the budget"
    if name == "tokens":
        return (
            f"{remaining:,} tokens left; the next call may use up to {amount:,}: "
            "set max_tokens (in the Responses API max_output_tokens), or raise the budget"
        )
    for digits in (4, 6, 9, 12):  # as few as tell the two amounts apart
        dollars_left = f"${remaining / PICO:,.{digits}f}"
        dollars_wanted = f"${amount / PICO:,.{digits}f}"
        if dollars_left != dollars_wanted:
            break
    return (
        f"{dollars_left} left; the next call may cost up to {dollars_wanted}: "
        "set max_tokens (in the Responses API max_output_tokens), or raise the budget"
    )
