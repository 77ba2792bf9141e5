"""Ledgers: what is spent and reserved of a budget, in this process or in the cache's database.

A budget without a name has a ledger in memory. One with a name has its ledger in the cache's
database, on the disk or in Redis, where processes share it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from ..cache.cache import shared_cache
from ..display.formatting import counted
from ..errors import BudgetExceededError, CacheError
from ..notices import notice
from ..system import lock

if TYPE_CHECKING:
    from ..models.prices import Price
    from ..values import TokenUsage

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

    def plus(self, other: Iterable[int]) -> Amounts:
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


# What is spent, and each reservation by its key: its amounts, and the time from which it counts as spent, in
# seconds since the epoch. Then its process seems to be gone, and the server may have billed the call; the
# same call can still take it over.
Account: TypeAlias = dict[str, Any]


def _new_account() -> Account:
    return {"spent": list(NOTHING), "reserved": {}}


def _totals(account: Account) -> tuple[Amounts, Amounts]:
    """Return what is spent, and what running calls have reserved."""
    now = time.time()
    spent, reserved = Amounts(*account["spent"]), NOTHING
    for amounts, until in account["reserved"].values():
        if until <= now:
            spent = spent.plus(amounts)
        else:
            reserved = reserved.plus(amounts)
    return spent, reserved


class Ledger:
    """Keeps the account of one budget: in memory or, if it has a name, in the cache's database, for
    all processes that know its location.

    :param name: the budget's; empty if it has none.
    :param location: the cache's directory, or the address of a Redis database.
    :raises ConfigError: if the address cannot be read, or redis-py is not installed.
    """

    def __init__(self, name: str, location: str) -> None:
        self.name = name
        self._account = _new_account()
        self._storage = shared_cache(location).storage if name else None
        self._title = f"the budget {name!r}" if name else ""

    def _update(self, action: Callable[[Account], T]) -> T:
        """Run an action on the account while nobody else does, and keep what it changes.

        :raises CacheError: if that cannot be stored.
        """
        if self._storage is None:
            with lock:
                return action(self._account)

        def change(text: str | None) -> tuple[str | None, T]:
            """Return the new text of the account, or ``None`` if nothing changed, and the result."""
            before = text or json.dumps(_new_account())
            account = json.loads(before)
            result = action(account)
            after = json.dumps(account)
            return None if after == before else after, result

        try:
            return self._storage.change_budget(self.name, change)
        except (CacheError, OSError) as error:
            raise CacheError(f"{self._title} cannot be stored: {error}") from error

    def reserve(
        self,
        key: str,
        needed: Amounts,
        limit: Mapping[str, int],
        seconds: float | None,
    ) -> bool:
        """Reserve an amount under a key, in place of what is reserved under it; return ``False`` if
        that has to wait for others to settle.

        :param limit: the most of what :class:`Amounts` counts, by name.
        :param seconds: those until the call's deadline, or ``None``.
        :raises BudgetExceededError: if it would pass a limit whatever the others use.
        :raises CacheError: if the ledger cannot be kept.
        """
        until = NEVER if not self.name else time.time() + (HOUR if seconds is None else seconds)

        def reserve(account: Account) -> bool:
            others = {**account["reserved"]}
            others.pop(key, None)
            totals = _totals({**account, "reserved": others})
            fits = fits_now(self._title, limit, *totals, needed)
            if fits:
                account["reserved"][key] = needed, until
            return fits

        return self._update(reserve)

    def settle(self, key: str, used: Amounts | None) -> None:
        """Replace a reservation by what was used; nothing happens if it is settled already.

        The call is over and paid for: if the ledger cannot be kept, a warning says that the
        reservation stays.

        :param used: ``None``: the reservation counts as spent, until the same call takes it over.
        """

        def settle(account: Account) -> None:
            reservation = account["reserved"].pop(key, None)
            if reservation is not None and used is not None:
                account["spent"] = used.plus(account["spent"])
            elif reservation is not None:
                account["reserved"][key] = reservation[0], 0.0

        try:
            self._update(settle)
        except CacheError as error:
            notice("%s; what the call had reserved counts as spent", error)

    def spent(self) -> Amounts:
        """Return what is spent; of a named budget, by earlier runs and other processes too."""
        return self._update(lambda account: _totals(account)[0])

    def forget(self) -> None:
        """Count from nothing again; what running calls have reserved stays reserved."""

        def forget(account: Account) -> None:
            now = time.time()
            running = {key: each for key, each in account["reserved"].items() if each[1] > now}
            account.update(_new_account(), reserved=running)

        self._update(forget)

    def leave_to_parent(self) -> None:
        """Leave the reservations of running calls to the parent, in a forked process: the parent
        settles those of a named budget.
        """
        self._account["reserved"].clear()


def fits_now(
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
            "set or lower max_tokens (in the Responses API max_output_tokens), or raise the budget"
        )
    for digits in (4, 6, 9, 12):  # as few as tell the two amounts apart
        dollars_left = f"${remaining / PICO:,.{digits}f}"
        dollars_wanted = f"${amount / PICO:,.{digits}f}"
        if dollars_left != dollars_wanted:
            break
    return (
        f"{dollars_left} left; the next call may cost up to {dollars_wanted}: "
        "set or lower max_tokens (in the Responses API max_output_tokens), or raise the budget"
    )
