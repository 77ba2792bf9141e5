"""Budgets: no call begins that could go past what a block of code may spend, whoever makes it.

Each attempt reserves what it may use at most, of all open budgets together, and settles what it
used. A budget without a name counts in memory. One with a name counts in the cache's database, on
the disk or in Redis, where processes share it.
"""

from __future__ import annotations

import functools
import json
import os
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..cache.cache import shared_cache
from ..config import resolve as config
from ..errors import BudgetExceededError, CacheError, ConfigError
from ..models.catalog import DEARER_TIERS
from ..notices import notice
from ..system import after_fork_in_child, process_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..models.catalog import Price
    from ..types import TokenUsage

    T = TypeVar("T")

PICO = (
    10**12
    # USD are counted in whole 10^-12 USD: sums of floats would be off, and a limit passed or not
    # reached
)
NEVER = float("inf")
POLL = 0.1  # seconds between two looks at what other processes have given back
# Seconds after which a reservation counts as spent whose process may be gone: ten times the default
# TIMEOUT of an attempt. What a call that takes longer used in truth is not counted.
AWAY = 600.0
_begun = time.time()  # of this process


class Amounts(NamedTuple):
    """Hold what calls use or reserve.

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
    """Return what a call of so many tokens spends; a number of tokens that is unknown is 0."""
    total = (tokens.input_tokens or 0) + (tokens.output_tokens or 0)
    if price is None:
        return Amounts(0, total, 1, unknown=1)
    # USD per million tokens are 10^-6 each
    return Amounts(round(price.of_tokens(tokens) * (PICO // 10**6)), total, 1)


def check_fits(
    title: str, limit: Mapping[str, int], spent: Amounts, reserved: Amounts, need: Amounts
) -> bool:
    """Return whether a reservation fits now; where it would once others are given back, ``False``.

    :param title: how messages name the budget; empty where it has no name.
    :param limit: the most of what :class:`Amounts` counts, by name.
    :raises BudgetExceededError: where it never will.
    """
    name_it = f"{title}: " if title else ""
    if "usd" in limit and spent.unknown:
        raise BudgetExceededError(
            f"{name_it}it limits usd, but {spent.unknown} calls that count in it have an unknown price; "
            "give their models one in [Prices], and begin anew by llmcall.budget(name=…).forget()"
        )
    fits = True
    for name, most in limit.items():
        used, wanted = getattr(spent, name), getattr(need, name)
        if used + wanted > most:
            raise BudgetExceededError(name_it + _exceeded(name, most, max(0, most - used), wanted))
        fits = fits and used + getattr(reserved, name) + wanted <= most
    return fits


def _exceeded(name: str, most: int, left: int, wanted: int) -> str:
    if name == "calls":
        return f"no call left of {most:,}: raise the budget"
    if name == "tokens":
        return f"{left:,} tokens left; the next call may use up to {wanted:,}: set max_tokens, or raise the budget"
    digits = next(
        (each for each in (4, 6, 9) if f"{left / PICO:.{each}f}" != f"{wanted / PICO:.{each}f}"), 12
    )
    return (
        f"${left / PICO:,.{digits}f} left; the next call may cost up to ${wanted / PICO:,.{digits}f}: "
        "set max_tokens, or raise the budget"
    )


class _Holding(NamedTuple):
    """Hold a reservation: how much, by which process, since when (seconds since the epoch) and on
    which machine.
    """

    amounts: Amounts
    process: int
    since: float
    machine: str

    def seems_lost(self) -> bool:
        """Return whether whoever made it seems to be gone."""
        is_gone = self.machine == machine() and not is_running(self.process, self.since)
        return is_gone or time.time() - self.since > AWAY


class _State:
    """Be what is kept of a budget: what is spent, and the reservations by their keys."""

    def __init__(self, text: str | None) -> None:
        found: dict[str, Any] = json.loads(text) if text else {"spent": NOTHING, "reserved": {}}
        self.spent = Amounts(*found["spent"])
        self.reserved = {
            key: _Holding(Amounts(*each[0]), *each[1:4]) for key, each in found["reserved"].items()
        }

    def count_the_lost(self) -> None:
        """Count as spent what processes that are gone had reserved: the server may have billed
        their calls.
        """
        for key in [key for key, each in self.reserved.items() if each.seems_lost()]:
            self.spent = self.spent.plus(self.reserved.pop(key).amounts)

    def text(self) -> str:
        """Return it as a text."""
        return json.dumps({"spent": self.spent, "reserved": self.reserved})

    def held(self) -> Amounts:
        """Return the sum of the reservations that hold."""
        return functools.reduce(
            Amounts.plus, (each.amounts for each in self.reserved.values()), NOTHING
        )


# a thread in the middle of an update of a ledger: what it has ``postponed`` until the end
_thread = threading.local()


class Ledger:
    """Keep what is spent and reserved of a budget.

    :param name: the budget's, for all processes that know the place; empty where it has none.
    :param place: the cache's directory, or the address of a Redis database; ``None`` means memory.
    :raises ConfigError: where the address cannot be read, or redis-py is not installed.
    """

    def __init__(self, name: str = "", place: str | None = None) -> None:
        self.name, self.place = name, place
        self._title = f"the budget {name!r}" if name else ""
        self._storage = None if place is None else shared_cache(place).storage
        self._text: str | None = None

    def reserve(self, need: Amounts, limits: Sequence[Mapping[str, int]]) -> str | None:
        """Reserve an amount and return what it is known by; ``None`` where it has to wait for
        others.

        :raises BudgetExceededError: where it would go past a limit whatever the others use.
        :raises CacheError: where it cannot be kept.
        """
        key = os.urandom(8).hex()

        def reserve(state: _State) -> str | None:
            """Reserve it, unless it has to wait."""
            if key not in state.reserved:  # else Redis's answer was lost
                fits = [
                    check_fits(self._title, limit, state.spent, state.held(), need)
                    for limit in limits
                ]
                if not all(fits):
                    return None
                # Without a name, nobody else may leave it behind: it holds until its call ends.
                state.reserved[key] = _Holding(
                    need, os.getpid(), time.time() if self.name else NEVER, machine()
                )
            return key

        return self._update(reserve)

    def settle(self, key: str, used: Amounts) -> None:
        """Put what was used in place of what was reserved.

        The call is over and paid for: where it cannot be kept, a warning says so, and the
        reservation stays.
        """
        postponed = getattr(_thread, "postponed", None)
        if postponed is not None:  # a stream that the garbage collector ends just then
            postponed.append((self, key, used))
            return

        def settle(state: _State) -> None:
            """Count it once, should an answer of Redis's be lost, or its process have seemed to be
            gone.
            """
            if state.reserved.pop(key, None) is not None:
                state.spent = state.spent.plus(used)

        try:
            self._update(settle)
        except CacheError as error:
            notice("%s; what the call had reserved counts as spent", error)

    def spent(self) -> Amounts:
        """Return what is settled, by this and by earlier runs, and what killed processes had
        reserved.
        """
        return self._update(lambda state: state.spent)

    def forget(self) -> None:
        """Count from nothing again; what running calls have reserved stays reserved."""

        def forget(state: _State) -> None:
            """Forget what is spent."""
            state.spent = NOTHING

        self._update(forget)

    def _update(self, action: Callable[[_State], T]) -> T:
        """Run an action on the state, while nobody else does so, and keep what it changes."""

        def change(text: str | None) -> tuple[str | None, T]:
            """Run it on the state that a text says, and return the new text, or ``None`` where it
            stays as it is.
            """
            state = _State(text)
            before = state.spent, state.reserved.copy()
            state.count_the_lost()
            result = action(state)
            return (None if (state.spent, state.reserved) == before else state.text()), result

        postponed: list[tuple[Ledger, str, Amounts]] = []
        _thread.postponed = postponed
        try:
            if self._storage is not None:
                return self._storage.keep(self.name, change)
            with _lock:
                text, result = change(self._text)
                self._text = self._text if text is None else text
            return result
        except (CacheError, OSError) as error:
            raise CacheError(f"{self._title} cannot be kept: {error}") from error
        finally:
            _thread.postponed = None
            for ledger, key, used in postponed:
                ledger.settle(key, used)
                _wake_first()

    def leave_to_parent(self) -> None:
        """Leave to the parent, in a forked process, what its calls have reserved in memory."""
        if self._storage is None:
            state = _State(self._text)
            state.reserved = {}
            self._text = state.text()


def machine() -> str:
    """Return this machine's name."""
    import socket

    return socket.gethostname()


def is_running(process: int, since: float) -> bool:
    """Return whether the process of this machine that did something then seems to run still.

    :param process: its number.
    :param since: when it did something, in seconds since the epoch.
    """
    if process == os.getpid():
        return since >= _begun  # a container's first process always has the same number
    if os.name == "nt":  # Windows has no harmless signal to ask by
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


class Spent(NamedTuple):
    """Hold what was spent of a budget, or is left of it.

    :param usd: US dollars; of what is spent, ``None`` where the price of a call is unknown.
    :param tokens: of prompts and answers together.
    :param calls: calls answered by a model; of what is left, each is ``None`` where there is no
        limit.
    """

    usd: float | None
    tokens: int | None
    calls: int | None


class Budget:
    """Limit what the calls of a block may spend; a context manager that goes on counting when it is
    entered again.

    It holds for every thread and task of the process while it is open, and all open ones count.
    With a name, what earlier runs and other processes spent under it counts as well.

    :param usd: US dollars.
    :param tokens: tokens of prompts and answers together.
    :param calls: calls answered by a model.
    :param name: what it is kept under, in the cache's database.
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
        self.usd, self.tokens, self.calls = (
            _checked("usd", usd),
            _checked("tokens", tokens),
            _checked("calls", calls),
        )
        if name is not None and not (isinstance(name, str) and name.strip()):
            raise ValueError(f"the budget's name is {name!r}; it must be a text that is not empty")
        self.name = name
        limits = {
            "usd": None if usd is None else round(usd * PICO),
            "tokens": tokens,
            "calls": calls,
        }
        self.limit = {name: most for name, most in limits.items() if most is not None}
        self.ledger = Ledger()
        if name is not None:
            place = os.fspath(config.settings().cache_path if directory is None else directory)
            self.ledger = Ledger(name, place)

    @property
    def spent(self) -> Spent:
        """Return what is spent, by earlier runs and other processes too where it has a name;
        running calls apart.
        """
        found = self.ledger.spent()
        return Spent(None if found.unknown else found.usd / PICO, found.tokens, found.calls)

    @property
    def left(self) -> Spent:
        """Return what is left of each limit, at least 0; ``None`` where there is no limit, or it
        cannot be known.
        """
        found = self.ledger.spent()
        left = {name: max(0, most - getattr(found, name)) for name, most in self.limit.items()}
        usd = None if found.unknown or "usd" not in left else left["usd"] / PICO
        return Spent(usd, left.get("tokens"), left.get("calls"))

    def forget(self) -> None:
        """Count from nothing again."""
        self.ledger.forget()
        _wake_first()

    def __enter__(self) -> Budget:
        open_budgets.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        open_budgets.remove(self)
        _wake_first()

    def __reduce__(self) -> tuple[Any, ...]:
        # to be opened in a worker of another process
        if self.name is None:
            raise ValueError(
                f"{self!r} is open and has no name: workers in other processes could not keep to it together. "
                "Give it one: budget(…, name='survey')"
            )
        return Budget, (self.usd, self.tokens, self.calls, self.name, self.ledger.place)

    def __repr__(self) -> str:
        limits = (f"{name}={getattr(self, name)!r}" for name in ("usd", "tokens", "calls", "name"))
        return f"budget({', '.join(limits)})"

    def __str__(self) -> str:
        """Return what is spent of each limit, in words."""
        spent = self.spent
        usd = "unknown" if spent.usd is None else f"${spent.usd:,.4f}"
        amounts = {"usd": usd, "tokens": f"{spent.tokens:,}", "calls": f"{spent.calls:,}"}
        of = {
            "usd": None if self.usd is None else f"${self.usd:,.2f}",
            "tokens": None if self.tokens is None else f"{self.tokens:,} tokens",
            "calls": None if self.calls is None else f"{self.calls:,} calls",
        }
        told = [f"{amounts[name]} of {most}" for name, most in of.items() if most is not None]
        title = "budget" if self.name is None else f"budget {self.name!r}"
        return f"{title}: {', '.join(told) or usd} spent"


def budget(
    usd: float | None = None,
    tokens: int | None = None,
    calls: int | None = None,
    name: str | None = None,
) -> Budget:
    """Limit what the calls of a block may spend: ``with llmcall.budget(usd=2) as budget: …``, then
    ``budget.spent``.

    Each call reserves what it may use at most before it begins, and settles what it used when it is
    answered; a failed attempt gives its reservation back, but for what a stream had brought. Hits
    are free. Where a server counted more tokens in a prompt than are counted here, as with a chat
    template's own sentences, the calls after it reserve them too.

    :param usd: US dollars; a model without a price is refused.
    :param tokens: tokens of prompts and answers together.
    :param calls: calls answered by a model.
    :param name: counts what earlier runs spent under it; ``budget(name=…).spent`` shows that
        without opening it, and ``budget(name=…).forget()`` takes it back.
    :returns: a context manager; a call that would go past it raises ``BudgetExceededError``.
    :raises ValueError: for a limit that is negative or no number, or an empty name.

    >>> with llmcall.budget(usd=2, calls=100) as budget:
    ...     llmcall.client().send_message("Good morning!", max_tokens=16).content
    'Good morning!'
    >>> budget.spent.calls <= 1
    True
    """
    return Budget(usd, tokens, calls, name)


def _checked(name: str, value: Any) -> Any:
    whole = name != "usd"
    kinds = (int,) if whole else (int, float)
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value < NEVER
    ):
        raise ValueError(
            f"a budget's {name} is {value!r}; it must be a {'whole ' * whole}number of at least 0"
        )
    return value


_lock = process_lock(__name__)
open_budgets: list[Budget] = []  # one that was entered twice is in it twice
_waiting: OrderedDict[Reservation, None] = OrderedDict()


def counts_tokens() -> bool:
    """Return whether a call must be counted before it is made."""
    return any(
        each.name is not None or each.limit.keys() - {"calls"} for each in tuple(open_budgets)
    )


def limits_tokens() -> bool:
    """Return whether an open budget limits tokens, or what they cost."""
    return any(each.limit.keys() - {"calls"} for each in tuple(open_budgets))


def check_price(model: str, price: Price | None, service_tier: str | None = None) -> None:
    """Refuse a model without a price if an open budget limits USD.

    :param service_tier: the tier that is asked for.
    :raises ConfigError: naming the setting that gives it one.
    """
    if price is not None or all(each.usd is None for each in tuple(open_budgets)):
        return
    # A model that has a price may lack one at its tier.
    name = f"{model} {service_tier}" if service_tier in DEARER_TIERS else model
    raise ConfigError(
        f"a budget limits usd, and the price of {name} is unknown. Add one to [Prices] in config.ini, "
        f"{name} = 0.15, 0.60 (USD per million tokens of input and output), or in code, "
        f"llmcall.configure(prices={{{name!r}: (0.15, 0.60)}}). The extra 'prices' knows many models"
    )


class Reservation:
    """Hold what one attempt has reserved of all open budgets, and its place among those who wait
    for that.

    :ivar wakeup: is done when there is reason to look again.
    :ivar used: what the attempt used, once that is known.
    :ivar is_near: whether all is kept in memory: whoever waits in a thread must not wait for calls
        that need a thread.
    """

    def __init__(self) -> None:
        self.wakeup: Future[None] = Future()
        self.is_near = all(each.name is None for each in tuple(open_budgets))
        self.used: Amounts | None = None
        self._held: list[tuple[Ledger, str]] = []
        self._closed = False

    def reserve(self, need: Amounts) -> float | None:
        """Reserve an amount of all open budgets at once, after those who came before.

        :returns: ``None`` where it is reserved; else the seconds after which to look again without
            being woken: infinite where no other process takes part.
        :raises BudgetExceededError: where it would go past a limit whatever the others use.
        """
        with _lock:
            self.wakeup = Future()
            if not self._closed:
                _waiting.setdefault(self)
            if next(iter(_waiting), self) is not self:
                return NEVER
        held: list[tuple[Ledger, str]] = []
        try:
            for ledger, limits in _ledgers():
                key = ledger.reserve(need, limits)
                if key is None:
                    return POLL if ledger.name else NEVER
                held.append((ledger, key))
            with _lock:
                if (
                    not self._closed
                ):  # else its task was cancelled meanwhile, and it is given back below
                    self._held, held = held, []
                _waiting.pop(self, None)
        finally:
            _settle(held, NOTHING)
        _wake_first()
        return None

    def close(self) -> None:
        """Settle what was used, or give everything back where nothing was; a second time changes
        nothing.
        """
        with _lock:
            self._closed = True
            held, self._held = self._held, []
            _waiting.pop(self, None)
        _settle(held, self.used or NOTHING)
        _wake_first()


def _settle(held: list[tuple[Ledger, str]], used: Amounts) -> None:
    for ledger, key in held:
        ledger.settle(key, used)


def wake_first(queue: Mapping[Any, None]) -> None:
    """Let whoever has waited longest look again: something has changed.

    :param queue: holds those who wait, oldest first; each has a future ``wakeup``. Nobody else may
        change it meanwhile.
    """
    first = next(iter(queue), None)
    if first is not None and not first.wakeup.done():
        first.wakeup.set_result(None)


def _wake_first() -> None:
    with _lock:
        wake_first(_waiting)


def _ledgers() -> list[tuple[Ledger, list[Mapping[str, int]]]]:
    """Return the ledgers of the open budgets, those of one name once, with the limits of each."""
    found: dict[Any, tuple[Ledger, list[Mapping[str, int]]]] = {}
    for each in tuple(open_budgets):
        known = (each.ledger.place, each.name) if each.name is not None else each
        found.setdefault(known, (each.ledger, []))[1].append(each.limit)
    return list(found.values())


@after_fork_in_child
def _leave_to_parent() -> None:
    """Leave, in a forked process, waiting calls to the threads that stayed behind."""
    _waiting.clear()
    for each in open_budgets:
        each.ledger.leave_to_parent()
