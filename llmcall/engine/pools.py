"""The endpoints that serve a model: asked in turn, rested when they ask for it, left out when they refuse the key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .limits import NEVER, Limits, Room

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..config.current import Endpoint
    from .demands import Demand
    from .rate_headers import Quota
    from .tickets import Ticket

__all__ = ["Pool"]


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
            ticket.leader.leave()

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
