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
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import APIError, RateLimitError, RequestTimeoutError
from ..types import TokenUsage
from . import budgets
from .demands import begun_with, demand_of, used_by
from .effects import Do, Until
from .rate_headers import ServerQuota, told_by
from .reservations import Reservation
from .tickets import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from ..config.settings import Endpoint, Settings
    from ..models.capabilities import Capabilities
    from ..types import Request
    from .accounts import Spending
    from .demands import Demand
    from .effects import Flow
    from .rate_headers import Quota

    Price = Callable[[int], "tuple[float, float] | None"]

__all__ = [
    "NO_LIMITS", "WINDOW", "Admission", "Entry", "Gate", "Limits", "Pool", "Room", "address", "forget", "process_room",
]  # fmt: skip

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
        self._told: dict[str, dict[str, ServerQuota]] = {}  # by model and by the header that says so
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
            if ticket.left:
                self.leave(entry, answered=False)
        while (first := next(iter(self.queue), None)) is not None and first.left:
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
                told[name] = ServerQuota.of(quota, now)

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


class Pool:
    """Choose among endpoints, round-robin and fairly, from any number of threads.

    :param room: where the state of the endpoints is kept, shared with other pools; ``None`` makes one of its own.
    """

    def __init__(self, endpoints: Sequence[Endpoint], room: Room | None = None) -> None:
        self.room = room or Room()
        self.endpoints = list(endpoints)
        self._next = 0

    def choose(self, now: float, wait: Callable[[Endpoint], float] | None = None) -> tuple[Endpoint, float]:
        """Return the endpoint whose turn it is and the seconds until it may be asked (0.0 where one is free).

        :param now: the monotonic time.
        :param wait: gives the seconds until an endpoint may be asked; ``None`` means until it has rested.
        """
        with self.room.lock:
            count, waits = len(self.endpoints), []
            for step in range(count):
                endpoint = self.endpoints[(self._next + step) % count]
                seconds = wait(endpoint) if wait else max(0.0, self.room.gate(endpoint).rested_until - now)
                if seconds <= 0:
                    self._next = (self._next + step + 1) % count
                    return endpoint, 0.0
                waits.append((seconds, step, endpoint))
            soonest = min(waits)
            return soonest[2], soonest[0]

    def enter(
        self, ticket: Ticket, limits: Limits, demand: Demand | None, model: str, now: Callable[[], float]
    ) -> tuple[Endpoint | None, float, float]:
        """Let a call in where an endpoint allows it and nobody came before it; else queue it.

        :param limits: of each endpoint.
        :param demand: what the call may use; ``None`` where nobody counted it.
        :param now: the monotonic clock.
        :returns: the endpoint, or ``None``; then the seconds after which to look again without being called, and those
            for which it has to wait at least. Either may be infinite.
        """
        with self.room.lock:
            time, gates = now(), {}

            def wait(endpoint: Endpoint) -> float:
                """Return the seconds that an endpoint lets the call wait: for ever where others queue before it."""
                gate = gates[endpoint] = self.room.gate(endpoint)
                if ticket.queues:  # it waited in vain
                    gate.sweep(limits)
                return gate.wait(limits, demand, model, time) if next(iter(gate.queue), ticket) is ticket else NEVER

            endpoint, seconds = self.choose(time, wait)
            if seconds <= 0:
                ticket.gate = gates[endpoint]
                ticket.entry = ticket.gate.enter(demand, model, time, ticket)
                self.room.unqueue(ticket)
                return endpoint, 0.0, 0.0
            self.room.queue(ticket, tuple(gates.values()))
            least = min(gate.wait(limits, demand, model, time) for gate in gates.values())
            return None, seconds, least if least < NEVER else 0.0

    def leave(self, ticket: Ticket, *, answered: bool) -> None:
        """Give a place back, in a queue or at an endpoint; a second time changes nothing."""
        with self.room.lock:
            ticket.left = True
            self.room.unqueue(ticket)
            if ticket.entry is not None and ticket.gate is not None:
                ticket.gate.leave(ticket.entry, answered=answered)
                self.room.call_first(ticket.gate)

    def rest(self, endpoint: Endpoint, until: float) -> bool:
        """Let an endpoint rest until a monotonic time; return whether another one is free before that."""
        with self.room.lock:
            self.room.gate(endpoint).rest(until)
            others = (self.room.gate(other) for other in self.endpoints if other is not endpoint)
            return any(other.rested_until < until for other in others)

    def hear(self, endpoint: Endpoint, quotas: Mapping[str, Quota], demand: Demand, model: str, now: float) -> float:
        """Take in what an endpoint said is left, and return the seconds until it has enough for a call.

        :param now: the monotonic time.
        """
        with self.room.lock:
            gate = self.room.gate(endpoint)
            gate.hear(model, quotas, now)
            return gate.wait_as_told(demand, model, now)

    def surplus(self, model: str, counted: int) -> int:
        """Return how many tokens of a prompt any endpoint may count beyond those that were counted here."""
        with self.room.lock:
            return max(self.room.gate(endpoint).surplus(model, counted) for endpoint in self.endpoints)

    def free_after(self, now: float) -> float:
        """Return the seconds until the first endpoint has rested.

        :param now: the monotonic time.
        """
        with self.room.lock:
            return max(0.0, min(self.room.gate(endpoint).rested_until for endpoint in self.endpoints) - now)

    def leave_out(self, endpoint: Endpoint) -> bool:
        """Leave an endpoint out for good; return whether others remain (the last one stays)."""
        with self.room.lock:
            others = [other for other in self.endpoints if other is not endpoint]
            if others:
                self.endpoints = others
            return bool(others)


LONGEST_LOOK = 2.0  # seconds until one who waits looks again at the latest
SECONDS_EACH = 0.01  # of those who wait: so often they look in vain, all together
LONG = WINDOW  # seconds: who waits longer than for [Limits] alone finds in the log why


class Admission:
    """Let one attempt in, and give back what it held when it ends, however it does; a context manager.

    :param request: what is asked; its body is what is sent.
    :param known: what is known of its model.
    :param pool: the endpoints that serve it.
    :param limits: of each of them.
    :param price: gives, for a number of prompt tokens, USD per million tokens in and out, or ``None``.
    :param deadline_at: the monotonic time after which nobody waits, or ``None``.
    :param now: the monotonic clock.
    """

    def __init__(
        self, request: Request, known: Capabilities, pool: Pool, limits: Limits, price: Price,
        deadline_at: float | None, now: Callable[[], float],
    ) -> None:  # fmt: skip
        self._request = request
        self._known = known
        self._pool = pool
        self._limits = limits
        self._price = price
        self._deadline_at = deadline_at
        self._now = now
        self._counted: Demand | None = None
        self._ticket = Ticket()
        self._reservation: Reservation | None = None
        self._heard: list[Mapping[str, Any]] = []
        self._told: TokenUsage | None = None
        self._answered = False

    def acquire(self) -> Flow[Endpoint]:
        """Wait until the attempt may begin, and return the endpoint to ask.

        :raises BudgetExceededError: where it could go past a budget.
        :raises RateLimitError, RequestTimeoutError: where the wait would pass the deadline.
        """
        if self._limits.tokens is not None or budgets.counts_tokens():
            self._counted = demand_of(self._request.kind, self._request.body, self._known)
        if budgets.any_open():
            yield from self._reserved()
        return (yield from self._placed())

    def _demand(self) -> Demand | None:
        """Return what the call may use, as its server counts by what is known of it now."""
        counted = self._counted
        if counted is None:
            return None
        more = self._pool.surplus(self._request.model, counted.input_tokens)
        return counted._replace(input_tokens=counted.input_tokens + more)

    def _need(self) -> Spending:
        demand = self._demand()
        amounts = (demand.input_tokens, demand.output_tokens) if demand is not None else (0, 0)
        budgets.check_price(self._request.model, self._price(amounts[0]))
        return self._spending(*amounts)

    def _reserved(self) -> Flow[None]:
        reservation = self._reservation = Reservation()
        while True:
            if budgets.shared_open():
                seconds = yield Do(lambda: budgets.reserve(reservation, self._need()))
            else:
                seconds = budgets.reserve(reservation, self._need())
            if seconds is None:
                return
            yield self._until(reservation.ticket, seconds, "calls under way settle what they reserved of a budget")

    def _placed(self) -> Flow[Endpoint]:
        model, ticket = self._request.model, self._ticket
        while True:
            waits = bool(ticket.queues)
            endpoint, seconds, least = self._pool.enter(ticket, self._limits, self._demand(), model, self._now)
            if endpoint is not None:
                return endpoint
            self._check_wait(least, first=not waits)
            look = max(LONGEST_LOOK, SECONDS_EACH * ticket.queued())
            yield self._until(ticket, min(seconds, look), "an endpoint has a place for another call")

    def _check_wait(self, seconds: float, *, first: bool) -> None:
        left = self._left()
        if left is not None and seconds > left:
            raise _final(
                RateLimitError(f"no endpoint of {self._names()} may be asked for {seconds:.1f} s, past the deadline")
            )
        if first and seconds > LONG:
            _log().warning("%s: no call may begin for %.0f s", self._names(), seconds)

    def _until(self, ticket: Ticket, seconds: float, what: str) -> Until:
        left = self._left()
        if left is not None and left <= 0:
            raise _final(RequestTimeoutError(f"the call's deadline passed before {what}"))
        assert ticket.called is not None  # it waits
        longest = min(seconds, NEVER if left is None else left)
        return Until(ticket.called, None if longest == NEVER else longest)

    def _left(self) -> float | None:
        return None if self._deadline_at is None else self._deadline_at - self._now()

    def _names(self) -> str:
        return ", ".join(endpoint.name for endpoint in self._pool.endpoints)

    def observe(self, chunk: Mapping[str, Any]) -> None:
        """Note a chunk of a streamed answer: it is billed even where its reader leaves."""
        self._heard.append(chunk)

    def abandon(self) -> TokenUsage | None:
        """Settle what an answer used whose reader leaves, and return it; ``None`` where none had begun.

        It is what the server reported, else what is counted here: most report at the end.
        """
        if self._told is None and self._heard:
            request = self._request
            self._told = used_by(begun_with(self._heard), request.kind, request.body, self._known)
            self._use(self._told)
        return self._told

    def billed(self, response: Any) -> bool:
        """Note the tokens of a response that is no answer, which are billed all the same; return whether it has any."""
        tokens = TokenUsage.of(response) if isinstance(response, dict) else TokenUsage()
        if tokens.input_tokens is None:
            return False
        self._use(tokens, calls=0)
        return True

    def settle(self, response: Any) -> Flow[None]:
        """Settle what an answer used, and note what its headers say of the endpoint."""
        request, gate = self._request, self._ticket.gate
        headers = getattr(response, "headers", None)
        if headers and gate is not None:
            with self._pool.room.lock:
                gate.hear(request.model, told_by(headers), self._now())
        self._told = TokenUsage.of(response)
        counts = self._reservation is not None or self._limits.tokens is not None
        self._use(used_by(response, request.kind, request.body, self._known) if counts else self._told)
        if self._reservation is not None and budgets.shared_open():
            yield Do(self._reservation.close)

    def _use(self, used: TokenUsage, *, calls: int = 1) -> None:
        tokens = used.input_tokens or 0, used.output_tokens or 0
        self._answered, gate, entry = True, self._ticket.gate, self._ticket.entry
        if gate is not None and entry is not None:
            with self._pool.room.lock:
                gate.settle(entry, sum(tokens))
                if self._counted is not None:
                    gate.compare(self._request.model, self._counted.input_tokens, tokens[0])
        if self._reservation is not None:
            self._reservation.used = self._spending(*tokens)._replace(calls=calls)

    def _spending(self, input_tokens: int, output_tokens: int) -> Spending:
        return budgets.spending_of(input_tokens, output_tokens, self._price(input_tokens))

    def __enter__(self) -> Admission:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.leave(self._ticket, answered=self._answered)
        if self._reservation is not None:
            self._reservation.close()


def _final(error: APIError) -> APIError:
    error.retryable = False
    return error


def _log() -> Any:
    import logging

    return logging.getLogger("llmcall")
