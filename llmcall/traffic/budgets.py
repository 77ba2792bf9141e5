"""Budgets as a program opens them: a block of code may spend so much."""

from __future__ import annotations

from numbers import Integral, Real
from typing import NamedTuple

from ..support.display.formatting import money
from .ledgers import NEVER, PICO, Ledger
from .reservations import open_budgets, wake_waiting


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
        self.ledger = Ledger()

    @property
    def spent(self) -> Spent:
        """Return what is spent, without running calls."""
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
