"""Budgets as a program opens them: a block of code may spend so much."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, NamedTuple

from ..errors import BudgetExceededError
from ..support.display import counted, money
from ..support.system import lock
from .queues import NEVER, PICO, Amounts
from .reservations import open_budgets, wake_waiting

if TYPE_CHECKING:
    from .reservations import Reservation


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

    :param usd: US dollars.
    :param tokens: tokens of prompts and answers together.
    :param calls: calls answered by a model.
    :raises ValueError: if a limit is negative or not a number.
    """

    def __init__(
        self,
        usd: float | None = None,
        tokens: int | None = None,
        calls: int | None = None,
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
        """Return what is spent, without running calls."""
        with lock:
            spent = Amounts(**self._spent)
        return Spent(None if spent.unknown else spent.usd / PICO, spent.tokens, spent.calls)

    @property
    def left(self) -> Spent:
        """Return what is left of each limit, at least 0; ``None`` without a limit, or if it
        cannot be known.
        """
        with lock:
            left = {name: max(0, most - self._spent[name]) for name, most in self.limit.items()}
            unknown = self._spent["unknown"]
        usd = None if unknown or "usd" not in left else left["usd"] / PICO
        return Spent(usd, left.get("tokens"), left.get("calls"))

    def has_room(self, needed: Amounts) -> bool:
        """Return whether a call may use so much beside what calls under way have reserved; the caller has the lock.

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
        """Count what a call used, in place of what it reserved; the caller has the lock. A second time changes
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
            f"{self!r} cannot be sent to other processes: open it around the map, whose workers it limits, too"
        )

    def __repr__(self) -> str:
        limits = (f"{name}={getattr(self, name)!r}" for name in ("usd", "tokens", "calls"))
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
        return f"budget: {', '.join(parts) or usd} spent"


def _check_limit(name: str, value: object, kind: type) -> None:
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 <= value < NEVER):  # type: ignore[operator]
        type_name = "number" if kind is Real else "whole number"
        raise ValueError(f"a budget's {name} is {value!r}; it must be a {type_name} of at least 0")


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


def budget(
    usd: float | None = None,
    tokens: int | None = None,
    calls: int | None = None,
    name: None = None,
) -> Budget:
    """Limit what the calls of a block may spend: ``with llmcall.budget(usd=2) as budget: …``, then
    ``budget.spent``.

    Before a call begins, it reserves the most that it can use. When it is answered, only what it
    used is counted. A failed attempt gives its reservation back, except for the part of a stream
    that had arrived. Hits are free.

    :param usd: US dollars; a model without a price is refused.
    :param tokens: tokens of prompts and answers together.
    :param calls: calls answered by a model.
    :param name: is refused: no budget outlives its block.
    :returns: a context manager; a call that would exceed it raises ``BudgetExceededError``.
    :raises ValueError: if a limit is negative or not a number.

    >>> with llmcall.budget(usd=2, calls=100) as budget:
    ...     llmcall.client().send_message("Good morning!", max_tokens=16).content
    'Good morning!'
    >>> budget.spent.calls <= 1
    True
    """
    if name is not None:
        raise TypeError(
            f"budget(name={name!r}): a budget ends with its block. To limit several runs together, give each what "
            "the earlier ones left: budget(usd=…)"
        )
    return Budget(usd, tokens, calls)
