"""What an endpoint allows: calls at once, requests and tokens in any 60 seconds, and what its server says of itself.

The state of an endpoint is shared by all clients, threads and tasks of the process. It is a log of the calls begun in
the last 60 seconds, so that bursts are allowed and no 60 seconds ever hold more than the limit; a token bucket would
allow twice as many in some.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from .rate_headers import Told

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config.endpoints import Endpoint
    from ..config.settings import Settings
    from .demands import Demand
    from .rate_headers import Quota
    from .tickets import Ticket

__all__ = ["NO_LIMITS", "WINDOW", "Entry", "Gate", "Limits", "Room", "address", "forget", "process_room"]

# Seconds: the limits are per minute, which servers count as calls arrive; by the last second one may have been longer
# on its way than those of the next minute.
WINDOW = 61.0
MOST_TOLD = 32  # limits of a model that a server may name; the documented ones have ten
NEVER = float("inf")  # nothing but the end of a running call helps


class Limits(NamedTuple):
    """Hold the limits of ``[Limits]``; ``None`` is no limit.

    :param calls: how many calls may run at once.
    :param requests: how many may begin in any 60 seconds.
    :param tokens: how many tokens those may use, of prompt and answer together.
    """

    calls: int | None = None
    requests: int | None = None
    tokens: int | None = None

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Return those of the settings."""
        return cls(
            settings.limits_max_concurrent_calls, settings.limits_requests_per_minute, settings.limits_tokens_per_minute
        )


NO_LIMITS = Limits()


class Entry:
    """Be one call that was let in, or one that ended less than 60 seconds ago."""

    __slots__ = ("begun", "counted", "model", "tokens")

    def __init__(self, begun: float, model: str, tokens: int) -> None:
        self.begun = begun
        self.model = model
        self.tokens = tokens
        self.counted = True  # while it is among those of the last 60 seconds


class Gate:
    """Know what one endpoint has been asked. Whoever holds its room's lock may use it.

    :ivar running: the calls that are under way, each with its ticket.
    :ivar rested_until: the monotonic time until which it is not asked, after a 429.
    :ivar queue: those who wait for it, in order.
    """

    def __init__(self) -> None:
        self.running: dict[Entry, Ticket] = {}
        self.rested_until = 0.0
        self.queue: OrderedDict[Ticket, None] = OrderedDict()
        self._log: deque[Entry] = deque()  # those of the last 60 seconds, oldest first
        self._tokens = 0  # their sum
        self._told: dict[str, dict[str, Told]] = {}  # by model and by the header that says so
        self._surplus: dict[str, tuple[int, float]] = {}  # by model

    def wait(self, limits: Limits, demand: Demand | None, model: str, now: float) -> float:
        """Return the seconds until a call may begin, as far as time alone decides; infinite where it does not.

        :param demand: what the call may use; ``None`` where nobody counted it.
        :param now: the monotonic time.
        """
        self._drop_old(now)
        if limits.calls is not None and len(self.running) >= limits.calls:
            return NEVER
        waits = (
            self.rested_until - now,
            self._wait_for_requests(limits.requests, now),
            self._wait_for_tokens(limits.tokens, demand, now),
            self.wait_as_told(demand, model, now),
        )
        return max(0.0, *waits)

    def _drop_old(self, now: float) -> None:
        while self._log and self._log[0].begun + WINDOW <= now:
            old = self._log.popleft()
            old.counted = False
            self._tokens -= old.tokens

    def _wait_for_requests(self, limit: int | None, now: float) -> float:
        if limit is None or len(self._log) < limit:
            return 0.0
        return self._log[len(self._log) - limit].begun + WINDOW - now

    def _wait_for_tokens(self, limit: int | None, demand: Demand | None, now: float) -> float:
        if limit is None or demand is None:
            return 0.0
        # A call that may use more than the limit goes when nothing else is counted: it would never go otherwise.
        excess = self._tokens + min(demand.tokens, limit) - limit
        for entry in self._log:
            if excess <= 0:
                break
            excess -= entry.tokens
            if excess <= 0:
                return entry.begun + WINDOW - now
        return 0.0

    def wait_as_told(self, demand: Demand | None, model: str, now: float) -> float:
        """Return the seconds until the server has enough left for a call, as far as it said; arguments as of wait."""
        told = self._told.get(model)
        if not told:
            return 0.0
        needed = {"requests": 1, "tokens": max(1, demand.stated if demand is not None else 1)}
        return max(each.wait(needed[each.unit], now) for each in told.values())

    def enter(self, demand: Demand | None, model: str, now: float, ticket: Ticket) -> Entry:
        """Let a call begin for which :meth:`wait` was 0; arguments as there.

        :param ticket: the call's.
        :returns: what :meth:`settle` and :meth:`leave` take.
        """
        entry = Entry(now, model, demand.tokens if demand is not None else 0)
        self._log.append(entry)
        self._tokens += entry.tokens
        self.running[entry] = ticket
        used = {"requests": 1, "tokens": demand.stated if demand is not None else 0}
        told = self._told.get(model, {})
        for name, each in told.items():
            told[name] = each.less(used[each.unit], now)
        return entry

    def settle(self, entry: Entry, tokens: int) -> None:
        """Put the tokens that a call used in place of those that were reserved for it."""
        if entry.counted:
            self._tokens += tokens - entry.tokens
            entry.tokens = tokens

    def leave(self, entry: Entry, *, answered: bool) -> None:
        """End a call; one that has no answer used no tokens."""
        if self.running.pop(entry, None) is not None and not answered:
            self.settle(entry, 0)

    def sweep(self, limits: Limits) -> None:
        """Leave for calls that Ctrl-C ended before they could do so themselves, where others wait for them."""
        for entry, ticket in list(self.running.items() if limits.calls is not None else ()):
            if ticket.is_gone():
                self.leave(entry, answered=False)
        while (first := next(iter(self.queue), None)) is not None and first.is_gone():
            self.queue.pop(first, None)

    def rest(self, until: float) -> None:
        """Ask nothing until a monotonic time; an earlier wish for a longer rest stands."""
        self.rested_until = max(until, self.rested_until)

    def hear(self, model: str, quotas: Mapping[str, Quota], now: float) -> None:
        """Take in what a server says is left.

        :param quotas: by the name of the header that says so, from :func:`~llmcall.engine.rate_headers.told_by`.
        :param now: the monotonic time.
        """
        told = self._told.setdefault(model, {})
        for name, quota in quotas.items():
            if name in told or len(told) < MOST_TOLD:
                told[name] = Told.of(quota, now)

    def compare(self, model: str, counted: int, reported: int) -> None:
        """Take in how many tokens a prompt was counted to have here, and by its server."""
        tokens, ratio = self._surplus.get(model, (0, 0.0))
        more = reported - counted
        self._surplus[model] = max(tokens, more), max(ratio, more / max(1, counted))

    def surplus(self, model: str, counted: int) -> int:
        """Return how many tokens the server may count beyond those that were counted here.

        So many as it did before, at most, and of a short prompt in proportion: a server's template may begin each
        prompt with sentences of its own, and the vocabulary of its model may not be known.
        """
        tokens, ratio = self._surplus.get(model, (0, 0.0))
        return min(tokens, ceil(ratio * counted))


class Room:
    """Hold the gates of all endpoints, and one lock for them: it is never held for long.

    The lock is re-entrant, as a generator that the garbage collector ends may give its place back at any moment.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._gates: dict[tuple[str | None, ...], Gate] = {}

    def gate(self, endpoint: Endpoint) -> Gate:
        """Return the gate of an endpoint: the same for all who know it by the same name and address."""
        known = address(endpoint)
        return self._gates.get(known) or self._gates.setdefault(known, Gate())

    def queue(self, ticket: Ticket, gates: tuple[Gate, ...]) -> None:
        """Put a ticket at the end of the queues that it is not in yet, and take it out of all others."""
        for gate in ticket.queues:
            if gate not in gates:
                self._unqueue(ticket, gate)
        for gate in gates:
            gate.queue.setdefault(ticket)
        ticket.queues = gates
        ticket.call_later()

    def unqueue(self, ticket: Ticket) -> None:
        """Take a ticket out of all queues; those that are first then look again."""
        for gate in ticket.queues:
            self._unqueue(ticket, gate)
        ticket.queues = ()

    def _unqueue(self, ticket: Ticket, gate: Gate) -> None:
        gate.queue.pop(ticket, None)
        self.call_first(gate)

    def call_first(self, gate: Gate) -> None:
        """Let whoever is first look again: something has changed."""
        first = next(iter(gate.queue), None)
        if first is not None:
            first.call()

    def forget(self) -> None:
        """Begin anew; calls that are under way are counted no more, and those who wait look again."""
        with self.lock:
            gates, self._gates = self._gates, {}
            for gate in gates.values():
                for ticket in gate.queue:
                    ticket.call()

    def renew(self) -> None:
        """Begin anew in a forked process: the threads that stayed behind are not here."""
        self.lock = threading.RLock()
        self._gates = {}


def address(endpoint: Endpoint) -> tuple[str | None, ...]:
    """Return what an endpoint is known by: its name and where it is, not the models that it serves."""
    return endpoint.name, endpoint.base_url, endpoint.azure_endpoint, endpoint.deployment, endpoint.organization


process_room = Room()


def forget() -> None:
    """Forget what was asked of all endpoints, their rests and what their servers said."""
    process_room.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=process_room.renew)
