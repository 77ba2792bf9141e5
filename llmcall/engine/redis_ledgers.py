"""Named budgets in a Redis database: what is spent and reserved under a name, for processes on several machines.

Three hashes belong to a name: what is spent; the reservations; and those that were given up, since whoever held them
seemed to be gone, and counted as spent. Each change looks first and is made only if nobody else made one meanwhile
(WATCH), so that no two processes pass a limit together. Amounts are added by Redis as whole numbers of 64 bits.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..cache.redis import RedisServer
from ..errors import CacheError
from .accounts import NOTHING, Spending, check
from .ledgers import LEASE, is_running

if TYPE_CHECKING:
    from collections.abc import Callable

    from .accounts import Amounts

    T = TypeVar("T")

__all__ = ["RedisLedger"]

# Seconds after which a reservation of another machine counts as spent: ten times the default TIMEOUT of an attempt. One
# that takes longer is counted as it should be as soon as it ends.
AWAY = 600.0


class _Held(NamedTuple):
    """Hold a reservation: how much, by whom, and since when (seconds since the epoch)."""

    amounts: Spending
    process: int
    since: float
    machine: str

    def is_lost(self) -> bool:
        """Return whether whoever made it seems to be gone."""
        age = time.time() - self.since
        return not is_running(self.process, self.since) or age > LEASE if self.machine == _machine() else age > AWAY

    def written(self) -> str:
        """Return it as a text, for :meth:`read`."""
        return " ".join(map(str, (*self.amounts, self.process, self.since, self.machine)))

    @classmethod
    def read(cls, text: bytes) -> _Held:
        """Return what :meth:`written` made a text of."""
        *amounts, process, since, machine = text.decode().split(" ", 6)
        return cls(Spending(*map(int, amounts)), int(process), float(since), machine)


class RedisLedger:
    """Keep what is spent and reserved under a name in a Redis database; see ``Account``.

    :param name: the budget's.
    :param address: the database's: ``redis://…``, ``rediss://…`` or ``unix://…``.
    :raises ConfigError: where the address cannot be read, or redis-py is not installed.
    """

    shared = True

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.title = f"the budget {name!r}"
        self.place = address
        self.kept_open = False  # between two uses
        self._server = RedisServer(address)
        self._lock = threading.RLock()  # spares the threads of one process from disturbing each other
        self._spent, self._reserved, self._given_up = (
            f"llmcall:budget:{kind}:{name}" for kind in ("spent", "reserved", "given-up")
        )

    def reserve(self, need: Spending, limit: Amounts) -> str | None:
        """Reserve an amount and return what it is known by; ``None`` where it has to wait for others.

        :raises BudgetExceededError: where it would go past the limit whatever the others use.
        :raises CacheError: where the server does not answer.
        """
        key = os.urandom(16).hex()

        def reserve(pipe: Any) -> bool:
            """Do it in a transaction; return whether it is reserved."""
            held, lost = self._sorted(pipe)
            if key in held:  # it was done, but the server's answer was lost
                pipe.multi()
                return True
            spent = _sum([self._settled(pipe), *lost.values()])
            fits = check(self.title, limit, spent, _sum([each.amounts for each in held.values()]), need)
            pipe.multi()
            self._give_up(pipe, lost)
            if fits:
                pipe.hset(self._reserved, key, _Held(need, os.getpid(), time.time(), _machine()).written())
            return fits

        return key if self._changed(reserve) else None

    def settle(self, key: str, reserved: Spending, used: Spending) -> None:
        """Put what was used in place of what was reserved; once only, should an answer of the server be lost.

        The call is over and paid for: where the server takes nothing, a warning says so, and the reservation stays.
        """

        def settle(pipe: Any) -> None:
            """Do it in a transaction."""
            is_held, is_given_up = pipe.hexists(self._reserved, key), pipe.hexists(self._given_up, key)
            pipe.multi()
            pipe.hdel(self._reserved, key)
            pipe.hdel(self._given_up, key)
            if is_held or is_given_up:
                self._add(pipe, used if is_held else used.plus(reserved, -1))

        try:
            self._changed(settle)
        except CacheError as error:
            import logging

            logging.getLogger("llmcall").warning("%s; what the call had reserved counts as spent", error)

    def spent(self) -> Spending:
        """Return what is settled, by this and by earlier runs, and what killed processes had reserved."""

        def spent(pipe: Any) -> Spending:
            """Read it in a transaction, and count what is lost."""
            _, lost = self._sorted(pipe)
            settled = self._settled(pipe)
            pipe.multi()
            self._give_up(pipe, lost)
            return _sum([settled, *lost.values()])

        return self._changed(spent)

    def forget(self) -> None:
        """Count from nothing again; what running calls have reserved stays reserved."""

        def forget(pipe: Any) -> None:
            """Do it in a transaction."""
            pipe.multi()
            pipe.delete(self._spent, self._given_up)

        self._changed(forget)

    def close(self) -> None:
        """Close the connections; what comes after opens them again."""
        with self._lock:
            self.kept_open = False
            self._server.close()

    def renew(self) -> None:
        """Make a lock of a forked process's own; the connections are left to the parent by themselves."""
        self._lock = threading.RLock()

    def _settled(self, pipe: Any) -> Spending:
        return Spending(*(int(amount or 0) for amount in pipe.hmget(self._spent, Spending._fields)))

    def _sorted(self, pipe: Any) -> tuple[dict[str, _Held], dict[str, Spending]]:
        """Return the reservations that hold, and the amounts of those whose holders are gone."""
        every = {key.decode(): _Held.read(text) for key, text in pipe.hgetall(self._reserved).items()}
        lost = {key: each.amounts for key, each in every.items() if each.is_lost()}
        return {key: each for key, each in every.items() if key not in lost}, lost

    def _give_up(self, pipe: Any, lost: dict[str, Spending]) -> None:
        for key, amounts in lost.items():
            pipe.hdel(self._reserved, key)
            pipe.hset(self._given_up, key, "")
            self._add(pipe, amounts)

    def _add(self, pipe: Any, amounts: Spending) -> None:
        for field, amount in amounts._asdict().items():
            if amount:
                pipe.hincrby(self._spent, field, amount)

    def _changed(self, action: Callable[[Any], T]) -> T:
        """Run an action until no other process disturbs it: it looks, calls ``multi``, and says what changes."""
        keys = self._spent, self._reserved, self._given_up

        def change(redis: Any) -> T:
            """Repeat the action until nobody else changed the keys meanwhile."""
            found: T = redis.transaction(action, *keys, value_from_callable=True)
            return found

        with self._lock:
            try:
                return self._server.ask(change)
            except CacheError as error:
                raise CacheError(f"{self.title} cannot be kept: {error}") from error.__cause__
            finally:
                if not self.kept_open:
                    self._server.close()


def _sum(amounts: list[Spending]) -> Spending:
    total = NOTHING
    for each in amounts:
        total = total.plus(each)
    return total


def _machine() -> str:
    import socket

    return socket.gethostname()
