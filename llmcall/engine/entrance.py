"""The way in: before an attempt is sent, budgets reserve, limits are waited for, and an endpoint is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import APIError, RateLimitError, RequestTimeoutError
from ..types import TokenUsage
from . import budgets
from .demands import begun_with, demand_of, used_by
from .effects import Do, Until
from .limits import WINDOW, Limits
from .rate_headers import told_by
from .reservations import Reservation
from .tickets import Ticket
from .waiting import LONGEST_LOOK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from ..config.endpoints import Endpoint
    from ..models.facts import Capabilities
    from ..types import Request
    from .accounts import Spending
    from .demands import Demand
    from .effects import Flow
    from .pools import Pool

    Price = Callable[[int], "tuple[float, float] | None"]

__all__ = ["Admission"]

SECONDS_EACH = 0.01  # of those who wait: so often they look in vain, all together
LONG = WINDOW  # seconds: who waits longer than for [Limits] alone finds in the log why
NEVER = float("inf")


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

    def enter(self) -> Flow[Endpoint]:
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

    def hear(self, chunk: Mapping[str, Any]) -> None:
        """Note a chunk of a streamed answer: it is billed even where its reader leaves."""
        self._heard.append(chunk)

    def left(self) -> TokenUsage | None:
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

    def answered(self, response: Any) -> Flow[None]:
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
