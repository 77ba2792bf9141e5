"""What a budget was spent on: settled and reserved amounts, never together past a limit."""

from __future__ import annotations

import threading
from typing import NamedTuple

from ..errors import BudgetExceededError

__all__ = ["NOTHING", "PICO", "Account", "Amounts", "Spending", "check"]

PICO = 10**12  # USD are counted in whole 10^-12 USD: sums of floats would be off, and a limit passed or not reached


class Amounts(NamedTuple):
    """Hold amounts of what a budget may limit; in a limit, ``None`` is none.

    :param usd: in 10^-12 USD.
    :param tokens: of prompts and answers together.
    :param calls: calls answered by a model.
    """

    usd: int | None = None
    tokens: int | None = None
    calls: int | None = None

    def tightest(self, other: Amounts) -> Amounts:
        """Return, of two limits, the smaller of each."""
        pairs = zip(self, other, strict=True)
        return Amounts(*(min((each for each in pair if each is not None), default=None) for pair in pairs))


class Spending(NamedTuple):
    """Hold what calls used.

    :param unknown: how many of them have an unknown price.
    """

    usd: int = 0
    tokens: int = 0
    calls: int = 0
    unknown: int = 0

    def plus(self, other: Spending, sign: int = 1) -> Spending:
        """Return the sum, or with the sign -1 the difference."""
        return Spending(*(mine + sign * its for mine, its in zip(self, other, strict=True)))


NOTHING = Spending()


def check(title: str, limit: Amounts, spent: Spending, reserved: Spending, need: Spending) -> bool:
    """Return whether a reservation fits now; where it would once others are given back, ``False``.

    :param title: how messages name the budget.
    :raises BudgetExceededError: where it never will.
    """
    if limit.usd is not None and spent.unknown:
        raise BudgetExceededError(
            f"{title} limits usd, but {spent.unknown} calls that count in it have an unknown price; "
            "give their models one in [Prices], and begin anew by llmcall.budget(name=…).forget()"
        )
    for name, most in limit._asdict().items():
        used, wanted = getattr(spent, name), getattr(need, name)
        if most is not None and used + wanted > most:
            raise BudgetExceededError(_exceeded(title, name, most, used, wanted))
    return all(
        most is None or getattr(spent, name) + getattr(reserved, name) + getattr(need, name) <= most
        for name, most in limit._asdict().items()
    )


def _exceeded(title: str, name: str, most: int, used: int, wanted: int) -> str:
    allowed, spent, more = (_shown(name, amount) for amount in (most, used, wanted))
    return f"{title} allows {allowed}; {spent} spent so far, and the next call may take {more}"


def _shown(name: str, amount: int) -> str:
    return f"{amount / PICO:.6g} USD" if name == "usd" else f"{amount:,} {name if amount != 1 else name[:-1]}"


class Account:
    """Keep what is spent and reserved in memory.

    :param title: how messages name it.
    """

    shared = False  # with other processes
    name = place = ""  # where it is kept, and under what name
    kept_open = False  # between two uses

    def __init__(self, title: str) -> None:
        self.title = title
        self._lock = threading.RLock()  # a generator that the garbage collector ends may release at any moment
        self._spent = NOTHING
        self._reserved = NOTHING

    def reserve(self, need: Spending, limit: Amounts) -> str | None:
        """Reserve an amount and return what it is known by; ``None`` where it has to wait for others.

        :raises BudgetExceededError: where it would go past the limit whatever the others use.
        """
        with self._lock:
            if not check(self.title, limit, self._spent, self._reserved, need):
                return None
            self._reserved = self._reserved.plus(need)
            return ""

    def settle(self, key: str, reserved: Spending, used: Spending) -> None:
        """Put what was used in place of what was reserved."""
        with self._lock:
            self._reserved = self._reserved.plus(reserved, -1)
            self._spent = self._spent.plus(used)

    def spent(self) -> Spending:
        """Return what is settled."""
        with self._lock:
            return self._spent

    def forget(self) -> None:
        """Count from nothing again."""
        with self._lock:
            self._spent = NOTHING

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def renew(self) -> None:
        """Make a lock of a forked process's own; what is reserved is the parent's."""
        self._lock = threading.RLock()
        self._reserved = NOTHING
