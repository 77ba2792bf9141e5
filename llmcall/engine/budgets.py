"""Budgets: no call begins that could go past what a block of code may spend, whoever makes it."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import resolve as config
from ..errors import ConfigError
from . import reservations
from .accounts import PICO, Account, Amounts, Spending
from .ledgers import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from .redis_ledgers import RedisLedger
    from .reservations import AnyAccount, Reservation

__all__ = [
    "Budget", "Spent", "any_open", "budget", "check_for_processes", "check_price", "counts_tokens", "opened", "reserve",
    "shared_open", "spending_of", "travelling",
]  # fmt: skip

NEVER = float("inf")

_lock = threading.RLock()
_open: list[Budget] = []


class Spent(NamedTuple):
    """Hold what was spent of a budget, or is left of it.

    :param usd: US dollars; of what is spent, ``None`` where the price of a call is unknown.
    :param tokens: of prompts and answers together.
    :param calls: calls answered by a model; of what is left, each is ``None`` where there is no limit.
    """

    usd: float | None
    tokens: int | None
    calls: int | None


class Budget:
    """Limit what the calls of a block may spend; a context manager that goes on counting when it is entered again.

    It holds for every thread and task of the process while it is open, and all open ones count. With a name, what
    earlier runs and other processes spent under it counts as well.

    :param usd: US dollars.
    :param tokens: tokens of prompts and answers together.
    :param calls: calls answered by a model.
    :param name: what it is kept under, in ``budgets.db`` in the cache's directory, or in its Redis database.
    :param directory: another directory or database; ``None`` means ``[Cache] PATH``.
    :raises ValueError: for a limit that is negative or no number, or an empty name.
    """

    def __init__(
        self,
        usd: float | None = None,
        tokens: int | None = None,
        calls: int | None = None,
        name: str | None = None,
        directory: str | os.PathLike[str] | None = None,
    ) -> None:
        self.usd, self.tokens, self.calls = _checked("usd", usd), _checked("tokens", tokens), _checked("calls", calls)
        if name is not None and not (isinstance(name, str) and name.strip()):
            raise ValueError(f"the budget's name is {name!r}; it must be a text that is not empty")
        self.name = name
        self.limit = Amounts(None if usd is None else round(usd * PICO), tokens, calls)
        self._entered = 0
        self.account: AnyAccount = Account("the budget")
        if name is not None:
            self.account = _ledger(name, os.fspath(config.settings().cache_path if directory is None else directory))

    @property
    def spent(self) -> Spent:
        """Return what is spent, by earlier runs and other processes too where it has a name; running calls apart."""
        found = self.account.spent()
        return Spent(None if found.unknown else found.usd / PICO, found.tokens, found.calls)

    @property
    def left(self) -> Spent:
        """Return what is left of each limit, at least 0; ``None`` where there is no limit, or it cannot be known."""
        found, limit = self.account.spent(), self.limit
        pairs = zip(limit, found, strict=False)
        usd, tokens, calls = (None if most is None else max(0, most - used) for most, used in pairs)
        return Spent(None if usd is None or found.unknown else usd / PICO, tokens, calls)

    def forget(self) -> None:
        """Count from nothing again."""
        self.account.forget()
        reservations.call_first()

    def __enter__(self) -> Budget:
        with _lock:
            self._entered += 1
            if self._entered == 1:
                _open.append(self)
                self.account.kept_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _lock:
            self._entered -= 1
            if not self._entered:
                _open.remove(self)
                self.account.close()
                reservations.call_first()

    def __repr__(self) -> str:
        limits = (f"{name}={getattr(self, name)!r}" for name in ("usd", "tokens", "calls", "name"))
        return f"budget({', '.join(limits)})"


def budget(
    usd: float | None = None, tokens: int | None = None, calls: int | None = None, name: str | None = None
) -> Budget:
    """Limit what the calls of a block may spend: ``with llmcall.budget(usd=2) as budget: …``, then ``budget.spent``.

    Each call reserves what it may use at most before it begins, and settles what it used when it is answered; a failed
    attempt gives its reservation back. Hits are free. Where a server counted more tokens in a prompt than are counted
    here, as with a chat template's own sentences, the calls after it reserve them too.

    :param usd: US dollars; a model without a price is refused.
    :param tokens: tokens of prompts and answers together.
    :param calls: calls answered by a model.
    :param name: counts what earlier runs spent under it; ``budget(name=…).spent`` shows that without opening it, and
        ``budget(name=…).forget()`` takes it back.
    :returns: a context manager; a call that would go past it raises ``BudgetExceededError``.
    :raises ValueError: for a limit that is negative or no number, or an empty name.
    """
    return Budget(usd, tokens, calls, name)


def _ledger(name: str, place: str) -> Ledger | RedisLedger:
    if "://" not in place:
        return Ledger(name, place)
    from .redis_ledgers import RedisLedger

    return RedisLedger(name, place)


def _checked(name: str, value: Any) -> Any:
    whole = name != "usd"
    kinds = (int,) if whole else (int, float)
    if value is not None and (isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value < NEVER):
        raise ValueError(f"a budget's {name} is {value!r}; it must be a {'whole ' * whole}number of at least 0")
    return value


def any_open() -> bool:
    """Return whether any budget is open."""
    return bool(_open)


def counts_tokens() -> bool:
    """Return whether a call must be counted before it is made."""
    return any(each.usd is not None or each.tokens is not None or each.name is not None for each in tuple(_open))


def shared_open() -> bool:
    """Return whether a budget is open that other processes share."""
    return any(each.name is not None for each in tuple(_open))


def reserve(reservation: Reservation, need: Spending) -> float | None:
    """Reserve an amount of all open budgets; returns and raises as :func:`llmcall.engine.reservations.reserve`."""
    return reservations.reserve(reservation, need, _accounts)


def _accounts() -> list[tuple[AnyAccount, Amounts]]:
    """Return the accounts of the open budgets, those of one name once, with the tightest limits."""
    found: dict[Any, tuple[AnyAccount, Amounts]] = {}
    for each in tuple(_open):
        account = each.account
        known = (account.place, account.name) if account.shared else account
        first, limit = found.get(known, (account, each.limit))
        found[known] = first, limit.tightest(each.limit)
    return list(found.values())


def spending_of(input_tokens: int, output_tokens: int, price: tuple[float, float] | None) -> Spending:
    """Return what a call of so many tokens spends.

    :param price: USD per million tokens, in and out, or ``None`` where it is unknown.
    """
    tokens = input_tokens + output_tokens
    if price is None:
        return Spending(0, tokens, 1, unknown=1)
    # USD per million tokens are 10^6 of the 10^-12 USD for each.
    return Spending(round((input_tokens * price[0] + output_tokens * price[1]) * (PICO // 10**6)), tokens, 1)


def check_price(model: str, price: tuple[float, float] | None) -> None:
    """Refuse a model without a price where an open budget limits USD.

    :raises ConfigError: naming the setting that gives it one.
    """
    if price is None and any(each.usd is not None for each in tuple(_open)):
        raise ConfigError(
            f"a budget limits usd, and the price of {model} is unknown: give it one in config.ini, as "
            f"{model} = 0.15, 0.60 in [Prices] (USD per million tokens, in and out), or in code, as "
            f"llmcall.configure(prices={{{model!r}: (0.15, 0.60)}}); the extra 'prices' knows those of many models"
        )


def check_for_processes() -> None:
    """Refuse open budgets that other processes cannot share: those without a name.

    :raises ValueError: where there is one.
    """
    for each in tuple(_open):
        if each.name is None:
            raise ValueError(
                f"{each!r} is open and has no name: workers in other processes could not keep to it together. "
                "Give it one: budget(…, name='survey')"
            )


def travelling() -> tuple[dict[str, Any], ...]:
    """Return the open named budgets as plain data, for :func:`opened` in another process."""
    return tuple(
        {"usd": each.usd, "tokens": each.tokens, "calls": each.calls, "name": each.name,
         "directory": each.account.place}
        for each in tuple(_open) if each.account.shared
    )  # fmt: skip


@contextmanager
def opened(budgets: tuple[dict[str, Any], ...]) -> Iterator[None]:
    """Open the budgets of another process, as :func:`travelling` returned them, while a block runs."""
    with ExitStack() as stack:
        for each in budgets:
            stack.enter_context(Budget(**each))
        yield


def _begin_anew() -> None:
    """Leave locks and open databases to the process that this one was forked from."""
    global _lock
    _lock = threading.RLock()
    for each in _open:
        each.account.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
