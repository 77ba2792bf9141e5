"""Ledgers of budgets: what is spent of each, and what calls under way have reserved of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from ..errors import BudgetExceededError
from ..support.display.formatting import counted
from ..support.system import lock

if TYPE_CHECKING:
    from ..apis.usage import TokenUsage
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
    """Counts what is spent of a budget, and what calls under way have reserved of it."""

    def __init__(self) -> None:
        self._spent = NOTHING
        self._reserved: set[Reservation] = set()

    def reserve(self, reservation: Reservation, limit: Mapping[str, int]) -> bool:
        """Reserve an amount; return ``False`` if that has to wait for others to settle.

        :param limit: the most of what :class:`Amounts` counts, by name.
        :raises BudgetExceededError: if it would pass a limit whatever the others use, or if it is inside a
            stream, and streams alone have reserved something.
        """
        with lock:
            reserved = NOTHING
            for other in self._reserved:
                reserved = reserved.plus(other.needed)
            fits = _fits_now(limit, self._spent, reserved, reservation.needed)
            if fits:
                self._reserved.add(reservation)
            elif reservation.is_inside and all(other.answer_has_begun for other in self._reserved):
                raise BudgetExceededError(
                    "all that is left is reserved by streams, and this call is made inside one: "
                    "read a stream to its end, or close it, before the next call, or raise the budget"
                )
            return fits

    def settle(self, reservation: Reservation, used: Amounts) -> None:
        """Replace a reservation by what was used; a second time changes nothing."""
        with lock:
            if reservation in self._reserved:
                self._spent = self._spent.plus(used)
                self._reserved.remove(reservation)

    def spent(self) -> Amounts:
        """Return what is spent."""
        return self._spent

    def leave_to_parent(self) -> None:
        """Leave what running calls have reserved to the parent, in a forked process."""
        self._reserved.clear()


def _fits_now(limit: Mapping[str, int], spent: Amounts, reserved: Amounts, needed: Amounts) -> bool:
    """Return whether a reservation fits now; raise if it never will."""
    if "usd" in limit and spent.unknown:
        raise BudgetExceededError(
            f"the budget limits usd, but the price of {counted(spent.unknown, 'call')} in it is unknown. Set their "
            "models' prices in [Prices]"
        )
    fits = True
    for name, most in limit.items():
        used = getattr(spent, name)
        amount = getattr(needed, name)
        if used + amount > most:
            raise BudgetExceededError(_exceeded_message(name, most, max(0, most - used), amount))
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
