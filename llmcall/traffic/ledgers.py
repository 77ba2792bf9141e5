"""Ledgers of budgets: what is spent of each, and what calls under way have reserved of it.

What is spent under a name is one sum in the cache, on the disk or in Redis, to which processes add as
their calls end. Reservations are each process's own, and end with it: no other process waits for them,
or finds the reservations of a killed one. So processes that share a name may pass its limit by what
they have under way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from ..errors import BudgetExceededError, CacheError
from ..stores.cache.cache import shared_cache
from ..support.display.formatting import counted
from ..support.notices import notice
from ..support.system import ProcessLock, lock

if TYPE_CHECKING:
    from ..apis.usage import TokenUsage
    from ..stores.cache.storages import Sums
    from .reservations import Reservation

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

    def plus(self, other: Iterable[int]) -> Amounts:
        """Return the sum."""
        return Amounts(*map(add, self, other))


NOTHING = Amounts()


def spending_of(tokens: int, cost: float | None) -> Amounts:
    """Return what a call spends.

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


class Ledger:
    """Counts what is spent of a budget, and what calls under way in this process have reserved of it.

    :param name: the budget's name; empty without one.
    :param sums: keeps what is spent under the name; ``None``: it is kept in memory.
    """

    def __init__(self, name: str = "", sums: Sums | None = None) -> None:
        self.is_in_memory = sums is None
        self._name = name
        self._prefix = f"the budget {name!r}: " if name else ""
        self._sums = sums
        # Otherwise a thread could read the sum before a call is added to it, and the reservations after.
        self._lock = lock if sums is None else _named_lock
        self._spent = NOTHING  # of a named budget: what is not added to the sum yet
        self._reserved: set[Reservation] = set()

    def reserve(self, reservation: Reservation, limit: Mapping[str, int]) -> bool:
        """Reserve an amount; return ``False`` if that has to wait for others to settle.

        :param limit: the most of what :class:`Amounts` counts, by name.
        :raises BudgetExceededError: if it would pass a limit whatever the others use, or if it is inside a
            stream, and streams alone have reserved something.
        :raises CacheError: if what is spent cannot be read.
        """
        with self._lock:
            reserved = NOTHING
            for other in self._reserved:
                reserved = reserved.plus(other.needed)
            fits = _fits_now(self._prefix, limit, self.spent(), reserved, reservation.needed)
            if fits:
                self._reserved.add(reservation)
            elif reservation.is_inside and all(other.answer_has_begun for other in self._reserved):
                raise BudgetExceededError(
                    f"{self._prefix}all that is left is reserved by streams, and this call is made inside one: "
                    "read a stream to its end, or close it, before the next call, or raise the budget"
                )
            return fits

    def settle(self, reservation: Reservation, used: Amounts) -> None:
        """Replace a reservation by what was used; a second time changes nothing.

        The call is over and paid for: if that cannot be added to the sum, a warning says so, and the
        next one to settle tries again.
        """
        with self._lock:
            if reservation not in self._reserved:
                return
            unsaved = used.plus(self._spent)
            # Taken out before it is saved: the garbage collector may settle another call meanwhile.
            self._spent = NOTHING
            if self._sums is not None and unsaved != NOTHING:
                try:
                    self._sums.spend(self._name, unsaved._asdict())
                except (CacheError, OSError) as error:
                    notice(
                        "%swhat a call used counts in this process alone until it can be stored: %s",
                        self._prefix,
                        error,
                    )
                else:
                    unsaved = NOTHING
            self._spent = unsaved.plus(self._spent)
            self._reserved.remove(reservation)

    def spent(self) -> Amounts:
        """Return what is spent; of a named budget, by earlier runs and other processes too.

        :raises CacheError: if it cannot be read.
        """
        with self._lock:
            if self._sums is None:
                return self._spent
            return self._spent.plus(self._sums.spent(self._name, Amounts._fields))

    def forget(self) -> None:
        """Count from nothing again; what running calls have reserved stays reserved.

        :raises OSError, CacheError: if that cannot be stored.
        """
        with self._lock:
            self._spent = NOTHING
            if self._sums is not None:
                self._sums.forget_spent(self._name, Amounts._fields)

    def leave_to_parent(self) -> None:
        """Leave what running calls have reserved to the parent, in a forked process."""
        self._reserved.clear()
        if self._sums is not None:
            self._spent = NOTHING


_named_lock = ProcessLock()
# By the cache's location and the budget's name: all budgets of one name share its reservations. They
# are kept, as the cache keeps their sums.
named_ledgers: dict[tuple[str, str], Ledger] = {}


def ledger_named(name: str, location: str) -> Ledger:
    """Return this process's ledger of a budget's name.

    :param location: the cache's directory, or the address of a Redis database.
    :raises ConfigError: if the address cannot be read, or redis-py is not installed.
    """
    sums = shared_cache(location).sums
    return named_ledgers.setdefault((sums.name, name), Ledger(name, sums))


def _fits_now(
    prefix: str, limit: Mapping[str, int], spent: Amounts, reserved: Amounts, needed: Amounts
) -> bool:
    """Return whether a reservation fits now; raise if it never will."""
    if "usd" in limit and spent.unknown:
        raise BudgetExceededError(
            f"{prefix}it limits usd, but the price of {counted(spent.unknown, 'call')} in it is "
            "unknown; set their models' prices in [Prices], and start again at 0 with "
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
    for digits in (4, 6, 9, 12):  # as few as show that the two amounts differ
        dollars_left = f"${remaining / PICO:,.{digits}f}"
        dollars_wanted = f"${amount / PICO:,.{digits}f}"
        if dollars_left != dollars_wanted:
            break
    return (
        f"{dollars_left} left; the next call may cost up to {dollars_wanted}: "
        "set or lower max_tokens (in the Responses API max_output_tokens), or raise the budget"
    )
